//! What can be asked of a pool without changing it.

use serde::{Deserialize, Serialize};

use crate::account::AtHome;
use crate::breaker::Breaker;
use crate::id::{PoolId, RequestId, WorkerBinding};
use crate::partition::{self, Partition};
use crate::pool::Pool;
use crate::pool::index::entry;
use crate::priority::{Points, STARVATION_BOUND_MS, Score, Urgency};
use crate::queue::{Ahead, Entry, Flow, Queue};
use crate::request::{Cause, Demand, Kind, Phase, Request};
use crate::token_bucket::TokenBucket;
use crate::units::{Instant, Tokens};

/// What holds a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    /// The pool's tokens, or those before it in the queue.
    Tokens,
    /// The client runs as many as it may.
    Concurrency,
    /// Another pool that it needs.
    SecondaryPool,
    /// The scheduler is stopped.
    SchedulerStopped,
    /// An attempt failed, and the next is not due.
    RetryBackoff,
    /// It waits for its off-peak window.
    OffPeak,
    /// Its downstream worker keeps failing, and is left alone for a while.
    WorkerUnavailable,
    /// The same request is in flight: it waits for that one's result.
    InFlight,
    /// It waits for others to be combined with.
    Batching,
}

impl Blocked {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Tokens,
        Self::Concurrency,
        Self::SecondaryPool,
        Self::SchedulerStopped,
        Self::RetryBackoff,
        Self::OffPeak,
        Self::WorkerUnavailable,
        Self::InFlight,
        Self::Batching,
    ];

    /// Its name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
            Self::SecondaryPool => "secondary_pool",
            Self::SchedulerStopped => "scheduler_stopped",
            Self::RetryBackoff => "retry_backoff",
            Self::OffPeak => "off_peak",
            Self::WorkerUnavailable => "worker_unavailable",
            Self::InFlight => "in_flight",
            Self::Batching => "batching",
        }
    }
}

/// Where a waiting request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PositionView {
    /// From 1; 0 once it runs.
    pub position: u64,
    /// How many are before it.
    pub ahead: u64,
    /// The score.
    pub priority: Points,
    /// Its parts.
    pub score: Score,
    /// Whether it is older than the starvation bound.
    pub promoted: bool,
    /// An estimate.
    pub estimated_start_at: Option<Instant>,
    /// What holds it, if anything.
    pub blocked_by: Option<Blocked>,
}

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

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Pool {
    /// Where a request stands; `None` if the pool has let go of it.
    #[must_use]
    pub fn position(&self, id: &RequestId, now: Instant) -> Option<PositionView> {
        let request = self.requests.get(id)?;
        let weights = &self.config.weights;
        let fairness = self.fairness.millipoints(&request.client);
        let waited = now.since(request.enqueued_at);
        let score = weights.score(request.tier, request.rank_urgency(), waited, fairness);
        let waiting = request.is_waiting();
        let ahead = if waiting { self.ahead_of(request, now) } else { Ahead::default() };
        let in_all = if waiting { count(ahead.requests).saturating_add(self.ahead_elsewhere(request, now)) } else { 0 };
        Some(PositionView {
            position: if waiting { in_all.saturating_add(1) } else { 0 },
            ahead: in_all,
            priority: score.total(),
            score,
            promoted: waiting && waited >= STARVATION_BOUND_MS,
            estimated_start_at: if waiting {
                self.estimated_start(request, ahead, now)
            } else {
                request.first_started_at
            },
            blocked_by: self.blocked_by(request, now),
        })
    }

    /// What goes before this one, of those that nothing holds up which does not hold up this one as well.
    pub(super) fn ahead_of(&self, request: &Request, now: Instant) -> Ahead {
        let queue = if request.home_amount().is_zero() { &self.free } else { &self.queue };
        self.ahead_in(queue, &entry(request), now)
    }

    /// The same for one of another pool, or of this one, by its place.
    pub(super) fn before(&self, place: &Entry<'_>, now: Instant) -> Ahead {
        self.ahead_in(&self.queue, place, now)
    }

    fn ahead_in(&self, queue: &Queue, place: &Entry<'_>, now: Instant) -> Ahead {
        let flow = place.flow();
        let counted = |other: &Flow, _| self.is_held_up_by_nothing_else(other, &flow, now);
        queue.ahead_of(&self.config.weights, &self.fairness, place, now, counted)
    }

    /// How many go before this one of those that are not in the queue, and hold back nobody else: its client's that ask for a
    /// slot, if it waits for one, or those that wait for tokens of another pool that it waits for.
    fn ahead_elsewhere(&self, request: &Request, now: Instant) -> u64 {
        let place = entry(request);
        let is_before = |one: &&Request| self.goes_before(&entry(one), &place, false, now);
        match self.blocked_by(request, now) {
            Some(Blocked::Concurrency) => {
                let asking = self.acquiring(&request.client);
                count(asking.iter().filter_map(|id| self.requests.get(id)).filter(is_before).count())
            }
            Some(Blocked::SecondaryPool) => {
                let needs = |of: &Demand| request.others().iter().any(|own| own.pool == of.pool);
                let waits_too = |one: &&Request| one.others().iter().any(needs);
                let all = self.elsewhere.values().flatten().filter_map(|(_, id)| self.requests.get(id));
                count(all.filter(waits_too).filter(is_before).count())
            }
            _ => 0,
        }
    }

    fn blocked_by(&self, request: &Request, now: Instant) -> Option<Blocked> {
        if request.is_waiting() && !self.config.scheduler_running {
            return Some(Blocked::SchedulerStopped);
        }
        let is_left_alone = |worker| !self.lets_through(worker, now);
        let worker_fails = request.worker.as_ref().is_some_and(is_left_alone)
            || (request.attempts > 0 && self.another_one_probes(&entry(request).flow(), now));
        match request.phase {
            Phase::Waiting if self.is_open_for(request.window().as_ref(), now).is_err() => Some(Blocked::OffPeak),
            Phase::Waiting if worker_fails => Some(Blocked::WorkerUnavailable),
            Phase::Waiting if self.blocked.contains_key(&request.client) => Some(Blocked::Concurrency),
            Phase::Waiting => Some(Blocked::Tokens),
            Phase::Parked { cause: Cause::RetryBackoff, .. } => Some(Blocked::RetryBackoff),
            Phase::Parked { cause: Cause::Batching, .. } => Some(Blocked::Batching),
            Phase::Acquiring { .. } if request.is_ready() => Some(Blocked::Batching),
            Phase::Parked { cause: Cause::SecondaryPool, .. } | Phase::Acquiring { slot: true, .. } => {
                Some(Blocked::SecondaryPool)
            }
            Phase::Parked { cause: Cause::Concurrency, .. } | Phase::Acquiring { .. } => Some(Blocked::Concurrency),
            Phase::Following { .. } => Some(Blocked::InFlight),
            Phase::Running { .. } | Phase::Abandoned { .. } => None,
        }
    }

    fn bucket_at(&self, now: Instant) -> TokenBucket {
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
        let ledger = self.state.ledger;
        let settled = ledger.consumed.saturating_add(ledger.released).saturating_add(ledger.expired);
        PoolView {
            pool: self.config.pool.clone(),
            unit: self.config.unit.clone(),
            capacity: self.config.limits.capacity,
            available: self.available(now),
            reserved: Tokens::clamped(ledger.reserved.saturating_sub(settled)),
            refill_per_second: self.config.limits.refill_per_second,
            low_water_percent: self.config.low_water_percent,
            queued: count(self.waiting),
            as_of: now,
            window_cap: self.config.limits.window_cap,
            effective_refill_per_second: Some(self.limits().refill_per_second),
            paused_until: self.state.paused_until.filter(|until| *until > now),
            lent: self.state.shares.lent(self.available(now)),
            kept: self.kept(now),
            debt: self.bucket_at(now).debt(),
            partitions: self.partition_views(now),
            breakers: self.state.breakers.iter().map(breaker_view).collect(),
        }
    }

    fn partition_views(&self, now: Instant) -> Vec<PartitionView> {
        let limits = self.limits();
        let mut shares = self.state.shares.clone();
        shares.refill(&self.config.partitions, &limits, now);
        let partitions = &self.config.partitions;
        let group = |flow: &Flow, tier| {
            self.is_eligible(flow, now).then(|| partition::index_of(partitions, &flow.client, tier)).flatten()
        };
        let ordered = self.ordered_of_shares(now);
        let wanted = self.queue.wanted_by(partitions.len(), group);
        let wanted: Vec<Tokens> =
            wanted.into_iter().zip(&ordered).map(|(here, (_, elsewhere))| here.saturating_add(*elsewhere)).collect();
        let next = self.wanted(now);
        let at = |amounts: &[Tokens], index: usize| amounts.get(index).copied().unwrap_or(Tokens::ZERO);
        let view = |(index, partition): (usize, &Partition)| {
            let available = shares.left(partition);
            let of_share = partition.limits(&limits);
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

#[cfg(test)]
mod tests {
    use super::Blocked;

    #[test]
    fn what_blocks_has_one_name() {
        for blocked in Blocked::ALL {
            assert_eq!(serde_json::to_string(&blocked).unwrap(), format!("\"{}\"", blocked.as_str()));
        }
    }
}
