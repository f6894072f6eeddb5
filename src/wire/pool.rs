//! The operations of the `ResourcePool` object, which is called by its pool's name.

use rm_core::account::AtHome;
use rm_core::id::{ClientId, PoolId, RequestId, WorkerBinding};
use rm_core::off_peak::WaitsFor;
use rm_core::optimizer::Applied;
use rm_core::pipeline::Step;
use rm_core::pool::{
    BatchTerms, LeaseOrder, PoolConfig, PoolView, PositionView, QueueView, Remaining, Retry, Signal, StartsForetold,
};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Demand, Failure, Kind, Usage};
use rm_core::units::{Instant, Tokens};
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::account::Idempotency;
use crate::wire::execution::{BillView, ExecutionView, Spec};
use crate::wire::payload::Payload;

/// The namespace's binding.
pub const BINDING: &str = "POOL";

/// A request for its home pool. Its cost is held by now. The same request may be submitted again.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubmitCall {
    pub id: RequestId,
    pub tier: Tier,
    pub kind: Kind,
    pub urgency: Urgency,
    pub held_at: Instant,
    pub deadline: Option<Instant>,
    pub demands: Vec<Demand>,
    pub max_attempts: u32,
    pub timeout_ms: i64,
    /// The steps after the first.
    pub later: Vec<Step>,
    /// The account gave a slot together with the hold.
    pub has_slot: bool,
    /// How many the client has, if that is known.
    #[serde(default)]
    pub slots: Option<u32>,
    /// What was done to make it cheaper.
    #[serde(default)]
    pub applied: Vec<Applied>,
    /// What requests that are the same have in common, if one run will do for all that are in flight.
    #[serde(default)]
    pub twin: Option<String>,
    /// Which windows it waits for; `None`: those of its pool, if its lane does.
    #[serde(default)]
    pub waits_for: Option<WaitsFor>,
    /// With which others it may be combined.
    #[serde(default)]
    pub batch: Option<BatchTerms>,
    /// Its result was kept from another one: it is not run.
    #[serde(default)]
    pub kept: Option<Kept>,
    /// It has ended before: it is not to be taken in as new.
    pub only_known: bool,
    pub spec: Spec,
    pub input: Payload,
    /// The caller will run it, if it starts at once.
    pub run_here: bool,
    /// How long to wait for its end, if it does not.
    pub wait_ms: i64,
}

/// A result that was kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// What getting it has used.
    pub usage: Vec<Usage>,
    /// The result.
    pub result: Payload,
    /// Where it is from, for people.
    pub detail: String,
}

/// What became of a submission.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubmitAnswer {
    /// It has started, and the caller is to run it.
    RunHere {
        /// The run.
        run: Run,
    },
    /// It is here: as it stands now, or after the wait.
    Here {
        /// The execution.
        execution: Box<ExecutionView>,
        /// Its place, while it waits.
        position: Option<PositionView>,
    },
    /// A reservation was granted.
    Reserved {
        /// Until when.
        expires_at: Instant,
    },
    /// Nothing is kept of it.
    Refused {
        /// Why.
        refusal: SubmitRefusal,
    },
}
operation!(SubmitCall, "/submit", SubmitAnswer);

/// Why a submission was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubmitRefusal {
    /// More than the pool can hold.
    Never,
    /// Not now.
    NotNow {
        /// When to try again.
        retry_at: Instant,
    },
    /// The queue is at its cap.
    QueueFull {
        /// When to try again.
        retry_at: Instant,
    },
    /// Too long after its admission.
    Stale,
    /// There is no such pool.
    UnknownPool,
}

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

/// A client has a slot free.
#[derive(Debug, Serialize, Deserialize)]
pub struct WakeCall {
    pub client: ClientId,
}
operation!(WakeCall, "/wake", ());

/// Lease tokens for a request with another home.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseCall {
    pub order: LeaseOrder,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseReply {
    Granted,
    NotNow { retry_at: Option<Instant> },
    Never,
}
operation!(LeaseCall, "/lease", LeaseReply);

/// Another pool was given tokens back, for which a request of this one has asked in vain.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseFreeCall {
    pub pool: PoolId,
}
operation!(LeaseFreeCall, "/lease-free", ());

/// What was used of a lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettleLeaseCall {
    pub key: String,
    pub used: Tokens,
    /// A run had the tokens; else a grant that came to nothing.
    pub after_run: bool,
    /// What the downstream worker said of the limit.
    pub signal: Signal,
}
operation!(SettleLeaseCall, "/settle-lease", ());

/// What the owner of a reservation has used in all.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConsumeCall {
    pub id: RequestId,
    pub usage: Vec<Usage>,
    pub last: bool,
    /// Nothing was used: the reservation is released.
    pub release: bool,
    /// The caller's key.
    pub key: Option<Idempotency>,
    /// Only if it is this client's.
    pub client: Option<ClientId>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsumeAnswer {
    /// It is open, or was closed by this use.
    Consumed {
        /// As reserved and as used, by pool.
        lines: Vec<rm_core::request::Line>,
        cost: rm_core::units::NanoUsd,
        /// It takes no more.
        closed: bool,
    },
    /// The key was used before, for the same, and this was the answer.
    Replayed {
        answer: Box<ConsumeAnswer>,
    },
    /// The key was used before, for something else.
    Mismatch,
    /// It was released, before or now.
    Released,
    /// It ran out before: what was not used by then went back.
    Expired,
    /// It was closed by another use.
    Closed,
    /// It does not hold this pool.
    NotReserved {
        pool: PoolId,
    },
    Forbidden,
    Unknown,
}
operation!(ConsumeCall, "/consume", ConsumeAnswer);

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
    pub timeout_ms: i64,
}

/// What is foretold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ForetellAnswer {
    /// It would not be taken in.
    Refused,
    /// It would start after this.
    Wait {
        /// Milliseconds; `None` if that is not a matter of time.
        ms: Option<i64>,
    },
}
operation!(ForetellCall, "/foretell", ForetellAnswer);

/// The pool as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct ViewCall {
    /// An amount to look for.
    pub amount: Option<Tokens>,
    /// For whom: what is set aside for others is not there for them.
    #[serde(default)]
    pub for_whom: Option<(ClientId, Tier)>,
}

/// The pool, its queue, and when the amount could be taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct ViewAnswer {
    pub pool: PoolView,
    pub queue: QueueView,
    /// The most that can ever be taken at once.
    #[serde(default)]
    pub reach: Option<Tokens>,
    /// Milliseconds; `None` is never.
    pub wait_ms: Option<i64>,
    pub scheduler_running: bool,
    /// How well starts were foretold.
    pub foretold: StartsForetold,
}
operation!(ViewCall, "/view", Option<ViewAnswer>);

/// Is anybody there? Answered by any object of the class, whether it is a pool or not.
#[derive(Debug, Serialize, Deserialize)]
pub struct PingCall {}
operation!(PingCall, "/ping", ());

/// Let go of the pool: it is about to be deleted.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloseCall {}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloseAnswer {
    /// It takes nothing more, until it is configured again.
    Closed,
    /// It still holds work.
    Busy {
        /// Requests that have not ended.
        requests: u64,
        /// Leases of requests with another home, and settlements that no account has confirmed.
        others: u64,
    },
}
operation!(CloseCall, "/close", CloseAnswer);

/// The pool's configuration changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConfigureCall {
    pub config: PoolConfig,
}
operation!(ConfigureCall, "/configure", ());

/// The scheduler's tick, with the configuration as it is in D1.
#[derive(Debug, Serialize, Deserialize)]
pub struct TickCall {
    pub config: PoolConfig,
}

/// How the pool is, for the alerts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TickAnswer {
    pub pool: PoolView,
    pub depth: u64,
    pub oldest_wait_ms: i64,
    /// Attempts that a downstream worker did not answer in time since the last tick, by worker.
    pub timeouts: Vec<(String, u32)>,
}
operation!(TickCall, "/tick", Option<TickAnswer>);

/// A pool's bucket, for the `RateLimit` headers of an answer about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    pub pool: PoolId,
    pub capacity: Tokens,
    pub available: Tokens,
    pub refill_per_second: Tokens,
    pub window_cap: bool,
}

impl RateLimit {
    /// As a pool is seen.
    pub fn of(view: &PoolView) -> Self {
        Self {
            pool: view.pool.clone(),
            capacity: view.capacity,
            available: view.available,
            refill_per_second: view.effective_refill_per_second.unwrap_or(view.refill_per_second),
            window_cap: view.window_cap,
        }
    }
}
