//! What happens: clients send and cancel, workers reserve and consume, operators change things, time passes, messages
//! arrive late, twice or not at all, objects crash.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::account::{AccountConfig, AccountEffect, ClientStatus, HoldRefusal};
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::period::Period;
use rm_core::pool::{CancelOutcome, Effect, LeaseAnswer, Mode, PoolConfig, Submission, Submitted};
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::request::{Demand, Kind, Phase, Status, Usage};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

use crate::rng::Rng;
use super::shell::{AccountObject, Message, PoolObject};

const POOLS: [&str; 3] = ["alpha", "beta", "gamma"];
const CLIENTS: [&str; 3] = ["ann", "bob", "cy"];

pub struct World {
    pub rng: Rng,
    pub now: Instant,
    pub pools: BTreeMap<PoolId, PoolObject>,
    pub accounts: BTreeMap<ClientId, AccountObject>,
    /// By when they arrive, and a number that keeps them apart.
    messages: BTreeMap<(Instant, u64), Message>,
    sent: u64,
    /// Messages are neither lost nor doubled, and nothing crashes.
    calm: bool,
    pub accepted: BTreeSet<RequestId>,
    pub owners: BTreeMap<RequestId, ClientId>,
    reservations: Vec<RequestId>,
    pub history: BTreeMap<PoolId, Vec<(Instant, i64)>>,
    pub most_limits: BTreeMap<PoolId, (Tokens, Tokens)>,
    pub most_budget: BTreeMap<ClientId, i64>,
    pub most_slots: BTreeMap<ClientId, usize>,
    /// Real use beyond the holds.
    pub beyond_holds: BTreeMap<ClientId, i64>,
    pub pool_time: BTreeMap<PoolId, Instant>,
    pub paused_until: BTreeMap<PoolId, Instant>,
    pub seen: BTreeSet<&'static str>,
    pub log: Vec<String>,
    revision: i64,
}

pub(crate) fn units(n: u64) -> Tokens {
    Tokens::from_units(n).unwrap()
}

impl World {
    pub fn new(rng: Rng) -> Self {
        let now = Instant::from_millis(1_800_000_000_000);
        let mut world = Self {
            rng,
            now,
            pools: BTreeMap::new(),
            accounts: BTreeMap::new(),
            messages: BTreeMap::new(),
            sent: 0,
            calm: false,
            accepted: BTreeSet::new(),
            owners: BTreeMap::new(),
            reservations: Vec::new(),
            history: BTreeMap::new(),
            most_limits: BTreeMap::new(),
            most_budget: BTreeMap::new(),
            most_slots: BTreeMap::new(),
            beyond_holds: BTreeMap::new(),
            pool_time: BTreeMap::new(),
            paused_until: BTreeMap::new(),
            seen: BTreeSet::new(),
            log: Vec::new(),
            revision: 1,
        };
        for (index, name) in POOLS.iter().enumerate() {
            let id: PoolId = name.parse().unwrap();
            let window_cap = index == 2;
            let (capacity, refill) = (units(8 + world.rng.below(30)), units(1 + world.rng.below(8)));
            let config = PoolConfig {
                pool: id.clone(),
                unit: "u".into(),
                limits: BucketLimits { capacity, refill_per_second: refill, window_cap },
                low_water_percent: 10,
                queue_cap: 20,
                weights: Weights::default(),
                scheduler_running: true,
                revision: 1,
            };
            world.most_limits.insert(id.clone(), (capacity, refill));
            world.pool_time.insert(id.clone(), now);
            world.pools.insert(id, PoolObject::new(config, now));
        }
        for (name, tier) in CLIENTS.iter().zip([Tier::Enterprise, Tier::Standard, Tier::Basic]) {
            let client: ClientId = name.parse().unwrap();
            let budget = 100_000 + world.rng.below(400_000) as i64;
            let slots = 1 + world.rng.below(4) as u32;
            let config = AccountConfig {
                time_zone: "UTC".into(),
                client: client.clone(),
                tier,
                budget: NanoUsd::from_nanos(budget).unwrap(),
                max_concurrent: slots,
                status: ClientStatus::Active,
                revision: 1,
            };
            world.most_budget.insert(client.clone(), budget);
            world.most_slots.insert(client.clone(), slots as usize);
            world.beyond_holds.insert(client.clone(), 0);
            world.accounts.insert(client, AccountObject::new(config));
        }
        world
    }

    pub(crate) fn send(&mut self, message: Message) {
        let copies = match self.rng.below(100) {
            0..6 if !self.calm => {
                self.seen.insert("lost");
                // The shell gives a call that has no answer up, and says so to the core.
                if let Some(answer) = no_answer(&message) {
                    self.deliver_later(answer, 10_000);
                }
                0
            }
            6..12 if !self.calm => {
                self.seen.insert("doubled");
                2
            }
            _ => 1,
        };
        for _ in 0..copies {
            let delay = if self.rng.chance(70) { 1 + self.rng.below(30) } else { self.rng.below(6_000) };
            self.deliver_later(message.clone(), delay as i64);
        }
    }

    pub(crate) fn deliver_later(&mut self, message: Message, delay: i64) {
        self.sent += 1;
        self.messages.insert((self.now.plus(delay), self.sent), message);
    }

    /// Lets an event happen to a pool, as the shell does.
    pub(crate) fn at_pool<T>(&mut self, name: &PoolId, event: impl FnOnce(&mut PoolObject, Instant) -> T) -> T {
        let now = self.now;
        self.pool_time.insert(name.clone(), now);
        let object = self.pools.get_mut(name).unwrap();
        let outcome = event(object, now);
        let ended_before = object.ended.len();
        let effects = object.save();
        if object.ended.len() > ended_before {
            self.seen.extend(object.ended.values().map(|end| end.status.as_str()));
        }
        if object.pool.ledger().overused > 0 {
            self.seen.insert("overused");
        }
        for effect in effects {
            self.perform(name.clone(), effect);
        }
        outcome
    }

    pub(crate) fn at_account<T>(&mut self, name: &ClientId, event: impl FnOnce(&mut AccountObject) -> T) -> T {
        let object = self.accounts.get_mut(name).unwrap();
        let outcome = event(object);
        for effect in object.save() {
            match effect {
                AccountEffect::WakePool { pool } => self.send(Message::Wake(pool, name.clone())),
                AccountEffect::AskHome { id, slot } => self.send(Message::AskHome(name.clone(), id, slot)),
            }
        }
        outcome
    }

    fn perform(&mut self, home: PoolId, effect: Effect) {
        match effect {
            Effect::Start { id, grant, .. } => self.send(Message::Start(home, id, grant)),
            Effect::Reserved { id, .. } => self.reservations.push(id),
            Effect::ReservationRefused { id, .. } => {
                self.accepted.remove(&id);
                let client = self.owners[&id].clone();
                self.at_account(&client, |object| object.account.abandon(&id));
            }
            Effect::AcquireSlot { id, grant, client } => self.send(Message::AcquireSlot(client, home, id, grant)),
            Effect::ReleaseSlot { id, grant, client } => self.send(Message::ReleaseSlot(client, id, grant)),
            Effect::AcquireLease { id, grant, pool, order } => {
                self.send(Message::AcquireLease(pool, home, id, grant, order));
            }
            Effect::SettleLease { pool, key, used } => self.send(Message::SettleLease(pool, key, used)),
            Effect::Settle { event } => self.send(Message::Settle(home, event)),
            Effect::Finished { .. } => {}
        }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.submit(),
            30..36 => self.cancel(),
            36..42 => self.use_a_reservation(),
            42..46 => self.change_something(),
            46..49 => self.crash_something(),
            _ => {
                let millis = if self.rng.chance(90) { self.rng.below(400) } else { self.rng.below(40_000) };
                self.pass_time(millis as i64);
            }
        }
    }

    fn submit(&mut self) {
        let client: ClientId = self.rng.pick(&CLIENTS).unwrap().parse().unwrap();
        let kind = if self.rng.chance(25) { Kind::Reservation } else { Kind::Execution };
        let mut names: Vec<PoolId> = POOLS.iter().map(|name| name.parse().unwrap()).collect();
        for index in (1..names.len()).rev() {
            names.swap(index, self.rng.below(index as u64 + 1) as usize);
        }
        names.truncate(1 + self.rng.below(5).min(2) as usize);
        let demands: Vec<Demand> = names
            .iter()
            .map(|pool| Demand::flat(pool.clone(), units(1 + self.rng.below(8)), NanoUsd::from_nanos(1_000).unwrap()))
            .collect();
        let cost =
            demands.iter().fold(NanoUsd::ZERO, |sum, d| sum.saturating_add(d.unit_price.times(d.amount).unwrap()));
        let random = self.rng.next().to_be_bytes();
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&random);
        let id = RequestId::new(self.now, bytes, &names[0]);
        let (now, period) = (self.now, Period::month_of(self.now));
        let held = self.at_account(&client, |object| object.account.hold(&id, cost, kind, period, now));
        let held = match held {
            Ok(held) => held,
            Err(HoldRefusal::Budget { .. } | HoldRefusal::Suspended) => {
                self.seen.insert("refused budget");
                return;
            }
        };
        let object = &self.accounts[&client];
        let config = object.account.config();
        assert!(object.spent() + object.held() <= config.budget.nanos(), "a hold beyond the budget");
        self.owners.insert(id.clone(), client.clone());
        if !self.calm && self.rng.chance(3) {
            return;
        }
        let submission = Submission {
            id: id.clone(),
            client: client.clone(),
            tier: config.tier,
            kind,
            urgency: *self.rng.pick(&Urgency::ALL).unwrap(),
            held_at: held.at,
            deadline: self.rng.chance(20).then(|| self.now.plus(500 + self.rng.below(60_000) as i64)),
            demands,
            max_attempts: 1 + self.rng.below(3) as u32,
            timeout_ms: 200 + self.rng.below(20_000) as i64,
            has_slot: held.slot,
        };
        let mode = if kind == Kind::Reservation { Mode::NowOrNever } else { Mode::Queue };
        let before = self.counts(&names[0]);
        let again = self.rng.chance(10).then(|| submission.clone());
        let outcome = self.at_pool(&names[0], |object, now| {
            object.known.insert(submission.id.clone());
            object.pool.submit(submission, mode, now)
        });
        match outcome {
            Submitted::Accepted => {
                if kind == Kind::Execution || self.pools[&names[0]].pool.request(&id).is_some() {
                    self.accepted.insert(id.clone());
                }
            }
            Submitted::Existing => panic!("a new id exists"),
            Submitted::Refused(_) => {
                self.seen.insert("refused now");
                self.pools.get_mut(&names[0]).unwrap().known.remove(&id);
                assert!(self.counts(&names[0]).0 <= before.0, "a refusal left a request");
                self.at_account(&client, |object| object.account.abandon(&id));
            }
        }
        if let Some(again) = again.filter(|_| outcome == Submitted::Accepted) {
            let known = self.pools[&names[0]].pool.request(&id).is_some();
            let repeated = self.at_pool(&names[0], |object, now| {
                if object.ended.contains_key(&again.id) {
                    Submitted::Existing
                } else {
                    object.pool.submit(again, mode, now)
                }
            });
            assert!(!known || repeated == Submitted::Existing, "the same request twice");
        }
    }

    fn counts(&self, pool: &PoolId) -> (usize, u64) {
        let object = &self.pools[pool];
        (object.pool.requests().count(), object.pool.view(self.now).queued)
    }

    fn cancel(&mut self) {
        let ids: Vec<RequestId> = self.accepted.iter().cloned().collect();
        let Some(id) = self.rng.pick(&ids).cloned() else { return };
        let home = id.home().unwrap();
        let only_waiting = self.rng.chance(30);
        let ran = self.pools[&home].pool.request(&id).is_some_and(|r| matches!(r.phase, Phase::Running { .. }));
        let outcome = self.at_pool(&home, |object, now| object.pool.cancel(&id, only_waiting, now));
        assert!(outcome != CancelOutcome::Running || (ran && only_waiting));
        if ran && outcome == CancelOutcome::Cancelled {
            self.seen.insert("cancelled while running");
        }
    }

    fn use_a_reservation(&mut self) {
        let Some(id) = self.rng.pick(&self.reservations.clone()).cloned() else { return };
        let home = id.home().unwrap();
        let amount = units(self.rng.below(10));
        let (last, release) = (self.rng.chance(60), self.rng.chance(25));
        self.at_pool(&home, |object, now| {
            let usage = vec![Usage { pool: home.clone(), amount, parts: None }];
            if release { object.pool.release(&id, now) } else { object.pool.consume(&id, usage, last, None, now) }
        });
    }

    fn change_something(&mut self) {
        self.revision += 1;
        if self.rng.chance(50) {
            let name: PoolId = self.rng.pick(&POOLS).unwrap().parse().unwrap();
            let mut config = self.pools[&name].pool.config().clone();
            config.revision = self.revision;
            if self.rng.chance(50) {
                config.limits.capacity = units(4 + self.rng.below(34));
                config.limits.refill_per_second = units(1 + self.rng.below(8));
            } else {
                config.scheduler_running = !config.scheduler_running;
            }
            let most = self.most_limits.get_mut(&name).unwrap();
            most.0 = most.0.max(config.limits.capacity);
            most.1 = most.1.max(config.limits.refill_per_second);
            self.at_pool(&name, |object, now| object.pool.configure(config, now));
        } else {
            let name: ClientId = self.rng.pick(&CLIENTS).unwrap().parse().unwrap();
            let mut config = self.accounts[&name].account.config().clone();
            config.revision = self.revision;
            let budget = self.accounts[&name].spent() + self.rng.below(300_000) as i64;
            config.budget = NanoUsd::from_nanos(budget).unwrap();
            config.max_concurrent = self.rng.below(5) as u32;
            let most = self.most_budget.get_mut(&name).unwrap();
            *most = (*most).max(budget);
            let slots = self.most_slots.get_mut(&name).unwrap();
            *slots = (*slots).max(config.max_concurrent as usize);
            self.at_account(&name, |object| object.account.configure(config));
        }
    }

    fn crash_something(&mut self) {
        if self.rng.chance(60) {
            let name: PoolId = self.rng.pick(&POOLS).unwrap().parse().unwrap();
            self.seen.insert("pool crashed");
            // The calls that were under way die with the object.
            self.messages.retain(|_, message| {
                !matches!(message, Message::SlotAnswer(to, ..) | Message::LeaseAnswer(to, ..) | Message::Settled(to, _) if *to == name)
            });
            self.at_pool(&name, PoolObject::crash);
        } else {
            let name: ClientId = self.rng.pick(&CLIENTS).unwrap().parse().unwrap();
            self.seen.insert("account crashed");
            self.at_account(&name, AccountObject::crash);
        }
    }

    /// Time passes: messages arrive and alarms go off, in their order.
    fn pass_time(&mut self, millis: i64) {
        let until = self.now.plus(millis);
        for _ in 0..2_000 {
            let message = self.messages.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [message, self.next_alarm()].into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(at);
            if message == Some(at) {
                let Some((_, message)) = self.messages.pop_first() else { break };
                self.deliver(message);
            } else {
                self.ring_alarms();
            }
        }
        self.now = self.now.max(until);
    }

    fn next_alarm(&self) -> Option<Instant> {
        let pools = self.pools.values().filter_map(|object| object.pool.next_wakeup(self.now));
        let accounts = self.accounts.values().filter_map(|object| object.account.next_wakeup());
        pools.chain(accounts).min()
    }

    fn ring_alarms(&mut self) {
        let now = self.now;
        for name in POOLS {
            let name: PoolId = name.parse().unwrap();
            if self.pools[&name].pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1)) {
                self.now = now.plus(1);
                self.at_pool(&name, |object, now| object.pool.on_wakeup(now));
            }
        }
        for name in CLIENTS {
            let name: ClientId = name.parse().unwrap();
            let now = self.now;
            self.at_account(&name, |object| object.account.on_wakeup(now, 16));
        }
    }

    /// Nothing new comes, nothing is lost any more, and everything is let run to its end.
    pub fn run_out(&mut self) {
        self.calm = true;
        self.revision += 1;
        for name in POOLS {
            let name: PoolId = name.parse().unwrap();
            let mut config = self.pools[&name].pool.config().clone();
            (config.scheduler_running, config.revision) = (true, self.revision);
            self.at_pool(&name, |object, now| object.pool.configure(config, now));
        }
        for name in CLIENTS {
            let name: ClientId = name.parse().unwrap();
            let mut config = self.accounts[&name].account.config().clone();
            (config.max_concurrent, config.revision) = (config.max_concurrent.max(1), self.revision);
            let slots = self.most_slots.get_mut(&name).unwrap();
            *slots = (*slots).max(config.max_concurrent as usize);
            self.at_account(&name, |object| object.account.configure(config));
        }
        for _ in 0..20_000 {
            let message = self.messages.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [message, self.next_alarm()].into_iter().flatten().min() else { break };
            let step = at.since(self.now).max(1);
            self.pass_time(step);
        }
        // The buckets fill up.
        self.pass_time(600_000);
        let statuses = self.pools.values().flat_map(|object| object.ended.values()).map(|end| end.status);
        assert!(statuses.filter(|status| *status == Status::Succeeded).count() > 0, "nothing succeeded");
    }
}

/// What the shell tells the core when a call has no answer.
fn no_answer(message: &Message) -> Option<Message> {
    match message {
        Message::AcquireSlot(_, pool, id, grant) => Some(Message::SlotAnswer(pool.clone(), id.clone(), *grant, None)),
        Message::AcquireLease(pool, home, id, grant, _) => {
            Some(Message::LeaseAnswer(home.clone(), id.clone(), *grant, pool.clone(), LeaseAnswer::Unreachable))
        }
        _ => None,
    }
}
