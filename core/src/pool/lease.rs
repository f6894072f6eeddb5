//! Leases: tokens of this pool for a request whose home is another pool.

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, RequestId};
use crate::pool::acquire::LeaseAnswer;
use crate::pool::timer::Timer;
use crate::pool::{Pool, entry};
use crate::priority::{Tier, Urgency};
use crate::queue::Entry;
use crate::token_bucket::Availability;
use crate::units::{Instant, Tokens};

/// What a home pool asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseOrder {
    /// The lease's name: the same question asked twice is one lease.
    pub key: String,
    /// Whose request it is for.
    pub client: ClientId,
    /// The client's tier.
    pub tier: Tier,
    /// The lane.
    pub urgency: Urgency,
    /// The request's age counts from here.
    pub enqueued_at: Instant,
    /// How much.
    pub amount: Tokens,
    /// After this long without a settlement the tokens go back.
    pub ttl_ms: i64,
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its name.
    pub key: String,
    /// How much.
    pub amount: Tokens,
    /// When it was taken.
    pub taken_at: Instant,
    /// When it ends by itself.
    pub expires_at: Instant,
}

/// The name of the lease that belongs to one grant of a request.
pub(super) fn lease_key(id: &RequestId, grant: u32) -> String {
    format!("{id}#{grant}")
}

impl Pool {
    /// Leases tokens, if they are there and nobody of higher rank waits for them here.
    pub fn acquire_lease(&mut self, order: LeaseOrder, now: Instant) -> LeaseAnswer {
        self.event(now, |pool| pool.try_lease(order, now))
    }

    fn try_lease(&mut self, order: LeaseOrder, now: Instant) -> LeaseAnswer {
        if self.leases.contains_key(&order.key) {
            return LeaseAnswer::Granted;
        }
        if order.amount > self.config.limits.capacity {
            return LeaseAnswer::Never;
        }
        if !self.config.scheduler_running {
            return LeaseAnswer::NotNow { retry_at: None };
        }
        if self.state.paused_until.is_some() {
            return LeaseAnswer::NotNow { retry_at: self.state.paused_until };
        }
        if self.somebody_is_before(&order, now) {
            return LeaseAnswer::NotNow { retry_at: self.head_ready_at };
        }
        match self.state.bucket.take(&self.config.limits, order.amount, now) {
            Ok(()) => {}
            Err(Availability::At(at)) => return LeaseAnswer::NotNow { retry_at: Some(at) },
            Err(_) => return LeaseAnswer::NotNow { retry_at: None },
        }
        self.state.ledger.reserved = self.state.ledger.reserved.saturating_add(order.amount.micros());
        self.fairness.record(&order.client, order.amount, now);
        let expires_at = now.plus(order.ttl_ms.max(1));
        let lease = Lease { key: order.key, amount: order.amount, taken_at: now, expires_at };
        self.timers.insert((expires_at, Timer::Lease(lease.key.clone())));
        self.changes.leases.insert(lease.key.clone());
        self.changes.state = true;
        self.leases.insert(lease.key.clone(), lease);
        LeaseAnswer::Granted
    }

    /// Whether an eligible request that waits here ranks before the one that the order is for.
    fn somebody_is_before(&self, order: &LeaseOrder, now: Instant) -> bool {
        let Some((first, _)) = self.next_in_turn(now) else {
            return false;
        };
        let Some(first) = self.requests.get(&first) else {
            return false;
        };
        let Ok(id) = order.key.split('#').next().unwrap_or_default().parse::<RequestId>() else {
            return true;
        };
        let asked = Entry {
            id: &id,
            client: &order.client,
            tier: order.tier,
            urgency: order.urgency,
            enqueued_at: order.enqueued_at,
            amount: order.amount,
        };
        self.queue.is_before(&self.config.weights, &self.fairness, &entry(first), &asked)
    }

    /// The home pool says what was used of a lease. The first word counts; a lease that ran out by itself, or was never
    /// granted, is only charged what was used.
    pub fn settle_lease(&mut self, key: &str, used: Tokens, now: Instant) {
        self.event(now, |pool| pool.end_lease(key, used, now));
    }

    fn end_lease(&mut self, key: &str, used: Tokens, now: Instant) {
        match self.leases.remove(key) {
            Some(lease) => {
                self.timers.remove(&(lease.expires_at, Timer::Lease(lease.key)));
                self.changes.leases.insert(key.to_owned());
                self.settle_tokens(lease.amount, used, lease.taken_at, false, now);
            }
            None if !used.is_zero() => self.settle_tokens(Tokens::ZERO, used, now, false, now),
            None => {}
        }
    }

    pub(super) fn lease_ran_out(&mut self, key: &str, now: Instant) {
        if let Some(lease) = self.leases.remove(key) {
            self.changes.leases.insert(key.to_owned());
            self.settle_tokens(lease.amount, Tokens::ZERO, lease.taken_at, true, now);
        }
    }
}
