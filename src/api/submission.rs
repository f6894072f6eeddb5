//! From a plan to a submission: its cost is held, and its pool is told all that it needs.

use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::off_peak::WaitsFor;
use rm_core::pipeline::Step;
use rm_core::priority::Urgency;
use rm_core::request;
use rm_core::units::{Instant, NanoUsd};
use worker::Env;

use crate::api::admission::{Plan, PlannedStep, new_id};
use crate::api::choosing::provided_again;
use crate::api::demands::with_home;
use crate::api::executions::{hold_refused, unavailable};
use crate::api::{Call, traceparent};
use crate::host::object::call;
use crate::store::catalog::Catalog;
use crate::store::{payloads, tiers};
use crate::wire::account::{AbandonCall, HoldAnswer, HoldCall, HoldChoice, Idempotency};
use crate::wire::execution::{Spec, StepSpec};
use crate::wire::payload::Payload;
use crate::wire::pool::SubmitCall;
use crate::wire::problem::Problem;

/// What a Worker may still do after it has answered is cut off after 30 seconds. A run whose limit is within the wait and
/// this is done in the caller's own Worker; a longer one in a Worker of its own.
const AFTER_ANSWER_MS: i64 = 25_000;

/// A request whose cost is held.
pub struct Held {
    pub id: RequestId,
    pub at: Instant,
    pub slot: bool,
    /// How many the client has, if that is known.
    pub slots: Option<u32>,
    pub tier: rm_core::priority::Tier,
    pub replayed: bool,
    /// Its cost is still held.
    pub open: bool,
    /// When the client's kept results were purged last.
    pub purged_at: Option<Instant>,
}

/// Holds the cost of a plan, or of the first of its cheaper ones that fits: the plan becomes that one. `before` is the id by
/// which it was held for, and refused by its pool.
pub async fn hold(
    call: &Call,
    plan: &mut Plan,
    before: Option<RequestId>,
    idempotency: Option<Idempotency>,
    now: Instant,
) -> Result<Held, Problem> {
    let id = new_id(plan.home(), now)?;
    let mut or = Vec::with_capacity(plan.others.len());
    for one in plan.others.iter().filter(|_| plan.falls_back) {
        or.push(HoldChoice { id: new_id(one.home(), now)?, amount: one.cost });
    }
    let hold = HoldCall {
        id: id.clone(),
        amount: plan.cost,
        kind: request::Kind::Execution,
        or,
        instead_of: before,
        kept_at: None,
        idempotency,
    };
    let answer = self::call(&call.env, plan.client.as_str(), &hold).await.map_err(unavailable)?;
    match answer {
        HoldAnswer::Held { other, at, slot, slots, tier, purged_at } => {
            let choice = |other: &RequestId| hold.or.iter().position(|choice| choice.id == *other);
            if let Some(one) = other.as_ref().and_then(choice).and_then(|index| plan.others.get(index)).cloned() {
                // The budget has nothing better.
                plan.provided = None;
                plan.take(&one);
            }
            tiers::note(&plan.client, tier, now);
            Ok(Held { id: other.unwrap_or(id), at, slot, slots, tier, replayed: false, open: true, purged_at })
        }
        // Its slot may be gone again: its pool asks for one.
        HoldAnswer::Replayed { id, at, mut open, amount, tier } => {
            let home = id.home();
            let is_held = |cost: NanoUsd, of: Option<&PoolId>| amount == Some(cost) && of == home.as_ref();
            if open && !is_held(plan.cost, plan.home()) {
                plan.provided = None;
                match plan.others.iter().find(|one| is_held(one.cost, one.home())).cloned() {
                    Some(one) => {
                        plan.take(&one);
                        plan.provided = provided_again(plan);
                    }
                    // It would not be the same by now: if its pool does not know it, it is not taken in anew.
                    None => open = plan.home() == home.as_ref() && amount.is_some_and(|held| held >= plan.cost),
                }
            }
            Ok(Held { id, at, slot: false, slots: None, tier, replayed: true, open, purged_at: None })
        }
        other => Err(hold_refused(other, now)),
    }
}

/// The submission of a plan whose cost is held, without its input.
pub fn submission(call: &Call, plan: &Plan, held: &Held, wait: i64) -> Result<SubmitCall, Problem> {
    let first = plan.steps.first().ok_or_else(|| Problem::unavailable("a request without a step"))?;
    let step_spec = |step: &PlannedStep| StepSpec {
        name: step.name.clone(),
        worker: step.worker.clone(),
        model: step.model.clone(),
    };
    let spec = Spec {
        client_id: plan.client.clone(),
        template_id: plan.template.clone(),
        worker: Some(first.worker.clone()),
        model: first.model.clone().filter(|_| !plan.is_pipeline),
        steps: if plan.is_pipeline { plan.steps.iter().map(step_spec).collect() } else { Vec::new() },
        parameters: plan.parameters.clone(),
        traceparent: traceparent(&call.request),
        estimated: plan.cost,
        baseline: plan.baseline,
        created_at: held.at,
        compress: plan.allowed.compress,
        same: None,
        keep: None,
        tried: Vec::new(),
    };
    // A repeated request keeps the home that its id names, whatever is scarcest by now.
    let home = held.id.home();
    let mut steps = plan.steps.iter().map(|step| Step {
        worker: Some(step.worker.clone()),
        demands: with_home(step.demands.clone(), home.as_ref()),
        max_attempts: step.max_attempts,
        timeout_ms: step.timeout_ms,
    });
    let first = steps.next().ok_or_else(|| Problem::unavailable("a request without a step"))?;
    Ok(SubmitCall {
        id: held.id.clone(),
        tier: held.tier,
        kind: request::Kind::Execution,
        urgency: plan.urgency,
        held_at: held.at,
        deadline: plan.deadline,
        demands: first.demands,
        max_attempts: first.max_attempts,
        timeout_ms: first.timeout_ms,
        later: steps.collect(),
        has_slot: held.slot,
        slots: held.slots,
        applied: plan.applied.clone(),
        twin: None,
        batch: None,
        waits_for: Some(WaitsFor::Nothing),
        kept: None,
        provided: plan.provided.filter(|_| held.open),
        only_known: !held.open,
        spec,
        input: Payload::Inline(Box::default()),
        run_here: wait > 0 && first.timeout_ms <= wait.saturating_add(AFTER_ANSWER_MS),
        wait_ms: wait,
    })
}

/// The input as it travels: a large one is stored first, and if that fails the hold goes back.
pub async fn stored_input(call: &Call, plan: &Plan, held: &Held) -> Result<Payload, Problem> {
    // One that has ended needs its input no more.
    if !held.open {
        return Ok(Payload::Inline(Box::default()));
    }
    match payloads::store(&call.env, payloads::input_key(&held.id), &plan.input, plan.allowed.compress).await {
        Ok(Some(stored)) => Ok(Payload::Stored(stored)),
        Ok(None) => Ok(Payload::Inline(plan.input.clone())),
        Err(error) => {
            give_up(&call.env, &plan.client, held).await;
            Err(Problem::unavailable(format!("the input could not be stored: {error}")))
        }
    }
}

/// Gives back what was held for a request that was refused. If this fails, the account finds out by itself.
pub async fn give_up(env: &Env, client: &ClientId, held: &Held) {
    if !held.replayed {
        let _later = self::call(env, client.as_str(), &AbandonCall { id: held.id.clone() }).await;
    }
}

/// Which windows a plan waits for: deferred work does unless its caller does not want it, and batches if their caller does;
/// for those of
/// the template, or of its model, if there are any.
pub fn waits_for(catalog: &Catalog, plan: &Plan, now: Instant) -> WaitsFor {
    let waits = match plan.urgency {
        Urgency::Deferred => plan.allowed.off_peak,
        Urgency::Batch => plan.allowed.off_peak_in_batch,
        Urgency::Immediate | Urgency::Fast | Urgency::Normal => false,
    };
    let template = plan.template.as_ref().filter(|id| {
        catalog.templates.get(*id).is_some_and(|template| catalog.template_windows(template, now).is_some())
    });
    match template {
        _ if !waits => WaitsFor::Nothing,
        Some(id) => WaitsFor::Template(id.as_str().to_owned()),
        None => WaitsFor::Pool,
    }
}
