//! How many of those that wait for another pool ask it, and when the next ones do.
//!
//! The first few of a flow inquire; those behind them would be told the same. But where the first are told yes, or
//! are granted, there may be enough for more: then the next ones inquire at once, and not when their time comes. How many
//! the first are grows by one with each that is told yes, and falls by one with each that is not, so that they double with
//! each round while there is enough for all (as TCP's slow start does, RFC 5681), and are no more than is told yes to.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::Pool;
use crate::pool::elsewhere::{INQUIRIES_AT_ONCE, INQUIRIES_EVERY_MS, RECHECK_MS};
use crate::pool::index::queue_elsewhere;
use crate::pool::orders::ORDERS_MAX;
use crate::queue::Flow;
use crate::request::Request;
use crate::units::Instant;

/// So many of a flow inquire: the first ones. No more do if it is not known how many run at once.
const AT_FIRST: usize = 16;
/// And so many at most: no pool knows more orders.
const AT_MOST: usize = ORDERS_MAX;
/// So many of those that wait are looked at for the first ones.
const LOOKED_AT: usize = ORDERS_MAX;
/// So many inquire at once for each one that is told yes, or granted.
const FOR_EACH: usize = 2;

/// Those of one flow that wait for another pool: what holds up one of them holds up all, and none of another flow.
pub(super) type QueueElsewhere = (PoolId, Flow);

/// How many may ask, and who has been told yes.
#[derive(Debug, Clone, Default)]
pub(super) struct Inquirers {
    /// How many of the first, where that is not [`AT_FIRST`].
    allowed: BTreeMap<QueueElsewhere, usize>,
    /// Those that have come back to their place and are not granted yet.
    coming: BTreeMap<ClientId, BTreeSet<RequestId>>,
    /// How many were put off at the last moment at which any were.
    put_off: (Instant, usize),
}

impl Inquirers {
    fn allowed(&self, queue: &QueueElsewhere) -> usize {
        self.allowed.get(queue).copied().unwrap_or(AT_FIRST)
    }

    /// One of them has inquired, and was told yes or no.
    pub(super) fn was_told(&mut self, queue: QueueElsewhere, yes: bool) {
        let before = self.allowed(&queue);
        let allowed = if yes { before.saturating_add(1).min(AT_MOST) } else { before.saturating_sub(1) };
        if allowed > AT_FIRST {
            self.allowed.insert(queue, allowed);
        } else {
            self.allowed.remove(&queue);
        }
    }

    /// When one asks whose event has made as many inquiries as it may: after those that were put off before it, as many at once
    /// as an event may make, for each is looked at again then.
    pub(super) fn asks_later_at(&mut self, now: Instant) -> Instant {
        let (_, before) = Some(self.put_off).filter(|(at, _)| *at == now).unwrap_or((now, 0));
        self.put_off = (now, before.saturating_add(1));
        let part = before.checked_div(INQUIRIES_AT_ONCE).and_then(|part| i64::try_from(part).ok()).unwrap_or(0);
        now.plus(part.saturating_add(1).saturating_mul(INQUIRIES_EVERY_MS))
    }

    /// None of these waits any more.
    pub(super) fn queue_is_empty(&mut self, queue: &QueueElsewhere) {
        self.allowed.remove(queue);
    }

    fn comes(&mut self, client: &ClientId, id: &RequestId) {
        self.coming.entry(client.clone()).or_default().insert(id.clone());
    }

    /// A request has left its place.
    pub(super) fn comes_no_more(&mut self, client: &ClientId, id: &RequestId) {
        if let Some(ids) = self.coming.get_mut(client) {
            ids.remove(id);
            if ids.is_empty() {
                self.coming.remove(client);
            }
        }
    }

    /// Whether a request has come back to its place and is not granted yet.
    pub(super) fn is_coming(&self, client: &ClientId, id: &RequestId) -> bool {
        self.coming.get(client).is_some_and(|ids| ids.contains(id))
    }

    pub(super) fn count_coming(&self, client: &ClientId) -> usize {
        self.coming.get(client).map_or(0, BTreeSet::len)
    }
}

/// How many of a request's client run at once. One at least, whatever was known when it was admitted.
pub(super) fn slots_of(request: &Request) -> usize {
    request.slots.and_then(|slots| usize::try_from(slots.max(1)).ok()).unwrap_or(AT_FIRST)
}

impl Pool {
    /// A request that waited for another pool comes back to its place.
    pub(super) fn come_back(&mut self, id: &RequestId) {
        self.unpark(id);
        if let Some(request) = self.requests.get(id) {
            self.inquirers.comes(&request.client, id);
        }
    }

    /// Whether a request is one of the first of its flow that wait for another pool, but for those that need more of it: what
    /// they are told is not what this one would be.
    pub(super) fn is_inquirer(&self, request: &Request) -> bool {
        let Some((queue, needed)) = queue_elsewhere(request).zip(request.awaits()) else { return false };
        let most = slots_of(request).min(self.inquirers.allowed(&queue));
        let needs_no_more = |first: &&RequestId| {
            let first = self.requests.get(*first).and_then(Request::awaits);
            first.is_some_and(|first| first.amount <= needed.amount)
        };
        let waiting = self.elsewhere.get(&queue).into_iter().flatten().take(LOOKED_AT).map(|(_, first)| first);
        // Most are not among these at all, and need no further look.
        waiting.clone().any(|first| *first == request.id)
            && waiting.filter(needs_no_more).take(most).any(|first| *first == request.id)
    }

    /// One of these has been told yes, or was granted: the next ones inquire, if they have not just done so. With those that
    /// are on their way they are no more than their client's slots.
    pub(super) fn next_ones_inquire(&mut self, queue: &QueueElsewhere, now: Instant) {
        let (_, Flow { client, .. }) = queue;
        let Some(waiting) = self.elsewhere.get(queue).filter(|_| !self.blocked.contains_key(client)) else { return };
        let first = waiting.first().and_then(|(_, first)| self.requests.get(first));
        let under_way = self.inquirers.count_coming(client).saturating_add(self.count_acquiring(client));
        let room = first.map_or(0, slots_of).saturating_sub(under_way);
        let waits = |request: &&Request| {
            request.parked_until().is_some()
                && request.asked_at.is_none_or(|asked_at| now.since(asked_at) >= RECHECK_MS)
        };
        let first = waiting.iter().take(room.min(self.inquirers.allowed(queue)));
        let next = first.filter_map(|(_, id)| self.requests.get(id)).filter(waits);
        let at_once = FOR_EACH.min(INQUIRIES_AT_ONCE.saturating_sub(self.inquiries_made()));
        let next: Vec<RequestId> = next.take(at_once).map(|request| request.id.clone()).collect();
        for id in next {
            let can_use = |request: &Request| self.may_run(request, now).is_ok() && self.turn_is_near(request, now);
            if self.requests.get(&id).is_some_and(can_use) {
                self.inquire(&id, now);
            }
        }
    }
}
