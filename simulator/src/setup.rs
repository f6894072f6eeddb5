//! How the core's objects and orders are made: the one place that names all fields of the core's types, so that a new one
//! is given its value here and nowhere else.

use std::collections::BTreeMap;

use rm_core::account::{Account, AccountConfig, ClientStatus, Held};
use rm_core::fair_share::FairShare;
use rm_core::id::{ClientId, PoolId, RequestId, WorkerBinding};
use rm_core::lane::Lanes;
use rm_core::pipeline::Step;
use rm_core::pool::{BatchTerms, Pool, PoolConfig, Stored, Submission};
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::request::{Demand, Kind};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd};

/// A pool with a scheduler that runs and the default weights.
#[must_use]
pub fn pool_config(pool: PoolId, limits: BucketLimits, queue_cap: u32) -> PoolConfig {
    PoolConfig {
        pool,
        unit: "unit".into(),
        limits,
        low_water_percent: 10,
        queue_cap,
        weights: Weights::default(),
        lanes: Lanes::default(),
        partitions: Vec::new(),
        off_peak: None,
        template_windows: std::collections::BTreeMap::new(),
        scheduler_running: true,
        revision: 1,
    }
}

/// What a pool that was never used is stored as.
#[must_use]
pub fn unused(config: PoolConfig) -> Stored {
    Stored {
        config,
        state: None,
        fairness: FairShare::default(),
        requests: Vec::new(),
        leases: Vec::new(),
        unsettled: Vec::new(),
    }
}

/// A pool that was never used.
#[must_use]
pub fn new_pool(config: PoolConfig, now: Instant) -> Pool {
    Pool::restore(unused(config), now)
}

/// A client that may be served.
#[must_use]
pub fn account_config(client: ClientId, tier: Tier, budget: NanoUsd, max_concurrent: u32) -> AccountConfig {
    AccountConfig {
        client,
        tier,
        budget,
        max_concurrent,
        time_zone: "UTC".into(),
        status: ClientStatus::Active,
        revision: 1,
    }
}

/// An account that was never used.
#[must_use]
pub fn new_account(config: AccountConfig) -> Account {
    Account::restore(config, BTreeMap::new(), Vec::new())
}

/// A request that a simulation wants to send.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id.
    pub id: RequestId,
    /// Whose.
    pub client: ClientId,
    /// The client's tier.
    pub tier: Tier,
    /// Executed or only reserved.
    pub kind: Kind,
    /// The lane.
    pub urgency: Urgency,
    /// Not finished by then, it expires.
    pub deadline: Option<Instant>,
    /// What requests that are the same have in common.
    pub twin: Option<String>,
    /// With which others it may be combined.
    pub batch: Option<BatchTerms>,
    /// What it needs, the home pool first.
    pub demands: Vec<Demand>,
    /// How often it may be tried.
    pub max_attempts: u32,
    /// One attempt's limit.
    pub timeout_ms: i64,
    /// The downstream worker, of an execution.
    pub worker: Option<WorkerBinding>,
    /// The steps after the first.
    pub later: Vec<Step>,
}

/// The order as the home pool takes it in, once its cost is held.
#[must_use]
pub fn submission(order: Order, held: Held) -> Submission {
    Submission {
        id: order.id,
        client: order.client,
        tier: order.tier,
        kind: order.kind,
        urgency: order.urgency,
        held_at: held.at,
        deadline: order.deadline,
        demands: order.demands,
        max_attempts: order.max_attempts,
        timeout_ms: order.timeout_ms,
        worker: order.worker,
        later: order.later,
        applied: Vec::new(),
        twin: order.twin,
        batch: order.batch,
        waits_for: None,
        work: None,
        has_slot: held.slot,
        slots: Some(held.slots),
    }
}
