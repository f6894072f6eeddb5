//! From a body to a request that can be held for: estimate, price, home pool. It takes nothing yet.

use std::collections::BTreeSet;

use rm_core::estimate;
use rm_core::id::{ClientId, PoolId, RequestId, TemplateId, WorkerBinding};
use rm_core::priority::Urgency;
use rm_core::request::Demand;
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde::Deserialize;
use serde_json::value::RawValue;
use worker::Env;

use crate::dispatch::worker_binding;
use crate::host::random;
use crate::store::catalog::Catalog;
use crate::wire::api::{ExecuteBody, ResourceAmount};
use crate::wire::problem::{Code, FieldError, Problem};

/// The longest limit of an attempt: ten minutes.
pub const TIMEOUT_MAX_MS: i64 = 600_000;
/// The limit of an attempt when nobody sets one.
const TIMEOUT_DEFAULT_MS: i64 = 30_000;
/// How often a request is tried when its template does not say.
const ATTEMPTS_DEFAULT: u32 = 3;
/// The most pools that one request may need.
pub const POOLS_MAX: usize = 8;
/// The longest input: it is kept with the request until it ends.
pub const INPUT_MAX_BYTES: usize = 1_048_576;

/// A request that may be held for.
pub struct Plan {
    pub client: ClientId,
    pub template: Option<TemplateId>,
    pub worker: WorkerBinding,
    pub model: Option<String>,
    pub demands: Vec<Demand>,
    pub cost: NanoUsd,
    pub urgency: Urgency,
    pub deadline: Option<Instant>,
    pub timeout_ms: i64,
    pub max_attempts: u32,
    pub input: Box<RawValue>,
    pub parameters: Box<RawValue>,
}

/// Makes the plan of a request.
pub fn plan(env: &Env, catalog: &Catalog, body: ExecuteBody, now: Instant) -> Result<Plan, Problem> {
    let raw = |text: &str| RawValue::from_string(text.into()).map_err(|error| Problem::unavailable(error.to_string()));
    let input = body.input.map_or_else(|| raw("null"), Ok)?;
    if input.get().len() > INPUT_MAX_BYTES {
        return Err(Problem::new(Code::PayloadTooLarge, format!("/input has more than {INPUT_MAX_BYTES} bytes")));
    }
    let parameters = body.parameters.map_or_else(|| raw("{}"), Ok)?;
    let output_tokens = output_limit(&parameters)?;
    if let Some(deadline) = body.deadline
        && deadline <= now
    {
        return Err(Problem::field("/deadline", "is in the past"));
    }
    let template = match &body.template_id {
        Some(id) => Some(catalog.templates.get(id).ok_or_else(|| Problem::not_found("template"))?),
        None => None,
    };
    let worker = match (template, body.worker) {
        (Some(_), Some(_)) => return Err(Problem::field("/worker", "the template names the worker: leave this out")),
        (Some(template), None) => template.worker.clone(),
        (None, Some(worker)) => worker,
        (None, None) => return Err(Problem::field("/templateId", "give a template, or a worker and its resources")),
    };
    if worker_binding(env, worker.as_str()).is_none() && template.is_none() {
        return Err(Problem::field("/worker", format!("there is no service binding `{worker}`")));
    }
    let timeout_ms = body.timeout_ms.or(template.and_then(|t| t.timeout_ms)).unwrap_or(TIMEOUT_DEFAULT_MS);
    if !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms) {
        return Err(Problem::field("/timeoutMs", format!("must be from 1 to {TIMEOUT_MAX_MS}")));
    }
    let demands = match (&body.resources, template) {
        (Some(resources), _) => demands_of(catalog, resources)?,
        (None, Some(template)) => {
            let bytes = u64::try_from(input.get().len()).unwrap_or(u64::MAX);
            let estimated =
                template.resources.iter().map(|rate| (&rate.pool, estimate::amount(rate, bytes, output_tokens)));
            price(catalog, estimated)?
        }
        (None, None) => return Err(Problem::field("/resources", "must be given without a template")),
    };
    Ok(Plan {
        client: body.client_id,
        cost: cost_of(&demands)?,
        demands: home_first(catalog, demands),
        template: body.template_id,
        worker,
        model: template.and_then(|template| template.model.clone()),
        urgency: body.urgency.or(template.and_then(|t| t.default_urgency)).unwrap_or(Urgency::Normal),
        deadline: body.deadline,
        timeout_ms,
        max_attempts: template.and_then(|t| t.max_attempts).unwrap_or(ATTEMPTS_DEFAULT),
        input,
        parameters,
    })
}

/// What the parameters say of the output's length. Other parameters are the worker's business.
fn output_limit(parameters: &RawValue) -> Result<Option<u64>, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Known {
        #[serde(default)]
        max_output_tokens: Option<u64>,
    }
    let known: Known = crate::api::body::parse(parameters.get()).map_err(|problem| {
        let pointer = problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default();
        Problem::field(format!("/parameters{pointer}"), "must be an object; `maxOutputTokens` in it a whole number")
    })?;
    Ok(known.max_output_tokens)
}

/// The demands of a list of amounts in a body.
pub fn demands_of(catalog: &Catalog, resources: &[ResourceAmount]) -> Result<Vec<Demand>, Problem> {
    check_amounts(resources, "/resources", 1)?;
    if resources.is_empty() {
        return Err(Problem::field("/resources", "must name at least one pool"));
    }
    let amounts =
        resources.iter().map(|resource| (&resource.pool, Tokens::from_units(resource.amount).unwrap_or(Tokens::MAX)));
    price(catalog, amounts)
}

/// Checks that amounts are in range, and no pool is named twice.
pub fn check_amounts(resources: &[ResourceAmount], pointer: &str, least: u64) -> Result<(), Problem> {
    if resources.len() > POOLS_MAX {
        return Err(Problem::field(pointer, format!("must name at most {POOLS_MAX} pools")));
    }
    let mut seen = BTreeSet::new();
    for (index, resource) in resources.iter().enumerate() {
        if !seen.insert(&resource.pool) {
            return Err(Problem::field(format!("{pointer}/{index}/pool"), "is named twice"));
        }
        let valid = resource.amount >= least && Tokens::from_units(resource.amount).is_some();
        if !valid {
            let most = Tokens::MAX.units();
            return Err(Problem::field(format!("{pointer}/{index}/amount"), format!("must be from {least} to {most}")));
        }
    }
    Ok(())
}

/// Prices amounts. What a pool can never hold, or has no price, is refused.
fn price<'a>(catalog: &Catalog, amounts: impl Iterator<Item = (&'a PoolId, Tokens)>) -> Result<Vec<Demand>, Problem> {
    let mut demands = Vec::new();
    for (index, (pool, amount)) in amounts.enumerate() {
        let pointer = format!("/resources/{index}");
        let Some(record) = catalog.pools.get(pool) else {
            return Err(Problem::field(
                format!("{pointer}/pool"),
                format!("there is no pool `{pool}`, so no price for it"),
            ));
        };
        if amount > record.body.capacity {
            let detail =
                format!("`{pool}` can hold {} at most; {} are asked for", record.body.capacity.units(), amount.units());
            let mut problem = Problem::new(Code::Unsatisfiable, detail.clone());
            problem.errors.push(FieldError { pointer: format!("{pointer}/amount"), detail });
            return Err(problem);
        }
        demands.push(Demand { pool: pool.clone(), amount, unit_price: record.body.unit_price_usd });
    }
    if demands.is_empty() {
        return Err(Problem::new(Code::Unsatisfiable, "the template needs no pool: nothing can be priced"));
    }
    Ok(demands)
}

/// What demands cost in all.
pub fn cost_of(demands: &[Demand]) -> Result<NanoUsd, Problem> {
    let mut total = NanoUsd::ZERO;
    for demand in demands {
        let cost = demand.unit_price.times(demand.amount).and_then(|cost| total.checked_add(cost));
        total = cost.ok_or_else(|| Problem::new(Code::Unsatisfiable, "its price is beyond what can be counted"))?;
    }
    Ok(total)
}

/// Puts the home first: the scarcest of the pools, whose refill takes longest to make up for this request.
pub fn home_first(catalog: &Catalog, mut demands: Vec<Demand>) -> Vec<Demand> {
    let refill = |pool: &PoolId| {
        let record = catalog.pools.get(pool);
        i128::from(record.map_or(0, |record| record.body.refill_per_second.micros()))
    };
    let mut home = 0;
    for index in 1..demands.len() {
        let (Some(best), Some(other)) = (demands.get(home), demands.get(index)) else { break };
        let time_of_other = i128::from(other.amount.micros()).saturating_mul(refill(&best.pool));
        let time_of_best = i128::from(best.amount.micros()).saturating_mul(refill(&other.pool));
        if time_of_other > time_of_best {
            home = index;
        }
    }
    demands.swap(0, home);
    demands
}

/// A new request's id.
pub fn new_id(demands: &[Demand], now: Instant) -> Result<RequestId, Problem> {
    let random = random::bytes::<10>().ok_or_else(|| Problem::unavailable("the runtime has no randomness"))?;
    let home = demands.first().ok_or_else(|| Problem::unavailable("a request without a pool"))?;
    Ok(RequestId::new(now, random, &home.pool))
}

/// The fingerprint of a body: FNV-1a in 128 bits. It tells one body of a caller from another; nobody gains by a collision.
pub fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}
