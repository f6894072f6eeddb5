//! Pool snapshots in KV: what a reader near the caller gets without asking the pool. They are at most a second behind
//! while a pool moves, and exact while it does not.

use rm_core::id::PoolId;
use rm_core::pool::PoolView;
use rm_core::units::Instant;
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
    Ok(serde_json::from_str::<PoolView>(&json).ok().map(|view| view.at(now)))
}
