//! What is learnt of estimates: settled uses are fed in by a trigger of the record, and taken out by the tick.

use std::collections::BTreeMap;

use rm_core::estimate::Learnt;
use rm_core::id::{PoolId, TemplateId};
use rm_core::units::Tokens;
use serde::Deserialize;
use worker::{Env, Result};

use crate::store::catalog::{ROWS_MAX, number, stored};

/// The most uses that are read at once, and how often at most in a tick.
const FEED_MAX: usize = 2_000;
const FEEDS_MAX: u32 = 20;

#[derive(Deserialize)]
pub struct FactorRow {
    template_id: String,
    pool: String,
    learnt: String,
}

impl FactorRow {
    /// All that was learnt.
    pub fn select() -> String {
        format!("SELECT template_id, pool, learnt FROM estimate_factors WHERE version = 1 LIMIT {ROWS_MAX}")
    }

    /// Whose it is, and what it says.
    pub fn parsed(self) -> Result<((TemplateId, PoolId), Learnt)> {
        let key = (self.template_id.parse().map_err(stored)?, self.pool.parse().map_err(stored)?);
        Ok((key, serde_json::from_str(&self.learnt)?))
    }
}

/// Learns from the uses that were recorded since the last time. What was learnt and what it was learnt from change
/// together.
pub async fn learn(env: &Env) -> Result<()> {
    for _ in 0..FEEDS_MAX {
        if learn_some(env).await? < FEED_MAX {
            break;
        }
    }
    Ok(())
}

/// Learns from the oldest of them; how many those were.
async fn learn_some(env: &Env) -> Result<usize> {
    #[derive(Deserialize)]
    struct FeedRow {
        seq: i64,
        template_id: String,
        pool: String,
        formula_micros: i64,
        estimated_micros: i64,
        actual_micros: i64,
    }
    let db = env.d1("DB")?;
    let feed = format!(
        "SELECT seq, template_id, pool, formula_micros, estimated_micros, actual_micros FROM estimate_feed
         ORDER BY seq LIMIT {FEED_MAX}"
    );
    let rows = db.prepare(feed).all().await?.results::<FeedRow>()?;
    let Some(last) = rows.last().map(|row| row.seq) else { return Ok(0) };
    let count = rows.len();
    let known = db.prepare(FactorRow::select()).all().await?.results::<FactorRow>()?;
    let known = known.into_iter().map(FactorRow::parsed).collect::<Result<BTreeMap<_, _>>>()?;
    let mut changed = BTreeMap::new();
    for row in rows {
        let (Ok(template), Ok(pool)) = (row.template_id.parse::<TemplateId>(), row.pool.parse::<PoolId>()) else {
            continue;
        };
        let key = (template, pool);
        let learnt = changed.entry(key.clone()).or_insert_with(|| known.get(&key).cloned().unwrap_or_default());
        let tokens = Tokens::clamped;
        learnt.observe(tokens(row.formula_micros), tokens(row.estimated_micros), tokens(row.actual_micros));
    }
    let mut statements = Vec::new();
    for ((template, pool), learnt) in &changed {
        statements.push(
            db.prepare(
                "INSERT INTO estimate_factors (template_id, pool, learnt) VALUES (?, ?, ?)
                 ON CONFLICT (template_id, pool) DO UPDATE SET learnt = excluded.learnt",
            )
            .bind(&[
                template.as_str().into(),
                pool.as_str().into(),
                serde_json::to_string(learnt)?.into(),
            ])?,
        );
    }
    statements.push(db.prepare("DELETE FROM estimate_feed WHERE seq <= ?").bind(&[number(last)])?);
    db.batch(statements).await?;
    Ok(count)
}
