//! Pools.

use rm_core::id::PoolId;
use rm_core::units::{NanoUsd, Tokens};
use serde::Deserialize;
use wasm_bindgen::JsValue;
use worker::{Env, Result};

use crate::store::catalog::{ROWS_MAX, forget, number, stored};
use crate::wire::admin::{PoolBody, PoolRecord};

#[derive(Deserialize)]
pub(super) struct PoolRow {
    pool: String,
    unit: String,
    capacity_micros: i64,
    refill_micros_per_second: i64,
    unit_price_nanousd: Option<i64>,
    cached_input_price_nanousd: Option<i64>,
    output_price_nanousd: Option<i64>,
    low_water_percent: u8,
    queue_cap: u32,
    window_cap: u8,
    partitions: String,
    off_peak: Option<String>,
    models: String,
    revision: i64,
}

impl PoolRow {
    pub(super) fn select() -> String {
        format!(
            "SELECT pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd,
               cached_input_price_nanousd, output_price_nanousd, low_water_percent, queue_cap, window_cap,
               partitions, off_peak, models, revision
             FROM pools ORDER BY pool LIMIT {ROWS_MAX}"
        )
    }

    pub(super) fn record(self) -> Result<PoolRecord> {
        let tokens = |micros| Tokens::from_micros(micros).ok_or_else(|| stored("an amount out of range"));
        let price = |nanos: Option<i64>| {
            let checked = |nanos| NanoUsd::from_nanos(nanos).ok_or_else(|| stored("a price out of range"));
            nanos.map(checked).transpose()
        };
        Ok(PoolRecord {
            pool: self.pool.parse().map_err(stored)?,
            body: PoolBody {
                unit: self.unit,
                capacity: tokens(self.capacity_micros)?,
                refill_per_second: tokens(self.refill_micros_per_second)?,
                unit_price_usd: price(self.unit_price_nanousd)?,
                cached_input_price_usd: price(self.cached_input_price_nanousd)?,
                output_price_usd: price(self.output_price_nanousd)?,
                low_water_percent: self.low_water_percent,
                queue_cap: self.queue_cap,
                window_cap: self.window_cap == 1,
                partitions: serde_json::from_str(&self.partitions)?,
                models: serde_json::from_str(&self.models)?,
                off_peak: self.off_peak.as_deref().map(serde_json::from_str).transpose()?,
            },
            revision: self.revision,
        })
    }
}

/// Stores a pool. The same again changes nothing. One that was deleted goes on with its revisions.
pub async fn put_pool(env: &Env, pool: &PoolId, body: &PoolBody) -> Result<()> {
    let price = |price: Option<NanoUsd>| price.map_or(JsValue::NULL, |price| number(price.nanos()));
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO pools (pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd,
           cached_input_price_nanousd, output_price_nanousd, low_water_percent, queue_cap, window_cap, partitions,
           off_peak, models, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
           coalesce((SELECT revision + 1 FROM deleted_pools WHERE pool = ?1), 1))
         ON CONFLICT (pool) DO UPDATE SET unit = excluded.unit, capacity_micros = excluded.capacity_micros,
           refill_micros_per_second = excluded.refill_micros_per_second,
           unit_price_nanousd = excluded.unit_price_nanousd,
           cached_input_price_nanousd = excluded.cached_input_price_nanousd,
           output_price_nanousd = excluded.output_price_nanousd, low_water_percent = excluded.low_water_percent,
           queue_cap = excluded.queue_cap, window_cap = excluded.window_cap,
           partitions = excluded.partitions, off_peak = excluded.off_peak, models = excluded.models,
           revision = pools.revision + 1
         WHERE (unit, capacity_micros, refill_micros_per_second, unit_price_nanousd, cached_input_price_nanousd,
                output_price_nanousd, low_water_percent, queue_cap, window_cap, partitions, off_peak, models)
           IS NOT (excluded.unit, excluded.capacity_micros, excluded.refill_micros_per_second,
                excluded.unit_price_nanousd, excluded.cached_input_price_nanousd, excluded.output_price_nanousd,
                excluded.low_water_percent, excluded.queue_cap, excluded.window_cap, excluded.partitions,
                excluded.off_peak, excluded.models)",
    )
    .bind(&[
        pool.as_str().into(),
        body.unit.as_str().into(),
        number(body.capacity.micros()),
        number(body.refill_per_second.micros()),
        price(body.unit_price_usd),
        price(body.cached_input_price_usd),
        price(body.output_price_usd),
        body.low_water_percent.into(),
        body.queue_cap.into(),
        u8::from(body.window_cap).into(),
        serde_json::to_string(&body.partitions)?.into(),
        match &body.off_peak {
            Some(off_peak) => serde_json::to_string(off_peak)?.into(),
            None => JsValue::NULL,
        },
        serde_json::to_string(&body.models)?.into(),
    ])?
    .run()
    .await?;
    forget();
    Ok(())
}

/// Deletes a pool. What was recorded of its use stays.
pub async fn delete_pool(env: &Env, pool: &PoolId) -> Result<()> {
    let db = env.d1("DB")?;
    let name = || [pool.as_str().into()];
    db.batch(vec![
        db.prepare(
            "INSERT INTO deleted_pools (pool, revision) SELECT pool, revision FROM pools WHERE pool = ?
             ON CONFLICT (pool) DO UPDATE SET revision = excluded.revision",
        )
        .bind(&name())?,
        db.prepare("DELETE FROM pools WHERE pool = ?").bind(&name())?,
    ])
    .await?;
    forget();
    Ok(())
}
