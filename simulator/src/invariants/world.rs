//! The world of one history: its objects, the messages between them, and its time.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::off_peak::Window;
use rm_core::optimizer::Savings;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Effect, LeaseAnswer};
use rm_core::priority::Tier;
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

use super::log::Log;
use super::orders::Orders;
use super::ranks::Passed;
use super::shell::{AccountObject, Message, PoolObject};
use crate::rng::Rng;
use crate::setup;

const POOLS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Downstream workers; the second is out of order from time to time.
pub(crate) const WORKERS: [&str; 2] = ["GOOD", "BAD"];
const CLIENTS: [(&str, Tier); 3] = [("ann", Tier::Enterprise), ("bob", Tier::Standard), ("cy", Tier::Basic)];

/// When every history begins.
pub(crate) const BEGINNING: Instant = Instant::from_millis(1_800_000_000_000);
/// The draws that the world is made by, and those of its end. Steps count from 0.
const STREAM_OF_THE_WORLD: u64 = u64::MAX;
const STREAM_OF_THE_END: u64 = u64::MAX - 1;

/// A world: what there is, what is on its way, and what the checks want to know of the past.
#[derive(Debug)]
pub struct World {
    seed: u64,
    /// The draws of the step that happens.
    pub(crate) rng: Rng,
    /// The world's clock.
    pub now: Instant,
    /// Pools and their stores.
    pub pools: BTreeMap<PoolId, PoolObject>,
    /// Accounts and their stores.
    pub accounts: BTreeMap<ClientId, AccountObject>,
    /// By when they arrive, and a number that keeps them apart.
    pub(crate) messages: BTreeMap<(Instant, u64), Message>,
    sent: u64,
    /// How many messages have arrived.
    pub delivered: u64,
    /// The leases whose end was lost on its way.
    pub lost_ends: BTreeSet<String>,
    /// Messages are neither lost nor doubled, and nothing crashes.
    pub(crate) calm: bool,
    /// Requests that were taken in: each of them must end.
    pub accepted: BTreeSet<RequestId>,
    /// Whose each request is.
    pub owners: BTreeMap<RequestId, ClientId>,
    pub(crate) reservations: Vec<RequestId>,
    /// What was reserved less what was given back, by when it changed.
    pub history: BTreeMap<PoolId, Vec<(Instant, i64)>>,
    /// The largest capacity and refill that a pool has had.
    pub most_limits: BTreeMap<PoolId, (Tokens, Tokens)>,
    /// The largest budget that a client has had.
    pub most_budget: BTreeMap<ClientId, i64>,
    /// The most slots that a client has had.
    pub most_slots: BTreeMap<ClientId, usize>,
    /// Real use beyond the holds.
    pub beyond_holds: BTreeMap<ClientId, i64>,
    /// When a pool's last event was.
    pub pool_time: BTreeMap<PoolId, Instant>,
    /// Until when a pool may grant nothing, because a worker asked for it.
    pub paused_until: BTreeMap<PoolId, Instant>,
    /// Objects whose alarm was lost, by name: the tick wakes them.
    pub(crate) deaf_until: BTreeMap<String, Instant>,
    /// Its pools are refilled so slowly that requests wait beyond the starvation bound.
    pub(crate) slow: bool,
    /// The worker `BAD` fails everything.
    pub(crate) worker_down: bool,
    /// Orders for a pool's tokens that it has refused.
    pub(crate) orders: BTreeMap<PoolId, Orders>,
    /// Grants of a pool in a row that went to others while a promoted request waited for tokens.
    pub passed_over: BTreeMap<PoolId, u32>,
    /// Those that grants have passed over, of higher rank or older.
    pub passed: Passed,
    /// What has happened, and how often.
    pub seen: BTreeMap<&'static str, u64>,
    /// What has happened, in words.
    pub log: Log,
    pub(crate) revision: i64,
}

pub(crate) fn units(n: u64) -> Tokens {
    Tokens::from_units(n).unwrap()
}

/// A rate in words.
pub(crate) fn per_second(refill: Tokens) -> f64 {
    refill.micros() as f64 / 1e6
}

impl World {
    /// The world of a seed, of which nobody reads what happens in it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_log(seed, Log::unread(BEGINNING))
    }

    /// The same, with a log.
    #[must_use]
    pub fn told(seed: u64) -> Self {
        Self::with_log(seed, Log::kept(BEGINNING))
    }

    fn with_log(seed: u64, log: Log) -> Self {
        let now = BEGINNING;
        let mut world = Self {
            seed,
            rng: Rng::of(seed, STREAM_OF_THE_WORLD),
            now,
            pools: BTreeMap::new(),
            accounts: BTreeMap::new(),
            messages: BTreeMap::new(),
            sent: 0,
            delivered: 0,
            lost_ends: BTreeSet::new(),
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
            deaf_until: BTreeMap::new(),
            slow: seed % 4 == 3,
            worker_down: false,
            orders: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            passed: Passed::default(),
            seen: BTreeMap::new(),
            log,
            revision: 1,
        };
        POOLS.into_iter().enumerate().for_each(|(index, name)| world.add_pool(name, index == 2));
        CLIENTS.into_iter().for_each(|(name, tier)| world.add_account(name, tier));
        world
    }

    fn add_pool(&mut self, name: &str, window_cap: bool) {
        let id: PoolId = name.parse().unwrap();
        let (capacity, refill_per_second) = (units(8 + self.rng.below(30)), self.draw_refill());
        let limits = BucketLimits { capacity, refill_per_second, window_cap };
        let cap = if window_cap { ", never more than that in a minute" } else { "" };
        self.log.heading(|| {
            let gains = per_second(refill_per_second);
            format!("{name} holds {} and gains {gains} a second{cap}", capacity.units())
        });
        self.most_limits.insert(id.clone(), (capacity, refill_per_second));
        self.pool_time.insert(id.clone(), self.now);
        let mut config = setup::pool_config(id.clone(), limits, 20);
        if name == "alpha" {
            config.partitions = self.draw_partitions();
        }
        if name == "beta" {
            config.off_peak = Some(self.draw_windows());
        }
        self.pools.insert(id, PoolObject::new(config, self.now));
    }

    /// From one unit a second to eight, or a twentieth of that.
    pub(crate) fn draw_refill(&mut self) -> Tokens {
        let refill = units(1 + self.rng.below(8)).micros();
        Tokens::from_micros(if self.slow { refill / 20 } else { refill }).unwrap()
    }

    /// A share that is lent for Standard, and one of its own for `cy`.
    pub(crate) fn draw_partitions(&mut self) -> Vec<Partition> {
        let partition = |name: &str, member, percent: u64, lends| Partition {
            name: name.into(),
            member,
            percent: u8::try_from(percent).unwrap(),
            lends,
        };
        vec![
            partition("lent", Member::Tier(Tier::Standard), 10 + self.rng.below(50), true),
            partition("own", Member::Client("cy".parse().unwrap()), 10 + self.rng.below(30), false),
        ]
    }

    /// Two hours of windows, of a minute or so each.
    fn draw_windows(&mut self) -> Vec<Window> {
        let mut at = self.now;
        (0..40)
            .map(|_| {
                let start = at.plus(self.rng.below(180_000) as i64);
                at = start.plus(1_000 + self.rng.below(60_000) as i64);
                Window { start, end: at }
            })
            .collect()
    }

    fn add_account(&mut self, name: &str, tier: Tier) {
        let client: ClientId = name.parse().unwrap();
        let budget = 100_000 + self.rng.below(400_000) as i64;
        let slots = 1 + self.rng.below(4) as u32;
        self.log.heading(|| format!("{name} ({tier}) may spend {budget} nano-dollars and run {slots} at once"));
        let config = setup::account_config(client.clone(), tier, NanoUsd::from_nanos(budget).unwrap(), slots);
        self.most_budget.insert(client.clone(), budget);
        self.most_slots.insert(client.clone(), slots as usize);
        self.beyond_holds.insert(client.clone(), 0);
        self.accounts.insert(client, AccountObject::new(config));
    }

    /// One thing happens. What a step draws depends on its number only, so that any of a history's steps can be left out.
    pub fn step(&mut self, number: u64) {
        self.rng = Rng::of(self.seed, number);
        self.log.heading(|| format!("step {number}"));
        self.act();
        self.note_grants();
    }

    /// Counts something that happened.
    pub(crate) fn saw(&mut self, event: &'static str) {
        *self.seen.entry(event).or_default() += 1;
    }

    pub(crate) fn saw_savings(&mut self, saved: Savings) {
        let by = [
            (saved.model_downgrade, "saved by a cheaper model"),
            (saved.request_batching, "saved by a common run"),
            (saved.cache, "saved by a kept result"),
            (saved.off_peak, "saved by a window"),
        ];
        by.into_iter().filter(|(saved, _)| !saved.is_none()).for_each(|(_, event)| self.saw(event));
    }

    /// Keeps what every pool has granted, for the check of any window.
    fn note_grants(&mut self) {
        for (name, object) in &self.pools {
            let ledger = object.pool.ledger();
            let net = ledger.reserved - ledger.released - ledger.expired;
            let history = self.history.entry(name.clone()).or_default();
            if history.last().is_none_or(|last| *last != (self.now, net)) {
                history.push((self.now, net));
            }
        }
    }

    pub(crate) fn send(&mut self, message: Message) {
        let copies = match self.rng.below(100) {
            0..6 if !self.calm => {
                self.saw("message lost");
                self.log.say(self.now, || format!("lost: {message}"));
                if let Message::SettleLease(_, key, ..) = &message {
                    self.lost_ends.insert(key.clone());
                }
                // The shell gives a call that has no answer up, and says so to the core.
                if let Some(answer) = no_answer(&message) {
                    self.deliver_later(answer, 10_000);
                }
                0
            }
            6..12 if !self.calm => {
                self.saw("message doubled");
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

    pub(crate) fn perform(&mut self, home: PoolId, effect: Effect) {
        match effect {
            Effect::Start { id, grant, .. } => self.send(Message::Start(home, id, grant)),
            Effect::StartBatch { items, .. } => {
                self.saw("batch started");
                for (id, grant) in items {
                    self.send(Message::Start(home.clone(), id, grant));
                }
            }
            Effect::Reserved { id, .. } => self.reservations.push(id),
            Effect::ReservationRefused { id, .. } => {
                self.accepted.remove(&id);
                let client = self.owners[&id].clone();
                self.at_account(&client, |object| object.account.abandon(&id));
            }
            Effect::AcquireSlot { id, grant, client, least_hold, rank } => {
                self.send(Message::AcquireSlot(client, home, id, grant, least_hold, rank));
            }
            Effect::RaiseHold { id, client, least_hold } => self.send(Message::RaiseHold(client, id, least_hold)),
            Effect::ReleaseSlot { id, grant, client, ended } => {
                self.send(Message::ReleaseSlot(client, id, grant, ended));
            }
            Effect::AcquireLease { id, grant, pool, order } => {
                self.send(Message::AcquireLease(pool, home, id, grant, order));
            }
            Effect::LeaseFree { home: other, came_to_nothing, available } => {
                self.saw(if came_to_nothing { "lease free of nothing" } else { "lease free" });
                self.send(Message::LeaseFree(other, home, came_to_nothing, available));
            }
            Effect::OrdersOver { pool, keys } => {
                self.saw("orders over");
                self.send(Message::OrdersOver(pool, keys));
            }
            Effect::TellStandings { pool, standings, stood_at } => {
                self.saw("standings told");
                self.send(Message::Standings(pool, home, standings, stood_at));
            }
            Effect::TellHeldBack { pool, waiting } => {
                self.saw("held back told");
                self.send(Message::HeldBack(pool, home, waiting));
            }
            Effect::SettleLease { pool, key, used, end, signal } => {
                self.send(Message::SettleLease(pool, key, used, end, signal));
            }
            Effect::Settle { event } => self.send(Message::Settle(home, event)),
            Effect::Finished { .. } => {}
        }
    }

    pub(crate) fn pool_names(&self) -> Vec<PoolId> {
        self.pools.keys().cloned().collect()
    }

    pub(crate) fn client_names(&self) -> Vec<ClientId> {
        self.accounts.keys().cloned().collect()
    }

    /// Nothing new comes, nothing is lost any more, and everything is let run to its end.
    pub fn run_out(&mut self) {
        self.rng = Rng::of(self.seed, STREAM_OF_THE_END);
        self.log.heading(|| "the end: nothing new comes, nothing is lost any more, and all is let run out".into());
        self.calm = true;
        self.worker_down = false;
        self.revision += 1;
        for name in self.pool_names() {
            let mut config = self.pools[&name].pool.config().clone();
            (config.scheduler_running, config.revision, config.off_peak) = (true, self.revision, None);
            self.at_pool(&name, |object, now| object.pool.configure(config, now));
        }
        for name in self.client_names() {
            let mut config = self.accounts[&name].account.config().clone();
            (config.max_concurrent, config.revision) = (config.max_concurrent.max(1), self.revision);
            let slots = self.most_slots.get_mut(&name).unwrap();
            *slots = (*slots).max(config.max_concurrent as usize);
            self.at_account(&name, |object| object.account.configure(config));
        }
        for _ in 0..400_000 {
            let message = self.messages.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = [message, self.next_alarm()].into_iter().flatten().min() else { break };
            let step = at.since(self.now).max(1);
            self.pass_time(step);
        }
        // The buckets fill up.
        self.pass_time(if self.slow { 12_000_000 } else { 600_000 });
    }
}

/// What the shell tells the core when a call has no answer.
fn no_answer(message: &Message) -> Option<Message> {
    match message {
        Message::AcquireSlot(_, pool, id, grant, ..) => {
            Some(Message::SlotAnswer(pool.clone(), id.clone(), *grant, None))
        }
        Message::AcquireLease(pool, home, id, grant, _) => {
            Some(Message::LeaseAnswer(home.clone(), id.clone(), *grant, pool.clone(), LeaseAnswer::Unreachable))
        }
        Message::Wake(_, client) => Some(Message::Woken(client.clone())),
        _ => None,
    }
}
