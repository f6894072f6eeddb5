//! What a pool is set to, and what is stored of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::breaker::Breaker;
use crate::fair_share::FairShare;
use crate::id::{PoolId, WorkerBinding};
use crate::lane::Lanes;
use crate::off_peak::Window;
use crate::partition::{Partition, Shares};
use crate::pool::Lease;
use crate::priority::Weights;
use crate::request::Request;
use crate::run_time::RunTime;
use crate::throttle::Throttle;
use crate::token_bucket::{BucketLimits, TokenBucket};
use crate::units::Instant;

/// A pool as the operator set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolConfig {
    /// Its name.
    pub pool: PoolId,
    /// What is counted: `token`, `email`, `query`.
    pub unit: String,
    /// The bucket.
    pub limits: BucketLimits,
    /// Below this share of the capacity the pool is `low`, in per cent.
    pub low_water_percent: u8,
    /// The most requests that may wait.
    pub queue_cap: u32,
    /// The points of tiers and lanes.
    pub weights: Weights,
    /// The limits of the lanes.
    #[serde(default)]
    pub lanes: Lanes,
    /// The parts that are set aside.
    #[serde(default)]
    pub partitions: Vec<Partition>,
    /// The coming windows for deferred work; `None` if it may run at any time.
    #[serde(default)]
    pub off_peak: Option<Vec<Window>>,
    /// The same for work of templates that have windows of their own, by their names.
    #[serde(default)]
    pub template_windows: BTreeMap<String, Vec<Window>>,
    /// Whether the scheduler grants at all.
    pub scheduler_running: bool,
    /// Rises with each change in D1.
    pub revision: i64,
}

/// Where all tokens that were ever reserved have gone, in millionths.
/// `reserved = consumed + released + expired + what is reserved now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Taken out of the bucket for somebody.
    pub reserved: i64,
    /// Used, as far as it had been reserved.
    pub consumed: i64,
    /// Given back.
    pub released: i64,
    /// Given back because nobody settled in time.
    pub expired: i64,
    /// Used beyond what had been reserved.
    pub overused: i64,
}

/// How long runs of a kind of work take at their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkTime {
    #[serde(flatten)]
    pub time: RunTime,
    /// When one ended last, in milliseconds since 1970: what is not run any more is forgotten first.
    #[serde(default)]
    pub at: i64,
}

/// What a pool stores besides its configuration, requests and leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolState {
    pub(super) bucket: TokenBucket,
    pub(super) ledger: Ledger,
    /// Nothing is granted until then: the downstream worker asked for a pause.
    pub(super) paused_until: Option<Instant>,
    /// Grants since the last one to a promoted request.
    pub(super) since_promoted: u32,
    /// The same for the grants that partitions made of their own shares.
    #[serde(default)]
    pub(super) turns: BTreeMap<String, u32>,
    /// What the partitions have left of their claims.
    #[serde(default)]
    pub(super) shares: Shares,
    /// The rate that the downstream bears.
    #[serde(default)]
    pub(super) throttle: Throttle,
    /// Downstream workers that fail.
    #[serde(default)]
    pub(super) breakers: BTreeMap<WorkerBinding, Breaker>,
    /// How long the downstream workers take.
    #[serde(default)]
    pub(super) run_times: BTreeMap<WorkerBinding, RunTime>,
    /// The same for a worker and a kind of work.
    #[serde(default)]
    pub(super) work_times: BTreeMap<String, WorkTime>,
    /// How well starts were foretold.
    #[serde(default)]
    pub(super) foretold: StartsForetold,
}

/// How well the starts of requests that had to wait were foretold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartsForetold {
    /// How many started.
    pub count: u64,
    /// The sum of the differences between the start and the first estimate of it, whatever their sign.
    pub error_ms: i64,
    /// How many started later than estimated.
    pub late: u64,
}

/// What a pool was stored as.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The configuration.
    pub config: PoolConfig,
    /// `None` for a pool that was never used.
    pub state: Option<PoolState>,
    /// Recent use by client.
    pub fairness: FairShare,
    /// Requests that the pool has not let go of.
    pub requests: Vec<Request>,
    /// Leases of requests with another home.
    pub leases: Vec<Lease>,
    /// The events of settlements that are not confirmed.
    pub unsettled: Vec<String>,
}
