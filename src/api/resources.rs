//! `/api/resources/…`.

use futures_util::future::join_all;
use rm_core::id::ClientId;
use rm_core::pool::{BreakerView, PoolView};
use rm_core::priority::{Points, Tier};
use rm_core::units::Tokens;

use crate::api::Call;
use crate::api::body::read_json;
use crate::api::demands::check_amounts;
use crate::api::executions::unavailable;
use crate::api::reply::Reply;
use crate::host::object::call;
use crate::host::{clock, log};
use crate::store::{catalog, snapshot};
use crate::wire::account;
use crate::wire::api::{Availability, CheckBody, CheckLine, CheckView, PoolAvailability, ResourceAmount, WorkerView};
use crate::wire::pool::ViewCall;
use crate::wire::problem::{Code, FieldError, Problem};

/// `GET /api/resources/availability`: from the snapshots near the caller; a pool that has none yet is asked.
pub async fn availability(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let now = clock::now();
    let views = catalog.pools.keys().map(|pool| async move {
        let stored = snapshot::read(&call.env, pool, now).await.unwrap_or_else(|error| {
            log::warn("snapshot_not_read", pool.as_str(), &error.to_string());
            None
        });
        match stored {
            Some(view) => Ok(Some(view)),
            None => Ok(self::call(&call.env, pool.as_str(), &ViewCall { amount: None, for_whom: None })
                .await?
                .map(|view| view.pool)),
        }
    });
    let views = join_all(views).await.into_iter().collect::<Result<Vec<_>, _>>().map_err(unavailable)?;
    let views: Vec<PoolView> = views.into_iter().flatten().collect();
    let as_of = views.iter().map(|view| view.as_of).min().unwrap_or(now);
    let pools = views.into_iter().map(pool_availability).collect();
    Reply::json(200, &Availability { as_of, pools })
}

/// A pool as a caller sees it.
pub fn pool_availability(view: PoolView) -> PoolAvailability {
    let capacity = view.capacity.micros().max(1);
    let used = view.capacity.saturating_sub(view.available);
    let thousandths = |part: Tokens| i128::from(part.micros()).saturating_mul(1_000).checked_div(i128::from(capacity));
    let utilization = thousandths(used).and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    let percent_left = thousandths(view.available).unwrap_or(0).checked_div(10).unwrap_or(0);
    let status = if view.available.units() == 0 {
        "exhausted"
    } else if percent_left < i128::from(view.low_water_percent) {
        "low"
    } else {
        "ok"
    };
    PoolAvailability {
        pool: view.pool,
        unit: view.unit,
        capacity: view.capacity,
        available: view.available.units(),
        reserved: view.reserved,
        utilization: Points(utilization),
        effective_refill_per_second: view.effective_refill_per_second.unwrap_or(view.refill_per_second),
        refill_per_second: view.refill_per_second,
        paused_until: view.paused_until,
        lent: view.lent,
        partitions: view.partitions,
        workers: view.breakers.into_iter().map(worker_view).collect(),
        queued: view.queued,
        status,
        as_of: view.as_of,
    }
}

fn worker_view(breaker: BreakerView) -> WorkerView {
    WorkerView { worker: breaker.worker, circuit: breaker.state, until: breaker.until }
}

/// `POST /api/resources/check`: asks the pools themselves, and takes nothing.
pub async fn check(mut call: Call) -> Result<Reply, Problem> {
    let body = read_json::<CheckBody>(&mut call.request).await?.value;
    if let Some(client) = &body.client_id {
        call.may_touch(client)?;
    }
    let for_whom = for_whom(&call, body.client_id).await?;
    let amounts: Vec<_> = body.resources.iter().map(|resource| (&resource.pool, resource.amount)).collect();
    check_amounts(&amounts, "/resources", 1)?;
    if body.resources.is_empty() {
        return Err(Problem::field("/resources", "must name at least one pool"));
    }
    let alone = body.resources.len() == 1;
    let lines =
        body.resources.iter().enumerate().map(|(index, wanted)| check_one(&call, index, wanted, for_whom.clone()));
    let resources = join_all(lines).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    if !alone {
        // The headers are about one pool; there is no saying which.
        call.notes.rate_limit.take();
    }
    let satisfiable = resources.iter().all(|line| line.satisfiable);
    let waits: Option<Vec<i64>> = resources.iter().map(|line| line.wait_ms).collect();
    let wait_ms = waits.and_then(|waits| waits.into_iter().max()).filter(|_| satisfiable);
    Reply::json(200, &CheckView { available: wait_ms == Some(0), wait_ms, resources })
}

/// A client with its tier: by these a pool knows what is set aside for it.
async fn for_whom(call: &Call, client: Option<ClientId>) -> Result<Option<(ClientId, Tier)>, Problem> {
    let Some(client) = client else { return Ok(None) };
    let account = self::call(&call.env, client.as_str(), &account::ViewCall {}).await.map_err(unavailable)?;
    let account = account.ok_or_else(|| Problem::not_found("client"))?;
    Ok(Some((client, account.tier)))
}

async fn check_one(
    call: &Call,
    index: usize,
    wanted: &ResourceAmount,
    for_whom: Option<(ClientId, Tier)>,
) -> Result<CheckLine, Problem> {
    let amount = Tokens::from_units(wanted.amount);
    let view = call.pool(&wanted.pool, &ViewCall { amount, for_whom }, 0).await.map_err(unavailable)?;
    let Some(view) = view else {
        let detail = format!("there is no pool `{}`", wanted.pool);
        let mut problem = Problem::new(Code::Unsatisfiable, detail.clone());
        problem.errors.push(FieldError { pointer: format!("/resources/{index}/pool"), detail });
        return Err(problem);
    };
    Ok(CheckLine {
        pool: wanted.pool.clone(),
        requested: wanted.amount,
        available: view.pool.available.units(),
        satisfiable: amount.is_some_and(|amount| amount <= view.reach.unwrap_or(view.pool.capacity)),
        wait_ms: view.wait_ms,
    })
}
