//! Where a waiting request stands, and what holds it.

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::pool::Pool;
use crate::pool::index::entry;
use crate::pool::view::count;
use crate::priority::{PROMOTED_ONE_IN, Points, STARVATION_BOUND_MS, Score};
use crate::queue::{Ahead, Entry, Flow, Queue};
use crate::request::{Cause, Demand, Phase, Request};
use crate::units::Instant;

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

    /// What holds a request up, if anything.
    #[must_use]
    pub fn held_up_by(&self, id: &RequestId, now: Instant) -> Option<Blocked> {
        self.requests.get(id).and_then(|request| self.blocked_by(request, now))
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

    /// A promoted one waits for no more than its turn. (In a divided pool it may have that, or its share's, earlier than the
    /// score tells: what goes to the shares until then is reckoned by the score.)
    fn ahead_in(&self, queue: &Queue, place: &Entry<'_>, now: Instant) -> Ahead {
        let flow = place.flow();
        let counted = |other: &Flow, _| self.is_held_up_by_nothing_else(other, &flow, now);
        let by_score = queue.ahead_of(&self.config.weights, &self.fairness, place, now, counted);
        if !self.is_old(place.enqueued_at, now) || !self.config.partitions.is_empty() {
            return by_score;
        }
        self.ahead_by_turns(queue.older_than(place, counted), by_score)
            .filter(|by_turns| by_turns.requests < by_score.requests)
            .unwrap_or(by_score)
    }

    /// What goes before a promoted one until its turn comes, if one in so many grants is that of the oldest: those that are
    /// `older`, and between them others of those that the score puts before it.
    fn ahead_by_turns(&self, older: Ahead, by_score: Ahead) -> Option<Ahead> {
        let between = PROMOTED_ONE_IN.saturating_sub(1);
        let first = usize::try_from(between.saturating_sub(self.grants_since_promoted())).ok()?;
        let others = usize::try_from(between).ok()?.saturating_mul(older.requests).saturating_add(first);
        let mean = by_score.micros.checked_div(i128::try_from(by_score.requests).ok()?)?;
        Some(Ahead {
            requests: older.requests.saturating_add(others),
            micros: older.micros.saturating_add(mean.saturating_mul(i128::try_from(others).ok()?)),
        })
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
            Some(Blocked::WorkerUnavailable) => u64::from(self.another_one_tries_first(request, now)),
            _ => 0,
        }
    }

    /// Whether its worker, which is left alone, is tried first by one that has not failed, and is of lower rank.
    fn another_one_tries_first(&self, request: &Request, now: Instant) -> bool {
        let place = entry(request);
        let tries = |other: &Flow| other.worker.as_ref() == place.worker && self.tries_first(other, now);
        let queue = if request.home_amount().is_zero() { &self.free } else { &self.queue };
        let ahead = queue.ahead_of(&self.config.weights, &self.fairness, &place, now, |other, _| tries(other));
        place.has_failed && ahead.requests == 0 && (self.queue.has(tries) || self.free.has(tries))
    }

    fn blocked_by(&self, request: &Request, now: Instant) -> Option<Blocked> {
        if request.is_waiting() && !self.config.scheduler_running {
            return Some(Blocked::SchedulerStopped);
        }
        let is_left_alone = |worker| !self.lets_through(worker, now);
        let worker_fails = request.worker.as_ref().is_some_and(is_left_alone)
            || self.is_tried_by_another_one(&entry(request).flow(), now);
        match request.phase {
            Phase::Waiting if self.is_open_for(request.window().as_ref(), now).is_err() => Some(Blocked::OffPeak),
            Phase::Waiting if worker_fails => Some(Blocked::WorkerUnavailable),
            Phase::Waiting if self.blocked.contains_key(&request.client) => Some(Blocked::Concurrency),
            Phase::Waiting => Some(Blocked::Tokens),
            Phase::Parked { cause: Cause::RetryBackoff, .. } => Some(Blocked::RetryBackoff),
            Phase::Parked { cause: Cause::Batching, .. } => Some(Blocked::Batching),
            Phase::Acquiring { .. } if request.is_ready() => Some(Blocked::Batching),
            Phase::Parked { cause: Cause::SecondaryPool, .. } if request.left_alone => Some(Blocked::WorkerUnavailable),
            Phase::Parked { cause: Cause::SecondaryPool, .. } | Phase::Acquiring { slot: true, .. } => {
                Some(Blocked::SecondaryPool)
            }
            Phase::Parked { cause: Cause::Concurrency, .. } | Phase::Acquiring { .. } => Some(Blocked::Concurrency),
            Phase::Following { .. } => Some(Blocked::InFlight),
            Phase::Running { .. } | Phase::Abandoned { .. } => None,
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
