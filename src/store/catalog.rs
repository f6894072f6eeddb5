//! The configuration in D1: tiers, lanes, pools, clients, templates, and whether the scheduler runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rm_core::account::{AccountConfig, ClientStatus};
use rm_core::id::{ClientId, PoolId, TemplateId};
use rm_core::pool::PoolConfig;
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde::Deserialize;
use wasm_bindgen::JsValue;
use worker::{D1Database, Env, Error, Result};

use crate::host::{clock, log};
use crate::wire::admin::{ClientBody, ClientRecord, PoolBody, PoolRecord, TemplateBody, TemplateRecord};

/// The most rows of one kind that are read: an operator has tens of pools and templates, not thousands.
pub const ROWS_MAX: u32 = 1_000;
/// How long a copy in the Worker's memory is used without a look at D1.
const FRESH_MS: i64 = 10_000;

/// Everything but the clients, of which there may be many.
#[derive(Debug)]
pub struct Catalog {
    pub pools: BTreeMap<PoolId, PoolRecord>,
    pub templates: BTreeMap<TemplateId, TemplateBody>,
    pub weights: Weights,
    pub scheduler_running: bool,
}

thread_local! {
    static COPY: RefCell<Option<(Instant, Rc<Catalog>)>> = const { RefCell::new(None) };
}

impl Catalog {
    /// A pool's configuration, as its object needs it.
    pub fn pool_config(&self, pool: &PoolId) -> Option<PoolConfig> {
        let PoolRecord { body, revision, .. } = self.pools.get(pool)?;
        Some(PoolConfig {
            pool: pool.clone(),
            unit: body.unit.clone(),
            limits: BucketLimits {
                capacity: body.capacity,
                refill_per_second: body.refill_per_second,
                window_cap: body.window_cap,
            },
            unit_price: body.unit_price_usd,
            low_water_percent: body.low_water_percent,
            queue_cap: body.queue_cap,
            weights: self.weights.clone(),
            scheduler_running: self.scheduler_running,
            revision: *revision,
        })
    }
}

/// The catalog: at most ten seconds old, or as old as the last time D1 answered.
pub async fn current(env: &Env) -> Result<Rc<Catalog>> {
    let now = clock::now();
    let copy = COPY.with_borrow(Clone::clone);
    if let Some((at, catalog)) = &copy
        && now.since(*at) < FRESH_MS
    {
        return Ok(Rc::clone(catalog));
    }
    match (load(env).await, copy) {
        (Ok(catalog), _) => Ok(catalog),
        (Err(error), Some((_, catalog))) => {
            log::warn("catalog_stale", "d1", &error.to_string());
            Ok(catalog)
        }
        (Err(error), None) => Err(error),
    }
}

/// The catalog as it is in D1 now.
pub async fn load(env: &Env) -> Result<Rc<Catalog>> {
    #[derive(Deserialize)]
    struct PointsRow {
        name: String,
        millipoints: i64,
    }
    #[derive(Deserialize)]
    struct TemplateRow {
        template_id: String,
        body: String,
    }
    #[derive(Deserialize)]
    struct SettingRow {
        value: String,
    }
    let now = clock::now();
    let db = env.d1("DB")?;
    let answers = db
        .batch(vec![
            db.prepare("SELECT tier AS name, millipoints FROM tiers LIMIT 10"),
            db.prepare("SELECT urgency AS name, millipoints FROM urgencies LIMIT 10"),
            db.prepare(format!("{SELECT_POOLS} ORDER BY pool LIMIT {ROWS_MAX}")),
            db.prepare(format!("SELECT template_id, body FROM templates ORDER BY template_id LIMIT {ROWS_MAX}")),
            db.prepare("SELECT value FROM settings WHERE key = 'scheduler' LIMIT 1"),
        ])
        .await?;
    let [tiers, urgencies, pools, templates, settings] = answers.as_slice() else {
        return Err(Error::RustError("D1 answered another number of statements".into()));
    };
    let mut weights = Weights::default();
    for row in tiers.results::<PointsRow>()? {
        weights.tiers.insert(row.name.parse::<Tier>().map_err(stored)?, row.millipoints);
    }
    for row in urgencies.results::<PointsRow>()? {
        weights.urgencies.insert(row.name.parse::<Urgency>().map_err(stored)?, row.millipoints);
    }
    let pools = pools.results::<PoolRow>()?.into_iter().map(PoolRow::record).collect::<Result<Vec<_>>>()?;
    let templates = templates.results::<TemplateRow>()?.into_iter().map(|row| {
        Ok((row.template_id.parse::<TemplateId>().map_err(stored)?, serde_json::from_str::<TemplateBody>(&row.body)?))
    });
    let scheduler = settings.results::<SettingRow>()?.into_iter().next();
    let catalog = Rc::new(Catalog {
        pools: pools.into_iter().map(|record| (record.pool.clone(), record)).collect(),
        templates: templates.collect::<Result<_>>()?,
        weights,
        scheduler_running: scheduler.is_none_or(|row| row.value == "running"),
    });
    COPY.set(Some((now, Rc::clone(&catalog))));
    Ok(catalog)
}

fn stored(error: impl std::fmt::Display) -> Error {
    Error::RustError(format!("D1 holds a value that is not valid: {error}"))
}

/// Forgets the copy: what was just written must be seen.
fn forget() {
    COPY.set(None);
}

const SELECT_POOLS: &str = "SELECT pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd,
  low_water_percent, queue_cap, window_cap, revision FROM pools";

#[derive(Deserialize)]
struct PoolRow {
    pool: String,
    unit: String,
    capacity_micros: i64,
    refill_micros_per_second: i64,
    unit_price_nanousd: i64,
    low_water_percent: u8,
    queue_cap: u32,
    window_cap: u8,
    revision: i64,
}

impl PoolRow {
    fn record(self) -> Result<PoolRecord> {
        let tokens = |micros| Tokens::from_micros(micros).ok_or_else(|| stored("an amount out of range"));
        Ok(PoolRecord {
            pool: self.pool.parse().map_err(stored)?,
            body: PoolBody {
                unit: self.unit,
                capacity: tokens(self.capacity_micros)?,
                refill_per_second: tokens(self.refill_micros_per_second)?,
                unit_price_usd: NanoUsd::from_nanos(self.unit_price_nanousd)
                    .ok_or_else(|| stored("a price out of range"))?,
                low_water_percent: self.low_water_percent,
                queue_cap: self.queue_cap,
                window_cap: self.window_cap == 1,
                partitions: Vec::new(),
            },
            revision: self.revision,
        })
    }
}

/// A whole number below 2^53, as D1 takes it.
pub fn number(value: i64) -> JsValue {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "all stored integers are below 2^53")]
    let number = value as f64;
    JsValue::from_f64(number)
}

/// Stores a pool. The same again changes nothing.
pub async fn put_pool(env: &Env, pool: &PoolId, body: &PoolBody) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO pools (pool, unit, capacity_micros, refill_micros_per_second, unit_price_nanousd,
           low_water_percent, queue_cap, window_cap) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (pool) DO UPDATE SET unit = excluded.unit, capacity_micros = excluded.capacity_micros,
           refill_micros_per_second = excluded.refill_micros_per_second,
           unit_price_nanousd = excluded.unit_price_nanousd, low_water_percent = excluded.low_water_percent,
           queue_cap = excluded.queue_cap, window_cap = excluded.window_cap, revision = revision + 1
         WHERE (unit, capacity_micros, refill_micros_per_second, unit_price_nanousd, low_water_percent, queue_cap,
                window_cap)
           IS NOT (excluded.unit, excluded.capacity_micros, excluded.refill_micros_per_second,
                excluded.unit_price_nanousd, excluded.low_water_percent, excluded.queue_cap, excluded.window_cap)",
    )
    .bind(&[
        pool.as_str().into(),
        body.unit.as_str().into(),
        number(body.capacity.micros()),
        number(body.refill_per_second.micros()),
        number(body.unit_price_usd.nanos()),
        body.low_water_percent.into(),
        body.queue_cap.into(),
        u8::from(body.window_cap).into(),
    ])?
    .run()
    .await?;
    forget();
    Ok(())
}

/// Stores a template. The same again changes nothing.
pub async fn put_template(env: &Env, template: &TemplateId, body: &TemplateBody) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO templates (template_id, body) VALUES (?, ?)
         ON CONFLICT (template_id) DO UPDATE SET body = excluded.body, revision = revision + 1
         WHERE body IS NOT excluded.body",
    )
    .bind(&[template.as_str().into(), serde_json::to_string(body)?.into()])?
    .run()
    .await?;
    forget();
    Ok(())
}

/// All templates.
pub fn template_records(catalog: &Catalog) -> Vec<TemplateRecord> {
    let record =
        |(id, body): (&TemplateId, &TemplateBody)| TemplateRecord { template_id: id.clone(), body: body.clone() };
    catalog.templates.iter().map(record).collect()
}

/// Starts or stops the scheduler.
pub async fn set_scheduler(env: &Env, running: bool) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO settings (key, value) VALUES ('scheduler', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(&[if running { "running" } else { "stopped" }.into()])?
    .run()
    .await?;
    forget();
    Ok(())
}

/// A setting's value.
pub async fn setting(db: &D1Database, key: &str) -> Result<Option<String>> {
    db.prepare("SELECT value FROM settings WHERE key = ? LIMIT 1").bind(&[key.into()])?.first(Some("value")).await
}

/// Stores a setting.
pub async fn set_setting(db: &D1Database, key: &str, value: &str) -> Result<()> {
    db.prepare(
        "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(&[key.into(), value.into()])?
    .run()
    .await?;
    Ok(())
}

const SELECT_CLIENTS: &str = "SELECT c.client_id, c.name, c.tier,
  coalesce(c.monthly_budget_nanousd, t.monthly_budget_nanousd, 0) AS budget_nanousd,
  coalesce(c.max_concurrent, t.max_concurrent) AS max_concurrent, c.time_zone, c.status, c.revision
  FROM clients c JOIN tiers t ON t.tier = c.tier";

#[derive(Deserialize)]
struct ClientRow {
    client_id: String,
    name: String,
    tier: String,
    budget_nanousd: i64,
    max_concurrent: u32,
    time_zone: String,
    status: String,
    revision: i64,
}

impl ClientRow {
    fn record(self) -> Result<ClientRecord> {
        Ok(ClientRecord {
            client_id: self.client_id.parse().map_err(stored)?,
            name: self.name,
            tier: self.tier.parse().map_err(stored)?,
            monthly_budget_usd: NanoUsd::from_nanos(self.budget_nanousd)
                .ok_or_else(|| stored("a budget out of range"))?,
            max_concurrent: self.max_concurrent,
            time_zone: self.time_zone,
            status: if self.status == "suspended" { ClientStatus::Suspended } else { ClientStatus::Active },
            revision: self.revision,
        })
    }
}

impl ClientRecord {
    /// What the client's account needs of it.
    pub fn account_config(&self) -> AccountConfig {
        AccountConfig {
            client: self.client_id.clone(),
            tier: self.tier,
            budget: self.monthly_budget_usd,
            max_concurrent: self.max_concurrent,
            status: self.status,
            revision: self.revision,
        }
    }
}

/// A client, as it is in D1 now.
pub async fn client(env: &Env, id: &ClientId) -> Result<Option<ClientRecord>> {
    let db = env.d1("DB")?;
    let statement =
        db.prepare(format!("{SELECT_CLIENTS} WHERE c.client_id = ? LIMIT 1")).bind(&[id.as_str().into()])?;
    statement.first::<ClientRow>(None).await?.map(ClientRow::record).transpose()
}

/// Up to `limit` clients after `after`, in the order of their ids.
pub async fn clients_after(env: &Env, after: &str, limit: u32) -> Result<Vec<ClientRecord>> {
    let db = env.d1("DB")?;
    let query = format!("{SELECT_CLIENTS} WHERE c.client_id > ? ORDER BY c.client_id LIMIT {limit}");
    let rows = db.prepare(query).bind(&[after.into()])?.all().await?.results::<ClientRow>()?;
    rows.into_iter().map(ClientRow::record).collect()
}

/// Stores a client. The same again changes nothing.
pub async fn put_client(env: &Env, id: &ClientId, body: &ClientBody) -> Result<()> {
    let optional = |value: Option<i64>| value.map_or(JsValue::NULL, number);
    let status = match body.status {
        ClientStatus::Active => "active",
        ClientStatus::Suspended => "suspended",
    };
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO clients (client_id, name, tier, monthly_budget_nanousd, max_concurrent, time_zone, status)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, tier = excluded.tier,
           monthly_budget_nanousd = excluded.monthly_budget_nanousd, max_concurrent = excluded.max_concurrent,
           time_zone = excluded.time_zone, status = excluded.status, revision = revision + 1
         WHERE (name, tier, monthly_budget_nanousd, max_concurrent, time_zone, status)
           IS NOT (excluded.name, excluded.tier, excluded.monthly_budget_nanousd, excluded.max_concurrent,
                excluded.time_zone, excluded.status)",
    )
    .bind(&[
        id.as_str().into(),
        body.name.as_str().into(),
        body.tier.as_str().into(),
        optional(body.monthly_budget_usd.map(NanoUsd::nanos)),
        optional(body.max_concurrent.map(i64::from)),
        body.time_zone.as_str().into(),
        status.into(),
    ])?
    .run()
    .await?;
    Ok(())
}
