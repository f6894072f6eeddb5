//! Which requests of other pools wait for a pool's tokens: their orders were refused, and are expected again.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, RequestId};
use rm_core::pool::{LeaseAnswer, LeaseOrder};
use rm_core::units::{Instant, Tokens};

use super::turns::is_beyond_bound;

/// However late its tokens are there, an order is given again by then.
const AGAIN_AT_MOST_MS: i64 = 5_000;
/// What is kept for an order that does not come is kept no longer than this.
const KEPT_AT_MOST_MS: i64 = 12_000;

/// An order that was refused.
#[derive(Debug)]
struct Refused {
    client: ClientId,
    enqueued_at: Instant,
    amount: Tokens,
    /// When it was said to come again.
    again_at: Instant,
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
        let LeaseAnswer::NotNow { retry_at: Some(again_at), .. } = answer else { return };
        if order.returns {
            let refused = Refused {
                client: order.client.clone(),
                enqueued_at: order.enqueued_at,
                amount: order.amount,
                again_at: again_at.min(now.plus(AGAIN_AT_MOST_MS)),
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

    /// Those that have waited beyond the starvation bound. Of a client that waits with several, nothing has to be kept for
    /// more than it has slots: it is left out.
    pub(crate) fn promoted(&self, now: Instant) -> impl Iterator<Item = &RequestId> {
        let is_alone = move |id: &RequestId, client: &ClientId| {
            !self.0.iter().any(|(other, refused)| other != id && refused.client == *client && refused.gone_at > now)
        };
        let waits = move |(id, refused): &(&RequestId, &Refused)| {
            refused.again_at >= now && is_beyond_bound(refused.enqueued_at, now) && is_alone(id, &refused.client)
        };
        self.0.iter().filter(waits).map(|(id, _)| id)
    }
}
