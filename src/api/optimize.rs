//! `/api/optimize/…`: what could be cheaper, and what was.

use rm_core::account::AccountView;
use rm_core::id::ClientId;
use rm_core::optimizer::Strategy;
use rm_core::units::Instant;
use serde::Deserialize;

use crate::api::Call;
use crate::api::admission::plan;
use crate::api::body::{parse, read_value};
use crate::api::choosing::take_as_executed;
use crate::api::executions::unavailable;
use crate::api::kept::CacheControl;
use crate::api::opportunities;
use crate::api::query::Query;
use crate::api::reply::Reply;
use crate::api::usage::{day, span};
use crate::host::clock;
use crate::host::object::call;
use crate::store::usage::Days;
use crate::store::{catalog, savings, usage};
use crate::wire::account::ViewCall;
use crate::wire::api::ExecuteBody;
use crate::wire::problem::Problem;
use crate::wire::usage::{HistoryBody, OptimizationStats, PeriodView, Recommendations, StrategyStats};

/// What recommendations look at.
const RECENT_MS: i64 = 30 * 86_400_000;

/// Whether a body asks about a client's history: it names neither a template nor a worker.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    template_id: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    worker: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    resources: Option<serde::de::IgnoredAny>,
}

/// `POST /api/optimize/analyze`: a request, or a client's history.
pub async fn analyze(mut call: Call) -> Result<Reply, Problem> {
    let text = read_value(&mut call.request).await?;
    let shape: Shape = parse(&text)?;
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let now = clock::now();
    let analysis = if shape.template_id.is_some() || shape.worker.is_some() || shape.resources.is_some() {
        let body: ExecuteBody = parse(&text)?;
        call.may_touch(&body.client_id)?;
        let mut plan = plan(&call.env, &catalog, body, now)?;
        let remaining = known(&call, &plan.client).await?.remaining;
        let control = CacheControl::of(&call);
        let kept = take_as_executed(&call, &catalog, &mut plan, (control, remaining), now).await;
        opportunities::of_request(&catalog, &plan, (control, kept.as_ref()), now)
    } else {
        let body: HistoryBody = parse(&text)?;
        call.may_touch(&body.client_id)?;
        known(&call, &body.client_id).await?;
        let (from, to) = (body.from.unwrap_or_else(|| now.plus(RECENT_MS.saturating_neg())), body.to.unwrap_or(now));
        if from >= to {
            return Err(Problem::field("/from", "must be before `to`"));
        }
        opportunities::of_history(&call, &catalog, &body.client_id, (from, to)).await?
    };
    Reply::json(200, &analysis)
}

async fn known(call: &Call, client: &ClientId) -> Result<AccountView, Problem> {
    let view = self::call(&call.env, client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    view.ok_or_else(|| Problem::not_found("client"))
}

async fn sum(call: &Call, client: &ClientId, from: Instant, to: Instant) -> Result<usage::Sum, Problem> {
    let days = Days { first: day(from), last: day(to.plus(-1)) };
    usage::totals(&call.env, client, &days).await.map_err(|error| Problem::unavailable(error.to_string()))
}

/// `GET /api/optimize/stats/{clientId}`.
pub async fn stats(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let query = Query::of(call, &["from", "to"])?;
    let (from, to) = span(&query, clock::now())?;
    known(call, client).await?;
    let sum = sum(call, client, from, to).await?;
    let days = Days { first: day(from), last: day(to.plus(-1)) };
    let saved = savings::of_client(&call.env, client, &days).await;
    let (optimized, saved) = saved.map_err(|error| Problem::unavailable(error.to_string()))?;
    let strategy = |strategy| {
        let saved = saved.iter().find(|(of, _)| *of == strategy).map(|(_, saved)| *saved).unwrap_or_default();
        StrategyStats { strategy, applied: saved.applied, saved_usd: saved.saved, saved_bytes: saved.bytes }
    };
    Reply::json(
        200,
        &OptimizationStats {
            period: PeriodView { start: from, end: to },
            requests: sum.requests,
            optimized,
            baseline_usd: sum.baseline,
            actual_usd: sum.cost,
            saved_usd: sum.baseline.saturating_sub(sum.cost),
            strategies: Strategy::ALL.into_iter().map(strategy).collect(),
        },
    )
}

/// `GET /api/optimize/recommendations/{clientId}`: only what would have paid on the client's own record.
pub async fn recommendations(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    Query::of(call, &[])?;
    known(call, client).await?;
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let now = clock::now();
    let span = (now.plus(RECENT_MS.saturating_neg()), now.plus(1));
    let recommendations = opportunities::recommendations(call, &catalog, client, span).await?;
    Reply::json(200, &Recommendations { recommendations })
}
