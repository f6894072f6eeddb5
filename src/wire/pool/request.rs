//! What is asked, and asked for, of a request.

use rm_core::account::AtHome;
use rm_core::id::{ClientId, RequestId, WorkerBinding};
use rm_core::pool::PositionView;
use rm_core::priority::{Tier, Urgency};
use rm_core::request::Demand;
use rm_core::units::Instant;
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::execution::{BillView, ExecutionView};
use crate::wire::pool::BINDING;

/// An execution as it stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecutionCall {
    pub id: RequestId,
}
operation!(ExecutionCall, "/execution", Option<ExecutionView>);

/// A request's place in the queue.
#[derive(Debug, Serialize, Deserialize)]
pub struct PositionCall {
    pub id: RequestId,
}

/// A place, and whose it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct PositionAnswer {
    pub client: ClientId,
    pub position: PositionView,
}
operation!(PositionCall, "/position", Option<PositionAnswer>);

/// What a request costs.
#[derive(Debug, Serialize, Deserialize)]
pub struct BillCall {
    pub id: RequestId,
}

/// A bill, and whose it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct BillAnswer {
    pub client: ClientId,
    pub bill: BillView,
}
operation!(BillCall, "/bill", Option<BillAnswer>);

/// Cancel a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct CancelCall {
    pub id: RequestId,
    /// Only if it has not started.
    pub only_waiting: bool,
    /// Only if it is this client's.
    pub client: Option<ClientId>,
}

/// What became of a cancellation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CancelAnswer {
    /// It is cancelled, by this call or an earlier one.
    Cancelled {
        execution: Box<ExecutionView>,
    },
    /// It has ended otherwise, or runs and must not be touched.
    Conflict {
        status: crate::wire::execution::ExecutionStatus,
    },
    Forbidden,
    Unknown,
}
operation!(CancelCall, "/cancel", CancelAnswer);

/// How is this request, for its account?
#[derive(Debug, Serialize, Deserialize)]
pub struct AtHomeCall {
    pub id: RequestId,
}
operation!(AtHomeCall, "/at-home", AtHome);

/// How long a request would wait here, if it came now: nothing is kept of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForetellCall {
    /// An id that nothing has.
    pub id: RequestId,
    pub client: ClientId,
    pub tier: Tier,
    pub urgency: Urgency,
    pub deadline: Option<Instant>,
    pub demands: Vec<Demand>,
    pub worker: Option<WorkerBinding>,
    /// Its template.
    #[serde(default)]
    pub work: Option<String>,
    pub timeout_ms: i64,
}

/// What is foretold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ForetellAnswer {
    /// It would not be taken in.
    Refused,
    /// It would wait for longer than its lane allows.
    TooLate {
        /// When to come again.
        retry_at: Instant,
    },
    /// It would start after this.
    Wait {
        /// Milliseconds; `None` if that is not a matter of time.
        ms: Option<i64>,
    },
}
operation!(ForetellCall, "/foretell", ForetellAnswer);
