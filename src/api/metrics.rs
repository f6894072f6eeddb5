//! `GET /metrics`: the same figures as Prometheus text (the text exposition format, version 0.0.4) or as JSON. Labels are
//! bounded: lanes, statuses, kinds of alerts, strategies; pools and templates that operators made; and the clients that
//! cost most.

mod collect;
pub mod exposition;

use crate::api::Call;
use crate::api::executions::unavailable;
use crate::api::queue::views;
use crate::api::reply::Reply;
use crate::host::clock;
use crate::store::{alerts, catalog, totals};
use crate::wire::problem::Problem;
use collect::{Sources, collect};
use rm_core::period::Period;

/// `GET /metrics`. Limited to a client, it has the costs of that client alone.
pub async fn metrics(call: &Call) -> Result<Reply, Problem> {
    let d1 = |error: worker::Error| Problem::unavailable(error.to_string());
    let now = clock::now();
    let catalog = catalog::current(&call.env).await.map_err(d1)?;
    let views = views(call, catalog.pools.keys()).await.map_err(unavailable)?;
    let mut totals = totals::read(&call.env, Period::month_of(now).month).await.map_err(d1)?;
    if let Some(only) = &call.only_client {
        totals.clients.retain(|client| client.client_id == only.as_str());
    }
    let alerts = alerts::open_by_kind(&call.env).await.map_err(d1)?;
    let families = collect(&Sources { views: &views, totals: &totals, alerts: &alerts, learnt: &catalog.learnt });
    let wants_json = call.header("accept").is_some_and(|accept| accept.contains("application/json"));
    if wants_json {
        Reply::json(200, &exposition::Json { metrics: families })
    } else {
        Ok(Reply::text("text/plain; version=0.0.4; charset=utf-8", exposition::text(&families)))
    }
}
