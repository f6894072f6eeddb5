//! First in, first out, also of those that need several pools.
//!
//! One that another pool has refused gives its home's tokens back, and waits outside the queue; the next of its flow is granted
//! them, and might be before it there, for that pool has gained something meanwhile. So when it is the turn of that next one the
//! older one is granted in its stead: the other pool would sooner grant the older one, so that nothing is lost by it. Whoever
//! is in need of a pool that the other does not need is not held back.

use crate::id::{PoolId, RequestId};
use crate::pool::Pool;
use crate::pool::index::entry;
use crate::request::{Phase, Request};

/// So many that came before another one are looked at.
const LOOKED_AT: usize = 64;

impl Pool {
    /// The oldest that came before this one, of its flow, and waits outside the queue for a pool that both need.
    pub(super) fn first_in(&self, id: &RequestId) -> Option<&Request> {
        let request = self.requests.get(id).filter(|request| !request.others().is_empty())?;
        let (flow, place) = (entry(request).flow(), (request.enqueued_at, request.id.clone()));
        let goes_first =
            |older: &&Request| older.parked_until().is_some() && !older.left_alone && needs_no_other(older, request);
        let waiting = request.others().iter().filter_map(|demand| {
            let waiting = self.elsewhere.get(&(demand.pool.clone(), flow.clone()))?;
            let before = waiting.range(..&place).take(LOOKED_AT);
            before.filter_map(|(_, id)| self.requests.get(id)).find(goes_first)
        });
        waiting.min_by_key(|older| (older.enqueued_at, &older.id))
    }

    /// It is the turn of `id`; who is granted then. If another one goes `first`, that comes back for it.
    pub(super) fn who_goes(&mut self, first: Option<RequestId>, id: RequestId) -> RequestId {
        let Some(mut older) = first.and_then(|first| self.take(&first)) else { return id };
        let first = older.id.clone();
        let (phase, refused_by, ready_at) = (older.phase.clone(), older.refused_by.clone(), older.others_ready_at);
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
            (younger.phase, younger.refused_by, younger.others_ready_at) = (phase, refused_by, ready_at);
            self.put(younger);
        }
        first
    }
}

/// Whether one needs no pool but those that the other needs too, and has its tokens of the same part of them.
fn needs_no_other(one: &Request, other: &Request) -> bool {
    let has_too = |pool: &PoolId| other.others().iter().any(|demand| demand.pool == *pool);
    one.tier == other.tier
        && one.home_amount().is_zero() == other.home_amount().is_zero()
        && one.others().iter().all(|demand| has_too(&demand.pool))
}
