//! What the pool has for whom: the bucket, at the rate that it may be refilled at, and the claims of the partitions on it.

use serde::{Deserialize, Serialize};

use crate::breaker::Sign;
use crate::id::{ClientId, RequestId, WorkerBinding};
use crate::partition::{self, Kept, Partition};
use crate::pool::{Pool, PoolConfig, PoolState};
use crate::priority::Tier;
use crate::request::Request;
use crate::retry::MAX_PAUSE_MS;
use crate::throttle::Throttle;
use crate::token_bucket::{Availability, BucketLimits};
use crate::units::{Instant, Tokens};

/// What a downstream worker says of the limit that a pool stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// It has too much to do.
    pub busy: bool,
    /// It is to be left alone for so long.
    pub pause_ms: Option<i64>,
    /// What is left, in its own books.
    pub remaining: Option<Tokens>,
    /// Nothing more is left until then.
    pub resets_in_ms: Option<i64>,
    /// Whether it is well, as the attempt shows that had a lease.
    #[serde(default, skip_serializing_if = "Sign::is_neither")]
    pub sign: Sign,
}

/// What a grant must leave in the pool, besides the claims of other partitions.
#[derive(Debug, Clone, Default)]
pub(super) struct Leave {
    /// Lent shares do not come back before it.
    pub insist: bool,
    /// What is kept for requests of other pools that go before it.
    pub kept: Kept,
}

/// Tokens that were taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub amount: Tokens,
    /// How much of them is the partition's own.
    pub own: Tokens,
    pub partition: Option<usize>,
    pub since: Instant,
}

impl Pool {
    /// The limits at the rate that the downstream bears.
    pub(super) fn limits(&self) -> BucketLimits {
        self.state.throttle.apply(&self.config.limits)
    }

    /// Brings bucket and claims up to `now`, at each moment at the rate that applied then.
    pub(super) fn refill(&mut self, now: Instant) {
        self.changes.state |= refill(&mut self.state, &self.config, now);
    }

    /// The supply as it will be at `now` if nobody takes any.
    pub(super) fn supply_at(&self, now: Instant) -> PoolState {
        let mut state = self.state.clone();
        refill(&mut state, &self.config, now);
        state
    }

    /// What is gained each second for the members of a partition, or for those of none: all but what goes to the dedicated
    /// parts of others.
    pub(super) fn open_rate(&self, own: Option<usize>) -> Tokens {
        let limits = self.limits();
        let others = self.config.partitions.iter().enumerate().filter(|(index, _)| Some(*index) != own);
        others.filter(|(_, partition)| !partition.lends).fold(limits.refill_per_second, |rate, (_, partition)| {
            rate.saturating_sub(partition.limits(&limits).refill_per_second)
        })
    }

    /// The partition that a client's requests belong to.
    pub(super) fn partition_of(&self, client: &ClientId, tier: Tier) -> Option<usize> {
        partition::index_of(&self.config.partitions, client, tier)
    }

    /// The most that a client can ever be granted at once.
    pub(super) fn reach(&self, partition: Option<usize>) -> Tokens {
        partition::reach(&self.config.partitions, &self.config.limits, partition)
    }

    /// What the next member of each partition wants of its share, be it for a request of another pool. One that wants more
    /// than the share can ever hold has to borrow like anybody else, and claims nothing: a claim that is never met would keep
    /// everybody waiting.
    pub(super) fn wanted(&self, now: Instant) -> Vec<Tokens> {
        let limits = self.limits();
        let ordered = self.ordered_of_shares(now);
        let wanted_of = |(index, partition): (usize, &Partition)| {
            let next = self.next_in_turn(Some(index), now).and_then(|pick| self.requests.get(&pick.id));
            let amount = next.map_or(Tokens::ZERO, Request::home_amount);
            let own = if amount <= partition.limits(&limits).capacity { amount } else { Tokens::ZERO };
            ordered.get(index).map_or(own, |(most, _)| own.max(*most))
        };
        self.config.partitions.iter().enumerate().map(wanted_of).collect()
    }

    /// When a member of `partition` can take `amount`.
    pub(super) fn availability(
        &self,
        amount: Tokens,
        partition: Option<usize>,
        wanted: &[Tokens],
        leave: &Leave,
        now: Instant,
    ) -> Availability {
        self.availability_of(&self.state, amount, partition, wanted, leave, now)
    }

    /// The same for a supply as it would be at `now`.
    pub(super) fn availability_of(
        &self,
        state: &PoolState,
        amount: Tokens,
        partition: Option<usize>,
        wanted: &[Tokens],
        leave: &Leave,
        now: Instant,
    ) -> Availability {
        if amount > self.reach(partition) {
            return Availability::Never;
        }
        let limits = state.throttle.apply(&self.config.limits);
        let partitions = &self.config.partitions;
        let claimed = |shares: &partition::Shares| {
            shares.claimed(partitions, partition, wanted, leave.insist, &leave.kept).saturating_add(amount)
        };
        let needed = claimed(&state.shares);
        let at = match state.bucket.availability(&limits, needed, now) {
            Availability::At(at) if !partitions.is_empty() => at,
            // Claims are more than there is room for: what they wait for comes first, and then this is asked again.
            Availability::Never => return Availability::NoRefill,
            other => return other,
        };
        // While the bucket is refilled, so are the claims on it. Each of them has what it wants at some moment; between
        // two such moments everything grows evenly, so the first moment at which enough is there is found in a few steps.
        let mut at = at;
        for _ in 0..=partitions.len() {
            let mut shares = state.shares.clone();
            shares.refill(partitions, &limits, state.bucket.paid_back_at(&limits), at);
            match state.bucket.availability(&limits, claimed(&shares), now) {
                Availability::At(later) if later > at => at = later,
                Availability::Never => return Availability::NoRefill,
                _ => break,
            }
        }
        // If it was not found it is later than this: asking again within a twentieth of a second is soon enough.
        Availability::At(at.max(now.plus(50)))
    }

    /// Takes `amount` for a member of `partition`: of its own share first.
    pub(super) fn take_tokens(
        &mut self,
        amount: Tokens,
        partition: Option<usize>,
        wanted: &[Tokens],
        leave: &Leave,
        now: Instant,
    ) -> Result<Tokens, Availability> {
        match self.availability(amount, partition, wanted, leave, now) {
            Availability::Now => {}
            other => return Err(other),
        }
        self.state.bucket.take(&self.limits(), amount, now)?;
        let own = partition.and_then(|index| self.config.partitions.get(index));
        let drawn = own.map_or(Tokens::ZERO, |own| self.state.shares.draw(own, amount));
        self.state.ledger.reserved = self.state.ledger.reserved.saturating_add(amount.micros());
        self.changes.state = true;
        Ok(drawn)
    }

    /// Settles what was taken: `used` of it is consumed, the rest goes back, and use beyond it is taken. What was borrowed
    /// goes back first.
    pub(super) fn settle_tokens(&mut self, taken: Taken, used: Tokens, expired: bool, now: Instant) {
        let Taken { amount, own, partition, since } = taken;
        let limits = self.limits();
        let own_share = partition.and_then(|index| self.config.partitions.get(index));
        let unused = amount.saturating_sub(used);
        let beyond = used.saturating_sub(amount);
        if !unused.is_zero() {
            self.state.bucket.give_back(&limits, unused, since);
            let borrowed = amount.saturating_sub(own);
            if let Some(share) = own_share {
                self.state.shares.give_back(share, &limits, unused.saturating_sub(borrowed), since);
            }
        }
        if !beyond.is_zero() {
            self.state.bucket.take_used(&limits, beyond, now);
            if let Some(share) = own_share {
                self.state.shares.draw(share, beyond);
            }
        }
        // What goes back may go to what the pool owes.
        self.state.shares.keep_within(&self.config.partitions, self.state.bucket.level());
        let ledger = &mut self.state.ledger;
        let consumed = used.min(amount);
        ledger.consumed = ledger.consumed.saturating_add(consumed.micros());
        ledger.overused = ledger.overused.saturating_add(beyond.micros());
        let back = if expired { &mut ledger.expired } else { &mut ledger.released };
        *back = back.saturating_add(unused.micros());
        self.changes.state = true;
    }

    /// What a request has taken of its home.
    pub(super) fn taken_by(&self, request: &Request, amount: Tokens, since: Instant) -> Taken {
        Taken {
            amount,
            own: request.own.min(amount),
            partition: self.partition_of(&request.client, request.tier),
            since,
        }
    }

    /// A downstream worker says how its limit is.
    pub(super) fn heed(&mut self, signal: &Signal, now: Instant) {
        if signal.busy {
            self.state.throttle.slow_down(now);
            self.changes.state = true;
        }
        let says_less = signal.remaining.is_some_and(|remaining| remaining < self.state.bucket.level());
        if let Some(remaining) = signal.remaining.filter(|_| says_less) {
            self.state.bucket.lower_to(remaining);
            self.state.shares.keep_within(&self.config.partitions, self.state.bucket.level());
            self.changes.state = true;
        }
        let limit = signal.remaining.zip(signal.resets_in_ms).filter(|_| says_less);
        if let Some((left, resets_in_ms)) = limit
            && self.state.throttle.slow_to(left, resets_in_ms, &self.config.limits, now)
        {
            self.changes.state = true;
        }
        let empty = signal.remaining.is_some_and(Tokens::is_zero);
        let pause_ms = signal.pause_ms.or(signal.resets_in_ms.filter(|_| empty));
        if let Some(pause_ms) = pause_ms {
            let until = now.plus(pause_ms.clamp(0, MAX_PAUSE_MS));
            self.state.paused_until = Some(self.state.paused_until.map_or(until, |before| before.max(until)));
            self.changes.state = true;
        }
    }

    /// What an attempt says of its worker.
    pub(super) fn judge(&mut self, request: &Request, sign: Sign, now: Instant) {
        if let Some(worker) = &request.worker {
            self.judge_worker(worker, &request.id, request.grants, sign, now);
        }
    }

    pub(super) fn judge_worker(
        &mut self,
        worker: &WorkerBinding,
        id: &RequestId,
        grant: u32,
        sign: Sign,
        now: Instant,
    ) {
        let mut breaker = self.state.breakers.remove(worker).unwrap_or_default();
        if breaker.ended(id, grant, sign, now) {
            self.changes.state = true;
        }
        if !breaker.is_default() {
            self.state.breakers.insert(worker.clone(), breaker);
        }
    }

    /// A grant is given, here or by a lease: if its worker is left alone, it is the one that tries it.
    pub(super) fn tries_worker(&mut self, worker: &WorkerBinding, id: &RequestId, grant: u32) {
        if let Some(breaker) = self.state.breakers.get_mut(worker)
            && breaker.granted(id, grant)
        {
            self.changes.state = true;
        }
    }

    /// The rate at which the pool is refilled.
    #[must_use]
    pub const fn throttle(&self) -> &Throttle {
        &self.state.throttle
    }
}

/// Brings a supply up to `now`; whether its rate changed.
fn refill(state: &mut PoolState, config: &PoolConfig, now: Instant) -> bool {
    let mut eased = false;
    while let Some(at) = state.throttle.eases_at()
        && at <= now
    {
        refill_until(state, config, at);
        state.throttle.ease();
        eased = true;
    }
    refill_until(state, config, now);
    eased
}

fn refill_until(state: &mut PoolState, config: &PoolConfig, at: Instant) {
    let limits = state.throttle.apply(&config.limits);
    let paid_back_at = state.bucket.paid_back_at(&limits);
    state.bucket.refill(&limits, at);
    state.shares.refill(&config.partitions, &limits, paid_back_at, at);
    if paid_back_at.is_some() {
        state.shares.keep_within(&config.partitions, state.bucket.level());
    }
}
