//! A pool as it was seen once, brought up to a later moment without asking the pool.

use crate::decimal::MAX_EXACT;
use crate::pool::PoolView;
use crate::units::{Instant, Tokens};

impl PoolView {
    /// The view with what was refilled until `now`, if nobody took anything: exact but for a cap on any sliding minute, of
    /// which it knows only what is reserved. What the pool owes is refilled first.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        let elapsed = i128::from(now.since(self.as_of));
        let gained_at = |rate: Tokens| {
            let gained = i128::from(rate.micros()).saturating_mul(elapsed).checked_div(1_000).unwrap_or(0);
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
        self
    }
}
