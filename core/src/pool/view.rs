//! What can be asked of a pool without changing it.

use serde::{Deserialize, Serialize};

use crate::account::AtHome;
use crate::breaker::Breaker;
use crate::id::{PoolId, RequestId, WorkerBinding};
use crate::partition::{self, Partition, Shares};
use crate::pool::Pool;
use crate::priority::Urgency;
use crate::queue::Flow;
use crate::request::{Kind, Phase, Request};
use crate::throttle::Throttle;
use crate::token_bucket::{BucketLimits, TokenBucket};
use crate::units::{Instant, Tokens};

/// One lane of a pool's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaneView {
    /// Which.
    pub urgency: Urgency,
    /// How many wait.
    pub depth: u64,
    /// How long the oldest has.
    pub oldest_wait_ms: i64,
}

/// A pool's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueView {
    /// Which pool.
    pub pool: PoolId,
    /// How many wait.
    pub depth: u64,
    /// How many run.
    pub running: u64,
    /// How long the oldest has waited.
    pub oldest_wait_ms: i64,
    /// When the next one gets its tokens, in milliseconds from now; absent when none waits for tokens.
    pub next_grant_ms: Option<i64>,
    /// By lane.
    pub lanes: Vec<LaneView>,
}

/// A pool's bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Which pool.
    pub pool: PoolId,
    /// What is counted.
    pub unit: String,
    /// The most that it holds.
    pub capacity: Tokens,
    /// What could be taken now.
    pub available: Tokens,
    /// What is taken and not settled.
    pub reserved: Tokens,
    /// What it gains in a second.
    pub refill_per_second: Tokens,
    /// Below this it is low.
    pub low_water_percent: u8,
    /// How many requests wait.
    pub queued: u64,
    /// As of when.
    pub as_of: Instant,
    /// The window cap applies.
    pub window_cap: bool,
    /// What it gains in a second at the rate that its downstream bears.
    #[serde(default)]
    pub effective_refill_per_second: Option<Tokens>,
    /// How that rate was learnt, and goes on.
    #[serde(default)]
    pub throttle: Throttle,
    /// Nothing is granted before: the downstream asked for a pause.
    #[serde(default)]
    pub paused_until: Option<Instant>,
    /// How much of the reserved shares is lent.
    #[serde(default)]
    pub lent: Tokens,
    /// What is kept for requests of other pools.
    #[serde(default)]
    pub kept: Tokens,
    /// What was used beyond all that was there, and is refilled first.
    #[serde(default, skip_serializing_if = "Tokens::is_none")]
    pub debt: Tokens,
    /// The parts that are set aside.
    #[serde(default)]
    pub partitions: Vec<PartitionView>,
    /// Downstream workers that fail, or failed a moment ago.
    #[serde(default)]
    pub breakers: Vec<BreakerView>,
}

/// A part of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionView {
    /// Its name.
    pub name: String,
    /// Its share of the capacity.
    pub capacity: Tokens,
    /// What it has left of its claim.
    pub available: Tokens,
    /// What it gains in a second, as the pool is refilled now.
    #[serde(default)]
    pub refill_per_second: Tokens,
    /// What its members wait for.
    pub wanted: Tokens,
    /// What nobody else may take now.
    pub claimed: Tokens,
    /// Whether its idle share is lent.
    pub lends: bool,
}

/// How it is with a downstream worker, as this pool sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerView {
    /// Which worker.
    pub worker: WorkerBinding,
    /// `closed`, `open` or `halfOpen`.
    pub state: String,
    /// When it is tried again, if that is a matter of time.
    pub until: Option<Instant>,
}

fn breaker_view((worker, breaker): (&WorkerBinding, &Breaker)) -> BreakerView {
    BreakerView { worker: worker.clone(), state: breaker.as_str().to_owned(), until: breaker.opens_until() }
}

pub(super) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Pool {
    pub(super) fn bucket_at(&self, now: Instant) -> TokenBucket {
        let mut bucket = self.state.bucket.clone();
        bucket.refill(&self.limits(), now);
        bucket
    }

    pub(super) fn available(&self, now: Instant) -> Tokens {
        self.bucket_at(now).available(&self.limits(), now)
    }

    /// How a request that the pool has not let go of is, for its account.
    #[must_use]
    pub fn at_home(&self, id: &RequestId) -> Option<AtHome> {
        let request = self.requests.get(id)?;
        Some(match request.phase {
            Phase::Waiting | Phase::Parked { .. } | Phase::Following { .. } => AtHome::Waiting,
            Phase::Acquiring { .. } | Phase::Running { .. } | Phase::Abandoned { .. } => AtHome::Busy,
        })
    }

    /// The bucket.
    #[must_use]
    pub fn view(&self, now: Instant) -> PoolView {
        // It may have learnt a better rate since its last event.
        let supply = self.supply_at(now);
        let limits = supply.throttle.apply(&self.config.limits);
        let available = supply.bucket.available(&limits, now);
        let ledger = self.state.ledger;
        let settled = ledger.consumed.saturating_add(ledger.released).saturating_add(ledger.expired);
        PoolView {
            pool: self.config.pool.clone(),
            unit: self.config.unit.clone(),
            capacity: self.config.limits.capacity,
            available,
            reserved: Tokens::clamped(ledger.reserved.saturating_sub(settled)),
            refill_per_second: self.config.limits.refill_per_second,
            low_water_percent: self.config.low_water_percent,
            queued: count(self.waiting),
            as_of: now,
            window_cap: self.config.limits.window_cap,
            effective_refill_per_second: Some(limits.refill_per_second),
            throttle: supply.throttle,
            paused_until: self.state.paused_until.filter(|until| *until > now),
            lent: self.state.shares.lent(available),
            kept: self.kept(now),
            debt: supply.bucket.debt(),
            partitions: self.partition_views(&supply.shares, &limits, now),
            breakers: self.state.breakers.iter().map(breaker_view).collect(),
        }
    }

    fn partition_views(&self, shares: &Shares, limits: &BucketLimits, now: Instant) -> Vec<PartitionView> {
        let partitions = &self.config.partitions;
        let is_eligible = self.eligible(now);
        let group = |flow: &Flow, tier| {
            is_eligible(flow).then(|| partition::index_of(partitions, &flow.client, tier)).flatten()
        };
        let ordered = self.ordered_of_shares(now);
        let wanted = self.queue.wanted_by(partitions.len(), group);
        let wanted: Vec<Tokens> =
            wanted.into_iter().zip(&ordered).map(|(here, (_, elsewhere))| here.saturating_add(*elsewhere)).collect();
        let next = self.wanted(now);
        let at = |amounts: &[Tokens], index: usize| amounts.get(index).copied().unwrap_or(Tokens::ZERO);
        let view = |(index, partition): (usize, &Partition)| {
            let available = shares.left(partition);
            let of_share = partition.limits(limits);
            PartitionView {
                name: partition.name.clone(),
                capacity: of_share.capacity,
                available,
                refill_per_second: of_share.refill_per_second,
                wanted: at(&wanted, index),
                claimed: if partition.lends { available.min(at(&next, index)) } else { available },
                lends: partition.lends,
            }
        };
        partitions.iter().enumerate().map(view).collect()
    }

    /// How long the longest waiting request has waited, of those that wait for no window of their own choice.
    #[must_use]
    pub fn oldest_wait_ms(&self, now: Instant) -> i64 {
        let waits =
            |request: &&Request| request.is_waiting() && self.is_open_for(request.window().as_ref(), now).is_ok();
        self.requests.values().filter(waits).map(|request| now.since(request.enqueued_at)).max().unwrap_or(0)
    }

    /// How many requests have not ended, and how many leases and settlements are open: a pool with any is not to be
    /// deleted.
    #[must_use]
    pub fn work_held(&self) -> (u64, u64) {
        (count(self.requests.len()), count(self.leases.len().saturating_add(self.unsettled.len())))
    }

    /// The queue.
    #[must_use]
    pub fn queue_view(&self, now: Instant) -> QueueView {
        let lane = |urgency| {
            let mut view = LaneView { urgency, depth: 0, oldest_wait_ms: 0 };
            for request in self.requests.values().filter(|request| request.is_waiting() && request.urgency == urgency) {
                view.depth = view.depth.saturating_add(1);
                view.oldest_wait_ms = view.oldest_wait_ms.max(now.since(request.enqueued_at));
            }
            view
        };
        let lanes: Vec<LaneView> = Urgency::ALL.into_iter().map(lane).collect();
        let running = self
            .requests
            .values()
            .filter(|request| request.kind == Kind::Execution && matches!(request.phase, Phase::Running { .. }));
        QueueView {
            pool: self.config.pool.clone(),
            depth: lanes.iter().fold(0, |sum, lane| sum.saturating_add(lane.depth)),
            running: count(running.count()),
            oldest_wait_ms: lanes.iter().map(|lane| lane.oldest_wait_ms).max().unwrap_or(0),
            next_grant_ms: self.head_ready_at.map(|at| at.since(now)),
            lanes,
        }
    }
}
