//! `/api/queue/status` and `/api/queue/position/…`.

use futures_util::future::join_all;
use rm_core::id::{PoolId, RequestId};
use rm_core::pool::LaneView;
use rm_core::priority::Urgency;

use crate::api::Call;
use crate::api::executions::unavailable;
use crate::api::reply::Reply;
use crate::host::object::{CallError, call};
use crate::store::catalog;
use crate::wire::api::{PoolQueue, PositionBody, QueueStatus};
use crate::wire::pool::{PositionCall, ViewAnswer, ViewCall};
use crate::wire::problem::Problem;

/// Asks pools how they are, all at once.
pub async fn views(call: &Call, pools: impl Iterator<Item = &PoolId>) -> Result<Vec<ViewAnswer>, CallError> {
    let asked = pools.map(|pool| self::call(&call.env, pool.as_str(), &VIEW));
    let answers = join_all(asked).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(answers.into_iter().flatten().collect())
}

const VIEW: ViewCall = ViewCall { amount: None, for_whom: None };

/// `GET /api/queue/status`.
pub async fn status(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let views = views(call, catalog.pools.keys()).await.map_err(unavailable)?;
    Reply::json(200, &queue_status(views))
}

/// All queues together.
pub fn queue_status(views: Vec<ViewAnswer>) -> QueueStatus {
    let mut lanes: Vec<LaneView> =
        Urgency::ALL.into_iter().map(|urgency| LaneView { urgency, depth: 0, oldest_wait_ms: 0 }).collect();
    for lane in views.iter().flat_map(|view| &view.queue.lanes) {
        if let Some(sum) = lanes.iter_mut().find(|sum| sum.urgency == lane.urgency) {
            sum.depth = sum.depth.saturating_add(lane.depth);
            sum.oldest_wait_ms = sum.oldest_wait_ms.max(lane.oldest_wait_ms);
        }
    }
    let running = views.iter().all(|view| view.scheduler_running);
    let pools = views.into_iter().map(|view| PoolQueue {
        pool: view.queue.pool,
        depth: view.queue.depth,
        running: view.queue.running,
        oldest_wait_ms: view.queue.oldest_wait_ms,
        next_grant_ms: view.queue.next_grant_ms,
    });
    QueueStatus {
        depth: lanes.iter().fold(0, |sum, lane| sum.saturating_add(lane.depth)),
        oldest_wait_ms: lanes.iter().map(|lane| lane.oldest_wait_ms).max().unwrap_or(0),
        pools: pools.collect(),
        lanes,
        scheduler: if running { "running" } else { "stopped" },
    }
}

/// `GET /api/queue/position/{requestId}`.
pub async fn position(call: &Call, id: &RequestId) -> Result<Reply, Problem> {
    let gone = || Problem::not_found("request in this queue");
    let home = call.home_of(id).await.ok_or_else(gone)?;
    let answer = call.pool(&home, &PositionCall { id: id.clone() }, 0).await.map_err(unavailable)?.ok_or_else(gone)?;
    call.may_touch(&answer.client)?;
    Reply::json(200, &PositionBody::new(id.clone(), home, answer.position))
}
