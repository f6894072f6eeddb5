//! First in, first out, also of those that need several pools.
//!
//! One that another pool has refused gives its home's tokens back, and waits outside the queue; the next of its flow is granted
//! them, and might be before it there, for that pool has gained something meanwhile. So when it is the turn of that next one the
//! older one is granted in its stead: the other pool would sooner grant the older one, so that nothing is lost by it.
//!
//! The younger waits in its stead, for what refuses that one refuses it too. But whoever can have what the older one cannot is
//! not held back: one that needs a pool that the other does not need; and one that needs less of it goes next, for it may be
//! that the older one's need is larger than its client's share there, or than what that pool has.

use crate::id::{PoolId, RequestId};
use crate::pool::Pool;
use crate::pool::index::entry;
use crate::pool::supply::Leave;
use crate::queue::Pick;
use crate::request::{Demand, Phase, Request};
use crate::units::{Instant, Tokens};

/// So many that came before another one are looked at.
const LOOKED_AT: usize = 64;

impl Pool {
    /// The oldest that came before this one, of its flow, and waits outside the queue for a pool that both need.
    pub(super) fn first_in(&self, id: &RequestId, now: Instant) -> Option<&Request> {
        let goes_after = |request: &&Request| !request.others().is_empty() && request.stood_back_at.is_none();
        let request = self.requests.get(id).filter(goes_after)?;
        let (flow, place) = (entry(request).flow(), (request.enqueued_at, request.id.clone()));
        let goes_first = |older: &&Request| {
            older.parked_until().is_some() && needs_no_other(older, request) && !self.would_follow(older, request, now)
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
        let older = self.first_in(&head.id, now).filter(|older| self.turn_is_kept(older).is_none())?;
        let (own, amount) = self.place_of(older);
        let leave = Leave { insist, kept: self.kept_before(&entry(older), None, now) };
        let first = older.id.clone();
        let drawn = self.take_tokens(amount, own, wanted, &leave, now).ok()?;
        Some((first, drawn))
    }

    /// It is the turn of `id`; who is granted then. If another one goes `first`, that comes back for it.
    pub(super) fn who_goes(&mut self, first: Option<RequestId>, id: RequestId) -> RequestId {
        let Some(mut older) = first.and_then(|first| self.take(&first)) else { return id };
        let first = older.id.clone();
        let (phase, refused_by, left_alone) = (older.phase.clone(), older.refused_by.clone(), older.left_alone);
        let awaited = older.awaits().map(|demand| demand.pool.clone());
        let goes_next = self.requests.get(&id).is_some_and(|younger| !needs_no_more(&older, younger));
        let client = older.client.clone();
        older.phase = Phase::Waiting;
        self.put(older);
        if goes_next {
            if let Some(younger) = self.requests.get_mut(&id) {
                younger.stood_back_at = awaited;
            }
        } else if self.inquirers.is_coming(&client, &id) {
            // What the other pool keeps for one that has been told yes is there for it still: it keeps its place, once.
            self.inquirers.comes_no_more(&client, &id);
        } else if let Some(mut younger) = self.take(&id) {
            // What belongs to its last grant is told apart by the number.
            younger.grants = younger.grants.saturating_add(1);
            (younger.phase, younger.refused_by, younger.left_alone) = (phase, refused_by, left_alone);
            // When the other pool has the tokens of this one is not known.
            younger.others_ready_at = None;
            self.put(younger);
        }
        first
    }

    /// Whether an older one will have the result of this one, for it is the same, so that it is run once.
    fn would_follow(&self, older: &Request, request: &Request, now: Instant) -> bool {
        older.twin.is_some()
            && older.twin == request.twin
            && older.timeout_ms >= request.timeout_ms
            && older.first_started_at.is_none()
            && !self.is_old(older.enqueued_at, now)
            && !self.may_be_cut_off(request, older, now)
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
