//! Pool snapshots in KV: what a reader near the caller gets without asking the pool. They are at most a second behind
//! while a pool moves, and exact while it does not.

use rm_core::decimal::MAX_EXACT;
use rm_core::id::PoolId;
use rm_core::pool::PoolView;
use rm_core::units::{Instant, Tokens};
use worker::{Env, Result};

/// The version of the stored JSON; part of the key.
const VERSION: u32 = 1;

fn key(pool: &PoolId) -> String {
    format!("pool:v{VERSION}:{pool}")
}

/// Writes a snapshot. KV takes one write a second and key: the pool sees to that.
pub async fn write(env: &Env, view: &PoolView) -> Result<()> {
    let json = serde_json::to_string(view)?;
    env.kv("KV")?.put(&key(&view.pool), json)?.execute().await?;
    Ok(())
}

/// Reads a snapshot, and adds what was refilled since.
pub async fn read(env: &Env, pool: &PoolId, now: Instant) -> Result<Option<PoolView>> {
    let Some(json) = env.kv("KV")?.get(&key(pool)).text().await? else { return Ok(None) };
    let Ok(mut view) = serde_json::from_str::<PoolView>(&json) else { return Ok(None) };
    let elapsed = i128::from(now.since(view.as_of));
    let rate = view.effective_refill_per_second.unwrap_or(view.refill_per_second);
    let gained = i128::from(rate.micros()).saturating_mul(elapsed).checked_div(1_000).unwrap_or(0);
    let gained = Tokens::clamped(i64::try_from(gained).unwrap_or(MAX_EXACT));
    let ceiling = view.capacity.saturating_sub(if view.window_cap { view.reserved } else { Tokens::ZERO });
    view.available = view.available.saturating_add(gained).min(ceiling.max(view.available));
    Ok(Some(view))
}
