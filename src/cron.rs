//! The scheduler's tick, once a minute: pools and accounts are looked after whose alarm may have been lost.

use futures_util::future::join_all;
use worker::Env;

use crate::host::object::call;
use crate::host::{clock, log};
use crate::store::catalog;
use crate::wire::account;
use crate::wire::pool;

/// How many accounts one tick looks after; the next goes on with those after them.
const ACCOUNTS_PER_TICK: u32 = 100;
/// The setting that says with which client the next tick goes on.
const CURSOR: &str = "tick_cursor";
/// The setting that says when the last tick was.
pub const LAST_TICK: &str = "last_tick";

/// One tick. What fails is logged, and tried again by the next.
pub async fn tick(env: &Env) {
    if let Err(error) = try_tick(env).await {
        log::error("tick_failed", "cron", &error.to_string());
    }
}

async fn try_tick(env: &Env) -> worker::Result<()> {
    let db = env.d1("DB")?;
    catalog::set_setting(&db, LAST_TICK, &clock::now().millis().to_string()).await?;
    let catalog = catalog::load(env).await?;
    let pools = catalog.pools.keys().filter_map(|pool| catalog.pool_config(pool)).map(|config| async {
        let name = config.pool.as_str().to_owned();
        if let Err(error) = call(env, &name, &pool::TickCall { config }).await {
            log::error("pool_not_ticked", &name, &error.to_string());
        }
    });
    join_all(pools).await;
    let after = catalog::setting(&db, CURSOR).await?.unwrap_or_default();
    let clients = catalog::clients_after(env, &after, ACCOUNTS_PER_TICK).await?;
    let full = clients.len() >= usize::try_from(ACCOUNTS_PER_TICK).unwrap_or(usize::MAX);
    let last = clients.last().filter(|_| full).map(|client| client.client_id.as_str().to_owned());
    let accounts = clients.iter().map(|client| async {
        let name = client.client_id.as_str();
        if let Err(error) = call(env, name, &account::TickCall {}).await {
            log::error("account_not_ticked", name, &error.to_string());
        }
    });
    join_all(accounts).await;
    catalog::set_setting(&db, CURSOR, &last.unwrap_or_default()).await
}
