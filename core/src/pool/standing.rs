//! What other pools are told of this home's clients: their fairness here.
//!
//! Every pool ranks an order by the fairness that its client has in its home, and that changes with each grant there. While a
//! pool's tokens are kept from its own by an order that goes first, and that order's home keeps its tokens for one from here,
//! each may do so by a fairness of the other's that is no longer true. A home that is held back so says what it is now.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::orders::ORDERS_MAX;
use crate::pool::{Effect, LeaseOrder, Pool};
use crate::units::Instant;

/// What is known of more clients is forgotten: they are told again.
const TOLD_MAX: usize = 4 * ORDERS_MAX;

/// What other pools know of the fairness of this home's clients, in millipoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Standings {
    told: BTreeMap<PoolId, BTreeMap<ClientId, i64>>,
    /// Those whose last grant came to nothing, and that other pools may remember.
    pub asked: BTreeSet<RequestId>,
    /// One that waits here has its tokens there, but they are kept for an order.
    pub held_back: bool,
}

impl Standings {
    /// An order says it, and holds for all of its client that the pool remembers.
    pub(super) fn order_tells(&mut self, pool: &PoolId, order: &LeaseOrder) {
        if let Some(standing) = order.standing {
            let told = self.told.entry(pool.clone()).or_default();
            if told.len() >= TOLD_MAX {
                told.clear();
            }
            told.insert(order.client.clone(), standing);
        }
    }
}

impl Pool {
    /// Tells the other pools what has changed since they were told, if this one is held back.
    pub(super) fn tell_standings(&mut self, now: Instant) {
        if !std::mem::take(&mut self.standings.held_back) {
            return;
        }
        let mut current: BTreeMap<PoolId, BTreeMap<ClientId, i64>> = BTreeMap::new();
        for request in self.standings.asked.iter().take(ORDERS_MAX).filter_map(|id| self.requests.get(id)) {
            for demand in request.others() {
                let of_pool = current.entry(demand.pool.clone()).or_default();
                if !of_pool.contains_key(&request.client) {
                    of_pool.insert(request.client.clone(), self.fairness.millipoints(&request.client));
                }
            }
        }
        for (pool, standings) in &current {
            let told = self.standings.told.get(pool);
            let is_news = |(client, standing): &(&ClientId, &i64)| {
                told.and_then(|told| told.get(*client)).is_none_or(|told| told != *standing)
            };
            let news: BTreeMap<ClientId, i64> =
                standings.iter().filter(is_news).map(|(client, standing)| (client.clone(), *standing)).collect();
            if !news.is_empty() {
                self.effects.push(Effect::TellStandings { pool: pool.clone(), standings: news, stood_at: now });
            }
        }
        self.standings.told = current;
    }
}
