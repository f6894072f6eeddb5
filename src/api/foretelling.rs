//! What pools foretell of a request before it is sent to one of them.

use rm_core::id::{PoolId, WorkerBinding};
use rm_core::priority::Tier;
use rm_core::request::Demand;
use rm_core::units::Instant;

use crate::api::Call;
use crate::api::admission::{Plan, PlannedStep, new_id};
use crate::wire::pool::{ForetellAnswer, ForetellCall};

/// How long a request would wait in its home: `Some(None)` if that is not a matter of time; `None` if it would be refused.
pub async fn foretell(call: &Call, plan: &Plan, tier: Tier, step: &PlannedStep, now: Instant) -> Option<Option<i64>> {
    match foretold(call, plan, tier, (Some(&step.worker), step, step.demands.clone()), now).await? {
        ForetellAnswer::Wait { ms } => Some(ms),
        ForetellAnswer::Refused | ForetellAnswer::TooLate { .. } => None,
    }
}

/// What the first pool of these demands foretells.
async fn foretold(
    call: &Call,
    plan: &Plan,
    tier: Tier,
    (worker, step, demands): (Option<&WorkerBinding>, &PlannedStep, Vec<Demand>),
    now: Instant,
) -> Option<ForetellAnswer> {
    let home = demands.first()?.pool.clone();
    let foretell = ForetellCall {
        id: new_id(Some(&home), now).ok()?,
        client: plan.client.clone(),
        tier,
        urgency: plan.urgency,
        deadline: plan.deadline,
        demands,
        worker: worker.cloned(),
        work: plan.template.as_ref().map(|template| template.as_str().to_owned()),
        timeout_ms: step.timeout_ms,
    };
    call.pool(&home, &foretell, 0).await.ok()
}

/// Whether another pool than its home would keep a request for longer than its lane allows: which one, and when to come
/// again. Its home says so of itself. One that cannot be asked is no reason.
pub async fn kept_too_long_elsewhere(call: &Call, plan: &Plan, tier: Tier, now: Instant) -> Option<(PoolId, Instant)> {
    let first = plan.steps.first()?;
    for demand in first.demands.iter().skip(1).filter(|demand| !demand.amount.is_zero()) {
        // Whether its worker fails is for its home to know.
        let answer = foretold(call, plan, tier, (None, first, vec![demand.clone()]), now).await;
        if let Some(ForetellAnswer::TooLate { retry_at }) = answer {
            return Some((demand.pool.clone(), retry_at));
        }
    }
    None
}
