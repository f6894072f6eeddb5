//! Settings: single values under a name.

use worker::{D1Database, Env, Result};

use crate::store::catalog::forget;

/// The name of the scheduler's switch.
pub(super) const SCHEDULER: &str = "scheduler";

/// Starts or stops the scheduler.
pub async fn set_scheduler(env: &Env, running: bool) -> Result<()> {
    set_setting(&env.d1("DB")?, SCHEDULER, if running { "running" } else { "stopped" }).await?;
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
