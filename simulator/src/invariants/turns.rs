//! Whose turn it was: whether grants pass promoted requests over (invariant 8).

use std::collections::{BTreeMap, BTreeSet};

use rm_core::id::{ClientId, RequestId};
use rm_core::partition;
use rm_core::pool::{Blocked, Lease};
use rm_core::priority::{PROMOTED_ONE_IN, STARVATION_BOUND_MS, Tier};
use rm_core::request::Request;
use rm_core::units::Instant;

use super::checks::may_be_kept;
use super::orders::Orders;
use super::shell::PoolObject;

/// So many grants in a row may go to others while a promoted request waits: one in four is its own.
pub(crate) const PASSED_OVER_AT_MOST: u32 = PROMOTED_ONE_IN - 1;

/// Who waited for tokens before an event, and how often each was granted.
pub(crate) struct Waiting {
    grants: BTreeMap<RequestId, u32>,
    promoted: BTreeSet<RequestId>,
    leases: BTreeSet<String>,
}

impl Waiting {
    /// Requests that have their home here, and those of other pools whose orders were refused.
    pub(crate) fn of(object: &PoolObject, orders: &Orders, now: Instant) -> Self {
        let for_tokens = |request: &&Request| {
            is_old(request, now)
                && !request.home_amount().is_zero()
                && !may_be_kept(object, &request.client)
                && object.pool.position(&request.id, now).is_some_and(|at| at.blocked_by == Some(Blocked::Tokens))
        };
        let promoted = object.pool.requests().filter(for_tokens).map(|request| request.id.clone());
        Self {
            grants: object.pool.requests().map(|request| (request.id.clone(), request.grants)).collect(),
            promoted: promoted.chain(orders.promoted(now).cloned()).collect(),
            leases: object.leases.keys().cloned().collect(),
        }
    }

    /// What has been granted since. (One that waits for another pool in an older one's stead counts its grants as if it had been.)
    pub(crate) fn granted_since<'a>(&'a self, object: &'a PoolObject) -> impl Iterator<Item = &'a Request> {
        let before = |id| self.grants.get(id).copied().unwrap_or(0);
        let requests = object.pool.requests().filter(|request| request.parked_until().is_none());
        requests.filter(move |request| request.grants > before(&request.id))
    }

    /// What has been leased since.
    pub(crate) fn leased_since<'a>(&'a self, object: &'a PoolObject) -> impl Iterator<Item = &'a Lease> {
        object.leases.iter().filter(|(key, _)| !self.leases.contains(*key)).map(|(_, lease)| lease)
    }

    /// How many grants in a row have gone to others by now, if a promoted request waited before and still does.
    pub(crate) fn passed_over(&self, object: &PoolObject, orders: &Orders, now: Instant, so_far: u32) -> u32 {
        let after = Self::of(object, orders, now);
        // Who has its tokens by this event waits no more.
        let given = |id: &&RequestId| {
            object.leases.keys().any(|key| !self.leases.contains(key) && key.split('#').next() == Some(id.as_str()))
        };
        let mut waiting = self.promoted.intersection(&after.promoted).filter(|id| !given(id)).peekable();
        if waiting.peek().is_none() {
            return 0;
        }
        // What is granted besides an order's tokens, as long as they are there, passes nobody over.
        let available = object.pool.view(now).available;
        let passes = u32::from(!waiting.all(|id| orders.has_its_tokens(id, available)));
        // What a partition grants of its own is nobody else's turn; but what is lent was theirs to wait for. A turn whose grant
        // comes to nothing is theirs again.
        let mut turns = 0;
        let mut others = 0;
        let mut count = |on_turn: bool, by_share: bool, of_dedicated: bool| match (on_turn, by_share) {
            (true, false) => turns += 1,
            (true, true) => {}
            (false, true) if of_dedicated => {}
            (false, _) => others += passes,
        };
        // Tokens that a request of another pool was given, on a promoted one's turn or not.
        for lease in self.leased_since(object) {
            let (client, tier) = (lease.client.as_ref(), lease.tier);
            let of_dedicated = client.zip(tier).is_some_and(|(client, tier)| is_dedicated_to(object, client, tier));
            count(lease.promoted, lease.by_share, of_dedicated);
        }
        for request in self.granted_since(object).filter(|request| !request.home_amount().is_zero()) {
            count(request.on_turn, request.by_share, is_dedicated_to(object, &request.client, request.tier));
        }
        // In what order an event grants is not seen: as many of the others as may were before a turn.
        match turns {
            0 => so_far + others,
            _ => (so_far + others).saturating_sub(PASSED_OVER_AT_MOST * turns),
        }
    }
}

fn is_dedicated_to(object: &PoolObject, client: &ClientId, tier: Tier) -> bool {
    let partitions = &object.pool.config().partitions;
    partition::index_of(partitions, client, tier).is_some_and(|index| !partitions[index].lends)
}

/// Whether a request has waited beyond the starvation bound.
pub(crate) fn is_old(request: &Request, now: Instant) -> bool {
    is_beyond_bound(request.enqueued_at, now)
}

/// Whether something that waits since `enqueued_at` has waited beyond the starvation bound.
pub(crate) fn is_beyond_bound(enqueued_at: Instant, now: Instant) -> bool {
    now.since(enqueued_at) >= STARVATION_BOUND_MS
}
