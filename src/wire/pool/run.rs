//! What a run needs, and how it went.

use rm_core::id::{PoolId, RequestId};
use rm_core::pool::{Remaining, Retry};
use rm_core::request::{Failure, Usage};
use rm_core::units::{Instant, Tokens};
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::execution::{ExecutionView, Spec};
use crate::wire::payload::Payload;
use crate::wire::pool::BINDING;

/// The right to run one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub id: RequestId,
    pub grant: u32,
    pub attempt: u32,
    /// Which step, from 0.
    pub step: usize,
    pub limit_ms: i64,
    pub deadline: Option<Instant>,
}

/// Fetch what a run needs. Only who knows the run's secret gets it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClaimCall {
    pub id: RequestId,
    pub grant: u32,
    pub secret: String,
}

/// What a run needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub run: Run,
    pub spec: Spec,
    pub input: Payload,
    /// What was reserved for it: by this, a common use is divided.
    #[serde(default)]
    pub reserved: Vec<(PoolId, Tokens)>,
}
// Those of a run of several, each with its own grant; none if the secret proves nothing.
operation!(ClaimCall, "/claim", Vec<Order>);

/// How an attempt went.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    Succeeded { result: Payload, usage: Vec<Usage>, remaining: Vec<Remaining> },
    Failed { failure: Failure, retry: Retry },
    TimedOut,
}

/// Report the attempts of a run of several.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportBatchCall {
    pub items: Vec<ReportCall>,
}
operation!(ReportBatchCall, "/report-batch", Vec<Option<ExecutionView>>);

/// Report an attempt, and wait for the request's end.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportCall {
    pub id: RequestId,
    pub grant: u32,
    /// How many bytes compression has saved.
    #[serde(default)]
    pub saved_bytes: u64,
    pub run: RunOutcome,
    pub wait_ms: i64,
}
operation!(ReportCall, "/report", Option<ExecutionView>);
