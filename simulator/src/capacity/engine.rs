//! Lets a load happen: a discrete-event loop around pools and accounts. What the core asks for is done at the same moment,
//! so that what is left of a request's wait is what tokens, slots and the queue's order make of it.

use std::collections::{BTreeMap, VecDeque};

use rm_core::account::{Account, AccountEffect, AtHome};
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::period::Period;
use rm_core::pool::{Effect, Mode, Pool, PoolConfig, Report, Submitted};
use rm_core::request::{Demand, Kind, Settlement, Usage};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

use super::arrivals::Planned;
use super::measure::{Measured, Outcome};
use super::workload::{RUN_MS_MAX, Workload};
use crate::rng::Rng;
use crate::setup::{self, Order};

/// 2027-01-01T00:00:00Z: a month begins, and none ends within what is simulated.
const BEGINNING: Instant = Instant::from_millis(1_798_761_600_000);
/// How often levels and queues are looked at while requests arrive.
pub const SAMPLES: u32 = 120;
/// The draws that ids are made of.
const STREAM_OF_IDS: u64 = u64::MAX;

/// What happens next, besides the core's own alarms.
#[derive(Debug)]
enum Due {
    /// A request comes.
    Arrival(usize),
    /// A run is over.
    Report(PoolId, RequestId, u32, Report),
    /// Levels and queues are looked at.
    Sample,
}

/// What the core wants done.
#[derive(Debug)]
enum Todo {
    OfPool(PoolId, Effect),
    OfAccount(ClientId, AccountEffect),
}

struct Engine<'a> {
    now: Instant,
    workload: &'a Workload,
    planned: &'a [Planned],
    pools: BTreeMap<PoolId, Pool>,
    accounts: BTreeMap<ClientId, Account>,
    due: BTreeMap<(Instant, u64), Due>,
    entered: u64,
    /// Which of the planned requests each id is.
    requests: BTreeMap<RequestId, usize>,
    settlements: BTreeMap<String, Settlement>,
    effects: VecDeque<Todo>,
    ids: Rng,
    measured: Measured,
}

/// Lets the requests come, and everything run to its end.
#[must_use]
pub fn run(workload: &Workload, planned: &[Planned], seed: u64) -> Measured {
    let mut engine = Engine::new(workload, planned, seed);
    while let Some((at, alarm)) = engine.next() {
        engine.now = engine.now.max(at);
        if alarm {
            engine.ring_alarms();
        } else if let Some((_, due)) = engine.due.pop_first() {
            engine.let_happen(due);
        }
        engine.perform_all();
    }
    engine.measured.finish(engine.now.since(BEGINNING));
    engine.measured
}

impl<'a> Engine<'a> {
    fn new(workload: &'a Workload, planned: &'a [Planned], seed: u64) -> Self {
        let pool = |(name, spec): (&PoolId, &super::workload::PoolSpec)| {
            let limits = BucketLimits {
                capacity: spec.capacity,
                refill_per_second: spec.refill_per_second,
                window_cap: spec.window_cap,
            };
            let partitions = spec.partitions.clone();
            let config = PoolConfig { partitions, ..setup::pool_config(name.clone(), limits, spec.queue_cap) };
            (name.clone(), setup::new_pool(config, BEGINNING))
        };
        let account = |spec: &super::workload::ClientSpec| {
            let (client, budget) = (spec.client.clone(), spec.monthly_budget_usd);
            let config = setup::account_config(client.clone(), spec.tier, budget, spec.max_concurrent);
            (client, setup::new_account(config))
        };
        let mut engine = Self {
            now: BEGINNING,
            workload,
            planned,
            pools: workload.pools.iter().map(pool).collect(),
            accounts: workload.clients.iter().map(account).collect(),
            due: BTreeMap::new(),
            entered: 0,
            requests: BTreeMap::new(),
            settlements: BTreeMap::new(),
            effects: VecDeque::new(),
            ids: Rng::of(seed, STREAM_OF_IDS),
            measured: Measured::new(workload),
        };
        for (index, request) in planned.iter().enumerate() {
            engine.enter(BEGINNING.plus(request.at_ms), Due::Arrival(index));
        }
        let length = i64::from(workload.seconds) * 1_000;
        for sample in 0..=SAMPLES {
            engine.enter(BEGINNING.plus(length * i64::from(sample) / i64::from(SAMPLES)), Due::Sample);
        }
        engine
    }

    fn enter(&mut self, at: Instant, due: Due) {
        self.entered += 1;
        self.due.insert((at, self.entered), due);
    }

    /// When something happens next, and whether it is an alarm of the core. Of what happens at one moment the alarms
    /// come last.
    fn next(&self) -> Option<(Instant, bool)> {
        let due = self.due.first_key_value().map(|((at, _), _)| (*at, false));
        let pools = self.pools.values().filter_map(|pool| pool.next_wakeup(self.now));
        let accounts = self.accounts.values().filter_map(Account::next_wakeup);
        let alarm = pools.chain(accounts).min().map(|at| (at, true));
        [due, alarm].into_iter().flatten().min()
    }

    fn ring_alarms(&mut self) {
        let now = self.now;
        // A pool with more to grant than one event may wants to be woken a millisecond from whenever it is asked.
        let due = |pool: &Pool| pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1));
        let pools: Vec<PoolId> =
            self.pools.iter().filter(|(_, pool)| due(pool)).map(|(name, _)| name.clone()).collect();
        for name in pools {
            self.at_pool(&name, |pool| pool.on_wakeup(now));
        }
        let due = |account: &Account| account.next_wakeup().is_some_and(|at| at <= now);
        let accounts: Vec<ClientId> =
            self.accounts.iter().filter(|(_, account)| due(account)).map(|(client, _)| client.clone()).collect();
        for client in accounts {
            self.at_account(&client, |account| account.on_wakeup(now, usize::MAX));
        }
    }

    fn let_happen(&mut self, due: Due) {
        match due {
            Due::Arrival(index) => self.arrive(index),
            Due::Report(home, id, grant, report) => {
                let now = self.now;
                self.at_pool(&home, |pool| pool.report(&id, grant, report, now));
            }
            Due::Sample => {
                for (name, pool) in &self.pools {
                    self.measured.sample(name, &pool.view(self.now), pool.ledger());
                }
            }
        }
    }

    fn arrive(&mut self, index: usize) {
        let Some(planned) = self.planned.get(index) else { return };
        let demands = self.demands(planned);
        let Some(home) = demands.first().map(|demand| demand.pool.clone()) else { return };
        let id = self.new_id(&home);
        let now = self.now;
        let mut estimates = demands.iter().map(Demand::estimated_cost);
        let cost = estimates.try_fold(NanoUsd::ZERO, |sum, cost| sum.checked_add(cost?));
        // What costs more than can be counted is more than any budget.
        let cost = cost.unwrap_or(NanoUsd::MAX);
        let period = Period::month_of(now);
        let held = self.at_account(&planned.client, |account| account.hold(&id, cost, Kind::Execution, period, now));
        let Some(Ok(held)) = held else {
            self.measured.refused(planned, Outcome::OverBudget);
            return;
        };
        self.requests.insert(id.clone(), index);
        let order = Order {
            twin: None,
            batch: None,
            id: id.clone(),
            client: planned.client.clone(),
            tier: self.measured.tier(&planned.client),
            kind: Kind::Execution,
            urgency: planned.urgency,
            deadline: planned.deadline_ms.map(|millis| now.plus(millis)),
            demands,
            max_attempts: 1,
            timeout_ms: RUN_MS_MAX.into(),
            worker: None,
            later: Vec::new(),
        };
        let submission = setup::submission(order, held);
        if let Some(Submitted::Refused(_)) = self.at_pool(&home, |pool| pool.submit(submission, Mode::Queue, now)) {
            self.measured.refused(planned, Outcome::NotTaken);
            self.at_account(&planned.client, |account| account.abandon(&id));
        }
    }

    /// What a request needs, its home first: the pool whose refill takes longest to make up for it, as the service does.
    fn demands(&self, planned: &Planned) -> Vec<Demand> {
        let spec = |pool: &PoolId| self.workload.pools.get(pool);
        let refill = |pool: &PoolId| i128::from(spec(pool).map_or(0, |pool| pool.refill_per_second.micros()));
        let price = |pool: &PoolId| spec(pool).map_or(NanoUsd::ZERO, |pool| pool.unit_price_usd);
        let scarcer = |(pool, amount): &(PoolId, Tokens), (best, most): &(PoolId, Tokens)| {
            i128::from(amount.micros()).saturating_mul(refill(best))
                > i128::from(most.micros()).saturating_mul(refill(pool))
        };
        let mut needs = planned.needs.clone();
        let mut home = 0;
        for (index, need) in planned.needs.iter().enumerate() {
            if planned.needs.get(home).is_some_and(|best| scarcer(need, best)) {
                home = index;
            }
        }
        if home < needs.len() {
            needs.swap(0, home);
        }
        needs.into_iter().map(|(pool, amount)| Demand::flat(pool.clone(), amount, price(&pool))).collect()
    }

    fn new_id(&mut self, home: &PoolId) -> RequestId {
        let mut random = [0; 10];
        let (high, low) = (self.ids.next().to_be_bytes(), self.ids.next().to_be_bytes());
        for (place, byte) in random.iter_mut().zip(high.into_iter().chain(low)) {
            *place = byte;
        }
        RequestId::new(self.now, random, home)
    }

    /// Lets an event happen to a pool; what it wants done is queued.
    fn at_pool<T>(&mut self, name: &PoolId, event: impl FnOnce(&mut Pool) -> T) -> Option<T> {
        let pool = self.pools.get_mut(name)?;
        let outcome = event(pool);
        let changes = pool.take_changes();
        self.effects.extend(pool.take_effects().into_iter().map(|effect| Todo::OfPool(name.clone(), effect)));
        self.measured.queued(name, pool.view(self.now).queued);
        for ended in &changes.ended {
            if let Some(planned) = self.requests.remove(&ended.request.id).and_then(|index| self.planned.get(index)) {
                self.measured.ended(planned, ended);
            }
        }
        self.settlements.extend(changes.settlements.into_iter().map(|one| (one.event.clone(), one)));
        Some(outcome)
    }

    fn at_account<T>(&mut self, client: &ClientId, event: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let account = self.accounts.get_mut(client)?;
        let outcome = event(account);
        account.take_changes();
        self.effects.extend(account.take_effects().into_iter().map(|effect| Todo::OfAccount(client.clone(), effect)));
        Some(outcome)
    }

    fn perform_all(&mut self) {
        while let Some(todo) = self.effects.pop_front() {
            match todo {
                Todo::OfPool(home, effect) => self.perform(&home, effect),
                Todo::OfAccount(client, effect) => self.perform_for_account(&client, effect),
            }
        }
    }

    fn perform_for_account(&mut self, client: &ClientId, effect: AccountEffect) {
        let now = self.now;
        match effect {
            AccountEffect::WakePool { pool } => {
                self.at_pool(&pool, |pool| pool.client_woken(client, now));
                self.at_account(client, Account::wake_next);
            }
            AccountEffect::AskHome { id, slot } => {
                let at_home = id.home().and_then(|home| self.pools.get(&home)).and_then(|pool| pool.at_home(&id));
                let answer = at_home.unwrap_or(AtHome::Unknown);
                self.at_account(client, |account| account.home_answered(&id, slot, answer, now));
            }
        }
    }

    fn perform(&mut self, home: &PoolId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Start { id, grant, limit_ms, .. } => self.start(home, id, grant, limit_ms),
            Effect::StartBatch { items, limit_ms } => {
                for (id, grant) in items {
                    self.start(home, id, grant, limit_ms);
                }
            }
            Effect::RaiseHold { id, client, least_hold } => {
                self.at_account(&client, |account| account.raise_hold(&id, least_hold));
            }
            Effect::AcquireSlot { id, grant, client, rank, .. } => {
                let answer = self.at_account(&client, |account| account.acquire_slot(&id, grant, home, rank, now));
                self.at_pool(home, |pool| pool.slot_answered(&id, grant, answer, now));
            }
            Effect::ReleaseSlot { id, grant, client, .. } => {
                self.at_account(&client, |account| account.release_slot(&id, grant));
            }
            Effect::AcquireLease { id, grant, pool: other, order } => {
                if let Some(answer) = self.at_pool(&other, |pool| pool.acquire_lease(order, now)) {
                    self.at_pool(home, |pool| pool.lease_answered(&id, grant, &other, answer, now));
                }
            }
            Effect::LeaseFree { home: other, came_to_nothing, available } => {
                self.at_pool(&other, |pool| pool.lease_free(home, came_to_nothing, available, now));
            }
            Effect::OrdersOver { pool: other, keys } => {
                self.at_pool(&other, |pool| pool.orders_over(&keys, now));
            }
            Effect::TellStandings { pool: other, standings, stood_at } => {
                self.at_pool(&other, |pool| pool.standings_told(home, &standings, stood_at, now));
            }
            Effect::TellHeldBack { pool: other, waiting } => {
                self.at_pool(&other, |pool| pool.held_back_told(home, waiting, now));
            }
            Effect::SettleLease { pool: other, key, used, end, signal } => {
                self.at_pool(&other, |pool| pool.settle_lease(&key, used, end, &signal, now));
            }
            Effect::Settle { event } => {
                if let Some(settlement) = self.settlements.remove(&event) {
                    let client = settlement.client.clone();
                    self.at_account(&client, |account| account.settle(&settlement, Period::month_of(now)));
                }
                self.at_pool(home, |pool| pool.settlement_confirmed(&event, now));
            }
            // Nobody waits for an answer here, and nobody reserves.
            Effect::Finished { .. } | Effect::Reserved { .. } | Effect::ReservationRefused { .. } => {}
        }
    }

    fn start(&mut self, home: &PoolId, id: RequestId, grant: u32, limit_ms: i64) {
        let Some(planned) = self.requests.get(&id).and_then(|index| self.planned.get(*index)) else { return };
        let usage = planned.usage.iter().map(|(pool, amount)| Usage {
            pool: pool.clone(),
            amount: *amount,
            parts: None,
            is_share: false,
        });
        let report = if planned.run_ms <= limit_ms {
            Report::Succeeded { usage: usage.collect(), remaining: Vec::new() }
        } else {
            Report::TimedOut
        };
        let at = self.now.plus(planned.run_ms.min(limit_ms));
        self.enter(at, Due::Report(home.clone(), id, grant, report));
    }
}
