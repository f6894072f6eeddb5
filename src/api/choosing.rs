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
use crate::wire::pool::ForetellAnswer;

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

/// The model that a request goes on with instead, as its pools are now; `None` if it stays with the one that it has.
pub async fn reconsidered(call: &Call, plan: &Plan, now: Instant) -> Option<ByModel> {
    if plan.others.is_empty() {
        return None;
    }
    let tier = tiers::of(&call.env, &plan.client, now).await?;
    match plan.falls_back {
        true => sooner(call, plan, tier, now).await,
        false => one_that_can(call, plan, tier, now).await,
    }
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
    if let Some(other) = reconsidered(call, plan, now).await {
        plan.take_for_its_pools(&other);
        if let Some(kept) = kept::usable(call, catalog, plan, control, now).await {
            return Some(kept);
        }
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

/// The cheaper model that a request goes on with because it would wait much less for it; `None` if it need not.
async fn sooner(call: &Call, plan: &Plan, tier: Tier, now: Instant) -> Option<ByModel> {
    let first = plan.steps.first()?;
    // A pool that would not take it in keeps it waiting for ever.
    let wait_ms = foretell(call, plan, tier, first, now).await.unwrap_or(None);
    if !waits_too_long(wait_ms, Some(0)) {
        return None;
    }
    for cheaper in plan.others.iter().take(ASKED_MAX) {
        // One that cannot be asked, or refuses, is none.
        if let Some(other_ms) = foretell(call, plan, tier, &cheaper.step, now).await
            && waits_too_long(wait_ms, other_ms)
        {
            return Some(cheaper.clone());
        }
    }
    None
}

/// What an aggressive request goes on with instead of the cheapest model, whose pool would refuse it, or keep it beyond its
/// deadline: the cheapest that can do, the template's own among them. `None` if that one can, or none does.
async fn one_that_can(call: &Call, plan: &Plan, tier: Tier, now: Instant) -> Option<ByModel> {
    let first = plan.steps.first()?;
    if can_do(call, plan, tier, first, now).await {
        return None;
    }
    let mut others: Vec<&ByModel> = plan.others.iter().collect();
    others.sort_by_key(|one| one.cost);
    for other in others.into_iter().take(ASKED_MAX) {
        if can_do(call, plan, tier, &other.step, now).await {
            return Some(other.clone());
        }
    }
    None
}

async fn can_do(call: &Call, plan: &Plan, tier: Tier, step: &PlannedStep, now: Instant) -> bool {
    match foretold(call, plan, tier, (Some(&step.worker), step, step.demands.clone()), now).await {
        Some(ForetellAnswer::Refused | ForetellAnswer::TooLate { .. }) => false,
        Some(ForetellAnswer::Wait { ms }) => {
            plan.deadline.is_none_or(|deadline| ms.is_some_and(|wait_ms| now.plus(wait_ms) < deadline))
        }
        // One that cannot be asked is no reason.
        None => true,
    }
}
