//! From a body to a request that can be held for: estimate, price, home pool. It takes nothing yet.

use rm_core::id::{ClientId, RequestId, TemplateId, WorkerBinding};
use rm_core::priority::Urgency;
use rm_core::request::Demand;
use rm_core::units::{Instant, NanoUsd};
use serde_json::value::RawValue;
use worker::Env;

use crate::api::demands::{cost_of, home_first, of_amounts, of_template};
use crate::dispatch::worker_binding;
use crate::host::random;
use crate::store::catalog::Catalog;
use crate::wire::api::{ExecuteBody, Parameters};
use crate::wire::problem::Problem;

/// The longest limit of an attempt: ten minutes.
pub const TIMEOUT_MAX_MS: i64 = 600_000;
/// The limit of an attempt when nobody sets one.
const TIMEOUT_DEFAULT_MS: i64 = 30_000;
/// How often a request is tried when its template does not say.
const ATTEMPTS_DEFAULT: u32 = 3;
/// The longest parameters: they are kept with the request until it ends. What is long belongs into the input.
const PARAMETERS_MAX_BYTES: usize = 65_536;

/// A request that may be held for.
pub struct Plan {
    pub client: ClientId,
    pub template: Option<TemplateId>,
    pub worker: WorkerBinding,
    pub model: Option<String>,
    pub demands: Vec<Demand>,
    pub cost: NanoUsd,
    /// How sure the demands are, in thousandths.
    pub confidence_permille: u32,
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
    let parameters = body.parameters.map_or_else(|| raw("{}"), Ok)?;
    if parameters.get().len() > PARAMETERS_MAX_BYTES {
        return Err(Problem::field("/parameters", format!("must have at most {PARAMETERS_MAX_BYTES} bytes")));
    }
    let output_tokens = output_limit(&parameters)?;
    if let Some(deadline) = body.deadline
        && deadline <= now
    {
        return Err(Problem::field("/deadline", "is in the past"));
    }
    let template = match &body.template_id {
        Some(id) => Some((id, catalog.templates.get(id).ok_or_else(|| Problem::not_found("template"))?)),
        None => None,
    };
    let worker = match (template, body.worker) {
        (Some(_), Some(_)) => return Err(Problem::field("/worker", "the template names the worker: leave this out")),
        (Some((_, template)), None) => template.worker.clone(),
        (None, Some(worker)) => worker,
        (None, None) => return Err(Problem::field("/templateId", "give a template, or a worker and its resources")),
    };
    if worker_binding(env, worker.as_str()).is_none() && template.is_none() {
        return Err(Problem::field("/worker", format!("there is no service binding `{worker}`")));
    }
    let rules = template.map(|(_, template)| template);
    let timeout_ms = body.timeout_ms.or(rules.and_then(|rules| rules.timeout_ms)).unwrap_or(TIMEOUT_DEFAULT_MS);
    if !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms) {
        return Err(Problem::field("/timeoutMs", format!("must be from 1 to {TIMEOUT_MAX_MS}")));
    }
    let model = rules.and_then(|rules| rules.model.clone());
    let (demands, confidence_permille) = match (&body.resources, template) {
        // Who names the amounts is sure of them.
        (Some(resources), _) => (of_amounts(catalog, resources, model.as_deref())?, 1_000),
        (None, Some(template)) => {
            let bytes = u64::try_from(input.get().len()).unwrap_or(u64::MAX);
            let estimated = of_template(catalog, template, bytes, output_tokens)?;
            (estimated.demands, estimated.confidence_permille)
        }
        (None, None) => return Err(Problem::field("/resources", "must be given without a template")),
    };
    Ok(Plan {
        cost: cost_of(&demands)?,
        demands: home_first(catalog, demands),
        confidence_permille,
        worker,
        model,
        urgency: body.urgency.or(rules.and_then(|rules| rules.default_urgency)).unwrap_or(Urgency::Normal),
        max_attempts: rules.and_then(|rules| rules.max_attempts).unwrap_or(ATTEMPTS_DEFAULT),
        client: body.client_id,
        template: body.template_id,
        deadline: body.deadline,
        timeout_ms,
        input,
        parameters,
    })
}

/// What the parameters say of the output's length. Other parameters are the worker's business.
fn output_limit(parameters: &RawValue) -> Result<Option<u64>, Problem> {
    let known: Parameters = crate::api::body::parse(parameters.get()).map_err(|problem| {
        let pointer = problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default();
        Problem::field(format!("/parameters{pointer}"), "must be an object; `maxOutputTokens` in it a whole number")
    })?;
    Ok(known.max_output_tokens)
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
