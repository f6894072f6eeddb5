//! `GET /status`: pools, queue, scheduler and open alerts at one glance.

use rm_core::units::Instant;

use crate::api::Call;
use crate::api::executions::unavailable;
use crate::api::queue::{queue_status, views};
use crate::api::reply::Reply;
use crate::api::resources::pool_availability;
use crate::cron::LAST_TICK;
use crate::host::clock;
use crate::store::{alerts, catalog};
use crate::wire::alert::AlertFilter;
use crate::wire::api::StatusView;
use crate::wire::problem::Problem;

/// The most open alerts that are shown.
const ALERTS_MAX: u32 = 100;

/// `GET /status`. Limited to a client, it leaves out the alerts of others.
pub async fn status(call: &Call) -> Result<Reply, Problem> {
    let d1 = |error: worker::Error| Problem::unavailable(error.to_string());
    let catalog = catalog::current(&call.env).await.map_err(d1)?;
    let views = views(call, catalog.pools.keys()).await.map_err(unavailable)?;
    let last_tick = catalog::setting(&call.env.d1("DB").map_err(d1)?, LAST_TICK).await.map_err(d1)?;
    let last_tick = last_tick.and_then(|text| text.parse().ok()).map(Instant::from_millis);
    let open =
        alerts::list(&call.env, AlertFilter::Open, call.only_client.as_ref(), None, ALERTS_MAX).await.map_err(d1)?;
    let pools = views.iter().map(|view| pool_availability(view.pool.clone())).collect();
    let queue = queue_status(views);
    Reply::json(
        200,
        &StatusView {
            as_of: clock::now(),
            scheduler: queue.scheduler,
            last_tick_at: last_tick,
            pools,
            queue,
            alerts: open,
        },
    )
}
