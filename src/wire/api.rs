//! Bodies and answers of `/api`, `/internal` and the open routes.

use rm_core::id::{ClientId, PoolId, RequestId, TemplateId, WorkerBinding};
use rm_core::optimizer::{Allowed, Choice, Level};
use rm_core::pool::{Blocked, LaneView, PartitionView, PositionView};
use rm_core::priority::{Points, Score, Urgency};
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::wire::alert::AlertView;
use crate::wire::execution::{ExecutionStatus, OptimizationView};

/// An amount of a pool, in whole units.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceAmount {
    pub pool: PoolId,
    #[schema(minimum = 1, maximum = 9_007_199_254_u64)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub amount: u64,
}

/// What the caller allows the optimiser.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptimizationChoice {
    #[serde(default)]
    pub level: Option<Level>,
    #[serde(default)]
    pub downgrade: Option<bool>,
    #[serde(default)]
    pub batch: Option<bool>,
    #[serde(default)]
    pub cache: Option<bool>,
    #[serde(default)]
    pub compress: Option<bool>,
    #[serde(default)]
    pub off_peak: Option<bool>,
}

impl OptimizationChoice {
    /// What may be done.
    pub fn allowed(self) -> Allowed {
        let Self { level, downgrade, batch, cache, compress, off_peak } = self;
        Choice { level, downgrade, batch, cache, compress, off_peak }.allowed()
    }
}

/// What the template's estimate reads of the parameters; the rest is the worker's business.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub max_output_tokens: Option<u64>,
}

/// `POST /api/execute` and its likes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecuteBody {
    pub client_id: ClientId,
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    #[serde(default)]
    pub worker: Option<WorkerBinding>,
    #[serde(default, deserialize_with = "super::strict::optional_list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Option<Vec<ResourceAmount>>,
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Box<RawValue>>,
    #[serde(default)]
    #[schema(value_type = Option<Parameters>)]
    pub parameters: Option<Box<RawValue>>,
    #[serde(default)]
    pub urgency: Option<Urgency>,
    #[serde(default, with = "super::time::optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Instant>,
    /// One attempt's limit.
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
    #[serde(default, deserialize_with = "super::strict::optional")]
    pub optimization: Option<OptimizationChoice>,
}

/// The `202` of a request that has not ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedView {
    pub request_id: RequestId,
    pub status: ExecutionStatus,
    pub urgency: Urgency,
    pub priority: Option<Points>,
    pub score: Option<Score>,
    pub position: u64,
    pub estimated_wait_ms: Option<i64>,
    pub estimated_cost_usd: NanoUsd,
    pub optimizations: Vec<OptimizationView>,
}

/// `GET /api/queue/position/{requestId}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PositionBody {
    pub request_id: RequestId,
    pub pool: PoolId,
    pub position: u64,
    pub ahead: u64,
    pub priority: Points,
    pub score: Score,
    pub promoted: bool,
    #[serde(with = "super::time::optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub estimated_start_at: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Blocked>,
}

impl PositionBody {
    /// The body for a position.
    pub fn new(request_id: RequestId, pool: PoolId, view: PositionView) -> Self {
        Self {
            request_id,
            pool,
            position: view.position,
            ahead: view.ahead,
            priority: view.priority,
            score: view.score,
            promoted: view.promoted,
            estimated_start_at: view.estimated_start_at,
            blocked_by: view.blocked_by,
        }
    }
}

/// `GET /api/queue/status`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    pub depth: u64,
    pub oldest_wait_ms: i64,
    pub lanes: Vec<LaneView>,
    pub pools: Vec<PoolQueue>,
    pub scheduler: &'static str,
}

/// One pool of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolQueue {
    pub pool: PoolId,
    pub depth: u64,
    pub running: u64,
    pub oldest_wait_ms: i64,
    pub next_grant_ms: Option<i64>,
}

/// `GET /api/resources/availability`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Availability {
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Instant,
    pub pools: Vec<PoolAvailability>,
}

/// One pool of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolAvailability {
    pub pool: PoolId,
    pub unit: String,
    pub capacity: Tokens,
    pub available: u64,
    pub reserved: Tokens,
    /// The share of the capacity that is not available, from 0 to 1, in thousandths.
    pub utilization: Points,
    pub refill_per_second: Tokens,
    /// What it gains in a second at the rate that its downstream bears: the full one, unless that was busy lately.
    pub effective_refill_per_second: Tokens,
    /// Nothing is granted before this: the downstream asked for a pause.
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paused_until: Option<Instant>,
    /// How much of the reserved partitions' shares is lent.
    pub lent: Tokens,
    /// The parts that are set aside.
    pub partitions: Vec<PartitionView>,
    /// Downstream workers that fail, or failed a moment ago.
    pub workers: Vec<WorkerView>,
    pub queued: u64,
    pub status: &'static str,
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Instant,
}

/// How it is with a downstream worker, as a pool sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerView {
    pub worker: WorkerBinding,
    /// `closed`: requests go through; `open`: none does; `halfOpen`: one at a time does.
    pub circuit: String,
    /// When it is tried again, if that is a matter of time.
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Instant>,
}

/// `POST /api/resources/check`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckBody {
    #[serde(default)]
    pub client_id: Option<ClientId>,
    #[serde(deserialize_with = "super::strict::list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Vec<ResourceAmount>,
}

/// Its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckView {
    pub available: bool,
    pub wait_ms: Option<i64>,
    pub resources: Vec<CheckLine>,
}

/// One pool of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckLine {
    pub pool: PoolId,
    pub requested: u64,
    pub available: u64,
    pub satisfiable: bool,
    pub wait_ms: Option<i64>,
}

/// `POST /internal/reserve`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReserveBody {
    pub client_id: ClientId,
    #[serde(deserialize_with = "super::strict::list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Vec<ResourceAmount>,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 3_600)]
    pub ttl_seconds: Option<i64>,
    #[serde(default)]
    #[schema(min_length = 1, max_length = 128)]
    pub request_id: Option<String>,
}

/// Its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedView {
    pub reservation_id: RequestId,
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Instant,
    pub resources: Vec<ResourceAmount>,
}

/// What was used of a pool, in whole units. `cachedInput` and `output` are parts of `amount`, where they have prices of
/// their own.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsedParts {
    #[serde(deserialize_with = "super::strict::whole")]
    pub amount: u64,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    pub cached_input: Option<u64>,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    pub output: Option<u64>,
}

/// The same, with its pool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsedAmount {
    pub pool: PoolId,
    #[schema(maximum = 9_007_199_254_u64)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub amount: u64,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 9_007_199_254_u64)]
    pub cached_input: Option<u64>,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 9_007_199_254_u64)]
    pub output: Option<u64>,
}

/// `POST /internal/consume`. The amounts are what was used in all so far, so that saying it twice changes nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsumeBody {
    pub reservation_id: RequestId,
    #[serde(deserialize_with = "super::strict::list")]
    #[schema(max_items = 8)]
    pub usage: Vec<UsedAmount>,
    #[serde(default)]
    pub r#final: Option<bool>,
}

/// An amount of a pool in an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolAmount {
    pub pool: PoolId,
    pub amount: Tokens,
}

/// Its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumedView {
    pub charged: Vec<PoolAmount>,
    pub refunded: Vec<PoolAmount>,
    pub cost_usd: NanoUsd,
}

/// `POST /internal/release`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseBody {
    pub reservation_id: RequestId,
}

/// Its answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleasedView {
    pub released: bool,
}

/// `GET /`.
#[derive(Debug, Serialize, ToSchema)]
pub struct RootView {
    pub service: &'static str,
    pub version: &'static str,
    pub status: &'static str,
}

/// `POST /admin/scheduler/start` and `stop`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SchedulerView {
    /// `running` or `stopped`.
    pub scheduler: &'static str,
}

/// `GET /status`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Instant,
    pub scheduler: &'static str,
    #[serde(with = "super::time::optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_tick_at: Option<Instant>,
    pub pools: Vec<PoolAvailability>,
    pub queue: QueueStatus,
    /// Open alerts, the newest first.
    pub alerts: Vec<AlertView>,
}

/// `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthView {
    pub status: &'static str,
    pub checks: Vec<HealthCheck>,
}

/// One part of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    pub name: &'static str,
    pub status: &'static str,
    pub latency_ms: i64,
}
