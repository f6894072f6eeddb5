//! An execution: what is stored of it when it is admitted, and what its caller sees.

use rm_core::id::{ClientId, PoolId, RequestId, TemplateId, WorkerBinding};
use rm_core::optimizer::Strategy;
use rm_core::priority::Urgency;
use rm_core::request::Failure;
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::wire::payload::StoredPayload;

/// What an admitted request is, besides what the scheduler needs of it. Stored as it is; never changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Whose.
    pub client_id: ClientId,
    /// By which template, if by any.
    pub template_id: Option<TemplateId>,
    /// The downstream worker; none for a reservation.
    pub worker: Option<WorkerBinding>,
    /// The model, if the template names one.
    pub model: Option<String>,
    /// The steps of a pipeline, all of them; none for a request without steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepSpec>,
    /// The caller's parameters.
    pub parameters: Box<RawValue>,
    /// The caller's `traceparent`.
    pub traceparent: Option<String>,
    /// What is held for it.
    pub estimated: NanoUsd,
    /// What it would have cost without any optimisation.
    pub baseline: NanoUsd,
    /// When it was admitted.
    pub created_at: Instant,
    /// Large payloads of it are gzipped.
    #[serde(default)]
    pub compress: bool,
    /// What requests that are the same have in common, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<String>,
    /// How its result is kept for the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// The strategies that it was made for, as far as they are recommended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Strategy>,
}

/// How a result is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// Under which name: that of all requests that are the same.
    pub key: String,
    /// For how long.
    pub ttl_seconds: u32,
}

/// A step of a pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSpec {
    /// Its name.
    pub name: String,
    /// The downstream worker.
    pub worker: WorkerBinding,
    /// The model, if the step names one.
    pub model: Option<String>,
}

impl Spec {
    /// The worker and the model of a step.
    pub fn worker_of(&self, step: usize) -> (Option<&WorkerBinding>, Option<&str>) {
        match self.steps.get(step) {
            Some(step) => (Some(&step.worker), step.model.as_deref()),
            None => (self.worker.as_ref(), self.model.as_deref()),
        }
    }
}

/// Where a step of an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// It is not due yet.
    Pending,
    Queued,
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    Expired,
    /// The execution ended without it.
    Skipped,
}

/// A step of an execution.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    pub step: usize,
    pub name: String,
    pub worker: WorkerBinding,
    pub status: StepStatus,
    pub attempts: u32,
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Instant>,
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Instant>,
    pub resources: Vec<ResourceView>,
}

/// Where an execution stands, for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    Expired,
}

impl ExecutionStatus {
    /// Whether it has ended.
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One pool's part of an execution.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResourceView {
    pub pool: PoolId,
    pub estimated: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Tokens>,
}

/// What an execution costs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostView {
    pub estimated_usd: NanoUsd,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_usd: Option<NanoUsd>,
    pub baseline_usd: NanoUsd,
    pub saved_usd: NanoUsd,
}

/// What was done to make a request cheaper.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OptimizationView {
    pub strategy: Strategy,
    pub detail: String,
    pub saved_usd: NanoUsd,
    #[serde(default, skip_serializing_if = "OptimizationView::is_zero")]
    pub saved_bytes: u64,
}

impl OptimizationView {
    const fn is_zero(bytes: &u64) -> bool {
        *bytes == 0
    }
}

/// An execution, whole.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionView {
    pub request_id: RequestId,
    pub client_id: ClientId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<TemplateId>,
    pub status: ExecutionStatus,
    pub urgency: Urgency,
    pub attempts: u32,
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Instant,
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Instant>,
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Instant>,
    pub wait_ms: i64,
    pub run_ms: i64,
    pub cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
    /// Where a large result is, until it is put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub stored_result: Option<StoredPayload>,
    /// The time that a result is kept for is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_expired: bool,
    /// The stored result is damaged, and cannot be told: what is charged and recorded stays as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_lost: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    pub resources: Vec<ResourceView>,
    /// The steps of a pipeline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    pub cost: CostView,
    pub optimizations: Vec<OptimizationView>,
}

/// What a line of a bill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum LineKind {
    /// Any use, where there is one price.
    #[default]
    Unit,
    /// Input that was not cached.
    Input,
    CachedInput,
    Output,
}

impl LineKind {
    fn is_unit(&self) -> bool {
        *self == Self::Unit
    }
}

/// A line of a bill, for the caller.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BillLine {
    pub pool: PoolId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Left out where there is one price for any use.
    #[serde(default, skip_serializing_if = "LineKind::is_unit")]
    pub kind: LineKind,
    pub amount: Tokens,
    pub unit_price_usd: NanoUsd,
    /// What is off that price; left out where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount_percent: Option<u8>,
    pub cost_usd: NanoUsd,
}

/// `GET /api/cost/{requestId}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BillView {
    pub request_id: RequestId,
    pub estimated_usd: NanoUsd,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_usd: Option<NanoUsd>,
    pub baseline_usd: NanoUsd,
    pub saved_usd: NanoUsd,
    pub lines: Vec<BillLine>,
    pub price_version: String,
    /// The client's budget has it.
    pub settled: bool,
}
