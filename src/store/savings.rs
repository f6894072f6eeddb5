//! What strategies have saved, from the ledger's roll-ups.

use rm_core::id::ClientId;
use rm_core::optimizer::Strategy;
use rm_core::units::NanoUsd;
use serde::Deserialize;
use worker::{D1Result, Env, Error, Result};

use crate::store::catalog::stored;
use crate::store::usage::Days;

/// What one strategy has saved.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saved {
    pub applied: u64,
    pub saved: NanoUsd,
    pub bytes: u64,
}

#[derive(Debug, Deserialize)]
struct SavedRow {
    strategy: String,
    applied: u64,
    saved_nanousd: i64,
    saved_bytes: u64,
}

impl SavedRow {
    fn saved(self) -> Result<(Strategy, Saved)> {
        let strategy = self.strategy.parse().map_err(stored)?;
        let saved = NanoUsd::from_nanos(self.saved_nanousd).ok_or_else(|| stored("a saving out of range"))?;
        Ok((strategy, Saved { applied: self.applied, saved, bytes: self.saved_bytes }))
    }
}

#[derive(Deserialize)]
struct Count {
    requests: Option<u64>,
}

/// As far as D1 hands integers over.
const SUMS: &str = "sum(applied) AS applied,
  CAST(min(total(saved_nanousd), 9007199254740991) AS INTEGER) AS saved_nanousd,
  CAST(min(total(saved_bytes), 9007199254740991) AS INTEGER) AS saved_bytes";

/// What a client's requests of some days were saved by each strategy, and how many were at all.
pub async fn of_client(env: &Env, client: &ClientId, days: &Days) -> Result<(u64, Vec<(Strategy, Saved)>)> {
    let db = env.d1("DB")?;
    let bindings = [client.as_str().into(), days.first.as_str().into(), days.last.as_str().into()];
    let answers = db
        .batch(vec![
            db.prepare(
                "SELECT sum(requests) AS requests FROM optimized_daily
                 WHERE client_id = ? AND day BETWEEN ? AND ? LIMIT 1",
            )
            .bind(&bindings)?,
            db.prepare(format!(
                "SELECT strategy, {SUMS} FROM savings_daily
                 WHERE client_id = ? AND day BETWEEN ? AND ? GROUP BY strategy LIMIT 10"
            ))
            .bind(&bindings)?,
        ])
        .await?;
    let [count, rows] = answers.as_slice() else {
        return Err(Error::RustError("D1 answered another number of statements".into()));
    };
    let count = count.results::<Count>()?.first().and_then(|count| count.requests).unwrap_or(0);
    let rows = rows.results::<SavedRow>()?.into_iter().map(SavedRow::saved).collect::<Result<_>>()?;
    Ok((count, rows))
}

/// Asks what each strategy has saved of all requests, ever.
pub const TOTALS: &str = "SELECT strategy, applied, min(saved_nanousd, 9007199254740991) AS saved_nanousd,
  min(saved_bytes, 9007199254740991) AS saved_bytes FROM savings_totals LIMIT 10";

/// What [`TOTALS`] was answered.
pub fn totals(answer: &D1Result) -> Result<Vec<(Strategy, Saved)>> {
    answer.results::<SavedRow>()?.into_iter().map(SavedRow::saved).collect()
}
