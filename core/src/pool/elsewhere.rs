//! Requests that wait for another pool's tokens: how long, what wakes them, and what they ask meanwhile.
//!
//! Such a request holds nothing, and has no place in its home's queue. From time to time its home asks that pool whether it
//! would be granted (an *inquiry*): only when the answer is yes, or the pool has said that it soon will be, does the request
//! come back to its place and take tokens again, so that what it waits for holds back nobody elsewhere.

use crate::breaker::Breaker;
use crate::id::{PoolId, RequestId};
use crate::pool::acquire::LeaseAnswer;
use crate::pool::index::{entry, queue_elsewhere};
use crate::pool::lease::lease_key;
use crate::pool::{Effect, LeaseEnd, LeaseOrder, Pool, Signal};
use crate::priority::PROMOTED_ONE_IN;
use crate::queue::Entry;
use crate::request::{Cause, Demand, Kind, Phase, Request};
use crate::units::{Instant, NanoUsd, Tokens};

/// The wait after another pool could not say when.
pub(super) const RECHECK_MS: i64 = 1_000;
/// The longest wait for another pool: what is given back there is there before it is refilled.
const RECHECK_MAX_MS: i64 = 5_000;
/// Those that only wait for others before them are all looked at in one event, so often.
const RECHECKS_EVERY_MS: i64 = 1_000;
/// What a pool said is put off if it says that it will be so much later.
const PUT_OFF_MS: i64 = 2_000;
/// The shortest.
const RECHECK_MIN_MS: i64 = 50;
/// How long an inquiry may take before it is made again.
const INQUIRY_LIMIT_MS: i64 = 5_000;
/// So many inquiries are made in one event, the others a moment later: an event has few calls.
pub(super) const INQUIRIES_AT_ONCE: usize = 16;
/// That moment.
pub(super) const INQUIRIES_EVERY_MS: i64 = 100;
/// One whose turn in its home comes this much later than it could gain what it needs does not inquire yet.
const NEAR_MS: i64 = 10_000;
/// A request that is woken in vain is woken at once the first time, the second time after so long, and twice that each
/// time after it.
const IDLE_WAKE_MS: i64 = 25;

/// When another pool is asked again for a request of this age that has something for the next one at `retry_at`, and for this
/// one at `ready_at`: before that now and then only, for what is given back there is there earlier, and is told.
pub(super) fn asks_again_at(
    retry_at: Option<Instant>,
    ready_at: Option<Instant>,
    enqueued_at: Instant,
    now: Instant,
) -> Instant {
    let rarely = |wait_ms: i64| now.plus(RECHECK_MS.max(wait_ms >> 3));
    let at = match ready_at {
        Some(at) => retry_at.max(Some(at.min(rarely(at.since(now))))),
        None => retry_at,
    };
    at.unwrap_or_else(|| rarely(now.since(enqueued_at))).clamp(now.plus(RECHECK_MIN_MS), now.plus(RECHECK_MAX_MS))
}

/// When a pool that refused has its tokens, unless it has put off before what it said: it is believed anew the next time.
pub(super) fn kept_word(request: &mut Request, pool: &PoolId, ready_at: Option<Instant>) -> Option<Instant> {
    let ready_at = ready_at?;
    match request.promises.get(pool) {
        Some(promised) if ready_at > promised.plus(PUT_OFF_MS) => {
            request.promises.remove(pool);
            None
        }
        Some(_) => Some(ready_at),
        None => {
            request.promises.insert(pool.clone(), ready_at);
            Some(ready_at)
        }
    }
}

/// How long one waits that was woken so often for what had come to nothing.
pub(super) fn idle_wake_ms(wakes: u32) -> i64 {
    match wakes.checked_sub(2) {
        None => 0,
        Some(doublings) => IDLE_WAKE_MS.saturating_mul(1_i64.checked_shl(doublings.min(10)).unwrap_or(1)),
    }
}

/// The next moment at which those are looked at that are in no hurry.
fn with_others(at: Instant) -> Instant {
    let over = at.millis().checked_rem_euclid(RECHECKS_EVERY_MS).unwrap_or(0);
    if over == 0 { at } else { at.plus(RECHECKS_EVERY_MS.saturating_sub(over)) }
}

impl Pool {
    /// What is asked of another pool for a request.
    pub(super) fn order_for(&self, request: &Request, demand: &Demand, inquires: bool, now: Instant) -> LeaseOrder {
        let regain_ms =
            self.regain_ms(request.home_amount(), self.own_share(request), self.is_old(request.enqueued_at, now));
        LeaseOrder {
            key: lease_key(&request.id, request.grants),
            client: request.client.clone(),
            tier: request.tier,
            urgency: request.rank_urgency(),
            enqueued_at: request.enqueued_at,
            amount: demand.amount,
            cost: demand.estimated_cost().unwrap_or(NanoUsd::ZERO),
            worker: request.worker.clone(),
            slots: request.slots,
            returns: request.kind == Kind::Execution,
            inquires,
            regain_ms: regain_ms.max(request.others_regain_ms),
            standing: request.standing,
            stood_at: request.granted_at(),
            ttl_ms: request.lease_ttl_ms(),
        }
    }

    fn own_share(&self, request: &Request) -> Option<usize> {
        self.partition_of(&request.client, request.tier)
    }

    /// Until when a request waits outside the queue that another pool refused with these words; `None` if it comes back at
    /// once, for tokens were given back there meanwhile.
    pub(super) fn waits_elsewhere_until(
        &self,
        request: &Request,
        retry_at: Option<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let asks_at = asks_again_at(retry_at, request.others_ready_at, request.enqueued_at, now);
        if matches!(request.phase, Phase::Acquiring { woken: true, .. }) {
            let wait_ms = idle_wake_ms(request.idle_wakes);
            return (wait_ms > 0).then(|| asks_at.min(now.plus(wait_ms)));
        }
        let collects_at = self.collects_at(request).map(|at| at.max(now.plus(RECHECK_MS)));
        Some(collects_at.map_or(asks_at, |at| at.min(asks_at)))
    }

    /// When a request comes back to its place that another pool will grant at a time which is known. What it gave back went
    /// to those that wait here: if there are any, it comes back earlier, to have its tokens again by then.
    fn collects_at(&self, request: &Request) -> Option<Instant> {
        let ready_at = request.others_ready_at?;
        if self.queue.is_empty() || request.home_amount().is_zero() {
            return Some(ready_at);
        }
        let gain_ms = self.gain_ms(request.home_amount(), self.own_share(request));
        Some(ready_at.plus(gain_ms.unwrap_or(0).saturating_neg()))
    }

    /// The time is over that a request waited outside the queue for another pool: it comes back if its tokens are there, or
    /// will be as soon as it has those of its home; else that pool is asked whether they are.
    pub(super) fn inquire_or_return(&mut self, id: &RequestId, now: Instant) {
        let Some(request) = self.requests.get(id) else { return };
        let waits = matches!(request.phase, Phase::Parked { cause: Cause::SecondaryPool, .. });
        if !waits || self.collects_at(request).is_some_and(|at| at <= now) {
            return self.unpark(id);
        }
        let others_at = with_others(now.plus(RECHECK_MAX_MS));
        if !self.is_inquirer(request) {
            return self.wait_elsewhere(id, others_at);
        }
        // What cannot use tokens asks for none. One whose client has no slot free waits for that in its place.
        if self.blocked.contains_key(&request.client) {
            self.wants_nothing_more(id);
            return self.come_back(id);
        }
        if let Err(until) = self.may_run(request, now) {
            self.wants_nothing_more(id);
            let until = until.filter(|until| *until > now);
            return self.wait_elsewhere(id, until.map_or(others_at, |until| until.min(others_at)));
        }
        match self.turn_is_near(request, now) {
            false => self.wait_elsewhere(id, others_at),
            true if self.inquiries_made() >= INQUIRIES_AT_ONCE => {
                let until = self.inquirers.asks_later_at(now);
                self.wait_elsewhere(id, until);
            }
            true => self.inquire(id, now),
        }
    }

    /// Whether neither its worker nor its window holds up a request of this pool; if so, until when, as far as that is known.
    pub(super) fn may_run(&self, request: &Request, now: Instant) -> Result<(), Option<Instant>> {
        let place = entry(request);
        self.is_open_for(place.off_peak.as_ref(), now)?;
        if let Some(worker) = place.worker.filter(|worker| !self.lets_through(worker, now)) {
            return Err(self.state.breakers.get(worker).and_then(Breaker::opens_until));
        }
        if self.is_tried_by_another_one(&place.flow(), now) { Err(None) } else { Ok(()) }
    }

    /// How many inquiries this event has made.
    pub(super) fn inquiries_made(&self) -> usize {
        let inquires = |effect: &&Effect| matches!(effect, Effect::AcquireLease { order, .. } if order.inquires);
        self.effects.iter().filter(inquires).count()
    }

    /// Asks the pool that a request waits for whether it would be granted.
    pub(super) fn inquire(&mut self, id: &RequestId, now: Instant) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(demand) = request.awaits() else { return self.unpark(id) };
        let (pool, grant) = (demand.pool.clone(), request.grants);
        let mut order = self.order_for(request, demand, true, now);
        (order.standing, order.stood_at) = (Some(self.fairness.millipoints(&order.client)), Some(now));
        self.standings.order_tells(&pool, &order);
        self.effects.push(Effect::AcquireLease { id: id.clone(), grant, pool, order });
        if let Some(request) = self.requests.get_mut(id) {
            request.asked_at = Some(now);
        }
        self.wait_elsewhere(id, now.plus(INQUIRY_LIMIT_MS));
    }

    /// Whether those that go before it in its home have their tokens about as soon as it would gain its own, or as the other
    /// pool has its: until then it could not use what would be kept for it there. A promoted one has a turn of its own.
    pub(super) fn turn_is_near(&self, request: &Request, now: Instant) -> bool {
        if request.home_amount().is_zero() || self.is_old(request.enqueued_at, now) {
            return true;
        }
        let near_ms = NEAR_MS.saturating_add(self.regain_ms(request.home_amount(), self.own_share(request), false));
        let others_ms = request.others_ready_at.map_or(0, |at| at.since(now));
        let place = Entry { amount: Tokens::ZERO, ..entry(request) };
        let turn = self.tokens_at(&place, self.before(&place, now), now);
        turn.is_none_or(|at| at.since(now) <= near_ms.max(others_ms))
    }

    pub(super) fn is_parked(&self, id: &RequestId) -> bool {
        self.requests.get(id).and_then(Request::parked_until).is_some()
    }

    /// One that waits outside the queue does so until then. That is not stored: after a crash it asks earlier.
    pub(super) fn wait_elsewhere(&mut self, id: &RequestId, until: Instant) {
        if let Some(mut request) = self.take(id) {
            request.phase = Phase::Parked { until, cause: Cause::SecondaryPool };
            self.index(&request);
            self.requests.insert(request.id.clone(), request);
        }
    }

    /// Whether this pool is asked whether it would grant that request, by its last grant.
    pub(super) fn is_inquired(&self, id: &RequestId, grant: u32, pool: &PoolId) -> bool {
        self.requests.get(id).is_some_and(|request| {
            let waits = matches!(request.phase, Phase::Parked { cause: Cause::SecondaryPool, .. });
            waits && request.grants == grant && request.refused_by.as_ref() == Some(pool)
        })
    }

    /// That pool has answered.
    pub(super) fn take_inquiry_answer(&mut self, id: &RequestId, pool: &PoolId, answer: LeaseAnswer, now: Instant) {
        let mut is_new = false;
        if let Some(request) = self.requests.get_mut(id) {
            let left_alone = matches!(answer, LeaseAnswer::LeftAlone { .. });
            is_new = left_alone && !request.left_alone;
            request.left_alone = left_alone;
        }
        let queue = self.requests.get(id).and_then(queue_elsewhere);
        match answer {
            LeaseAnswer::Never => self.unpark(id),
            LeaseAnswer::Ready => {
                self.come_back(id);
                if let Some(queue) = queue {
                    self.inquirers.was_told(queue.clone(), true);
                    self.had_enough(&queue, now);
                }
            }
            LeaseAnswer::Granted { .. } => {
                // A late answer to what was given up, or of a pool that knows of no inquiries.
                if let Some(request) = self.requests.get(id) {
                    let (pool, key) = (pool.clone(), lease_key(id, request.grants));
                    let (used, end) = (Tokens::ZERO, LeaseEnd::Returns { needed_at: Some(now) });
                    self.effects.push(Effect::SettleLease { pool, key, used, end, signal: Signal::default() });
                }
                self.unpark(id);
            }
            LeaseAnswer::NotNow { retry_at, ready_at } => {
                if let Some(queue) = queue {
                    self.inquirers.was_told(queue, false);
                }
                if let Some(request) = self.requests.get_mut(id) {
                    request.others_ready_at = ready_at;
                }
                let until =
                    self.requests.get(id).and_then(|request| self.waits_elsewhere_until(request, retry_at, now));
                // It may have been woken while this was on its way.
                let woken_at = self.requests.get(id).and_then(Request::parked_until);
                self.wait_elsewhere(id, until.map_or(now, |until| woken_at.map_or(until, |at| at.min(until))));
            }
            LeaseAnswer::LeftAlone { until } => {
                if let Some(queue) = queue {
                    self.inquirers.was_told(queue, false);
                }
                if let Some(request) = self.requests.get_mut(id) {
                    request.others_ready_at = None;
                    let until = asks_again_at(until, None, request.enqueued_at, now);
                    self.wait_elsewhere(id, until);
                }
                if is_new {
                    self.wants_nothing_more(id);
                }
            }
            LeaseAnswer::Unreachable => {
                if let Some(request) = self.requests.get_mut(id) {
                    request.others_ready_at = None;
                }
                self.wait_elsewhere(id, now.plus(RECHECK_MS));
            }
        }
    }

    /// How long it takes, in milliseconds, until one that gives its tokens back here has them again; 0 if that is not a matter
    /// of time. Twice what it needs is gained, for others may come first; a promoted one, whose turn is one in four, may have
    /// as many of the largest grants before it.
    pub(super) fn regain_ms(&self, amount: Tokens, own: Option<usize>, promoted: bool) -> i64 {
        let (most, times) =
            if promoted { (self.config.limits.capacity, i64::from(PROMOTED_ONE_IN)) } else { (amount, 2) };
        if amount.is_zero() { 0 } else { self.gain_ms(most, own).unwrap_or(0).saturating_mul(times) }
    }

    /// How long this pool takes to gain an amount for a member of a partition, in milliseconds, if it is refilled: out of its
    /// share if that can hold it, else out of what is not dedicated to others.
    pub(super) fn gain_ms(&self, amount: Tokens, own: Option<usize>) -> Option<i64> {
        let limits = self.limits();
        let share = own.and_then(|index| self.config.partitions.get(index)).map(|share| share.limits(&limits));
        let rate = match share.filter(|share| amount <= share.capacity) {
            Some(share) => share.refill_per_second,
            None => self.open_rate(own),
        };
        let ms = i128::from(amount.micros()).saturating_mul(1_000).checked_div(i128::from(rate.micros()))?;
        Some(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}
