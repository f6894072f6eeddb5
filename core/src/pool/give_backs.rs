//! Another pool was given tokens back: who of those that wait for it here come back to their place, to ask there.
//!
//! What is there is there once, for all that wait: it is spent on them in the order of their rank, on none that could not run
//! now, and on no more of a client and lane than have slots. An event wakes a few of them only. The others are woken as these are granted; what is refused to one
//! is refused to all that need as much.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::Pool;
use crate::pool::elsewhere::idle_wake_ms;
use crate::pool::inquirers::{QueueElsewhere, slots_of};
use crate::pool::orders::ORDERS_MAX;
use crate::priority::Urgency;
use crate::queue::Flow;
use crate::request::Phase;
use crate::units::{Instant, Tokens};

/// So many are woken in one event.
const WOKEN_AT_ONCE: usize = 16;
/// So many more for each one that is granted.
const FOR_EACH: usize = 2;
/// So many are to be woken at most: no pool knows more orders.
const AT_MOST: usize = ORDERS_MAX;

/// Those that are to be woken, by the pool that they wait for.
#[derive(Debug, Clone, Default)]
pub(super) struct GiveBacks(BTreeMap<PoolId, GiveBack>);

#[derive(Debug, Clone)]
struct GiveBack {
    came_to_nothing: bool,
    /// In the order of their rank, with what they need of it.
    to_wake: VecDeque<(RequestId, Tokens)>,
}

impl Pool {
    /// Another pool was given tokens back, and has `available`: those that wait for it here need wait no longer, as many as
    /// there is enough for. What came to nothing (`came_to_nothing`) was in the way of others only while somebody tried, so
    /// that each such word for a request counts for less than the one before: two pools whose requests need each other would
    /// wake each other for ever.
    pub fn lease_free(&mut self, pool: &PoolId, came_to_nothing: bool, available: Tokens, now: Instant) {
        self.event(now, |home| {
            let (to_wake, next) = home.can_have(pool, available, now);
            home.give_backs.0.insert(pool.clone(), GiveBack { came_to_nothing, to_wake });
            home.wake_next(pool, WOKEN_AT_ONCE, now);
            let Some(id) = next else { return };
            match home.is_parked(&id) {
                // It may be sooner than was said; and that pool is to tell of the next one, too.
                true if !came_to_nothing => home.inquire_or_return(&id, now),
                true => {}
                false => home.wake_from_elsewhere(&id, came_to_nothing, now),
            }
        });
    }

    /// Those that wait for another pool which it has enough for, each of them and those before it, and the first that it has
    /// not enough for: of lower rank those of its flow wait behind it.
    fn can_have(
        &self,
        pool: &PoolId,
        available: Tokens,
        now: Instant,
    ) -> (VecDeque<(RequestId, Tokens)>, Option<RequestId>) {
        let weights = &self.config.weights;
        let queues = self.elsewhere.iter().filter(|((of, _), _)| of == pool).filter_map(|((_, flow), waiting)| {
            let first = waiting.first().and_then(|(_, id)| self.requests.get(id))?;
            // It is not for tokens that those wait whose worker is left alone there.
            (!first.left_alone && self.may_run(first, now).is_ok()).then_some((flow, waiting, first))
        });
        let mut queues: Vec<_> = queues
            .map(|(Flow { client, urgency, .. }, waiting, first)| {
                let bonus = weights.client_bonus(first.tier, self.fairness.millipoints(client));
                let mut of_queue = waiting.iter();
                move || {
                    let (enqueued_at, id) = of_queue.next()?;
                    Some((weights.key(*urgency, *enqueued_at, bonus, now), *enqueued_at, id))
                }
            })
            .collect();
        let mut of_lanes: BTreeMap<(&ClientId, Urgency), usize> = BTreeMap::new();
        let place = |(index, next): (usize, &mut _)| Some(Reverse((next_of(next)?, index)));
        let mut heads: BinaryHeap<_> = queues.iter_mut().enumerate().filter_map(place).collect();
        let (mut left, mut have, mut lacks) = (available, VecDeque::new(), None);
        while have.len() < AT_MOST
            && let Some(Reverse(((_, _, id), index))) = heads.pop()
        {
            let Some(request) = self.requests.get(id) else { continue };
            let Some(demand) = request.awaits() else { continue };
            let of_lane = of_lanes.entry((&request.client, request.rank_urgency())).or_default();
            if *of_lane >= slots_of(request).saturating_sub(self.inquirers.count_coming(&request.client)) {
                continue;
            }
            if demand.amount > left {
                lacks = lacks.or_else(|| Some(id.clone()));
                continue;
            }
            *of_lane = of_lane.saturating_add(1);
            left = left.saturating_sub(demand.amount);
            have.push_back((id.clone(), demand.amount));
            heads.extend(queues.get_mut(index).and_then(|next| place((index, next))));
        }
        (have, lacks)
    }

    /// Wakes so many of those that are to be.
    fn wake_next(&mut self, pool: &PoolId, count: usize, now: Instant) {
        let mut woken = 0_usize;
        while woken < count {
            let Some(GiveBack { came_to_nothing, to_wake }) = self.give_backs.0.get_mut(pool) else { return };
            let came_to_nothing = *came_to_nothing;
            let Some((id, _)) = to_wake.pop_front() else {
                self.give_backs.0.remove(pool);
                return;
            };
            let awaited = self.requests.get(&id).and_then(|request| request.awaits());
            if awaited.is_some_and(|demand| demand.pool == *pool) {
                woken = woken.saturating_add(1);
                self.wake_from_elsewhere(&id, came_to_nothing, now);
            }
        }
    }

    /// One that waited for another pool is granted there, or would be: there may be enough for the next ones, too.
    pub(super) fn had_enough(&mut self, queue: &QueueElsewhere, now: Instant) {
        let (pool, _) = queue;
        match self.give_backs.0.contains_key(pool) {
            true => self.wake_next(pool, FOR_EACH, now),
            false => self.next_ones_inquire(queue, now),
        }
    }

    /// Another pool has refused so much: those that need as much are not woken for what it was given back.
    pub(super) fn had_not_enough(&mut self, pool: &PoolId, amount: Tokens) {
        if let Some(give_back) = self.give_backs.0.get_mut(pool) {
            give_back.to_wake.retain(|(_, needed)| *needed < amount);
            if give_back.to_wake.is_empty() {
                self.give_backs.0.remove(pool);
            }
        }
    }

    fn wake_from_elsewhere(&mut self, id: &RequestId, came_to_nothing: bool, now: Instant) {
        let Some(request) = self.requests.get_mut(id) else { return };
        request.idle_wakes = if came_to_nothing { request.idle_wakes.saturating_add(1) } else { 0 };
        let wait_ms = idle_wake_ms(request.idle_wakes);
        match &mut request.phase {
            // The answer to one that asks there may be older than this.
            Phase::Acquiring { woken, .. } => *woken = true,
            Phase::Parked { until, .. } if wait_ms > 0 => {
                let until = now.plus(wait_ms).min(*until);
                self.wait_elsewhere(id, until);
            }
            _ => self.come_back(id),
        }
    }
}

fn next_of<T>(next: &mut impl FnMut() -> Option<T>) -> Option<T> {
    next()
}
