//! `/admin`: pools, clients, templates, and the scheduler's switch.

use futures_util::future::join_all;
use rm_core::id::{ClientId, PoolId, TemplateId};
use rm_core::priority::Tier;
use rm_core::units::{NanoUsd, Tokens};
use serde::Serialize;

use crate::api::Call;
use crate::api::admission::{POOLS_MAX, TIMEOUT_MAX_MS};
use crate::api::body::read_json;
use crate::api::executions::unavailable;
use crate::api::reply::Reply;
use crate::dispatch::worker_binding;
use crate::host::object::call;
use crate::store::catalog::{self, Catalog};
use crate::wire::admin::{ClientBody, Listing, PoolBody, TemplateBody, TemplateRecord};
use crate::wire::problem::Problem;
use crate::wire::{account, pool};

const ATTEMPTS_MAX: u32 = 20;

fn d1(error: worker::Error) -> Problem {
    Problem::unavailable(error.to_string())
}

fn check(valid: bool, pointer: &str, detail: &str) -> Result<(), Problem> {
    if valid { Ok(()) } else { Err(Problem::field(pointer, detail)) }
}

fn check_text(text: &str, pointer: &str) -> Result<(), Problem> {
    check((1..=200).contains(&text.chars().count()), pointer, "must have 1 to 200 characters")
}

/// `POST /admin/scheduler/start` and `stop`.
pub async fn set_scheduler(call: &Call, running: bool) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct View {
        scheduler: &'static str,
    }
    catalog::set_scheduler(&call.env, running).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let told = catalog.pools.keys().map(|pool| configure(call, &catalog, pool));
    join_all(told).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    Reply::json(200, &View { scheduler: if running { "running" } else { "stopped" } })
}

async fn configure(call: &Call, catalog: &Catalog, pool: &PoolId) -> Result<(), Problem> {
    let Some(config) = catalog.pool_config(pool) else { return Ok(()) };
    self::call(&call.env, pool.as_str(), &pool::ConfigureCall { config }).await.map_err(unavailable)
}

/// `GET /admin/pools`.
pub async fn pools(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    Reply::json(200, &Listing { items: catalog.pools.values().collect() })
}

/// `GET /admin/pools/{pool}`.
pub async fn pool(call: &Call, pool: &PoolId) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    Reply::json(200, catalog.pools.get(pool).ok_or_else(|| Problem::not_found("pool"))?)
}

/// `PUT /admin/pools/{pool}`.
pub async fn put_pool(mut call: Call, pool: &PoolId) -> Result<Reply, Problem> {
    let body = read_json::<PoolBody>(&mut call.request).await?.value;
    check_text(&body.unit, "/unit")?;
    check(body.capacity > Tokens::ZERO, "/capacity", "must be more than 0")?;
    check(body.unit_price_usd >= NanoUsd::ZERO, "/unitPriceUsd", "must not be negative")?;
    check(body.low_water_percent <= 100, "/lowWaterPercent", "must be from 0 to 100")?;
    check(body.partitions.is_empty(), "/partitions", "this version does not divide pools: leave this out")?;
    catalog::put_pool(&call.env, pool, &body).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    configure(&call, &catalog, pool).await?;
    Reply::json(200, catalog.pools.get(pool).ok_or_else(|| Problem::not_found("pool"))?)
}

/// `GET /admin/clients`.
pub async fn clients(call: &Call) -> Result<Reply, Problem> {
    let items = catalog::clients_after(&call.env, "", catalog::ROWS_MAX).await.map_err(d1)?;
    Reply::json(200, &Listing { items })
}

/// `GET /admin/clients/{clientId}`.
pub async fn client(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let record = catalog::client(&call.env, client).await.map_err(d1)?;
    Reply::json(200, &record.ok_or_else(|| Problem::not_found("client"))?)
}

/// `PUT /admin/clients/{clientId}`.
pub async fn put_client(mut call: Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let body = read_json::<ClientBody>(&mut call.request).await?.value;
    check_text(&body.name, "/name")?;
    let missing = body.tier == Tier::Enterprise && body.monthly_budget_usd.is_none();
    check(!missing, "/monthlyBudgetUsd", "an enterprise client's budget is custom: give it")?;
    let negative = body.monthly_budget_usd.is_some_and(|budget| budget < NanoUsd::ZERO);
    check(!negative, "/monthlyBudgetUsd", "must not be negative")?;
    check(body.time_zone == "UTC", "/timeZone", "this version counts months in UTC only")?;
    catalog::put_client(&call.env, client, &body).await.map_err(d1)?;
    let record = catalog::client(&call.env, client).await.map_err(d1)?;
    let record = record.ok_or_else(|| Problem::not_found("client"))?;
    let configure = account::ConfigureCall { config: record.account_config() };
    self::call(&call.env, client.as_str(), &configure).await.map_err(unavailable)?;
    Reply::json(200, &record)
}

/// `GET /admin/templates`.
pub async fn templates(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    Reply::json(200, &Listing { items: catalog::template_records(&catalog) })
}

/// `GET /admin/templates/{templateId}`.
pub async fn template(call: &Call, template: &TemplateId) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    template_reply(&catalog, template)
}

fn template_reply(catalog: &Catalog, template: &TemplateId) -> Result<Reply, Problem> {
    let body = catalog.templates.get(template).ok_or_else(|| Problem::not_found("template"))?;
    Reply::json(200, &TemplateRecord { template_id: template.clone(), body: body.clone() })
}

/// `PUT /admin/templates/{templateId}`.
pub async fn put_template(mut call: Call, template: &TemplateId) -> Result<Reply, Problem> {
    let body = read_json::<TemplateBody>(&mut call.request).await?.value;
    let bound = worker_binding(&call.env, body.worker.as_str()).is_some();
    check(bound, "/worker", "there is no such service binding")?;
    check((1..=POOLS_MAX).contains(&body.resources.len()), "/resources", "must name 1 to 8 pools")?;
    let attempts = body.max_attempts.is_none_or(|n| (1..=ATTEMPTS_MAX).contains(&n));
    check(attempts, "/maxAttempts", "must be from 1 to 20")?;
    let timeout = body.timeout_ms.is_none_or(|n| (1..=TIMEOUT_MAX_MS).contains(&n));
    check(timeout, "/timeoutMs", "must be from 1 to 600000")?;
    let batch = body.batch.as_ref().is_none_or(|rule| (1..=100).contains(&rule.max_size) && rule.window_ms <= 60_000);
    check(batch, "/batch", "maxSize must be from 1 to 100, windowMs at most 60000")?;
    if let Some(model) = &body.model {
        check_text(model, "/model")?;
    }
    let known = catalog::load(&call.env).await.map_err(d1)?;
    for (index, rate) in body.resources.iter().enumerate() {
        let pointer = format!("/resources/{index}/pool");
        check(known.pools.contains_key(&rate.pool), &pointer, "there is no such pool, so no price for it")?;
        let twice = body.resources.iter().take(index).any(|other| other.pool == rate.pool);
        check(!twice, &pointer, "is named twice")?;
    }
    catalog::put_template(&call.env, template, &body).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    template_reply(&catalog, template)
}
