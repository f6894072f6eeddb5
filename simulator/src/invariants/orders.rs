//! Which requests of other pools wait for a pool's tokens: their orders were refused, and are expected again.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, RequestId};
use rm_core::pool::{LeaseAnswer, LeaseOrder};
use rm_core::units::{Instant, Tokens};

use super::turns::is_beyond_bound;

/// However late its tokens are there, an order is given again by then.
const AGAIN_AT_MOST_MS: i64 = 5_000;
/// And so much later it may come.
const LATE_AT_MOST_MS: i64 = 1_999;
/// What is kept for an order that does not come is kept no longer than this.
const KEPT_AT_MOST_MS: i64 = 12_000;

/// An order that was refused.
#[derive(Debug)]
struct Refused {
    client: ClientId,
    enqueued_at: Instant,
    amount: Tokens,
    /// It comes again before that.
    again_by: Instant,
    /// From here on nothing can be kept for it any more.
    gone_at: Instant,
}

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Orders(BTreeMap<RequestId, Refused>);

impl Orders {
    /// The pool has answered an order.
    pub(crate) fn answered(&mut self, id: &RequestId, order: &LeaseOrder, answer: LeaseAnswer, now: Instant) {
        self.0.retain(|other, refused| other != id && refused.gone_at > now);
        let LeaseAnswer::NotNow { retry_at, .. } = answer else { return };
        if order.returns {
            let again_at = retry_at.unwrap_or(now).min(now.plus(AGAIN_AT_MOST_MS));
            let refused = Refused {
                client: order.client.clone(),
                enqueued_at: order.enqueued_at,
                amount: order.amount,
                again_by: again_at.plus(LATE_AT_MOST_MS),
                gone_at: now.plus(KEPT_AT_MOST_MS),
            };
            self.0.insert(id.clone(), refused);
        }
    }

    /// The pool has forgotten them, or its limits are others.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Whether the tokens that an order asks for are there, when it is given again.
    pub(crate) fn has_its_tokens(&self, id: &RequestId, available: Tokens) -> bool {
        self.0.get(id).is_some_and(|refused| refused.amount <= available)
    }

    /// Those that have waited beyond the starvation bound, the oldest of each client: nothing has to be kept for more of a
    /// client's than it has slots for.
    pub(crate) fn promoted(&self, now: Instant) -> impl Iterator<Item = &RequestId> {
        let is_oldest = move |id: &RequestId, refused: &Refused| {
            let of_client = |other: &Refused| other.client == refused.client && other.gone_at > now;
            let older = |(other_id, other): (&RequestId, &Refused)| {
                of_client(other) && (other.enqueued_at, other_id) < (refused.enqueued_at, id)
            };
            !self.0.iter().any(older)
        };
        let waits = move |(id, refused): &(&RequestId, &Refused)| {
            refused.again_by >= now && is_beyond_bound(refused.enqueued_at, now) && is_oldest(id, refused)
        };
        self.0.iter().filter(waits).map(|(id, _)| id)
    }
}
