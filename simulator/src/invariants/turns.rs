//! Whose turn it was: whether grants pass promoted requests over (invariant 8).

use std::collections::{BTreeMap, BTreeSet};

use rm_core::id::RequestId;
use rm_core::pool::Blocked;
use rm_core::priority::STARVATION_BOUND_MS;
use rm_core::request::Request;
use rm_core::units::Instant;

use super::shell::PoolObject;

/// Who waited for tokens before an event, and how often each was granted.
pub(crate) struct Waiting {
    grants: BTreeMap<RequestId, u32>,
    starts: BTreeMap<RequestId, u32>,
    promoted: BTreeSet<RequestId>,
}

impl Waiting {
    pub(crate) fn of(object: &PoolObject, now: Instant) -> Self {
        let for_tokens = |request: &&Request| {
            is_old(request, now)
                && !request.home_amount().is_zero()
                && object.pool.position(&request.id, now).is_some_and(|at| at.blocked_by == Some(Blocked::Tokens))
        };
        Self {
            grants: object.pool.requests().map(|request| (request.id.clone(), request.grants)).collect(),
            starts: object.pool.requests().map(|request| (request.id.clone(), request.started_grant)).collect(),
            promoted: object.pool.requests().filter(for_tokens).map(|request| request.id.clone()).collect(),
        }
    }

    /// How many grants in a row have gone to others by now, if a promoted request waited before and still does.
    pub(crate) fn passed_over(&self, object: &PoolObject, now: Instant, so_far: u32) -> u32 {
        let after = Self::of(object, now);
        if self.promoted.intersection(&after.promoted).next().is_none() {
            return 0;
        }
        let before = |numbers: &BTreeMap<RequestId, u32>, id| numbers.get(id).copied().unwrap_or(0);
        let mut count = so_far;
        for request in object.pool.requests().filter(|request| !request.home_amount().is_zero()) {
            // A grant counts for those who are not promoted, a start for those who are.
            let old = is_old(request, now);
            if old && request.started_grant > before(&self.starts, &request.id) {
                count = 0;
            } else if !old && request.grants > before(&self.grants, &request.id) {
                count += 1;
            }
        }
        count
    }
}

fn is_old(request: &Request, now: Instant) -> bool {
    now.since(request.enqueued_at) >= STARVATION_BOUND_MS
}
