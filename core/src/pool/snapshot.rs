//! A pool as it was seen once, brought up to a later moment without asking the pool.

use crate::decimal::MAX_EXACT;
use crate::pool::PoolView;
use crate::token_bucket::BucketLimits;
use crate::units::{Instant, Tokens};

impl PoolView {
    /// The view with what was refilled until `now`, if nobody took anything, at each moment at the rate that applied then: exact
    /// but for a cap on any sliding minute, of which it knows only what is reserved. What the pool owes is refilled first.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        let mut from = self.as_of;
        while let Some(eases_at) = self.throttle.eases_at().filter(|at| *at <= now) {
            self.gain(eases_at.since(from));
            from = from.max(eases_at);
            self.ease();
        }
        self.gain(now.since(from));
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self
    }

    /// What is refilled in so many milliseconds.
    fn gain(&mut self, elapsed_ms: i64) {
        let gained_at = |rate: Tokens| {
            let gained = i128::from(rate.micros()).saturating_mul(i128::from(elapsed_ms.max(0)));
            let gained = gained.checked_div(1_000).unwrap_or(0);
            Tokens::clamped(i64::try_from(gained).unwrap_or(MAX_EXACT))
        };
        for share in &mut self.partitions {
            share.available = share.available.saturating_add(gained_at(share.refill_per_second)).min(share.capacity);
            if !share.lends {
                share.claimed = share.available;
            }
        }
        let gained = gained_at(self.effective_refill_per_second.unwrap_or(self.refill_per_second));
        let ceiling = self.capacity.saturating_sub(if self.window_cap { self.reserved } else { Tokens::ZERO });
        let level = self.available.saturating_add(gained.saturating_sub(self.debt));
        self.available = level.min(ceiling.max(self.available));
        self.debt = self.debt.saturating_sub(gained);
    }

    /// The downstream has been quiet for another while.
    fn ease(&mut self) {
        let before = self.throttle;
        self.throttle.ease();
        let limits = BucketLimits {
            capacity: self.capacity,
            refill_per_second: self.refill_per_second,
            window_cap: self.window_cap,
        };
        self.effective_refill_per_second = Some(self.throttle.apply(&limits).refill_per_second);
        for share in &mut self.partitions {
            share.refill_per_second = before.rate_at(share.refill_per_second, &self.throttle);
        }
    }
}
