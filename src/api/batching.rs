//! With which others a request may be combined.

use rm_core::pool::{BatchTerms, fit_together};
use rm_core::priority::{Tier, Urgency};

use crate::api::admission::Plan;
use crate::store::catalog::Catalog;
use crate::wire::admin::{BatchRule, Isolation};

/// What a plan's template and its caller allow: requests of one template, model and isolation class, in the lanes of
/// batches and of deferred work, or where the caller asked for it.
pub fn terms(catalog: &Catalog, plan: &Plan, tier: Tier) -> Option<BatchTerms> {
    let id = plan.template.as_ref()?;
    let rule = catalog.templates.get(id)?.batch.as_ref()?;
    let step = plan.steps.first().filter(|_| !plan.is_pipeline)?;
    let in_lane = match plan.urgency {
        Urgency::Batch | Urgency::Deferred => plan.allowed.batch,
        Urgency::Fast | Urgency::Normal => plan.allowed.batch_in_any_lane,
        Urgency::Immediate => false,
    };
    let class = match rule.isolation {
        // What one names for itself is its weight in what a call uses: it is not to be the others' loss.
        _ if plan.resources.is_some() => ("client", plan.client.as_str()),
        Isolation::Client => ("client", plan.client.as_str()),
        Isolation::Tier => ("tier", tier.as_str()),
        Isolation::Shared => ("shared", ""),
    };
    // One's short limit is not to be the others'.
    let runs = (step.worker.as_str(), step.model.as_deref(), step.timeout_ms);
    let max_size = most(rule, plan);
    // Of those that are long fewer fit into a call, and only they are in it.
    let of_long = Some(max_size).filter(|most| *most < rule.max_size);
    let key = serde_json::to_string(&(id.as_str(), runs, class, of_long)).ok()?;
    in_lane.then(|| BatchTerms { key, max_size, window_ms: i64::from(rule.window_ms) })
}

/// How many there are at most in a call with this one.
pub fn most(rule: &BatchRule, plan: &Plan) -> u32 {
    let bytes = plan.input.get().len().saturating_add(plan.parameters.get().len());
    fit_together(rule.max_size, u64::try_from(bytes).unwrap_or(u64::MAX))
}
