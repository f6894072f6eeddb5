//! The scheduler's tick, once a minute: pools and accounts are looked after whose alarm may have been lost, alerts open
//! and resolve, estimates learn, and what is too old is deleted.

use std::future::Future;

use futures_util::future::join_all;
use worker::{Env, Result};

use crate::alerts;
use crate::host::object::call;
use crate::host::{clock, log};
use crate::objects::retention_ms;
use crate::store::{catalog, estimates, payloads};
use crate::wire::account;
use crate::wire::pool;

/// How many accounts one tick looks after; the next goes on with those after them.
const ACCOUNTS_PER_TICK: u32 = 100;
/// The setting that says with which client the next tick goes on.
const CURSOR: &str = "tick_cursor";
/// The setting that says when the last tick was.
pub const LAST_TICK: &str = "last_tick";
/// A payload may be this much older than the retention: its request may have waited for its window and run for that long.
const PAYLOAD_SLACK_MS: i64 = 10 * 86_400_000;

/// One tick. What fails is logged, keeps nothing else from being done, and is tried again by the next.
pub async fn tick(env: &Env) {
    attempt("tick", note_tick(env)).await;
    attempt("pools", pools(env)).await;
    attempt("accounts", accounts(env)).await;
    attempt("estimates", estimates::learn(env)).await;
    attempt("payloads", old_payloads(env)).await;
    attempt("deliveries", alerts::deliver(env)).await;
}

async fn attempt(part: &str, work: impl Future<Output = Result<()>>) {
    if let Err(error) = work.await {
        log::error("tick_failed", part, &error.to_string());
    }
}

async fn note_tick(env: &Env) -> Result<()> {
    catalog::set_setting(&env.d1("DB")?, LAST_TICK, &clock::now().millis().to_string()).await
}

async fn pools(env: &Env) -> Result<()> {
    // With D1 out of reach, pools are looked after with the configuration that was last seen.
    let catalog = match catalog::load(env).await {
        Ok(catalog) => catalog,
        Err(_) => catalog::current(env).await?,
    };
    let ticked = catalog.pools.keys().filter_map(|pool| catalog.pool_config(pool, clock::now())).map(|config| async {
        let name = config.pool.as_str().to_owned();
        call(env, &name, &pool::TickCall { config }).await.unwrap_or_else(|error| {
            log::error("pool_not_ticked", &name, &error.to_string());
            None
        })
    });
    let seen: Vec<pool::TickAnswer> = join_all(ticked).await.into_iter().flatten().collect();
    alerts::tell_pools(env, &seen).await
}

async fn accounts(env: &Env) -> Result<()> {
    let db = env.d1("DB")?;
    let after = catalog::setting(&db, CURSOR).await?.unwrap_or_default();
    let clients = catalog::clients_after(env, &after, ACCOUNTS_PER_TICK).await?;
    let full = clients.len() >= usize::try_from(ACCOUNTS_PER_TICK).unwrap_or(usize::MAX);
    let last = clients.last().filter(|_| full).map(|client| client.client_id.as_str().to_owned());
    let ticked = clients.iter().map(|client| async {
        let name = client.client_id.as_str();
        if let Err(error) = call(env, name, &account::TickCall {}).await {
            log::error("account_not_ticked", name, &error.to_string());
        }
    });
    join_all(ticked).await;
    catalog::set_setting(&db, CURSOR, &last.unwrap_or_default()).await
}

async fn old_payloads(env: &Env) -> Result<()> {
    let kept_ms = retention_ms(env).saturating_add(PAYLOAD_SLACK_MS);
    payloads::sweep(env, clock::now().plus(kept_ms.saturating_neg())).await
}
