//! From a body to a request that can be held for: estimate, price, home pool. It takes nothing yet.

use rm_core::id::{ClientId, PoolId, RequestId, TemplateId, WorkerBinding};
use rm_core::optimizer::{Allowed, Applied, Level, Strategy};
use rm_core::priority::Urgency;
use rm_core::request::Demand;
use rm_core::units::{Instant, NanoUsd};
use serde_json::value::RawValue;
use worker::Env;

use crate::api::demands::{cost_of, of_amounts, of_template, scarcest, with_home};
use crate::api::downgrade::{self, ByModel};
use crate::dispatch::worker_binding;
use crate::host::random;
use crate::store::catalog::Catalog;
use crate::wire::admin::{StepRule, TemplateBody};
use crate::wire::api::{ExecuteBody, Parameters, ResourceAmount};
use crate::wire::pool::Provided;
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
    /// What is run, one after the other: at least one.
    pub steps: Vec<PlannedStep>,
    /// Whether the template has steps, be it only one.
    pub is_pipeline: bool,
    /// What is held for it.
    pub cost: NanoUsd,
    /// What would be held without any strategy.
    pub baseline: NanoUsd,
    /// The model that its own is a cheaper one for.
    pub instead_of: Option<String>,
    /// What makes it cheaper.
    pub applied: Vec<Applied>,
    /// What may be done to make it cheaper.
    pub allowed: Allowed,
    /// The same by other models: cheaper ones in the order of preference, or the one that this is instead of.
    pub others: Vec<ByModel>,
    /// Whether one of these is held for if this does not fit in the budget.
    pub falls_back: bool,
    /// For which wait its pool takes it in: there is another model for it.
    pub provided: Option<Provided>,
    /// The models whose pools have refused it, or cannot do.
    pub passed_over: Vec<Option<String>>,
    /// How sure the demands are, in thousandths.
    pub confidence_permille: u32,
    pub urgency: Urgency,
    pub deadline: Option<Instant>,
    pub input: Box<RawValue>,
    pub parameters: Box<RawValue>,
    /// The amounts that the caller named.
    pub resources: Option<Vec<ResourceAmount>>,
}

/// One step of a request, or all of one without steps.
#[derive(Clone)]
pub struct PlannedStep {
    pub name: String,
    pub worker: WorkerBinding,
    pub model: Option<String>,
    /// The home pool first, be it that the step needs nothing of it.
    pub demands: Vec<Demand>,
    pub timeout_ms: i64,
    pub max_attempts: u32,
}

impl Plan {
    /// What all steps need.
    pub fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.steps.iter().flat_map(|step| &step.demands).filter(|demand| !demand.amount.is_zero())
    }

    /// What it is by the model that it has.
    pub fn as_it_is(&self) -> Option<ByModel> {
        let step = self.steps.first().cloned();
        step.map(|step| ByModel {
            instead_of: self.instead_of.clone(),
            step,
            cost: self.cost,
            baseline: self.baseline,
            confidence_permille: self.confidence_permille,
        })
    }

    /// Goes on with another model, and with that alone.
    pub fn take(&mut self, other: &ByModel) {
        self.others.retain(|one| one.step.model != other.step.model);
        let present = self.as_it_is();
        self.others.extend(present);
        self.instead_of.clone_from(&other.instead_of);
        // The dear model is taken where the cheap ones cannot do: for want of budget they still may.
        self.falls_back = other.instead_of.is_none();
        self.applied = other.applied().into_iter().collect();
        self.cost = other.cost;
        self.baseline = other.baseline;
        self.confidence_permille = other.confidence_permille;
        self.steps = vec![other.step.clone()];
    }

    /// Goes on with a model for what its pools have: if that does not fit in the budget, one of the others still may.
    pub fn take_for_its_pools(&mut self, other: &ByModel) {
        let falls_back = self.falls_back;
        self.take(other);
        self.falls_back |= falls_back;
    }

    /// It is not to be done by the model that it has, if another one can.
    pub fn pass_over(&mut self) {
        self.passed_over.extend(self.steps.first().map(|step| step.model.clone()));
    }

    /// The other models that may still be gone on with.
    pub fn untried(&self) -> impl Iterator<Item = &ByModel> {
        self.others.iter().filter(|other| !self.passed_over.contains(&other.step.model))
    }

    /// The strategies that it is made for already: recommending them would change nothing.
    pub fn tried(&self, may_keep: bool, is_combined: bool) -> Vec<Strategy> {
        let all = [
            (Strategy::ModelDowngrade, self.allowed.downgrade == Some(Level::Aggressive)),
            (Strategy::RequestBatching, is_combined),
            (Strategy::Cache, may_keep),
            (Strategy::OffPeak, self.allowed.off_peak_in_batch),
        ];
        all.into_iter().filter(|(_, tried)| *tried).map(|(strategy, _)| strategy).collect()
    }

    /// The pool that keeps the request: the first of every step.
    pub fn home(&self) -> Option<&PoolId> {
        self.steps.first()?.demands.first().map(|demand| &demand.pool)
    }
}

/// Makes the plan of a request, by its template's own model.
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
    if body.timeout_ms.is_some_and(|timeout_ms| !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms)) {
        return Err(Problem::field("/timeoutMs", format!("must be from 1 to {TIMEOUT_MAX_MS}")));
    }
    let template = match &body.template_id {
        Some(id) => Some((id, catalog.templates.get(id).ok_or_else(|| Problem::not_found("template"))?)),
        None => None,
    };
    let rules = match (template, body.worker) {
        (Some(_), Some(_)) => return Err(Problem::field("/worker", "the template names the worker: leave this out")),
        (Some((_, template)), None) => template.all_steps(),
        (None, Some(worker)) => vec![without_template(env, worker)?],
        (None, None) => return Err(Problem::field("/templateId", "give a template, or a worker and its resources")),
    };
    let is_pipeline = template.is_some_and(|(_, template)| !template.steps.is_empty());
    if is_pipeline && body.resources.is_some() {
        return Err(Problem::field("/resources", "each step of the template names its own: leave this out"));
    }
    let general = template.map(|(_, template)| template);
    // What a later step is handed is not known yet; its input is taken to be as long as the first one's.
    let input_bytes = u64::try_from(input.get().len()).unwrap_or(u64::MAX);
    let asked = Asked {
        catalog,
        template: template.map(|(id, _)| id),
        general,
        resources: body.resources.as_deref(),
        input_bytes,
        output_tokens,
        timeout_ms: body.timeout_ms,
        now,
    };
    let mut confidence_permille = 1_000;
    let mut steps = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let (step, sure_permille) = asked.step(index, rule.clone())?;
        confidence_permille = confidence_permille.min(sure_permille);
        steps.push(step);
    }
    let allowed = body.optimization.unwrap_or_default().allowed();
    let mut others = match (allowed.downgrade, rules.as_slice(), steps.as_slice()) {
        (Some(_), [rule], [step]) if !is_pipeline => downgrade::alternatives(&asked, rule, step),
        _ => Vec::new(),
    };
    if let Some(template) = general.filter(|_| allowed.downgrade == Some(Level::Aggressive)) {
        downgrade::keep_to_floor(&mut others, template);
    }
    let cost = cost_of(steps.iter().flat_map(|step| &step.demands))?;
    let home = scarcest(catalog, steps.iter().flat_map(|step| &step.demands));
    for step in &mut steps {
        step.demands = with_home(std::mem::take(&mut step.demands), home.as_ref());
    }
    Ok(Plan {
        client: body.client_id,
        template: body.template_id.clone(),
        steps,
        is_pipeline,
        cost,
        baseline: cost,
        instead_of: None,
        applied: Vec::new(),
        allowed,
        falls_back: true,
        provided: None,
        passed_over: Vec::new(),
        others,
        confidence_permille,
        urgency: body.urgency.or(general.and_then(|template| template.default_urgency)).unwrap_or(Urgency::Normal),
        deadline: body.deadline,
        input,
        parameters,
        resources: body.resources,
    })
}

/// What a step is planned by.
pub struct Asked<'a> {
    pub catalog: &'a Catalog,
    pub template: Option<&'a TemplateId>,
    pub general: Option<&'a TemplateBody>,
    /// The amounts that the caller named.
    pub resources: Option<&'a [ResourceAmount]>,
    pub input_bytes: u64,
    pub output_tokens: Option<u64>,
    pub timeout_ms: Option<i64>,
    /// When it is planned.
    pub now: Instant,
}

impl Asked<'_> {
    /// Plans a step; with how sure its demands are.
    pub fn step(&self, index: usize, rule: StepRule) -> Result<(PlannedStep, u32), Problem> {
        let (demands, sure_permille) = match (self.resources, self.template) {
            // Who names the amounts is sure of them.
            (Some(resources), _) => (of_amounts(self.catalog, resources, rule.model.as_deref(), self.now)?, 1_000),
            (None, Some(id)) => {
                let estimated = of_template(self.catalog, (id, &rule), self.input_bytes, self.output_tokens, self.now)?;
                (estimated.demands, estimated.confidence_permille)
            }
            (None, None) => return Err(Problem::field("/resources", "must be given without a template")),
        };
        let number = index.saturating_add(1);
        let general = self.general;
        let step = PlannedStep {
            name: rule.name.unwrap_or_else(|| number.to_string()),
            worker: rule.worker,
            model: rule.model,
            demands,
            timeout_ms: self
                .timeout_ms
                .or(rule.timeout_ms)
                .or(general.and_then(|template| template.timeout_ms))
                .unwrap_or(TIMEOUT_DEFAULT_MS),
            max_attempts: rule
                .max_attempts
                .or(general.and_then(|template| template.max_attempts))
                .unwrap_or(ATTEMPTS_DEFAULT),
        };
        Ok((step, sure_permille))
    }
}

/// The one step of a request that names its worker itself.
fn without_template(env: &Env, worker: WorkerBinding) -> Result<StepRule, Problem> {
    if worker_binding(env, worker.as_str()).is_none() {
        return Err(Problem::field("/worker", format!("there is no service binding `{worker}`")));
    }
    Ok(StepRule { name: None, worker, model: None, resources: Vec::new(), max_attempts: None, timeout_ms: None })
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
pub fn new_id(home: Option<&PoolId>, now: Instant) -> Result<RequestId, Problem> {
    let random = random::bytes::<10>().ok_or_else(|| Problem::unavailable("the runtime has no randomness"))?;
    let home = home.ok_or_else(|| Problem::unavailable("a request without a pool"))?;
    Ok(RequestId::new(now, random, home))
}

/// The fingerprint of a body: FNV-1a in 128 bits. It tells one body of a caller from another; nobody gains by a collision.
pub fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}
