//! `/admin`: pools, clients, templates, and the scheduler's switch.

use futures_util::future::join_all;
use rm_core::estimate::Rate;
use rm_core::id::{ClientId, PoolId, TemplateId, WorkerBinding};
use rm_core::pipeline::STEPS_MAX;
use rm_core::priority::Tier;
use rm_core::units::NanoUsd;
use serde::Serialize;

use crate::alerts;
use crate::api::Call;
use crate::api::admission::TIMEOUT_MAX_MS;
use crate::api::body::read_json;
use crate::api::demands::POOLS_MAX;
use crate::api::executions::unavailable;
use crate::api::query::{Cursor, Query};
use crate::api::reply::Reply;
use crate::dispatch::worker_binding;
use crate::host::clock;
use crate::host::object::call;
use crate::host::time_zone::TimeZone;
use crate::store;
use crate::store::catalog::{self, Catalog};
use crate::wire::admin::{ClientBody, Listing, OffPeak, Partition, PartitionKind, PoolBody, TemplateBody};
use crate::wire::alert::AlertFilter;
use crate::wire::api::SchedulerView;
use crate::wire::problem::{Code, Problem};
use crate::wire::{account, pool};

const ATTEMPTS_MAX: u32 = 20;
const PARTITIONS_MAX: usize = 16;
/// The most models that a pool serves, and that a chain has.
const MODELS_MAX: usize = 50;
const CHAIN_MAX: usize = 8;
/// The longest that a result is kept.
const TTL_MAX_SECONDS: u32 = 31_536_000;

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
    catalog::set_scheduler(&call.env, running).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let told = catalog.pools.keys().map(|pool| configure(call, &catalog, pool));
    join_all(told).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    Reply::json(200, &SchedulerView { scheduler: if running { "running" } else { "stopped" } })
}

/// Tells a pool its configuration.
pub async fn configure(call: &Call, catalog: &Catalog, pool: &PoolId) -> Result<(), Problem> {
    let Some(config) = catalog.pool_config(pool, clock::now()) else { return Ok(()) };
    self::call(&call.env, pool.as_str(), &pool::ConfigureCall { config }).await.map_err(unavailable)
}

/// What a query says of the page: after which name, and how many.
fn page(call: &Call, list: &str) -> Result<(String, u32), Problem> {
    let query = Query::of(call, &["limit", "cursor"])?;
    Ok((Cursor::read(list, query.text("cursor"))?.unwrap_or_default(), query.limit()?))
}

/// A page of records that are in the order of their names.
fn listing<'a, T: Serialize + 'a>(
    list: &str,
    records: impl Iterator<Item = &'a T>,
    name: impl Fn(&T) -> &str,
    after: &str,
    limit: u32,
) -> Result<Reply, Problem> {
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut items: Vec<&T> = records.filter(|record| name(record) > after).take(size.saturating_add(1)).collect();
    let more = items.len() > size;
    items.truncate(size);
    let next_cursor = items.last().filter(|_| more).map(|record| Cursor::write(list, name(record)));
    Reply::json(200, &Listing { items, next_cursor })
}

/// `GET /admin/alerts`: the newest first.
pub async fn list_alerts(call: &Call) -> Result<Reply, Problem> {
    let query = Query::of(call, &["status", "limit", "cursor"])?;
    let (status, filter) = match query.text("status") {
        None | Some("all") => ("all", AlertFilter::All),
        Some("open") => ("open", AlertFilter::Open),
        Some("resolved") => ("resolved", AlertFilter::Resolved),
        Some(_) => return Err(Problem::field("status", "must be open, resolved or all")),
    };
    let list = format!("alerts {status}");
    let before = Cursor::read(&list, query.text("cursor"))?;
    let before = before.map(|id| id.parse::<i64>().map_err(|_| Problem::field("cursor", "is not one"))).transpose()?;
    let limit = query.limit()?;
    let mut items = store::alerts::list(&call.env, filter, call.only_client.as_ref(), before, limit.saturating_add(1))
        .await
        .map_err(d1)?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > size;
    items.truncate(size);
    let next_cursor = items.last().filter(|_| more).map(|alert| Cursor::write(&list, &alert.alert_id.to_string()));
    Reply::json(200, &Listing { items, next_cursor })
}

/// `GET /admin/pools`.
pub async fn pools(call: &Call) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let (after, limit) = page(call, "pools")?;
    listing("pools", catalog.pools.values(), |record| record.pool.as_str(), &after, limit)
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
    check(body.capacity.units() >= 1, "/capacity", "must be 1 at least: amounts are whole units")?;
    let prices = [
        ("/unitPriceUsd", body.unit_price_usd),
        ("/cachedInputPriceUsd", body.cached_input_price_usd),
        ("/outputPriceUsd", body.output_price_usd),
    ];
    for (pointer, price) in prices {
        check(price.is_none_or(|price| price >= NanoUsd::ZERO), pointer, "must not be negative")?;
        let alone = price.is_some() && body.unit_price_usd.is_none();
        check(!alone, pointer, "a part has a price of its own only where unitPriceUsd is given")?;
    }
    check(body.low_water_percent <= 100, "/lowWaterPercent", "must be from 0 to 100")?;
    check_partitions(&body.partitions)?;
    check_models(&body.models, "/models", MODELS_MAX)?;
    check_off_peak(body.off_peak.as_ref())?;
    catalog::put_pool(&call.env, pool, &body).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    configure(&call, &catalog, pool).await?;
    Reply::json(200, catalog.pools.get(pool).ok_or_else(|| Problem::not_found("pool"))?)
}

fn check_off_peak(off_peak: Option<&OffPeak>) -> Result<(), Problem> {
    let Some(off_peak) = off_peak else { return Ok(()) };
    check(!off_peak.days.is_empty(), "/offPeak/days", "must name at least one day")?;
    check(off_peak.rule().is_some(), "/offPeak", "from and to must be times such as 22:00")?;
    let percent = off_peak.discount_percent.is_none_or(|percent| (1..=100).contains(&percent));
    check(percent, "/offPeak/discountPercent", "must be from 1 to 100")?;
    let zone = TimeZone::named(&off_peak.time_zone).is_some();
    check(zone, "/offPeak/timeZone", "must be a name of the IANA time-zone database, such as Europe/Berlin")
}

/// Names of models: some at most, none twice.
fn check_models(models: &[String], pointer: &str, most: usize) -> Result<(), Problem> {
    check(models.len() <= most, pointer, &format!("must be {most} models at most"))?;
    for (index, model) in models.iter().enumerate() {
        check_text(model, &format!("{pointer}/{index}"))?;
        let twice = models.iter().take(index).any(|other| other == model);
        check(!twice, &format!("{pointer}/{index}"), "is named twice")?;
    }
    Ok(())
}

fn check_partitions(partitions: &[Partition]) -> Result<(), Problem> {
    check(partitions.len() <= PARTITIONS_MAX, "/partitions", "must be at most 16")?;
    let mut percent = 0_u32;
    for (index, partition) in partitions.iter().enumerate() {
        let pointer = |field: &str| format!("/partitions/{index}/{field}");
        check_text(&partition.name, &pointer("name"))?;
        check(partition.percent >= 1, &pointer("percent"), "must be from 1 to 100")?;
        let member = partition.tier.is_some() != partition.client_id.is_some();
        check(member, &pointer("tier"), "a partition is for one tier or for one clientId")?;
        let dedicated = partition.kind == PartitionKind::Dedicated && partition.lend == Some(true);
        check(!dedicated, &pointer("lend"), "a dedicated partition never lends")?;
        let earlier = || partitions.iter().take(index);
        check(!earlier().any(|other| other.name == partition.name), &pointer("name"), "is used twice")?;
        let same = |other: &Partition| other.tier == partition.tier && other.client_id == partition.client_id;
        check(!earlier().any(same), &pointer("tier"), "has a partition of its own already")?;
        percent = percent.saturating_add(partition.percent.into());
    }
    check(percent <= 100, "/partitions", "have more than 100 per cent together")
}

/// `GET /admin/clients`.
pub async fn clients(call: &Call) -> Result<Reply, Problem> {
    let (after, limit) = page(call, "clients")?;
    let records = match &call.only_client {
        Some(only) => catalog::client(&call.env, only).await.map_err(d1)?.into_iter().collect(),
        None => catalog::clients_after(&call.env, &after, limit.saturating_add(1)).await.map_err(d1)?,
    };
    listing("clients", records.iter(), |record| record.client_id.as_str(), &after, limit)
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
    let zone = TimeZone::named(&body.time_zone).is_some();
    check(zone, "/timeZone", "must be a name of the IANA time-zone database, such as Europe/Berlin")?;
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
    let (after, limit) = page(call, "templates")?;
    let records: Vec<_> = catalog.templates.keys().filter_map(|template| catalog.template_record(template)).collect();
    listing("templates", records.iter(), |record| record.template_id.as_str(), &after, limit)
}

/// `GET /admin/templates/{templateId}`.
pub async fn template(call: &Call, template: &TemplateId) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    template_reply(&catalog, template)
}

fn template_reply(catalog: &Catalog, template: &TemplateId) -> Result<Reply, Problem> {
    Reply::json(200, &catalog.template_record(template).ok_or_else(|| Problem::not_found("template"))?)
}

/// `PUT /admin/templates/{templateId}`.
pub async fn put_template(mut call: Call, template: &TemplateId) -> Result<Reply, Problem> {
    let body = read_json::<TemplateBody>(&mut call.request).await?.value;
    let known = catalog::load(&call.env).await.map_err(d1)?;
    check_template(&call, &known, &body)?;
    catalog::put_template(&call.env, template, &body, clock::now()).await.map_err(d1)?;
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let now = clock::now();
    let before = known.templates.get(template).and_then(|before| known.template_windows(before, now));
    if before != catalog.template_windows(&body, now) {
        // Pools know the windows of what may wait in them.
        for pool in catalog.pools.keys() {
            configure(&call, &catalog, pool).await?;
        }
    }
    template_reply(&catalog, template)
}

fn check_template(call: &Call, known: &Catalog, body: &TemplateBody) -> Result<(), Problem> {
    check_tries(body.max_attempts, body.timeout_ms, "")?;
    let batch = body.batch.as_ref().is_none_or(|rule| (1..=100).contains(&rule.max_size) && rule.window_ms <= 60_000);
    check(batch, "/batch", "maxSize must be from 1 to 100, windowMs at most 60000")?;
    if let Some(model) = &body.model {
        check_text(model, "/model")?;
    }
    check_off_peak(body.off_peak.as_ref())?;
    let priced = body.off_peak.as_ref().is_some_and(|off_peak| off_peak.discount_percent.is_some());
    check(!priced, "/offPeak/discountPercent", "belongs to the pool, whose price it is")?;
    let ttl = body.cache_ttl_seconds.is_none_or(|ttl| ttl <= TTL_MAX_SECONDS);
    check(ttl, "/cacheTtlSeconds", "must be at most 31536000, a year")?;
    let own = body.model.as_ref().is_some_and(|model| body.downgrade_to.contains(model));
    check(!own, "/downgradeTo", "has the template's own model in it")?;
    check_models(&body.downgrade_to, "/downgradeTo", CHAIN_MAX)?;
    let chained = |floor: &String| body.downgrade_to.contains(floor);
    check(body.quality_floor.as_ref().is_none_or(chained), "/qualityFloor", "must be one of downgradeTo")?;
    if body.steps.is_empty() {
        let worker = body.worker.as_ref();
        check(worker.is_some(), "/worker", "give a worker and its resources, or steps")?;
        check_worker(call, worker, "")?;
        return check_rates(known, &body.resources, "");
    }
    check(body.worker.is_none(), "/worker", "each step names its own: leave this out")?;
    check(body.model.is_none(), "/model", "each step names its own: leave this out")?;
    check(body.resources.is_empty(), "/resources", "each step names its own: leave this out")?;
    check(body.downgrade_to.is_empty(), "/downgradeTo", "is not for a template with steps")?;
    check(body.batch.is_none(), "/batch", "is not for a template with steps")?;
    check(body.steps.len() <= STEPS_MAX, "/steps", "must be at most 16")?;
    for (index, step) in body.steps.iter().enumerate() {
        let prefix = format!("/steps/{index}");
        check_worker(call, Some(&step.worker), &prefix)?;
        check_rates(known, &step.resources, &prefix)?;
        check_tries(step.max_attempts, step.timeout_ms, &prefix)?;
        for (text, field) in [(&step.model, "model"), (&step.name, "name")] {
            text.as_ref().map_or(Ok(()), |text| check_text(text, &format!("{prefix}/{field}")))?;
        }
    }
    Ok(())
}

fn check_worker(call: &Call, worker: Option<&WorkerBinding>, prefix: &str) -> Result<(), Problem> {
    let bound = worker.is_some_and(|worker| worker_binding(&call.env, worker.as_str()).is_some());
    check(bound, &format!("{prefix}/worker"), "there is no such service binding")
}

fn check_tries(max_attempts: Option<u32>, timeout_ms: Option<i64>, prefix: &str) -> Result<(), Problem> {
    let attempts = max_attempts.is_none_or(|n| (1..=ATTEMPTS_MAX).contains(&n));
    check(attempts, &format!("{prefix}/maxAttempts"), "must be from 1 to 20")?;
    let timeout = timeout_ms.is_none_or(|n| (1..=TIMEOUT_MAX_MS).contains(&n));
    check(timeout, &format!("{prefix}/timeoutMs"), "must be from 1 to 600000")
}

fn check_rates(known: &Catalog, rates: &[Rate], prefix: &str) -> Result<(), Problem> {
    check((1..=POOLS_MAX).contains(&rates.len()), &format!("{prefix}/resources"), "must name 1 to 8 pools")?;
    for (index, rate) in rates.iter().enumerate() {
        let pointer = format!("{prefix}/resources/{index}/pool");
        check(known.pools.contains_key(&rate.pool), &pointer, "there is no such pool, so no price for it")?;
        let twice = rates.iter().take(index).any(|other| other.pool == rate.pool);
        check(!twice, &pointer, "is named twice")?;
    }
    Ok(())
}

fn conflict(detail: String) -> Problem {
    Problem::new(Code::Conflict, detail)
}

/// `DELETE /admin/pools/{pool}`. A pool that holds work, or that a template needs, stays.
pub async fn delete_pool(call: &Call, pool: &PoolId) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    let record = catalog.pools.get(pool).ok_or_else(|| Problem::not_found("pool"))?;
    if let Some((template, _)) = catalog.templates.iter().find(|(_, body)| body.needs(pool)) {
        return Err(conflict(format!("the template `{template}` needs this pool: change or delete that first")));
    }
    let close = || self::call(&call.env, pool.as_str(), &pool::CloseCall {});
    let busy = |answer| match answer {
        pool::CloseAnswer::Closed => Ok(()),
        pool::CloseAnswer::Busy { requests, others } => {
            let detail = format!("the pool holds {requests} requests, and {others} leases or settlements");
            Err(conflict(format!("{detail}: wait for their end, or cancel them")))
        }
    };
    busy(close().await.map_err(unavailable)?)?;
    catalog::delete_pool(&call.env, pool).await.map_err(d1)?;
    // A request that came in between is not left without its pool.
    let answer = close().await.map_err(unavailable)?;
    if let Err(problem) = busy(answer) {
        catalog::put_pool(&call.env, pool, &record.body).await.map_err(d1)?;
        return Err(problem);
    }
    alerts::tell_deleted(&call.env, "pool", pool.as_str()).await.map_err(d1)?;
    Ok(Reply::empty(204))
}

/// `DELETE /admin/clients/{clientId}`. A client that something is held for stays.
pub async fn delete_client(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let record = catalog::client(&call.env, client).await.map_err(d1)?;
    let close = async |force| self::call(&call.env, client.as_str(), &account::CloseCall { force }).await;
    if record.is_none() {
        // An earlier deletion may have got no further than this.
        close(true).await.map_err(unavailable)?;
        return Err(Problem::not_found("client"));
    }
    if let account::CloseAnswer::Busy { holds, charges } = close(false).await.map_err(unavailable)? {
        let detail = format!("{holds} requests are open, and {charges} charges on their way to the record");
        return Err(conflict(format!("{detail}: wait for their end, or cancel them")));
    }
    catalog::delete_client(&call.env, client).await.map_err(d1)?;
    // What came in between has opened the account again.
    close(true).await.map_err(unavailable)?;
    alerts::tell_deleted(&call.env, "client", client.as_str()).await.map_err(d1)?;
    Ok(Reply::empty(204))
}

/// `DELETE /admin/templates/{templateId}`. What runs by it goes on: it carries all that it needs.
pub async fn delete_template(call: &Call, template: &TemplateId) -> Result<Reply, Problem> {
    let catalog = catalog::load(&call.env).await.map_err(d1)?;
    catalog.templates.get(template).ok_or_else(|| Problem::not_found("template"))?;
    catalog::delete_template(&call.env, template).await.map_err(d1)?;
    Ok(Reply::empty(204))
}
