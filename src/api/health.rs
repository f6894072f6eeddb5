//! `/` and `/health`: open, and silent about clients.

use std::future::Future;

use rm_core::units::Instant;

use crate::api::Call;
use crate::api::reply::Reply;
use crate::cron::LAST_TICK;
use crate::host::clock;
use crate::host::object::call;
use crate::host::time_limit::within;
use crate::store::catalog;
use crate::wire::api::{HealthCheck, HealthView, RootView};
use crate::wire::pool::PingCall;
use crate::wire::problem::Problem;

/// How long one part may take.
const PROBE_LIMIT_MS: i64 = 2_000;
/// The tick is a minute's; after three without one something is wrong.
const TICK_LATE_MS: i64 = 180_000;

/// `GET /`.
pub fn root() -> Result<Reply, Problem> {
    Reply::json(200, &RootView { service: "resource-manager", version: env!("CARGO_PKG_VERSION"), status: "ok" })
}

/// `GET /health`: each part is really asked. D1, R2 and the tick may fail without a request failing, so they only
/// degrade; without the objects nothing works.
pub async fn health(call: &Call) -> Result<Reply, Problem> {
    let env = &call.env;
    let d1 = probe("d1", async { catalog::setting(&env.d1("DB")?, LAST_TICK).await.map(|_| ()) });
    let kv = probe("kv", async {
        env.kv("KV")?.get("health").text().await?;
        Ok(())
    });
    let r2 = probe("r2", async { env.bucket("PAYLOADS")?.head("health").await.map(|_| ()) });
    let objects = probe("durable_objects", async {
        let probe = self::call(env, "health", &PingCall {}).await;
        probe.map(|_| ()).map_err(|error| worker::Error::RustError(error.to_string()))
    });
    let (d1, kv, r2, objects) = futures_util::join!(d1, kv, r2, objects);
    let scheduler = scheduler(call, clock::now()).await;
    let checks = vec![d1, kv, r2, objects, scheduler];
    let down = checks.iter().any(|check| check.name == "durable_objects" && check.status == "down");
    let degraded = checks.iter().any(|check| check.status != "ok");
    let status = if down {
        "down"
    } else if degraded {
        "degraded"
    } else {
        "ok"
    };
    Reply::json(if down { 503 } else { 200 }, &HealthView { status, checks })
}

async fn probe(name: &'static str, work: impl Future<Output = worker::Result<()>>) -> HealthCheck {
    let started = clock::now();
    let healthy = matches!(within(PROBE_LIMIT_MS, work).await, Ok(Ok(())));
    HealthCheck { name, status: if healthy { "ok" } else { "down" }, latency_ms: clock::now().since(started) }
}

/// When the last tick was. Before the first one there is nothing to complain of.
async fn scheduler(call: &Call, now: Instant) -> HealthCheck {
    let last = async {
        let setting = catalog::setting(&call.env.d1("DB")?, LAST_TICK).await?;
        Ok::<_, worker::Error>(setting.and_then(|text| text.parse().ok()).map(Instant::from_millis))
    };
    let status = match within(PROBE_LIMIT_MS, last).await {
        Ok(Ok(Some(at))) if now.since(at) > TICK_LATE_MS => "late",
        Ok(Ok(_)) => "ok",
        _ => "down",
    };
    HealthCheck { name: "scheduler", status, latency_ms: clock::now().since(now) }
}
