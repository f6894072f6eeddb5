//! Leases: tokens of this pool for a request whose home is another pool.

use serde::{Deserialize, Serialize};

use crate::fair_share::weight;
use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::acquire::LeaseAnswer;
use crate::pool::grant::OWN_SHARE;
use crate::pool::supply::{Leave, Taken};
use crate::pool::timer::Timer;
use crate::pool::{Effect, Pool, Signal, entry};
use crate::priority::{PROMOTED_ONE_IN, STARVATION_BOUND_MS, Tier, Urgency};
use crate::queue::Entry;
use crate::request::{Cause, Phase, Request};
use crate::token_bucket::Availability;
use crate::units::{Instant, NanoUsd, Tokens};

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
    /// What that costs.
    #[serde(default)]
    pub cost: NanoUsd,
    /// If it is refused it is asked again.
    #[serde(default)]
    pub returns: bool,
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
    /// Whose request it is for.
    #[serde(default)]
    pub client: Option<ClientId>,
    /// The client's tier.
    #[serde(default)]
    pub tier: Option<Tier>,
    /// How much of it came from the client's partition's own share.
    #[serde(default)]
    pub own: Tokens,
    /// What it weighs in the client's share of the pool.
    #[serde(default)]
    pub weight: i64,
    /// It was given on the turn of a promoted request.
    #[serde(default)]
    pub promoted: bool,
}

/// Tokens that are kept for a request of another pool: it is its turn here, they are not there yet, and it asks only now and
/// then. Without this everybody of lower rank here would take them as they come.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    /// For which request.
    pub id: RequestId,
    /// What it asked for.
    pub order: LeaseOrder,
    /// If it does not ask again until then, they are anybody's.
    pub until: Instant,
}

/// How long tokens are kept for a request that asks every few seconds.
const PROMISE_MS: i64 = 10_000;

/// The order as the queue would have it.
fn asked<'a>(order: &'a LeaseOrder, id: &'a RequestId) -> Entry<'a> {
    Entry {
        id,
        client: &order.client,
        tier: order.tier,
        urgency: order.urgency,
        enqueued_at: order.enqueued_at,
        amount: order.amount,
        needs_slot: false,
        worker: None,
        off_peak: None,
    }
}

/// The name of the lease that belongs to one grant of a request.
pub(super) fn lease_key(id: &RequestId, grant: u32) -> String {
    format!("{id}#{grant}")
}

impl Pool {
    /// Leases tokens, if they are there and nobody of higher rank waits for them here.
    pub fn acquire_lease(&mut self, order: LeaseOrder, now: Instant) -> LeaseAnswer {
        self.event(now, |pool| {
            let home = order.key.split('#').next().and_then(|id| id.parse::<RequestId>().ok()).and_then(|id| id.home());
            let answer = pool.try_lease(order, now);
            if matches!(answer, LeaseAnswer::NotNow { .. }) {
                pool.lease_waiters.extend(home);
            }
            answer
        })
    }

    /// What was given back here may be what another pool's request waits for. What is refilled is no news: that pool was
    /// told when.
    pub(super) fn wake_lease_waiters(&mut self) {
        if std::mem::take(&mut self.gave_back) && !self.state.bucket.level().is_zero() {
            let homes = std::mem::take(&mut self.lease_waiters);
            self.effects.extend(homes.into_iter().map(|home| Effect::LeaseFree { home }));
        }
    }

    /// Another pool was given tokens back: those that wait for it here need wait no longer.
    pub fn lease_free(&mut self, pool: &PoolId, now: Instant) {
        self.event(now, |home| {
            let waits = |request: &&Request| {
                matches!(request.phase, Phase::Parked { cause: Cause::SecondaryPool, .. })
                    && request.others().iter().any(|demand| demand.pool == *pool)
            };
            let waiting: Vec<RequestId> =
                home.requests.values().filter(waits).map(|request| request.id.clone()).collect();
            for id in waiting {
                home.unpark(&id);
            }
        });
    }

    fn try_lease(&mut self, order: LeaseOrder, now: Instant) -> LeaseAnswer {
        if self.leases.contains_key(&order.key) {
            return LeaseAnswer::Granted;
        }
        let own = self.partition_of(&order.client, order.tier);
        if order.amount > self.reach(own) {
            return LeaseAnswer::Never;
        }
        if !self.config.scheduler_running {
            return LeaseAnswer::NotNow { retry_at: None };
        }
        if self.state.paused_until.is_some() {
            return LeaseAnswer::NotNow { retry_at: self.state.paused_until };
        }
        let Ok(id) = order.key.split('#').next().unwrap_or_default().parse::<RequestId>() else {
            return LeaseAnswer::NotNow { retry_at: None };
        };
        let has_share = self.has_share_for(&order, &id, own, now);
        if !has_share && self.somebody_is_before(&order, &id, None, now) {
            return LeaseAnswer::NotNow { retry_at: self.head_ready_at };
        }
        // What a share grants of its own is not the turn of the promoted ones.
        let promoted = !has_share && self.is_old(order.enqueued_at, now) && self.is_promoted_turn(None);
        let leave = if has_share {
            OWN_SHARE
        } else {
            Leave { insist: promoted, promised: self.promised_before(&asked(&order, &id), now) }
        };
        let partition = own;
        let own = match self.take_tokens(order.amount, own, &self.wanted(now), leave, now) {
            Ok(own) => own,
            Err(answer) => {
                if order.returns {
                    self.keep_for(id, order, now);
                }
                let retry_at = match answer {
                    Availability::At(at) => Some(at),
                    _ => None,
                };
                return LeaseAnswer::NotNow { retry_at };
            }
        };
        self.promise.take_if(|promise| promise.id == id);
        let is_dedicated = partition.and_then(|index| self.config.partitions.get(index)).is_some_and(|own| !own.lends);
        match promoted {
            true => self.state.since_promoted = 0,
            false if has_share && is_dedicated => {}
            false => self.state.since_promoted = self.state.since_promoted.saturating_add(1),
        }
        let weight = weight(order.cost, order.amount);
        self.fairness.record(&order.client, weight, now);
        let expires_at = now.plus(order.ttl_ms.max(1));
        let lease = Lease {
            key: order.key,
            amount: order.amount,
            taken_at: now,
            expires_at,
            client: Some(order.client),
            tier: Some(order.tier),
            own,
            weight,
            promoted,
        };
        self.timers.insert((expires_at, Timer::Lease(lease.key.clone())));
        self.changes.leases.insert(lease.key.clone());
        self.changes.state = true;
        self.leases.insert(lease.key.clone(), lease);
        LeaseAnswer::Granted
    }

    pub(super) fn is_old(&self, enqueued_at: Instant, now: Instant) -> bool {
        now.since(enqueued_at) >= STARVATION_BOUND_MS
    }

    /// Keeps tokens for a request of another pool, unless they are kept for one that goes before it.
    fn keep_for(&mut self, id: RequestId, order: LeaseOrder, now: Instant) {
        if self.promised_before(&asked(&order, &id), now).is_zero() {
            self.promise = Some(Promise { id, order, until: now.plus(PROMISE_MS) });
        }
    }

    /// What is kept for a request of another pool that goes before this one.
    pub(super) fn promised_before(&self, one: &Entry<'_>, now: Instant) -> Tokens {
        let Some(promise) = self.promise.as_ref().filter(|promise| promise.id != *one.id) else {
            return Tokens::ZERO;
        };
        let theirs = asked(&promise.order, &promise.id);
        if self.goes_before(&theirs, one, self.is_promoted_turn(None), now) {
            promise.order.amount
        } else {
            Tokens::ZERO
        }
    }

    /// Whether one request goes before another: by the score or, on a turn of the promoted ones, by age.
    fn goes_before(&self, one: &Entry<'_>, other: &Entry<'_>, promoted_turn: bool, now: Instant) -> bool {
        let (one_is_old, other_is_old) = (self.is_old(one.enqueued_at, now), self.is_old(other.enqueued_at, now));
        if promoted_turn && (one_is_old || other_is_old) {
            return one_is_old && (!other_is_old || (one.enqueued_at, one.id) < (other.enqueued_at, other.id));
        }
        self.queue.is_before(&self.config.weights, &self.fairness, one, other, now)
    }

    /// Whether an eligible request that waits here goes before the one that the order is for.
    fn somebody_is_before(&self, order: &LeaseOrder, id: &RequestId, partition: Option<usize>, now: Instant) -> bool {
        let first = self.next_in_turn(partition, now).and_then(|pick| self.requests.get(&pick.id));
        first.is_some_and(|first| {
            self.goes_before(&entry(first), &asked(order, id), self.is_promoted_turn(partition), now)
        })
    }

    /// Whether the client's partition has enough of its own for the order, and no member of higher rank waits for it.
    fn has_share_for(&self, order: &LeaseOrder, id: &RequestId, own: Option<usize>, now: Instant) -> bool {
        let Some(share) = own.and_then(|index| self.config.partitions.get(index)) else { return false };
        if share.lends && self.is_turn_of_one_that_waits(self.next_in_turn(None, now).as_ref(), now) {
            return false;
        }
        self.state.shares.left(share) >= order.amount && !self.somebody_is_before(order, id, own, now)
    }

    /// The home pool says what was used of a lease, and what the downstream worker said of the limit. The first word counts; a lease that ran out by itself, or was never
    /// granted, is only charged what was used.
    pub fn settle_lease(&mut self, key: &str, used: Tokens, after_run: bool, signal: &Signal, now: Instant) {
        self.event(now, |pool| {
            if !after_run && pool.leases.get(key).is_some_and(|lease| lease.promoted) {
                // It came to nothing: it is still the turn of the promoted ones.
                pool.state.since_promoted = pool.state.since_promoted.max(PROMOTED_ONE_IN);
            }
            pool.gave_back |= after_run && pool.leases.get(key).is_some_and(|lease| used < lease.amount);
            pool.end_lease(key, used, now);
            pool.heed(signal, now);
        });
    }

    fn end_lease(&mut self, key: &str, used: Tokens, now: Instant) {
        match self.leases.remove(key) {
            Some(lease) => {
                self.timers.remove(&(lease.expires_at, Timer::Lease(lease.key.clone())));
                self.changes.leases.insert(key.to_owned());
                if used.is_zero()
                    && let Some(client) = &lease.client
                {
                    self.fairness.forget(client, lease.weight);
                }
                self.settle_tokens(self.taken_by_lease(&lease), used, false, now);
            }
            None if !used.is_zero() => {
                let nothing = Taken { amount: Tokens::ZERO, own: Tokens::ZERO, partition: None, since: now };
                self.settle_tokens(nothing, used, false, now);
            }
            None => {}
        }
    }

    fn taken_by_lease(&self, lease: &Lease) -> Taken {
        let client = lease.client.as_ref().zip(lease.tier);
        Taken {
            amount: lease.amount,
            own: lease.own,
            partition: client.and_then(|(client, tier)| self.partition_of(client, tier)),
            since: lease.taken_at,
        }
    }

    pub(super) fn lease_ran_out(&mut self, key: &str, now: Instant) {
        if let Some(lease) = self.leases.remove(key) {
            self.changes.leases.insert(key.to_owned());
            self.settle_tokens(self.taken_by_lease(&lease), Tokens::ZERO, true, now);
            self.gave_back = true;
        }
    }
}
