//! A grant that came to nothing, or is the last one: what the pools tell each other.

use crate::id::RequestId;
use crate::pool::lease::lease_key;
use crate::pool::orders::ORDERS_MAX;
use crate::pool::{Effect, LeaseEnd, Pool, Signal};
use crate::request::Request;
use crate::units::{Instant, Tokens};

/// So many of one moment are told together: a pool knows no more orders than this.
const TOLD_TOGETHER: usize = ORDERS_MAX;

impl Pool {
    /// The request, which waits, asks for nothing more: the other pools need keep nothing for it.
    pub(super) fn order_nothing_more(&mut self, request: &Request) {
        if request.grants <= request.started_grant {
            return;
        }
        for demand in request.others() {
            let key = lease_key(&request.id, request.grants);
            let of_pool = self.effects.iter_mut().rev().find_map(|effect| match effect {
                Effect::OrdersOver { pool, keys } if *pool == demand.pool && keys.len() < TOLD_TOGETHER => Some(keys),
                _ => None,
            });
            match of_pool {
                Some(keys) => keys.push(key),
                None => self.effects.push(Effect::OrdersOver { pool: demand.pool.clone(), keys: vec![key] }),
            }
        }
    }

    /// The same of one that waits and cannot use what it has asked for, until it asks again.
    pub(super) fn wants_nothing_more(&mut self, id: &RequestId) {
        let Some(request) = self.requests.get_mut(id).filter(|request| request.has_asked_elsewhere()) else { return };
        if request.asked_at.take().is_some() {
            let request = request.clone();
            self.order_nothing_more(&request);
        }
    }

    /// Another pool says that it asks for nothing more under these names.
    pub fn orders_over(&mut self, keys: &[String], now: Instant) {
        self.event(now, |pool| {
            for key in keys {
                pool.lease_is_over(key, Tokens::ZERO, LeaseEnd::Over, now);
            }
        });
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
