//! What pools foretell of a request before it is sent to one of them.

use futures_util::future::join_all;
use rm_core::id::WorkerBinding;
use rm_core::priority::Tier;
use rm_core::request::Demand;
use rm_core::units::Instant;

use crate::api::Call;
use crate::api::admission::{Plan, PlannedStep, new_id};
use crate::store::catalog::Catalog;
use crate::store::tiers;
use crate::wire::pool::{ForetellAnswer, ForetellCall};
use crate::wire::problem::{Code, Problem};

/// How long a request would wait in its home: `Some(None)` if that is not a matter of time; `None` if it would be refused.
pub async fn foretell(call: &Call, plan: &Plan, tier: Tier, step: &PlannedStep, now: Instant) -> Option<Option<i64>> {
    match foretold(call, plan, tier, (Some(&step.worker), step, step.demands.clone()), now).await? {
        ForetellAnswer::Wait { ms } => Some(ms),
        ForetellAnswer::Refused | ForetellAnswer::TooLate { .. } => None,
    }
}

/// What the first pool of these demands foretells.
pub async fn foretold(
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

/// Why a request is refused that another pool than its home would keep for longer than its lane allows. Its home says so of
/// itself. A pool that cannot be asked is no reason.
pub async fn kept_too_long(call: &Call, catalog: &Catalog, plan: &Plan, now: Instant) -> Option<Problem> {
    catalog.lanes.of(plan.urgency).max_wait_ms?;
    let first = plan.steps.first()?;
    let others: Vec<&Demand> = first.demands.iter().skip(1).filter(|demand| !demand.amount.is_zero()).collect();
    if others.is_empty() {
        return None;
    }
    let tier = tiers::of(&call.env, &plan.client, now).await?;
    // Whether its worker fails is for its home to know.
    let asked = others.iter().map(|demand| foretold(call, plan, tier, (None, first, vec![Demand::clone(demand)]), now));
    let answers = join_all(asked).await;
    let too_late = |(demand, answer)| match answer {
        Some(ForetellAnswer::TooLate { retry_at }) => Some((demand, retry_at)),
        _ => None,
    };
    let (demand, retry_at): (&&Demand, Instant) = others.iter().zip(answers).find_map(too_late)?;
    let detail = format!("it would start later than its lane allows: the tokens of `{}` are taken", demand.pool);
    Some(Problem::new(Code::InsufficientResources, detail).retry_at(retry_at, now))
}
