//! A grant that came to nothing because another pool refused: what the other pools are told, and how long it takes until the
//! request has the tokens of its home again.

use crate::pool::acquire::SECONDARY_RECHECK_MS;
use crate::pool::lease::lease_key;
use crate::pool::{Effect, LeaseEnd, Pool, Signal};
use crate::priority::PROMOTED_ONE_IN;
use crate::request::Request;
use crate::units::{Instant, Tokens};

/// So many of one moment are told that nothing is asked any more; what is kept for others ends by itself.
const TOLD_AT_ONCE: usize = 16;

impl Pool {
    /// The request, which waits, asks for nothing more: the other pools need keep nothing for it.
    pub(super) fn order_nothing_more(&mut self, request: &Request) {
        let is_over = |effect: &&Effect| matches!(effect, Effect::SettleLease { end: LeaseEnd::Over, .. });
        let told = self.effects.iter().filter(is_over).count();
        if request.grants > request.started_grant && told < TOLD_AT_ONCE {
            self.end_leases(request, request.others().len(), LeaseEnd::Over);
        }
    }

    /// Tells the first `count` of the other pools how their leases for this grant end.
    pub(super) fn end_leases(&mut self, request: &Request, count: usize, end: LeaseEnd) {
        for demand in request.others().iter().take(count) {
            let (pool, key) = (demand.pool.clone(), lease_key(&request.id, request.grants));
            let signal = Signal::default();
            self.effects.push(Effect::SettleLease { pool, key, used: Tokens::ZERO, end, signal });
        }
    }

    /// How long it takes, in milliseconds, until a request that gives its tokens back has them again. Twice what it needs
    /// is gained, for others may come first; a promoted one, whose turn is one in four, may have as many of the largest
    /// grants before it.
    pub(super) fn regain_ms(&self, request: &Request, now: Instant) -> i64 {
        let own = self.partition_of(&request.client, request.tier);
        match request.home_amount() {
            Tokens::ZERO => 0,
            _ if self.is_old(request.enqueued_at, now) => {
                self.gain_ms(self.config.limits.capacity, own).saturating_mul(i64::from(PROMOTED_ONE_IN))
            }
            amount => self.gain_ms(amount, own).saturating_mul(2),
        }
    }

    /// When a request comes back to its place that may be granted by another pool at `until`. What it gives back goes to
    /// those that wait here: if there are any, it comes back earlier, to have its tokens again by then.
    pub(super) fn collects_from(&self, request: &Request, until: Instant, now: Instant) -> Instant {
        if self.queue.is_empty() || request.home_amount().is_zero() {
            return until;
        }
        let own = self.partition_of(&request.client, request.tier);
        let from = until.plus(self.gain_ms(request.home_amount(), own).saturating_neg());
        from.max(now.plus(SECONDARY_RECHECK_MS)).min(until)
    }

    /// How long this pool takes to gain an amount for a member of a partition, in milliseconds: out of its share if that
    /// can hold it, else out of what is not dedicated to others.
    fn gain_ms(&self, amount: Tokens, own: Option<usize>) -> i64 {
        let limits = self.limits();
        let share = own.and_then(|index| self.config.partitions.get(index)).map(|share| share.limits(&limits));
        let rate = match share.filter(|share| amount <= share.capacity) {
            Some(share) => share.refill_per_second,
            None => self.open_rate(own),
        };
        let ms = i128::from(amount.micros()).saturating_mul(1_000).checked_div(i128::from(rate.micros()));
        ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX)
    }
}
