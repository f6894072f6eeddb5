//! `/admin/lanes`: the points and limits of the five lanes.

use futures_util::future::join_all;
use rm_core::lane::LaneLimits;
use rm_core::priority::{Points, Urgency};

use crate::api::Call;
use crate::api::admin::configure;
use crate::api::body::read_json;
use crate::api::reply::Reply;
use crate::store::catalog::{self, Catalog};
use crate::wire::admin::{LaneBody, LaneRecord, Listing};
use crate::wire::problem::Problem;

/// The most points of a lane, in thousandths.
const POINTS_MAX: i64 = 30_000;

fn d1(error: worker::Error) -> Problem {
    Problem::unavailable(error.to_string())
}

fn record(catalog: &Catalog, urgency: Urgency) -> LaneRecord {
    let LaneLimits { max_wait_ms, queue_cap } = catalog.lanes.of(urgency);
    let points = Points(catalog.weights.urgencies.get(&urgency).copied().unwrap_or(0));
    LaneRecord { urgency, points, max_wait_ms, queue_cap }
}

/// `GET /admin/lanes`: the most urgent first.
pub async fn list(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let items: Vec<_> = Urgency::ALL.into_iter().map(|urgency| record(&catalog, urgency)).collect();
    Reply::json(200, &Listing { items, next_cursor: None })
}

/// `PUT /admin/lanes/{lane}`.
pub async fn put(mut call: Call, lane: &str) -> Result<Reply, Problem> {
    let lane: Urgency = lane.parse().map_err(|_| Problem::not_found("lane"))?;
    let body = read_json::<LaneBody>(&mut call.request).await?.value;
    if !(0..=POINTS_MAX).contains(&body.points.0) {
        return Err(Problem::field("/points", "must be from 0 to 30"));
    }
    if body.max_wait_ms.is_some_and(|wait| !(1..=rm_core::request::MAX_AGE_MS).contains(&wait)) {
        return Err(Problem::field("/maxWaitMs", "must be from 1 to 86400000"));
    }
    catalog::put_lane(&call.env, lane, &body).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let told = catalog.pools.keys().map(|pool| configure(&call, &catalog, pool));
    join_all(told).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    Reply::json(200, &record(&catalog, lane))
}
