//! `/api/resources/estimate` and `/api/cost/estimate`: what a request would need and cost. They take nothing.

use rm_core::pipeline::merged;
use rm_core::priority::Points;
use rm_core::request::Line;
use rm_core::units::NanoUsd;

use crate::api::Call;
use crate::api::admission::{Plan, plan};
use crate::api::body::read_json;
use crate::api::demands::check_reach;
use crate::api::executions::unavailable;
use crate::api::rate_limit;
use crate::api::reply::Reply;
use crate::host::clock;
use crate::host::object::call;
use crate::store::catalog;
use crate::views::{estimate_lines, expected_optimizations, price_version};
use crate::wire::account::ViewCall;
use crate::wire::api::{ExecuteBody, ResourceAmount};
use crate::wire::problem::Problem;
use crate::wire::usage::{CostEstimate, ResourceEstimate};

/// The plan of the request in the body, and what its client's budget has left.
async fn planned(call: &mut Call) -> Result<(Plan, NanoUsd), Problem> {
    let body = read_json::<ExecuteBody>(&mut call.request).await?.value;
    call.may_touch(&body.client_id)?;
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let mut plan = plan(&call.env, &catalog, body, clock::now())?;
    let account = self::call(&call.env, plan.client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    let account = account.ok_or_else(|| Problem::not_found("client"))?;
    if plan.cost > account.remaining && plan.falls_back {
        let fitting = plan.others.iter().find(|other| other.cost <= account.remaining).cloned();
        if let Some(other) = fitting {
            plan.take(&other);
        }
    }
    check_reach(&catalog, (&plan.client, account.tier), plan.demands())?;
    rate_limit::note(call, plan.demands()).await;
    Ok((plan, account.remaining))
}

/// `POST /api/resources/estimate`.
pub async fn resources(mut call: Call) -> Result<Reply, Problem> {
    let (plan, _) = planned(&mut call).await?;
    // What several steps need of one pool is needed of it in all.
    let lines = merged(plan.demands().map(|demand| Line::of(demand, None, true)));
    let resource = |line: Line| ResourceAmount { pool: line.pool, amount: line.estimated.ceil().units() };
    Reply::json(
        200,
        &ResourceEstimate {
            resources: lines.into_iter().map(resource).collect(),
            estimated_cost_usd: plan.cost,
            confidence: Points(plan.confidence_permille.into()),
        },
    )
}

/// `POST /api/cost/estimate`.
pub async fn cost(mut call: Call) -> Result<Reply, Problem> {
    let (plan, remaining) = planned(&mut call).await?;
    Reply::json(
        200,
        &CostEstimate {
            baseline_usd: plan.baseline,
            estimated_usd: plan.cost,
            saved_usd: plan.baseline.saturating_sub(plan.cost),
            lines: plan.steps.iter().flat_map(|step| estimate_lines(&step.demands, step.model.as_deref())).collect(),
            optimizations: expected_optimizations(&plan.applied, plan.baseline.saturating_sub(plan.cost)),
            fits_budget: plan.cost <= remaining,
            price_version: price_version(plan.demands().map(|demand| demand.price_version.as_str())),
        },
    )
}
