//! The operations of the `ResourcePool` object, which is called by its pool's name: here those that are about the pool itself.

mod lease;
mod request;
mod reservation;
mod run;
mod submission;

pub use lease::{
    ANSWERS, HeldBackCall, LeaseCall, LeaseFreeCall, LeaseReply, OrdersOverCall, SettleLeaseCall, StandingsCall,
};
pub use request::{
    AtHomeCall, BillAnswer, BillCall, CancelAnswer, CancelCall, ExecutionCall, ForetellAnswer, ForetellCall,
    PositionAnswer, PositionCall,
};
pub use reservation::{ConsumeAnswer, ConsumeCall};
pub use run::{ClaimCall, Order, ReportBatchCall, ReportCall, Run, RunOutcome};
pub use submission::{Kept, Provided, SubmitAnswer, SubmitCall, SubmitRefusal};

use rm_core::id::{ClientId, PoolId};
use rm_core::pool::{PoolConfig, PoolView, QueueView, StartsForetold};
use rm_core::priority::Tier;
use rm_core::units::Tokens;
use serde::{Deserialize, Serialize};

use crate::host::object::operation;

/// The namespace's binding.
pub const BINDING: &str = "POOL";

/// A client has a slot free.
#[derive(Debug, Serialize, Deserialize)]
pub struct WakeCall {
    pub client: ClientId,
}
operation!(WakeCall, "/wake", ());

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
