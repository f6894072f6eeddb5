//! Which requests of other pools wait for a pool's tokens: their orders were refused, and are expected again.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::pool::{LeaseAnswer, LeaseEnd, LeaseOrder};
use rm_core::units::{Instant, Tokens};

use super::turns::is_beyond_bound;

/// However late its tokens are there, an order is given again by then.
const AGAIN_AT_MOST_MS: i64 = 5_000;
/// And so much later it may come.
const LATE_AT_MOST_MS: i64 = 1_999;
/// What is kept for an order that does not come is kept no longer than this, and than its home needs to have its tokens.
const KEPT_AT_MOST_MS: i64 = 12_000;
/// So long a promoted one is waited for at least, if its home needs it.
const REGAIN_AT_MOST_MS: i64 = 600_000;

/// An order that was refused.
#[derive(Debug, Clone)]
struct Refused {
    client: ClientId,
    enqueued_at: Instant,
    amount: Tokens,
    /// It comes again before that.
    again_by: Instant,
    /// From here on nothing can be kept for it any more.
    gone_at: Instant,
    /// The pool knows it: no older one of its client's was known when it was refused.
    has_place: bool,
}

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    refused: BTreeMap<RequestId, Refused>,
    /// Those that were granted, by the lease's name: one whose grant comes to nothing is expected again.
    granted: BTreeMap<String, LeaseOrder>,
    /// The one that is answered now.
    asked: Option<(RequestId, LeaseOrder)>,
    /// What other homes have said of the fairness of their clients, and of when; of one moment the most.
    told: BTreeMap<(PoolId, ClientId), BTreeMap<Instant, i64>>,
}

impl Orders {
    /// The pool is asked.
    pub(crate) fn asks(&mut self, id: &RequestId, order: &LeaseOrder) {
        if let (Some(home), Some(standing)) = (id.home(), order.standing) {
            self.stands(&home, &order.client, standing, order.stood_at.unwrap_or_default());
        }
        self.asked = Some((id.clone(), order.clone()));
    }

    /// Another home says what the fairness of a client is there.
    pub(crate) fn stands(&mut self, home: &PoolId, client: &ClientId, standing: i64, stood_at: Instant) {
        let told = self.told.entry((home.clone(), client.clone())).or_default().entry(stood_at).or_insert(standing);
        *told = standing.max(*told);
    }

    /// The order that a new lease is for, and the most that its client's fairness can be in its home, as far as this pool
    /// knows: what the order says, or what was said of it later and came before.
    pub(crate) fn asked(&self, key: &str) -> Option<(&RequestId, &LeaseOrder, Option<i64>)> {
        let (id, order) = self.asked.as_ref().filter(|(_, order)| order.key == key)?;
        let told = order.standing.and_then(|_| self.told.get(&(id.home()?, order.client.clone())));
        let later = told.map(|told| told.range(order.stood_at.unwrap_or_default()..).map(|(_, standing)| *standing));
        Some((id, order, later.and_then(Iterator::max)))
    }

    /// The pool has answered an order.
    pub(crate) fn answered(&mut self, id: &RequestId, order: &LeaseOrder, answer: LeaseAnswer, now: Instant) {
        self.refused.retain(|other, refused| other != id && refused.gone_at > now);
        match answer {
            LeaseAnswer::Granted { .. } if order.returns => {
                self.granted.insert(order.key.clone(), order.clone());
            }
            // An inquiry that is older than a lease of the request.
            _ if order.inquires && self.has_later(&order.key) => {}
            LeaseAnswer::Ready => self.expect(id, order, now, now),
            LeaseAnswer::NotNow { retry_at, .. } => self.expect(id, order, retry_at.unwrap_or(now), now),
            _ => {}
        }
    }

    fn expect(&mut self, id: &RequestId, order: &LeaseOrder, retry_at: Instant, now: Instant) {
        if !order.returns {
            return;
        }
        let again_at = retry_at.min(now.plus(AGAIN_AT_MOST_MS));
        let regain_ms = order.regain_ms.clamp(0, REGAIN_AT_MOST_MS);
        let waits_ms = if is_beyond_bound(order.enqueued_at, now) { regain_ms } else { 0 };
        let refused = Refused {
            client: order.client.clone(),
            enqueued_at: order.enqueued_at,
            amount: order.amount,
            again_by: again_at.plus(waits_ms).plus(LATE_AT_MOST_MS),
            gone_at: now.plus(KEPT_AT_MOST_MS).plus(regain_ms),
            has_place: self.is_oldest(id, &order.client, order.enqueued_at, now),
        };
        // It may have taken the place of a younger one.
        let younger = |(other_id, other): &(&RequestId, &mut Refused)| {
            other.client == order.client && (other.enqueued_at, *other_id) > (order.enqueued_at, id)
        };
        for (_, other) in self.refused.iter_mut().filter(younger) {
            other.has_place = false;
        }
        self.refused.insert(id.clone(), refused);
    }

    /// The pool was told how a lease of this request ends, or that there will be none. One whose grant came to nothing waits for
    /// another pool until it asks here again; but it may have the place of another one of its client's.
    pub(crate) fn ended(&mut self, id: &RequestId, key: &str, end: LeaseEnd, now: Instant) {
        let granted = self.granted.remove(key);
        match (granted, end) {
            (Some(order), LeaseEnd::Returns { needed_at: Some(needed_at) }) if !self.has_later(key) => {
                self.expect(id, &order, needed_at, now);
                if let Some(refused) = self.refused.get_mut(id) {
                    refused.again_by = now.plus(-1);
                    refused.gone_at = refused.gone_at.max(refused.gone_at.plus(needed_at.since(now)));
                }
            }
            (_, LeaseEnd::Over) => _ = self.refused.remove(id),
            _ => {}
        }
    }

    fn has_later(&self, key: &str) -> bool {
        let parts = |key: &str| key.split_once('#').map(|(id, grant)| (id.to_owned(), grant.parse::<u32>().unwrap()));
        let (of, grant) = parts(key).unwrap();
        self.granted.keys().filter_map(|other| parts(other)).any(|(id, later)| id == of && later > grant)
    }

    /// The pool has forgotten them, and its leases' orders with them.
    pub(crate) fn forget(&mut self) {
        self.doubt();
        self.granted.clear();
    }

    /// The pool may have forgotten them, for its limits may be others, or it waits in a ring of pools for those that hold it
    /// back.
    pub(crate) fn doubt(&mut self) {
        for refused in self.refused.values_mut() {
            refused.has_place = false;
        }
    }

    /// Whether the tokens that an order asks for are there, when it is given again.
    pub(crate) fn has_its_tokens(&self, id: &RequestId, available: Tokens) -> bool {
        self.refused.get(id).is_some_and(|refused| refused.amount <= available)
    }

    /// Those that have waited beyond the starvation bound, the oldest of each client: nothing has to be kept for more of a
    /// client's than it has slots for.
    pub(crate) fn promoted(&self, now: Instant) -> impl Iterator<Item = &RequestId> {
        let waits = move |(id, refused): &(&RequestId, &Refused)| {
            refused.again_by >= now
                && refused.has_place
                && is_beyond_bound(refused.enqueued_at, now)
                && self.is_oldest(id, &refused.client, refused.enqueued_at, now)
        };
        self.refused.iter().filter(waits).map(|(id, _)| id)
    }

    fn is_oldest(&self, id: &RequestId, client: &ClientId, enqueued_at: Instant, now: Instant) -> bool {
        let of_client = |other: &Refused| other.client == *client && other.gone_at > now;
        let older = |(other_id, other): (&RequestId, &Refused)| {
            of_client(other) && (other.enqueued_at, other_id) < (enqueued_at, id)
        };
        !self.refused.iter().any(older)
    }
}
