//! Alerts: what is seen is told to the record, and each change of state to the webhook.

mod delivery;

use rm_core::account::AccountView;
use rm_core::alert::{AlertKind, BUDGET_THRESHOLDS, Verdict, pool_low, queue_backup, request_starvation};
use rm_core::decimal;
use rm_core::units::Instant;
use worker::{D1PreparedStatement, Env, Result};

use crate::host::clock;
use crate::store::alerts::{self, Cause};
use crate::wire::alert::Severity;
use crate::wire::pool::TickAnswer;

pub use delivery::deliver;

/// A worker that has not timed out for this long is well again, and so is a price that nobody has asked for.
const QUIET_MS: i64 = 600_000;

fn say(
    env: &Env,
    cause: &Cause,
    verdict: Verdict,
    severity: Severity,
    message: &str,
    now: Instant,
) -> Result<Option<D1PreparedStatement>> {
    match verdict {
        Verdict::Raised => alerts::open(env, cause, severity, message, now).map(Some),
        Verdict::Over => alerts::resolve(env, cause, now).map(Some),
        Verdict::Unchanged => Ok(None),
    }
}

/// Tells how the pools were at the tick.
pub async fn tell_pools(env: &Env, seen: &[TickAnswer]) -> Result<()> {
    let now = clock::now();
    let mut statements = Vec::new();
    for TickAnswer { pool, depth, oldest_wait_ms, timeouts } in seen {
        let name = pool.pool.as_str();
        let cause = |kind| Cause::new(kind, "pool", name);
        let left = format!("{name} has {} of {} left", pool.available.units(), pool.capacity.units());
        let low = pool_low(pool.available, pool.capacity, pool.low_water_percent);
        let severity = if pool.available.units() == 0 { Severity::Critical } else { Severity::Warning };
        statements.extend(say(env, &cause(AlertKind::PoolLow), low, severity, &left, now)?);
        let waiting = format!("{depth} requests wait at {name}");
        let backup = queue_backup(*depth);
        statements.extend(say(env, &cause(AlertKind::QueueBackup), backup, Severity::Critical, &waiting, now)?);
        let starving = format!("a request has waited at {name} for {} s", oldest_wait_ms.saturating_div(1_000));
        let starvation = request_starvation(*oldest_wait_ms);
        let kind = AlertKind::RequestStarvation;
        statements.extend(say(env, &cause(kind), starvation, Severity::Critical, &starving, now)?);
        for (worker, count) in timeouts {
            let cause = Cause::new(AlertKind::WorkerTimeout, "worker", worker);
            let message = format!("{worker} did not answer {count} attempts in time in the last minute");
            statements.push(alerts::open(env, &cause, Severity::Warning, &message, now)?);
            statements.push(alerts::seen(env, &cause, now)?);
        }
    }
    let quiet_since = now.plus(-QUIET_MS);
    for kind in [AlertKind::WorkerTimeout, AlertKind::UnknownPrice] {
        statements.push(alerts::resolve_if_older(env, kind, quiet_since, now)?);
    }
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

/// Tells that a request was refused because its price is unknown. `what` is `pool` or `model`.
pub async fn tell_unknown_price(env: &Env, what: &str, name: &str) -> Result<()> {
    let now = clock::now();
    let cause = Cause::new(AlertKind::UnknownPrice, what, name);
    let message = format!("a request was refused: the price of the {what} {name} is unknown");
    let open = alerts::open(env, &cause, Severity::Warning, &message, now)?;
    alerts::run(env, vec![open, alerts::seen(env, &cause, now)?]).await
}
