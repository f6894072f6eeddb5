//! A grant that came to nothing, or is the last one: what the other pools are told.

use crate::pool::lease::lease_key;
use crate::pool::{Effect, LeaseEnd, Pool, Signal};
use crate::request::Request;
use crate::units::Tokens;

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
}
