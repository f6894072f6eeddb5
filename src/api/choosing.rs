//! Which of its models a request is executed by. In this order: a kept result of the template's own, which is free; the cheapest
//! one, if it is to be that; the one whose pools have the tokens; and what is left of the budget.

use rm_core::optimizer::{Level, waits_too_long};
use rm_core::priority::Tier;
use rm_core::units::{Instant, NanoUsd};

use crate::api::Call;
use crate::api::admission::{Plan, PlannedStep};
use crate::api::downgrade::{ByModel, cheapest};
use crate::api::foretelling::{foretell, foretold};
use crate::api::kept::{self, CacheControl};
use crate::store::catalog::Catalog;
use crate::store::results::KeptResult;
use crate::store::tiers;
use crate::wire::pool::{ForetellAnswer, Provided, SubmitRefusal};

/// So many models of a chain are asked for their waits at most: each is a call.
const ASKED_MAX: usize = 3;

/// Goes on with the cheapest model, if it is to be that; whether that is another one.
pub fn take_cheapest(plan: &mut Plan) -> bool {
    let is_aggressive = plan.allowed.downgrade == Some(Level::Aggressive);
    let cheapest = cheapest(&plan.others, plan.cost).filter(|_| is_aggressive).cloned();
    if let Some(cheapest) = &cheapest {
        plan.take(cheapest);
    }
    cheapest.is_some()
}

/// Goes on with the model whose pools have the tokens, as these are now; whether that is another one.
pub async fn reconsider(call: &Call, plan: &mut Plan, now: Instant) -> bool {
    if plan.others.is_empty() {
        return false;
    }
    let Some(tier) = tiers::of(&call.env, &plan.client, now).await else { return false };
    if plan.falls_back {
        return sooner(call, plan, tier, None, now).await;
    }
    if can_do(call, plan, tier, None, now).await {
        plan.provided = Some(Provided::InTime);
        return false;
    }
    plan.pass_over();
    next_that_can(call, plan, tier, now).await
}

/// For which wait a request is taken in that was sent before by another model than it would be sent by now.
pub fn provided_again(plan: &Plan) -> Option<Provided> {
    match plan.allowed.downgrade? {
        Level::Aggressive => Some(Provided::InTime),
        _ => plan.instead_of.is_none().then_some(Provided::NotTooLongBeside { wait_ms: 0 }),
    }
}

/// Goes on after its pool has refused a plan that was provided for another wait: with another model, or with the same one for
/// any wait; `false` if the refusal stands.
pub async fn go_on(call: &Call, plan: &mut Plan, refusal: SubmitRefusal, now: Instant) -> bool {
    let told = match refusal {
        SubmitRefusal::TooLong { wait_ms } => Some(wait_ms),
        SubmitRefusal::NotNow { .. }
        | SubmitRefusal::QueueFull { .. }
        | SubmitRefusal::Never
        | SubmitRefusal::UnknownPool => None,
        SubmitRefusal::Stale => return false,
    };
    let is_kept = told.is_some();
    let Some(provided) = plan.provided.take() else { return is_kept };
    let Some(tier) = tiers::of(&call.env, &plan.client, now).await else { return is_kept };
    // If its pool has the tokens in time, its client's slots are what is taken: they are the same for each model.
    if matches!(refusal, SubmitRefusal::NotNow { .. }) && can_do(call, plan, tier, None, now).await {
        return false;
    }
    plan.pass_over();
    let is_other = match provided {
        Provided::InTime => next_that_can(call, plan, tier, now).await,
        Provided::NotTooLongBeside { .. } => sooner(call, plan, tier, Some(told.flatten()), now).await,
        Provided::MuchLessThan { wait_ms } => {
            sooner(call, plan, tier, Some(wait_ms), now).await || back_to_its_own(plan)
        }
    };
    is_other || is_kept
}

fn back_to_its_own(plan: &mut Plan) -> bool {
    let own = plan.others.iter().find(|other| other.instead_of.is_none()).cloned();
    if let Some(own) = &own {
        plan.take_for_its_pools(own);
    }
    own.is_some()
}

/// Goes on with the model that a request would be executed by if it were sent now, with so much of its budget left; with the
/// kept result that it would have.
pub async fn take_as_executed(
    call: &Call,
    catalog: &Catalog,
    plan: &mut Plan,
    (control, remaining): (CacheControl, NanoUsd),
    now: Instant,
) -> Option<KeptResult> {
    let own = kept::usable(call, catalog, plan, control, now).await;
    if own.is_some() {
        return own;
    }
    if take_cheapest(plan)
        && let Some(kept) = kept::usable(call, catalog, plan, control, now).await
    {
        return Some(kept);
    }
    if reconsider(call, plan, now).await
        && let Some(kept) = kept::usable(call, catalog, plan, control, now).await
    {
        return Some(kept);
    }
    if plan.cost <= remaining {
        return None;
    }
    let fitting = plan.others.iter().find(|other| plan.falls_back && other.cost <= remaining).cloned();
    if let Some(other) = fitting {
        plan.take(&other);
        return kept::usable(call, catalog, plan, control, now).await;
    }
    // What cannot be run may be there already.
    let present = plan.as_it_is();
    for other in plan.others.clone() {
        plan.take(&other);
        if let Some(kept) = kept::usable(call, catalog, plan, control, now).await {
            return Some(kept);
        }
    }
    if let Some(present) = present {
        plan.take(&present);
    }
    None
}

/// Goes on with a cheaper model if a request would wait much less for it than for its own, and says for which wait it stays
/// with the one that it has; whether it is another one. `told` is how long its own would keep it, if that is known.
async fn sooner(call: &Call, plan: &mut Plan, tier: Tier, told: Option<Option<i64>>, now: Instant) -> bool {
    let wait_ms = match (told, plan.steps.first()) {
        (Some(wait_ms), _) => wait_ms,
        // A pool that would not take it in keeps it waiting for ever.
        (None, Some(first)) => foretell(call, plan, tier, first, now).await.unwrap_or(None),
        (None, None) => return false,
    };
    if told.is_none() && !waits_too_long(wait_ms, Some(0)) {
        plan.provided = Some(Provided::NotTooLongBeside { wait_ms: 0 });
        return false;
    }
    let cheaper = plan.untried().filter(|other| other.instead_of.is_some());
    let cheaper: Vec<ByModel> = cheaper.take(ASKED_MAX).cloned().collect();
    let mut least: Option<i64> = None;
    for other in &cheaper {
        // One that cannot be asked, or refuses, is none.
        let Some(other_ms) = foretell(call, plan, tier, &other.step, now).await else { continue };
        if waits_too_long(wait_ms, other_ms) {
            plan.take_for_its_pools(other);
            plan.provided = Some(Provided::MuchLessThan { wait_ms });
            return true;
        }
        least = [least, other_ms].into_iter().flatten().min();
    }
    // Who was refused for its wait before, and has nothing better, waits.
    plan.provided = least.filter(|_| told.is_none()).map(|wait_ms| Provided::NotTooLongBeside { wait_ms });
    false
}

/// Goes on with the next model that can do instead of one whose pool would refuse it, or keep it beyond its deadline: the
/// cheapest of the others, the template's own among them; whether there is one.
async fn next_that_can(call: &Call, plan: &mut Plan, tier: Tier, now: Instant) -> bool {
    let mut others: Vec<ByModel> = plan.untried().cloned().collect();
    others.sort_by_key(|one| one.cost);
    for other in others.iter().take(ASKED_MAX) {
        if can_do(call, plan, tier, Some(&other.step), now).await {
            plan.take_for_its_pools(other);
            let has_more = plan.untried().next().is_some();
            plan.provided = has_more.then_some(Provided::InTime);
            return true;
        }
        plan.passed_over.push(other.step.model.clone());
    }
    false
}

/// Whether it would be taken in and start in time, by this or by the model that it has.
async fn can_do(call: &Call, plan: &Plan, tier: Tier, step: Option<&PlannedStep>, now: Instant) -> bool {
    let Some(step) = step.or_else(|| plan.steps.first()) else { return true };
    match foretold(call, plan, tier, (Some(&step.worker), step, step.demands.clone()), now).await {
        Some(ForetellAnswer::Refused | ForetellAnswer::TooLate { .. }) => false,
        Some(ForetellAnswer::Wait { ms }) => Provided::InTime.allows(ms, plan.deadline, now),
        // One that cannot be asked is no reason.
        None => true,
    }
}
