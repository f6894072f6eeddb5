//! Alerts: what is seen is told to the record, and each change of state to the webhook.

mod delivery;

use rm_core::account::AccountView;
use rm_core::alert::{AlertKind, BUDGET_THRESHOLDS, Verdict, pool_low, queue_backup, request_starvation};
use rm_core::decimal;
use worker::{Env, Result};

use crate::host::clock;
use crate::store::alerts::{self, Cause};
use crate::wire::alert::Severity;
use crate::wire::pool::TickAnswer;

pub use delivery::deliver;

/// A worker that has not timed out for this long is well again, and so is a price that nobody has asked for.
const QUIET_MS: i64 = 600_000;

/// How long resolved alerts are kept: 90 days.
const KEPT_MS: i64 = 90 * 86_400_000;
/// The most open alerts about pools that a tick looks at.
const OPEN_MAX: u32 = 1_000;

/// Tells how the pools were at the tick. Only what differs from what is open is written.
pub async fn tell_pools(env: &Env, seen: &[TickAnswer]) -> Result<()> {
    let now = clock::now();
    let open = alerts::open_about(env, "pool", OPEN_MAX).await?;
    let mut statements = Vec::new();
    let mut say = |kind: AlertKind, pool: &str, verdict: Verdict, severity: Severity, message: String| {
        let cause = Cause::new(kind, "pool", pool);
        let is_open = open.contains(&(kind.as_str().to_owned(), cause.subject.clone()));
        match verdict {
            Verdict::Raised if !is_open => statements.push(alerts::open(env, &cause, severity, &message, now)?),
            Verdict::Over if is_open => statements.push(alerts::resolve(env, &cause, now)?),
            _ => {}
        }
        Ok::<_, worker::Error>(())
    };
    for TickAnswer { pool, depth, oldest_wait_ms, .. } in seen {
        let name = pool.pool.as_str();
        let low = pool_low(pool.available, pool.capacity, pool.low_water_percent);
        let severity = if pool.available.units() == 0 { Severity::Critical } else { Severity::Warning };
        let left = format!("{name} has {} of {} left", pool.available.units(), pool.capacity.units());
        say(AlertKind::PoolLow, name, low, severity, left)?;
        let waiting = format!("{depth} requests wait at {name}");
        say(AlertKind::QueueBackup, name, queue_backup(*depth), Severity::Critical, waiting)?;
        let waited = format!("a request has waited at {name} for {} s", oldest_wait_ms.saturating_div(1_000));
        say(AlertKind::RequestStarvation, name, request_starvation(*oldest_wait_ms), Severity::Critical, waited)?;
    }
    for (worker, count) in seen.iter().flat_map(|answer| &answer.timeouts) {
        let cause = Cause::new(AlertKind::WorkerTimeout, "worker", worker);
        let message = format!("{worker} did not answer {count} attempts in time in the last minute");
        statements.push(alerts::open(env, &cause, Severity::Warning, &message, now)?);
        statements.push(alerts::seen(env, &cause, now)?);
    }
    let quiet_since = now.plus(-QUIET_MS);
    for kind in [AlertKind::WorkerTimeout, AlertKind::UnknownPrice] {
        statements.push(alerts::resolve_if_older(env, kind, quiet_since, now)?);
    }
    statements.push(alerts::resolve_orphans(env, now)?);
    statements.push(alerts::sweep(env, now.plus(-KEPT_MS))?);
    alerts::run(env, statements).await
}

/// Tells which of a budget's marks is reached, in per cent; 0 is none. Each mark that is reached has an alert, and those
/// of another month or of a mark that is not reached any more are over.
pub async fn tell_budget(env: &Env, view: &AccountView, reached: u8) -> Result<()> {
    let now = clock::now();
    let subject = format!("client:{}", view.client);
    let mut statements = vec![alerts::resolve_budgets(env, &subject, view.period.month, reached, now)?];
    let usd = |money: rm_core::units::NanoUsd| decimal::format(money.nanos(), 9);
    for threshold in BUDGET_THRESHOLDS.into_iter().filter(|threshold| *threshold <= reached) {
        let cause = Cause {
            threshold,
            window: Some(view.period.month),
            ..Cause::new(AlertKind::BudgetExceeded, "client", view.client.as_str())
        };
        let severity = if threshold < 95 { Severity::Warning } else { Severity::Critical };
        let message = format!("{} has spent ${} of ${} this month", view.client, usd(view.spent), usd(view.budget));
        statements.push(alerts::open(env, &cause, severity, &message, now)?);
    }
    alerts::run(env, statements).await
}

/// Tells that a pool or client (`what`) was deleted: nothing is wrong with it any more.
pub async fn tell_deleted(env: &Env, what: &str, name: &str) -> Result<()> {
    alerts::run(env, vec![alerts::resolve_subject(env, &format!("{what}:{name}"), clock::now())?]).await
}

/// Tells that a request was refused because its price is unknown. `what` is `pool` or `model`; or `pools`, for any that
/// does not exist.
pub async fn tell_unknown_price(env: &Env, what: &str, name: &str) -> Result<()> {
    let now = clock::now();
    let cause = Cause::new(AlertKind::UnknownPrice, what, name);
    let message = match what {
        "pools" => "a request was refused: it names a pool that does not exist, so no price is known".to_owned(),
        _ => format!("a request was refused: the price of the {what} {name} is unknown"),
    };
    let open = alerts::open(env, &cause, Severity::Warning, &message, now)?;
    alerts::run(env, vec![open, alerts::seen(env, &cause, now)?]).await
}
