//! What a token of a model costs, and which price a request pays.

use rm_core::pricing::{Price, PricesApart};
use rm_core::units::NanoUsd;
use serde::Deserialize;
use worker::Result;

use crate::store::catalog::{Catalog, ROWS_MAX, stored};
use crate::wire::admin::PoolRecord;

#[derive(Deserialize)]
pub(super) struct PriceRow {
    model: String,
    input_nanousd: i64,
    cached_input_nanousd: Option<i64>,
    output_nanousd: i64,
    version: String,
}

impl PriceRow {
    /// The table has hundreds of models; those that some template names are read.
    pub(super) fn select() -> String {
        format!(
            "SELECT model, input_nanousd, cached_input_nanousd, output_nanousd, version FROM model_prices WHERE model IN (
               SELECT json_extract(body, '$.model') FROM templates
               UNION SELECT fallback.value FROM templates, json_each(body, '$.downgradeTo') AS fallback
               UNION SELECT json_extract(step.value, '$.model') FROM templates, json_each(body, '$.steps') AS step)
             LIMIT {ROWS_MAX}"
        )
    }

    pub(super) fn parsed(self) -> Result<(String, Price)> {
        let money = |nanos| NanoUsd::from_nanos(nanos).ok_or_else(|| stored("a price out of range"));
        let unit = money(self.input_nanousd)?;
        let cached_input = self.cached_input_nanousd.map(money).transpose()?.unwrap_or(unit);
        let apart = PricesApart { cached_input, output: money(self.output_nanousd)? };
        Ok((self.model, Price { unit, apart: Some(apart), version: self.version }))
    }
}

impl Catalog {
    /// What a unit of a pool costs for a model: the pool's own price, else the model's in the table. `None` if neither
    /// is known.
    pub fn price(&self, pool: &PoolRecord, model: Option<&str>) -> Option<Price> {
        let Some(unit) = pool.body.unit_price_usd else { return self.prices.get(model?).cloned() };
        let (cached_input, output) = (pool.body.cached_input_price_usd, pool.body.output_price_usd);
        let apart = (cached_input.is_some() || output.is_some())
            .then(|| PricesApart { cached_input: cached_input.unwrap_or(unit), output: output.unwrap_or(unit) });
        Some(Price { unit, apart, version: format!("{}@{}", pool.pool, pool.revision) })
    }
}
