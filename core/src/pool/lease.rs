//! Leases: tokens of this pool for a request whose home is another pool.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::breaker::{Breaker, Sign};
use crate::fair_share::weight;
use crate::id::{ClientId, PoolId, RequestId, WorkerBinding};
use crate::pool::acquire::LeaseAnswer;
use crate::pool::index::entry;
use crate::pool::orders::asked;
use crate::pool::supply::{Leave, Taken};
use crate::pool::timer::Timer;
use crate::pool::{Pool, Signal};
use crate::priority::{STARVATION_BOUND_MS, Tier, Urgency};
use crate::queue::Entry;
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
    /// The worker that is to be run with it. Who says this understands [`LeaseAnswer::LeftAlone`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerBinding>,
    /// How many of its client's requests run at once, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// If it is refused it is asked again.
    #[serde(default)]
    pub returns: bool,
    /// It is only asked whether it would be granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inquires: bool,
    /// How long its home, and those that granted it before this one, take to have their tokens anew, in milliseconds.
    #[serde(default)]
    pub regain_ms: i64,
    /// Its client's fairness in its home, in millipoints, as it was when it was granted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<i64>,
    /// When it was that. What was said later holds, in whatever order it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood_at: Option<Instant>,
    /// After this long without a settlement the tokens go back.
    pub ttl_ms: i64,
}

/// How a lease ends, or an order for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// A run had the tokens.
    Ran,
    /// The grant came to nothing, for something else was refused; it will be asked again.
    Returns {
        /// When the pool that refused has its tokens, if that is known.
        needed_at: Option<Instant>,
    },
    /// It will not be asked again.
    Over,
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
    /// The worker that is run with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerBinding>,
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
    /// It was given out of its client's partition's share, whoever else waited.
    #[serde(default)]
    pub by_share: bool,
}

/// The name of the lease that belongs to one grant of a request.
pub(super) fn lease_key(id: &RequestId, grant: u32) -> String {
    format!("{id}#{grant}")
}

/// The request that a lease of this name is for.
pub(super) fn request_of(key: &str) -> Option<RequestId> {
    key.split('#').next()?.parse().ok()
}

/// The grant of that request which it is for.
pub(super) fn grant_of(key: &str) -> Option<u32> {
    key.split('#').nth(1)?.parse().ok()
}

impl Pool {
    /// Leases tokens, if they are there and nobody of higher rank waits for them here.
    pub fn acquire_lease(&mut self, order: LeaseOrder, now: Instant) -> LeaseAnswer {
        self.event(now, |pool| {
            let Some(id) = request_of(&order.key) else {
                return LeaseAnswer::NotNow { retry_at: None, ready_at: None };
            };
            pool.end_earlier_leases(&order.key, order.inquires, now);
            let mut order = order;
            pool.orders.stand_alike(&id, &mut order);
            match pool.try_lease(&id, &order, now) {
                granted @ LeaseAnswer::Granted { .. } => granted,
                answer => pool.note_refused(&id, order, answer, now),
            }
        })
    }

    /// Another pool says what the fairness of these clients is there.
    pub fn standings_told(
        &mut self,
        home: &PoolId,
        standings: &BTreeMap<ClientId, i64>,
        stood_at: Instant,
        now: Instant,
    ) {
        self.event(now, |pool| {
            for (client, standing) in standings {
                pool.orders.stand(home, client, (Some(stood_at), *standing));
            }
        });
    }

    fn try_lease(&mut self, id: &RequestId, order: &LeaseOrder, now: Instant) -> LeaseAnswer {
        let not_before = |retry_at| LeaseAnswer::NotNow { retry_at, ready_at: None };
        let own = self.partition_of(&order.client, order.tier);
        let regain_ms = self.regain_ms(order.amount, own, self.is_old(order.enqueued_at, now));
        if self.leases.contains_key(&order.key) && !order.inquires {
            self.orders.granted(id, order);
            return LeaseAnswer::Granted { regain_ms };
        }
        if order.amount > self.reach(own) {
            return LeaseAnswer::Never;
        }
        if let Some(worker) = order.worker.as_ref().filter(|worker| !self.lets_through(worker, now)) {
            return LeaseAnswer::LeftAlone { until: self.state.breakers.get(worker).and_then(Breaker::opens_until) };
        }
        if !self.config.scheduler_running {
            return not_before(None);
        }
        if self.state.paused_until.is_some() {
            return not_before(self.state.paused_until);
        }
        let of_share = own.filter(|index| self.has_share_for(order, id, *index, now));
        if of_share.is_none() && self.somebody_is_before(order, id, None, now) {
            return not_before(self.head_ready_at);
        }
        let promoted = self.is_old(order.enqueued_at, now) && self.is_promoted_turn(of_share);
        let kept = self.kept_before(&asked(order, id), of_share, now);
        let leave = Leave { insist: of_share.is_some() || promoted, kept };
        let wanted = self.wanted(now);
        if order.inquires {
            return match self.availability(order.amount, own, &wanted, &leave, now) {
                Availability::Now => LeaseAnswer::Ready,
                Availability::At(at) => not_before(Some(at)),
                _ => not_before(None),
            };
        }
        let drawn = match self.take_tokens(order.amount, own, &wanted, &leave, now) {
            Ok(drawn) => drawn,
            Err(Availability::At(at)) => return not_before(Some(at)),
            Err(_) => return not_before(None),
        };
        if let Some((worker, grant)) = order.worker.as_ref().zip(grant_of(&order.key)) {
            self.tries_worker(worker, id, grant);
        }
        self.orders.granted(id, order);
        self.count_turn(of_share, promoted);
        if promoted {
            self.turn_was_used(of_share);
        }
        let weight = weight(order.cost, order.amount);
        self.fairness.record(&order.client, weight, now);
        let expires_at = now.plus(order.ttl_ms.max(1));
        let lease = Lease {
            key: order.key.clone(),
            amount: order.amount,
            taken_at: now,
            expires_at,
            client: Some(order.client.clone()),
            worker: order.worker.clone(),
            tier: Some(order.tier),
            own: drawn,
            weight,
            promoted,
            by_share: of_share.is_some(),
        };
        self.timers.insert((expires_at, Timer::Lease(lease.key.clone())));
        self.changes.leases.insert(lease.key.clone());
        self.changes.state = true;
        self.leases.insert(lease.key.clone(), lease);
        LeaseAnswer::Granted { regain_ms }
    }

    pub(super) fn is_old(&self, enqueued_at: Instant, now: Instant) -> bool {
        now.since(enqueued_at) >= STARVATION_BOUND_MS
    }

    /// Whether one request goes before another: by the score or, on a turn of the promoted ones, by age.
    pub(super) fn goes_before(&self, one: &Entry<'_>, other: &Entry<'_>, promoted_turn: bool, now: Instant) -> bool {
        let (one_is_old, other_is_old) = (self.is_old(one.enqueued_at, now), self.is_old(other.enqueued_at, now));
        if promoted_turn && (one_is_old || other_is_old) {
            return one_is_old && (!other_is_old || (one.enqueued_at, one.id) < (other.enqueued_at, other.id));
        }
        self.queue.is_before(&self.config.weights, &self.fairness, one, other, now)
    }

    /// Whether an eligible request that waits here goes before the one that the order is for.
    pub(super) fn somebody_is_before(
        &self,
        order: &LeaseOrder,
        id: &RequestId,
        partition: Option<usize>,
        now: Instant,
    ) -> bool {
        let first = self.next_in_turn(partition, now).and_then(|pick| self.requests.get(&pick.id));
        first.is_some_and(|first| {
            self.goes_before(&entry(first), &asked(order, id), self.is_promoted_turn(partition), now)
        })
    }

    /// Whether the client's partition has enough of its own for the order, and no member of higher rank waits for it.
    fn has_share_for(&self, order: &LeaseOrder, id: &RequestId, own: usize, now: Instant) -> bool {
        let Some(share) = self.config.partitions.get(own) else { return false };
        if share.lends && self.is_turn_of_one_that_waits(self.next_in_turn(None, now).as_ref(), now) {
            return false;
        }
        let kept = self.kept_before(&asked(order, id), Some(own), now).all();
        self.state.shares.left(share) >= order.amount.saturating_add(kept)
            && !self.somebody_is_before(order, id, Some(own), now)
    }

    /// The home pool says what was used of a lease, and what the downstream worker said of the limit. The first word counts; a
    /// lease that ran out by itself, or was never granted, is only charged what was used.
    pub fn settle_lease(&mut self, key: &str, used: Tokens, end: LeaseEnd, signal: &Signal, now: Instant) {
        self.event(now, |pool| {
            pool.judge_lease(key, signal.sign, now);
            pool.lease_is_over(key, used, end, now);
            pool.heed(signal, now);
        });
    }

    /// What a request was leased before this grant, and by it if that came to nothing, is not wanted any more: its order came
    /// after the word that it was not.
    fn end_earlier_leases(&mut self, key: &str, and_this_one: bool, now: Instant) {
        let Some((id, grant)) = key.split_once('#').zip(grant_of(key)).map(|((id, _), grant)| (id, grant)) else {
            return;
        };
        let of_it = self.leases.range(format!("{id}#")..).map(|(other, _)| other);
        let of_it = of_it.take_while(|other| other.split('#').next() == Some(id));
        let is_over = |of: u32| of < grant || (and_this_one && of == grant);
        let over: Vec<String> = of_it.filter(|other| grant_of(other).is_some_and(is_over)).cloned().collect();
        for other in over {
            self.lease_ends(&other, Tokens::ZERO, LeaseEnd::Returns { needed_at: None }, now);
        }
    }

    pub(super) fn lease_is_over(&mut self, key: &str, used: Tokens, end: LeaseEnd, now: Instant) {
        self.end_earlier_leases(key, false, now);
        self.lease_ends(key, used, end, now);
    }

    fn lease_ends(&mut self, key: &str, used: Tokens, end: LeaseEnd, now: Instant) {
        if let Some(lease) = self.leases.get(key).filter(|lease| lease.promoted && end != LeaseEnd::Ran) {
            // It came to nothing: it is still the turn of the promoted ones.
            let of_share = self.taken_by_lease(lease).partition.filter(|_| lease.by_share);
            self.turn_comes_back(of_share);
        }
        if self.leases.get(key).is_some_and(|lease| used < lease.amount) {
            self.note_gave_back(matches!(end, LeaseEnd::Returns { .. }));
        }
        self.order_ends(key, end, now);
        self.end_lease(key, used, now);
    }

    /// What an attempt that has a lease says of its worker. Only while it has it: the word may come twice.
    fn judge_lease(&mut self, key: &str, sign: Sign, now: Instant) {
        let worker = self.leases.get(key).and_then(|lease| lease.worker.clone());
        if let Some((worker, (id, grant))) = worker.zip(request_of(key).zip(grant_of(key))) {
            self.judge_worker(&worker, &id, grant, sign, now);
        }
    }

    fn end_lease(&mut self, key: &str, used: Tokens, now: Instant) {
        // If it has tried its worker, and nothing was said of that, the next one does.
        self.judge_lease(key, Sign::Neither, now);
        let more = self.lease_uses.add(key, used, now);
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
            None if !more.is_zero() => {
                let nothing = Taken { amount: Tokens::ZERO, own: Tokens::ZERO, partition: None, since: now };
                self.settle_tokens(nothing, more, false, now);
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
        self.judge_lease(key, Sign::Neither, now);
        if let Some(lease) = self.leases.remove(key) {
            self.orders.lease_ran_out(key);
            self.changes.leases.insert(key.to_owned());
            self.settle_tokens(self.taken_by_lease(&lease), Tokens::ZERO, true, now);
            self.note_gave_back(false);
        }
    }
}
