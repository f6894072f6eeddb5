//! For how long tokens are kept for an order that was refused.

use crate::id::RequestId;
use crate::pool::{LeaseOrder, Pool};
use crate::priority::STARVATION_BOUND_MS;
use crate::units::Instant;

/// How much later than expected an order may come before nothing is kept for it any more.
pub(super) const GRACE_MS: i64 = 2_000;
/// For so long at least tokens are kept for one whose turn it is: its home has to have its own tokens again meanwhile.
pub(super) const TURN_MS: i64 = 10_000;
/// For no longer than this its home is given time for that, or else a home that cannot would hold back everybody here.
const REGAIN_MAX_MS: i64 = 60_000;

/// For how long tokens are kept for an order, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// From here on.
    pub from: Instant,
    /// Until then.
    pub until: Instant,
    /// Its home is given time to gain its own tokens.
    pub is_waited_for: bool,
}

impl Keep {
    /// From now on.
    pub(super) const fn until(until: Instant, now: Instant) -> Self {
        Self { from: now, until, is_waited_for: false }
    }
}

impl Pool {
    /// How long tokens are kept for an order that is waited for, and is given again at `asks_at`, if its home has its tokens
    /// then.
    pub(super) fn turn_ends_at(&self, order: &LeaseOrder, asks_at: Instant, now: Instant) -> Instant {
        let most = if self.is_old(order.enqueued_at, now) { STARVATION_BOUND_MS } else { REGAIN_MAX_MS };
        now.plus(TURN_MS).max(asks_at.plus(order.regain_ms.clamp(0, most)).plus(GRACE_MS))
    }

    /// When tokens are kept for an order whose turn it is. A home that needs long to gain its own has them no earlier than that,
    /// and this pool may have to gain them until then, and not before; nor later than it once said.
    pub(super) fn keep_for_turn(&self, id: &RequestId, order: &LeaseOrder, asks_at: Instant, now: Instant) -> Keep {
        let until = self.turn_ends_at(order, asks_at, now);
        let at_once = Keep { is_waited_for: true, ..Keep::until(until, now) };
        // It says twice what it needs.
        let needs_ms = order.regain_ms >> 1;
        let is_slow = needs_ms > REGAIN_MAX_MS && !self.is_old(order.enqueued_at, now);
        let own = self.partition_of(&order.client, order.tier);
        let Some(gain_ms) = self.gain_ms(order.amount, own).filter(|_| is_slow) else { return at_once };
        let ready_at = now.plus(needs_ms);
        let before = self.orders.kept_from(order.enqueued_at, id).unwrap_or(ready_at);
        // Once it is promoted it is another order, and waited for at once.
        let promoted_at = order.enqueued_at.plus(STARVATION_BOUND_MS);
        let from = ready_at.plus(gain_ms.saturating_add(GRACE_MS).saturating_neg());
        let from = from.min(before).min(promoted_at).max(now);
        let late = ready_at.plus(REGAIN_MAX_MS).plus(GRACE_MS).min(promoted_at);
        let until = until.max(late);
        Keep { from, until, is_waited_for: true }
    }
}
