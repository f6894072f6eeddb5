//! Several pools, and the calls between them: each takes a while.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};

use rm_core::account::SlotAnswer;
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::pool::{
    CancelOutcome, Effect, LeaseAnswer, LeaseEnd, LeaseOrder, Mode, Pool, PoolConfig, Report, Signal, Submission,
    Submitted,
};
use rm_core::request::Usage;
use rm_core::units::{Instant, Tokens};

use super::{at, config, demand, id_of, pool};

/// How long a call takes: one to fifteen milliseconds, in no order.
const CALL_MS: i64 = 15;
const RUN_MS: i64 = 200;

enum Call {
    Slot(RequestId, u32),
    Order(PoolId, RequestId, u32, LeaseOrder),
    Answer(PoolId, RequestId, u32, LeaseAnswer),
    Settle(PoolId, String, Tokens, LeaseEnd, Signal),
    Over(PoolId, Vec<String>),
    Free(PoolId, PoolId, bool, Tokens),
    Standings(PoolId, PoolId, BTreeMap<ClientId, i64>, Instant),
    HeldBack(PoolId, PoolId, BTreeSet<PoolId>),
    Report(RequestId, u32),
}

pub struct Network {
    pub pools: BTreeMap<PoolId, Pool>,
    /// When each request started.
    pub starts: BTreeMap<RequestId, Instant>,
    /// How often a pool was asked for a lease.
    pub orders: usize,
    /// The most of them that one event made.
    pub most_orders: usize,
    /// The most requests that one event stored, and how many were stored in all.
    pub most_rows: usize,
    pub rows: usize,
    /// How often one was told what the fairness of another's clients is.
    pub standings: usize,
    /// How often one was told that its requests hold others back.
    pub held_back: usize,
    /// Runs use nothing of what was reserved for them of these pools.
    pub unused: Vec<PoolId>,
    /// How long a run takes.
    pub run_ms: i64,
    /// How many of a client are said to run at once.
    pub slots: u32,
    calls: BTreeMap<(Instant, u64), Call>,
    sent: u64,
    wakeups: BTreeMap<PoolId, Instant>,
}

impl Network {
    /// Pools of these names, each with so much that is refilled by so much a second.
    pub fn new(names: &[&str], capacity: u64, refill: u64) -> Self {
        Self::of(names.iter().map(|name| PoolConfig { pool: id_of(name), ..config(capacity, refill) }))
    }

    pub fn of(configs: impl Iterator<Item = PoolConfig>) -> Self {
        Self {
            pools: configs.map(|config| (config.pool.clone(), pool(config))).collect(),
            starts: BTreeMap::new(),
            orders: 0,
            most_orders: 0,
            most_rows: 0,
            rows: 0,
            standings: 0,
            held_back: 0,
            unused: Vec::new(),
            run_ms: RUN_MS,
            slots: 1_000,
            calls: BTreeMap::new(),
            sent: 0,
            wakeups: BTreeMap::new(),
        }
    }

    /// The calls from here on are as late as if there had been so many before.
    pub fn sent_before(&mut self, count: u64) {
        self.sent = count;
    }

    /// Sends a request to the first of the pools that it needs.
    pub fn send(&mut self, needs: &[(&str, u64)], submission: Submission, now: Instant) -> RequestId {
        self.sent += 1;
        let home = id_of(needs[0].0);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.sent.to_be_bytes());
        let id = RequestId::new(at(0), random, &home);
        let demands = needs.iter().map(|(pool, amount)| demand(pool, *amount)).collect();
        let submission = Submission { id: id.clone(), demands, slots: Some(self.slots), ..submission };
        let answer = self.pools.get_mut(&home).unwrap().submit(submission, Mode::Queue, now);
        assert_eq!(answer, Submitted::Accepted);
        self.flush(&home, now);
        id
    }

    pub fn cancel(&mut self, id: &RequestId, now: Instant) {
        let home = id.home().unwrap();
        assert_eq!(self.pools.get_mut(&home).unwrap().cancel(id, true, now), CancelOutcome::Cancelled);
        self.flush(&home, now);
    }

    /// When a request started, in seconds; it must have by then.
    pub fn started_at(&mut self, id: &RequestId, until: Instant) -> Option<i64> {
        self.run(until);
        self.starts.get(id).map(|started| started.since(at(0)) / 1_000)
    }

    /// Lets everything happen that is due by then.
    pub fn run(&mut self, until: Instant) {
        loop {
            let call = self.calls.keys().next().copied();
            let wakeup = self.wakeups.iter().map(|(name, when)| (*when, name.clone())).min();
            let now = [call.map(|(when, _)| when), wakeup.as_ref().map(|(when, _)| *when)].into_iter().flatten().min();
            let Some(now) = now.filter(|now| *now <= until) else { return };
            match (call, wakeup) {
                (Some(call), _) if call.0 == now => {
                    let call = self.calls.remove(&call).unwrap();
                    self.deliver(call, now);
                }
                (_, Some((_, name))) => self.at_pool(&name, now, |pool| pool.on_wakeup(now)),
                _ => return,
            }
        }
    }

    fn deliver(&mut self, call: Call, now: Instant) {
        match call {
            Call::Slot(id, grant) => {
                let home = id.home().unwrap();
                self.at_pool(&home, now, |pool| pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now));
            }
            Call::Order(pool, id, grant, order) => {
                self.orders += 1;
                let answer = self.at_pool(&pool, now, |pool| pool.acquire_lease(order, now));
                self.call(Call::Answer(pool, id, grant, answer), now);
            }
            Call::Answer(from, id, grant, answer) => {
                let home = id.home().unwrap();
                self.at_pool(&home, now, |pool| pool.lease_answered(&id, grant, &from, answer, now));
            }
            Call::Settle(pool, key, used, end, signal) => {
                self.at_pool(&pool, now, |pool| pool.settle_lease(&key, used, end, &signal, now));
            }
            Call::Standings(pool, home, standings, stood_at) => {
                self.at_pool(&pool, now, |pool| pool.standings_told(&home, &standings, stood_at, now));
            }
            Call::HeldBack(pool, keeper, waiting) => {
                self.at_pool(&pool, now, |pool| pool.held_back_told(&keeper, waiting, now));
            }
            Call::Over(pool, keys) => self.at_pool(&pool, now, |pool| pool.orders_over(&keys, now)),
            Call::Free(home, from, came_to_nothing, available) => {
                self.at_pool(&home, now, |pool| pool.lease_free(&from, came_to_nothing, available, now));
            }
            Call::Report(id, grant) => {
                let home = id.home().unwrap();
                let nothing =
                    |pool: &PoolId| Usage { pool: pool.clone(), amount: Tokens::ZERO, parts: None, is_share: false };
                let usage = self.unused.iter().map(nothing).collect();
                let report = Report::Succeeded { usage, remaining: vec![] };
                self.at_pool(&home, now, |pool| pool.report(&id, grant, report, now));
            }
        }
    }

    fn at_pool<T>(&mut self, name: &PoolId, now: Instant, event: impl FnOnce(&mut Pool) -> T) -> T {
        let outcome = event(self.pools.get_mut(name).unwrap());
        self.flush(name, now);
        outcome
    }

    fn flush(&mut self, name: &PoolId, now: Instant) {
        let effects = self.pools.get_mut(name).unwrap().take_effects();
        let orders = effects.iter().filter(|effect| matches!(effect, Effect::AcquireLease { .. })).count();
        self.most_orders = self.most_orders.max(orders);
        let rows = self.pools.get_mut(name).unwrap().take_changes().requests.len();
        self.most_rows = self.most_rows.max(rows);
        self.rows += rows;
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => self.call(Call::Slot(id, grant), now),
                Effect::AcquireLease { id, grant, pool, order } => self.call(Call::Order(pool, id, grant, order), now),
                Effect::SettleLease { pool, key, used, end, signal } => {
                    self.call(Call::Settle(pool, key, used, end, signal), now);
                }
                Effect::TellStandings { pool, standings, stood_at } => {
                    self.standings += 1;
                    self.call(Call::Standings(pool, name.clone(), standings, stood_at), now);
                }
                Effect::TellHeldBack { pool, waiting } => {
                    self.held_back += 1;
                    self.call(Call::HeldBack(pool, name.clone(), waiting), now);
                }
                Effect::OrdersOver { pool, keys } => self.call(Call::Over(pool, keys), now),
                Effect::LeaseFree { home, came_to_nothing, available } => {
                    self.call(Call::Free(home, name.clone(), came_to_nothing, available), now);
                }
                Effect::Start { id, grant, .. } => {
                    self.starts.insert(id.clone(), now);
                    self.call(Call::Report(id, grant), now.plus(self.run_ms));
                }
                _ => {}
            }
        }
        match self.pools[name].next_wakeup(now) {
            Some(when) => self.wakeups.insert(name.clone(), when.max(now.plus(1))),
            None => self.wakeups.remove(name),
        };
    }

    fn call(&mut self, call: Call, now: Instant) {
        self.sent += 1;
        // A sequence that has no pattern and is the same each time (Weyl).
        let late = (self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i64 % CALL_MS + 1;
        self.calls.insert((now.plus(late), self.sent), call);
    }
}
