//! `/api/resources/estimate` and `/api/cost/estimate`: what a request would need and cost. They take nothing.

use std::rc::Rc;

use rm_core::off_peak::WaitsFor;
use rm_core::optimizer::Strategy;
use rm_core::pipeline::merged;
use rm_core::priority::Points;
use rm_core::request::Line;
use rm_core::units::{Instant, NanoUsd};

use crate::api::Call;
use crate::api::admission::{Plan, plan};
use crate::api::body::read_json;
use crate::api::choosing::take_as_executed;
use crate::api::demands::check_reach;
use crate::api::executions::unavailable;
use crate::api::kept::CacheControl;
use crate::api::reply::Reply;
use crate::api::{patience, rate_limit, submission};
use crate::host::clock;
use crate::host::object::call;
use crate::store::catalog::{self, Catalog};
use crate::store::results::KeptResult;
use crate::views::{estimate_lines, expected_optimizations, price_version};
use crate::wire::account::ViewCall;
use crate::wire::api::{ExecuteBody, ResourceAmount};
use crate::wire::execution::OptimizationView;
use crate::wire::problem::Problem;
use crate::wire::usage::{CostEstimate, ResourceEstimate};

/// The confidence of what is certain, in thousandths.
const SURE_PERMILLE: i64 = 1_000;

/// A request that was not made.
struct Planned {
    catalog: Rc<Catalog>,
    now: Instant,
    plan: Plan,
    /// What its client's budget has left.
    remaining: NanoUsd,
    /// It would have a result that was kept: it would need nothing.
    kept: Option<KeptResult>,
}

/// What would become of the request in the body.
async fn planned(call: &mut Call) -> Result<Planned, Problem> {
    let body = read_json::<ExecuteBody>(&mut call.request).await?.value;
    call.may_touch(&body.client_id)?;
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let now = clock::now();
    let control = CacheControl::of(call);
    let mut plan = plan(&call.env, &catalog, body, now)?;
    let account = self::call(&call.env, plan.client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    let account = account.ok_or_else(|| Problem::not_found("client"))?;
    let kept = take_as_executed(call, &catalog, &mut plan, (control, account.remaining), now).await;
    check_reach(&catalog, (&plan.client, account.tier), plan.demands())?;
    rate_limit::note(call, plan.demands()).await;
    Ok(Planned { catalog, now, plan, remaining: account.remaining, kept })
}

/// `POST /api/resources/estimate`.
pub async fn resources(mut call: Call) -> Result<Reply, Problem> {
    let Planned { plan, kept, .. } = planned(&mut call).await?;
    // What several steps need of one pool is needed of it in all.
    let lines = merged(plan.demands().map(|demand| Line::of(demand, None, true)));
    let resource = |line: Line| ResourceAmount { pool: line.pool, amount: line.estimated.ceil().units() };
    let estimate = match kept {
        // That it needs nothing is certain.
        Some(_) => ResourceEstimate {
            resources: Vec::new(),
            estimated_cost_usd: NanoUsd::ZERO,
            confidence: Points(SURE_PERMILLE),
        },
        None => ResourceEstimate {
            resources: lines.into_iter().map(resource).collect(),
            estimated_cost_usd: plan.cost,
            confidence: Points(plan.confidence_permille.into()),
        },
    };
    Reply::json(200, &estimate)
}

/// The window that it would wait for, or that is open now, if it costs less there: the full price is held until it starts, and
/// stands in the estimate.
fn window(catalog: &Catalog, plan: &Plan, now: Instant) -> Option<OptimizationView> {
    let waits = submission::waits_for(catalog, plan, now) != WaitsFor::Nothing;
    let off_now = patience::off_now(catalog, plan, waits, now);
    let detail = match patience::percent_off(catalog, plan, &plan.steps, now) {
        Ok(percent_off) if waits => {
            format!("it waits for its window: {percent_off} % less is charged there, the full price is held")
        }
        _ if off_now.is_empty() => return None,
        _ => {
            let less: Vec<String> =
                off_now.iter().map(|(pool, percent)| format!("{percent} % less of `{pool}`")).collect();
            format!("its window is open: {} is charged in it, the full price is held", less.join(", "))
        }
    };
    Some(OptimizationView { strategy: Strategy::OffPeak, detail, saved_usd: NanoUsd::ZERO, saved_bytes: 0 })
}

/// `POST /api/cost/estimate`.
pub async fn cost(mut call: Call) -> Result<Reply, Problem> {
    let Planned { catalog, now, plan, remaining, kept } = planned(&mut call).await?;
    let mut optimizations = expected_optimizations(&plan.applied, plan.baseline.saturating_sub(plan.cost));
    optimizations.extend(kept.as_ref().map(|kept| OptimizationView {
        strategy: Strategy::Cache,
        detail: kept.detail(),
        saved_usd: plan.cost,
        saved_bytes: 0,
    }));
    let is_run = kept.is_none();
    optimizations.extend(window(&catalog, &plan, now).filter(|_| is_run));
    let steps = plan.steps.iter().filter(|_| is_run);
    let estimated_usd = if is_run { plan.cost } else { NanoUsd::ZERO };
    Reply::json(
        200,
        &CostEstimate {
            baseline_usd: plan.baseline,
            estimated_usd,
            saved_usd: plan.baseline.saturating_sub(estimated_usd),
            lines: steps.flat_map(|step| estimate_lines(&step.demands, step.model.as_deref())).collect(),
            optimizations,
            fits_budget: estimated_usd <= remaining,
            price_version: price_version(plan.demands().map(|demand| demand.price_version.as_str())),
        },
    )
}
