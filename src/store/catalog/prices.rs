//! What a token of a model costs, and which price a request pays.

use rm_core::off_peak::{OffPeakRule, Window};
use rm_core::pricing::{OffPeakPrice, Price, PricesApart};
use rm_core::units::{Instant, NanoUsd};
use serde::Deserialize;
use worker::Result;

use crate::store::catalog::{Catalog, ROWS_MAX, stored, windows};
use crate::wire::admin::{OffPeak, PoolRecord, Weekday};

#[derive(Deserialize)]
pub(super) struct PriceRow {
    model: String,
    input_nanousd: i64,
    cached_input_nanousd: Option<i64>,
    output_nanousd: i64,
    off_peak: Option<String>,
    version: String,
}

/// When a model costs less, as stored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredOffPeak {
    discount_percent: u8,
    windows: Vec<StoredHours>,
}

#[derive(Debug, Deserialize)]
struct StoredHours {
    from: String,
    to: String,
}

/// When a model costs less, on all days, in UTC.
#[derive(Debug)]
pub struct ModelOffPeak {
    percent_off: u8,
    rules: Vec<OffPeakRule>,
}

impl ModelOffPeak {
    /// The coming windows.
    pub fn windows(&self, now: Instant) -> Vec<Window> {
        let mut windows: Vec<Window> = self.rules.iter().flat_map(|rule| rule.windows(now, |_| 0)).collect();
        windows.sort_by_key(|window| window.start);
        windows
    }
}

impl PriceRow {
    /// The table has hundreds of models; those that some template names are read.
    pub(super) fn select() -> String {
        format!(
            "SELECT model, input_nanousd, cached_input_nanousd, output_nanousd, off_peak, version FROM model_prices WHERE model IN (
               SELECT json_extract(body, '$.model') FROM templates
               UNION SELECT fallback.value FROM templates, json_each(body, '$.downgradeTo') AS fallback
               UNION SELECT json_extract(step.value, '$.model') FROM templates, json_each(body, '$.steps') AS step)
             LIMIT {ROWS_MAX}"
        )
    }

    /// When the model costs less, if it does at times.
    pub(super) fn off_peak(&self) -> Result<Option<(String, ModelOffPeak)>> {
        let Some(json) = &self.off_peak else { return Ok(None) };
        let StoredOffPeak { discount_percent, windows } = serde_json::from_str(json)?;
        let rule = |hours: StoredHours| {
            let off_peak = OffPeak {
                days: Weekday::ALL.to_vec(),
                from: hours.from,
                to: hours.to,
                time_zone: "UTC".into(),
                discount_percent: None,
            };
            off_peak.rule().ok_or_else(|| stored("hours that are none"))
        };
        let rules = windows.into_iter().map(rule).collect::<Result<_>>()?;
        Ok(Some((self.model.clone(), ModelOffPeak { percent_off: discount_percent, rules })))
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
    /// What is off the price of a pool for a model in its windows, if anything is: in the pool's own, else where its price
    /// is the model's in that one's.
    pub fn off_peak_price(&self, pool: &PoolRecord, model: Option<&str>, now: Instant) -> Option<OffPeakPrice> {
        if let Some(off_peak) = &pool.body.off_peak
            && let Some(percent_off) = off_peak.discount_percent
        {
            return Some(OffPeakPrice { percent_off, windows: windows(off_peak, now)? });
        }
        let of_model = self.off_peak_models.get(model?).filter(|_| pool.body.unit_price_usd.is_none())?;
        Some(OffPeakPrice { percent_off: of_model.percent_off, windows: of_model.windows(now) })
    }

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
