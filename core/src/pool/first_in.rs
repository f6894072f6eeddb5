//! First in, first out, also of those that need several pools.
//!
//! One that another pool has refused gives its home's tokens back, and waits outside the queue; the next of its flow is granted
//! them, and might be before it there, for that pool has gained something meanwhile. So when it is the turn of that next one the
//! older one is granted in its stead: the other pool would sooner grant the older one, so that nothing is lost by it.
//!
//! Whoever can have what the older one cannot is not held back: one that is in need of a pool that the other does not need, and
//! one that needs less of it, once that pool has said yes, for it may be its client's share there that the older one's need is
//! larger than.

use crate::id::{PoolId, RequestId};
use crate::pool::Pool;
use crate::pool::elsewhere::INQUIRIES_AT_ONCE;
use crate::pool::index::entry;
use crate::pool::supply::Leave;
use crate::queue::Pick;
use crate::request::{Demand, Phase, Request};
use crate::units::{Instant, Tokens};

/// So many that came before another one are looked at.
const LOOKED_AT: usize = 64;

impl Pool {
    /// The oldest that came before this one, of its flow, and waits outside the queue for a pool that both need.
    pub(super) fn first_in(&self, id: &RequestId) -> Option<&Request> {
        let request = self.requests.get(id).filter(|request| !request.others().is_empty())?;
        let (flow, place) = (entry(request).flow(), (request.enqueued_at, request.id.clone()));
        // Which pool has said that it would grant it.
        let told_yes = request.refused_by.as_ref().filter(|_| self.inquirers.is_coming(&request.client, id));
        let goes_first = |older: &&Request| {
            let awaits = |pool: &PoolId| older.awaits().is_some_and(|demand| demand.pool == *pool);
            older.parked_until().is_some()
                && !older.left_alone
                && needs_no_other(older, request)
                && !may_follow_it(older, request)
                && told_yes.is_none_or(|pool| awaits(pool) && needs_no_more(older, request))
        };
        let waiting = request.others().iter().filter_map(|demand| {
            let waiting = self.elsewhere.get(&(demand.pool.clone(), flow.clone()))?;
            let before = waiting.range(..&place).take(LOOKED_AT);
            before.filter_map(|(_, id)| self.requests.get(id)).find(goes_first)
        });
        waiting.min_by_key(|older| (older.enqueued_at, &older.id))
    }

    /// Takes the tokens of the one that goes first in this turn, if there is one and they are there; with what of them is of
    /// its partition's share.
    pub(super) fn take_for_first_in(
        &mut self,
        head: &Pick,
        insist: bool,
        wanted: &[Tokens],
        now: Instant,
    ) -> Option<(RequestId, Tokens)> {
        let older = self.first_in(&head.id).filter(|older| self.turn_is_kept(older).is_none())?;
        let (own, amount) = self.place_of(older);
        let leave = Leave { insist, kept: self.kept_before(&entry(older), None, now) };
        let first = older.id.clone();
        let drawn = self.take_tokens(amount, own, wanted, &leave, now).ok()?;
        Some((first, drawn))
    }

    /// It is the turn of `id`; who is granted then. If another one goes `first`, that comes back for it.
    pub(super) fn who_goes(&mut self, first: Option<RequestId>, id: RequestId, now: Instant) -> RequestId {
        let Some(mut older) = first.and_then(|first| self.take(&first)) else { return id };
        let first = older.id.clone();
        let (phase, refused_by) = (older.phase.clone(), older.refused_by.clone());
        let client = older.client.clone();
        older.phase = Phase::Waiting;
        self.put(older);
        // The younger one waits in its stead, or each might be refused in the other's turn for ever. What the other pool keeps
        // for one that has been told yes is there for it still: that one keeps its place, once.
        if self.inquirers.is_coming(&client, &id) {
            self.inquirers.comes_no_more(&client, &id);
        } else if let Some(mut younger) = self.take(&id) {
            // What belongs to its last grant is told apart by the number.
            younger.grants = younger.grants.saturating_add(1);
            // When that pool has the tokens of this one is not known.
            (younger.phase, younger.refused_by, younger.others_ready_at) = (phase, refused_by, None);
            self.put(younger);
            self.inquire_if_it_needs_less(&id, &first, now);
        }
        first
    }

    /// What is refused to the older one may be granted to one that needs less: that asks for itself, as it would have in its
    /// turn.
    fn inquire_if_it_needs_less(&mut self, younger: &RequestId, older: &RequestId, now: Instant) {
        let both = self.requests.get(younger).zip(self.requests.get(older));
        if both.is_none_or(|(younger, older)| needs_no_more(older, younger)) {
            return;
        }
        match self.inquiries_made() < INQUIRIES_AT_ONCE {
            true => self.inquire(younger, now),
            false => {
                let until = self.inquirers.asks_later_at(now);
                self.wait_elsewhere(younger, until);
            }
        }
    }
}

/// What a request needs of another pool.
fn needed_of<'a>(request: &'a Request, pool: &PoolId) -> Option<&'a Demand> {
    request.others().iter().find(|demand| demand.pool == *pool)
}

/// Whether one needs no pool but those that the other needs too, and has its tokens of the same part of its home.
fn needs_no_other(one: &Request, other: &Request) -> bool {
    one.tier == other.tier
        && one.home_amount().is_zero() == other.home_amount().is_zero()
        && one.others().iter().all(|demand| needed_of(other, &demand.pool).is_some())
}

/// Whether one needs no more of any other pool than the other does.
fn needs_no_more(one: &Request, other: &Request) -> bool {
    let is_enough = |demand: &Demand| needed_of(other, &demand.pool).is_some_and(|too| demand.amount <= too.amount);
    one.others().iter().all(is_enough)
}

/// Whether an older one has the result of this one when it is the same, so that it is run once.
fn may_follow_it(older: &Request, request: &Request) -> bool {
    older.twin.is_some() && older.twin == request.twin && older.timeout_ms >= request.timeout_ms
}
