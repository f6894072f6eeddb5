//! The usage history: sums over days, from the roll-ups.

use rm_core::id::ClientId;
use rm_core::units::NanoUsd;
use serde::Deserialize;
use worker::{Env, Result};

use crate::store::catalog::stored;
use crate::wire::usage::GroupBy;

/// Days, both included, as `YYYY-MM-DD`.
pub struct Days {
    pub first: String,
    pub last: String,
}

/// Sums of money: exact as far as D1 hands integers over, and that much beyond it. `total` never overflows.
const COST: &str = "CAST(min(total(cost_nanousd), 9007199254740991) AS INTEGER) AS cost_nanousd";
const BASELINE: &str = "CAST(min(total(baseline_nanousd), 9007199254740991) AS INTEGER) AS baseline_nanousd";

/// A sum over some requests.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    pub requests: u64,
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
}

#[derive(Deserialize)]
struct SumRow {
    #[serde(default)]
    name: String,
    requests: Option<u64>,
    cost_nanousd: Option<i64>,
    baseline_nanousd: Option<i64>,
}

impl SumRow {
    fn sum(self) -> Result<(String, Sum)> {
        let money = |nanos: Option<i64>| {
            NanoUsd::from_nanos(nanos.unwrap_or(0)).ok_or_else(|| stored("a sum of money out of range"))
        };
        let sum = Sum {
            requests: self.requests.unwrap_or(0),
            cost: money(self.cost_nanousd)?,
            baseline: money(self.baseline_nanousd)?,
        };
        Ok((self.name, sum))
    }
}

/// All that a client used in those days.
pub async fn totals(env: &Env, client: &ClientId, days: &Days) -> Result<Sum> {
    let statement = env
        .d1("DB")?
        .prepare(format!(
            "SELECT sum(requests) AS requests, {COST}, {BASELINE}
                 FROM usage_daily WHERE client_id = ? AND day BETWEEN ? AND ? LIMIT 1"
        ))
        .bind(&[client.as_str().into(), days.first.as_str().into(), days.last.as_str().into()])?;
    let row = statement.first::<SumRow>(None).await?;
    Ok(row.map(SumRow::sum).transpose()?.map(|(_, sum)| sum).unwrap_or_default())
}

/// What a client used in those days by group, in the order of the groups' names, up to `limit` after the name `after`.
/// The names are the key, so a page stays where it is while the record grows.
pub async fn by_group(
    env: &Env,
    client: &ClientId,
    days: &Days,
    group: GroupBy,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<(String, Sum)>> {
    let (table, column) = match group {
        GroupBy::Day => ("usage_daily", "day"),
        GroupBy::Template => ("usage_daily", "template_id"),
        GroupBy::Model => ("usage_daily", "model"),
        GroupBy::Pool => ("usage_pools_daily", "pool"),
    };
    let statement = env
        .d1("DB")?
        .prepare(format!(
            "SELECT {column} AS name, sum(requests) AS requests, {COST}, {BASELINE}
             FROM {table} WHERE client_id = ? AND day BETWEEN ? AND ? AND (? = 0 OR {column} > ?)
             GROUP BY {column} ORDER BY {column} LIMIT {limit}"
        ))
        .bind(&[
            client.as_str().into(),
            days.first.as_str().into(),
            days.last.as_str().into(),
            u8::from(after.is_some()).into(),
            after.unwrap_or_default().into(),
        ])?;
    statement.all().await?.results::<SumRow>()?.into_iter().map(SumRow::sum).collect()
}

/// Whether a client has used anything, ever.
pub async fn has_any(env: &Env, client: &ClientId) -> Result<bool> {
    let statement = env
        .d1("DB")?
        .prepare("SELECT '' AS name FROM usage_daily WHERE client_id = ? LIMIT 1")
        .bind(&[client.as_str().into()])?;
    Ok(statement.first::<SumRow>(None).await?.is_some())
}
