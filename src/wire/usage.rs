//! Bodies and answers about what was used, what it cost, and what could cost less.

use rm_core::account::AccountView;
use rm_core::id::ClientId;
use rm_core::optimizer::Strategy;
use rm_core::priority::Tier;
use rm_core::units::{Instant, NanoUsd};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::api::ResourceAmount;
use crate::wire::execution::{BillLine, OptimizationView};

/// By what a usage history is grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum GroupBy {
    Day,
    Template,
    Pool,
    Model,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Day, Self::Template, Self::Pool, Self::Model];

    /// The name, in a query and as a row's field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Template => "template",
            Self::Pool => "pool",
            Self::Model => "model",
        }
    }
}

/// `GET /api/usage/{clientId}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageHistory {
    pub client_id: ClientId,
    /// The first moment that is covered: a midnight in UTC.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub from: Instant,
    /// The first moment that is not covered any more.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub to: Instant,
    pub group_by: GroupBy,
    pub totals: UsageSum,
    pub rows: Vec<UsageRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A sum over requests.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageSum {
    pub cost_usd: NanoUsd,
    pub requests: u64,
    pub saved_usd: NanoUsd,
}

/// One group: the one of its first four fields that is there is what the history is grouped by. A request without a
/// template or model counts under an empty name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub cost_usd: NanoUsd,
    pub requests: u64,
    pub saved_usd: NanoUsd,
}

/// `POST /api/resources/estimate`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceEstimate {
    pub resources: Vec<ResourceAmount>,
    pub estimated_cost_usd: NanoUsd,
    /// From 0 to 1: how likely it is close, as far as is known.
    pub confidence: rm_core::priority::Points,
}

/// `POST /api/cost/estimate`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostEstimate {
    pub baseline_usd: NanoUsd,
    pub estimated_usd: NanoUsd,
    pub saved_usd: NanoUsd,
    pub lines: Vec<BillLine>,
    pub optimizations: Vec<OptimizationView>,
    pub fits_budget: bool,
    pub price_version: String,
}

/// `POST /api/optimize/analyze`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    pub opportunities: Vec<Opportunity>,
    pub baseline_usd: NanoUsd,
    pub optimized_usd: NanoUsd,
}

/// What one strategy could do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Opportunity {
    pub strategy: Strategy,
    pub applicable: bool,
    pub reason: String,
    pub saved_usd: NanoUsd,
    /// What would be different; none if it is not applicable.
    pub change: Option<String>,
}

/// `GET /api/optimize/stats/{clientId}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OptimizationStats {
    pub period: PeriodView,
    pub requests: u64,
    pub optimized: u64,
    pub baseline_usd: NanoUsd,
    pub actual_usd: NanoUsd,
    pub saved_usd: NanoUsd,
    pub strategies: Vec<StrategyStats>,
}

/// One strategy of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StrategyStats {
    pub strategy: Strategy,
    pub applied: u64,
    pub saved_usd: NanoUsd,
    pub saved_bytes: u64,
}

/// `GET /api/optimize/recommendations/{clientId}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recommendations {
    pub recommendations: Vec<Recommendation>,
}

/// What would have paid on the client's own record.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    pub strategy: Strategy,
    pub reason: String,
    pub estimated_monthly_saving_usd: NanoUsd,
    pub evidence: String,
}

/// `POST /api/optimize/analyze` about a client's history: the last 30 days, if nothing else is said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistoryBody {
    pub client_id: ClientId,
    /// A time, or a day in UTC from its beginning.
    #[serde(default, deserialize_with = "super::time::optional_from")]
    #[schema(value_type = Option<String>, examples("2026-11-24T06:00:00.000Z", "2026-11-24"))]
    pub from: Option<Instant>,
    /// A time, or a day in UTC to its end.
    #[serde(default, deserialize_with = "super::time::optional_to")]
    #[schema(value_type = Option<String>, examples("2026-11-24T06:00:00.000Z", "2026-11-24"))]
    pub to: Option<Instant>,
}

/// `GET /api/usage/{clientId}/current`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentUsage {
    pub client_id: ClientId,
    pub tier: Tier,
    pub period: PeriodView,
    pub budget_usd: NanoUsd,
    pub spent_usd: NanoUsd,
    pub held_usd: NanoUsd,
    pub remaining_usd: NanoUsd,
    pub running: u32,
    pub max_concurrent: u32,
    pub queued: u32,
}

/// A budget period.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeriodView {
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub start: Instant,
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub end: Instant,
}

impl From<AccountView> for CurrentUsage {
    fn from(view: AccountView) -> Self {
        Self {
            client_id: view.client,
            tier: view.tier,
            period: PeriodView { start: view.period.start, end: view.period.end },
            budget_usd: view.budget,
            spent_usd: view.spent,
            held_usd: view.held,
            remaining_usd: view.remaining,
            running: view.running,
            max_concurrent: view.max_concurrent,
            queued: view.queued,
        }
    }
}
