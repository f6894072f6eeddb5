//! What clients, workers and operators do, and what crashes: one thing a step.

use rm_core::account::HoldRefusal;
use rm_core::id::{ClientId, PoolId, RequestId, WorkerBinding};
use rm_core::period::Period;
use rm_core::pipeline::Step;
use rm_core::pool::{BatchTerms, CancelOutcome, Mode, Submission, Submitted};
use rm_core::pricing::{BarePrice, OffPeakPrice};
use rm_core::priority::Urgency;
use rm_core::request::{Demand, Kind, Phase, Usage};
use rm_core::units::{NanoUsd, Tokens};

use super::shell::{AccountObject, Message, PoolObject};
use super::words::demands_in_words;
use super::world::{WORKERS, World, per_second, units};
use crate::setup::{self, Order};

impl World {
    /// One thing happens.
    pub(crate) fn act(&mut self) {
        match self.rng.below(100) {
            0..30 => self.submit(),
            30..36 => self.cancel(),
            36..42 => self.use_a_reservation(),
            42..46 => self.change_something(),
            46..49 => self.crash_something(),
            _ => {
                let short = self.rng.chance(if self.slow { 60 } else { 90 });
                let millis = if short { self.rng.below(400) } else { self.rng.below(40_000) };
                self.log.say(self.now, || format!("{millis} ms pass"));
                self.pass_time(millis as i64);
            }
        }
    }

    fn submit(&mut self) {
        let Some((order, cost)) = self.draw_order() else { return };
        let (now, period) = (self.now, Period::month_of(self.now));
        let Order { id, client, kind, .. } = order.clone();
        self.log.name(&id);
        self.saw(if kind == Kind::Execution { "execution sent" } else { "reservation sent" });
        self.log.say(now, || {
            let Order { demands, urgency, deadline, max_attempts, timeout_ms, .. } = &order;
            let what = if kind == Kind::Execution { "sends" } else { "wants to reserve for" };
            let within = deadline.map_or(String::new(), |at| format!(", by {} ms from now", at.since(now)));
            let tries = format!("{max_attempts} attempts of {timeout_ms} ms");
            format!("{client} {what} {id}: {}, {}{within}, {tries}", demands_in_words(demands), urgency.as_str())
        });
        let served = kind == Kind::Execution && self.rng.chance(5);
        let held = self.at_account(&client, |object| match served {
            true => object.account.hold_nothing(&id, period, now),
            false => object.account.hold(&id, cost, kind, period, now),
        });
        let held = match held {
            Ok(held) => held,
            Err(HoldRefusal::Budget { .. } | HoldRefusal::Suspended) => {
                self.saw("refused by budget");
                self.log.say(now, || "  refused: the budget has not got that".into());
                return;
            }
        };
        let object = &self.accounts[&client];
        assert!(
            served || object.spent() + object.held() <= object.account.config().budget.nanos(),
            "{client}: a hold beyond the budget"
        );
        self.owners.insert(id.clone(), client);
        if !self.calm && self.rng.chance(3) {
            self.saw("caller gone after the hold");
            self.log.say(now, || "  held, and then the caller is gone".into());
            return;
        }
        let again = self.rng.chance(10);
        let submission = setup::submission(order, held);
        if served {
            self.serve(&submission);
            if again {
                self.serve(&submission);
            }
        } else {
            self.submit_held(submission, again);
        }
    }

    /// The request has a result that was kept.
    fn serve(&mut self, submission: &Submission) {
        let (id, home) = (&submission.id, submission.id.home().unwrap());
        let used = units(self.rng.below(12));
        let usage = [Usage { pool: home.clone(), amount: used, parts: None, is_share: false }];
        self.saw("served");
        self.log.say(self.now, || format!("  there is a result, for which {} of {home} were used", used.units()));
        self.at_pool(&home, |object, now| {
            // The shell looks into its store before.
            if !object.ended.contains_key(id) {
                let taken = object.pool.serve(submission.clone(), &usage, "kept".into(), now);
                assert_eq!(taken, Submitted::Accepted, "{id} is new");
            }
        });
        self.accepted.insert(id.clone());
        assert_eq!(self.pools[&home].ended[id].end.cost, NanoUsd::ZERO, "{id} was not run");
    }

    fn draw_order(&mut self) -> Option<(Order, NanoUsd)> {
        let client: ClientId = self.rng.pick(&self.client_names())?.clone();
        let kind = if self.rng.chance(25) { Kind::Reservation } else { Kind::Execution };
        let mut names = self.pool_names();
        for index in (1..names.len()).rev() {
            names.swap(index, self.rng.below(index as u64 + 1) as usize);
        }
        names.truncate(1 + self.rng.below(5).min(2) as usize);
        let demands: Vec<Demand> = names.iter().map(|pool| self.draw_demand(pool)).collect();
        let steps = if kind == Kind::Execution && self.rng.chance(20) { 1 + self.rng.below(3) } else { 0 };
        let later: Vec<Step> = (0..steps).map(|_| self.draw_step(&names[0])).collect();
        let all = demands.iter().chain(later.iter().flat_map(|step| &step.demands));
        let cost = all.fold(NanoUsd::ZERO, |sum, d| sum.saturating_add(d.unit_price.times(d.amount).unwrap()));
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.rng.next().to_be_bytes());
        let twin = (kind == Kind::Execution && self.rng.chance(15)).then(|| format!("{client} {}", self.rng.below(2)));
        let batch = (kind == Kind::Execution && later.is_empty() && self.rng.chance(40)).then(|| BatchTerms {
            key: if self.rng.chance(20) { client.to_string() } else { "everybody".into() },
            max_size: 1 + self.rng.below(4) as u32,
            window_ms: self.rng.below(8_000) as i64,
        });
        let order = Order {
            id: RequestId::new(self.now, bytes, &names[0]),
            tier: self.accounts[&client].account.config().tier,
            client,
            kind,
            urgency: *self.rng.pick(&Urgency::ALL)?,
            deadline: self.rng.chance(20).then(|| self.now.plus(500 + self.rng.below(60_000) as i64)),
            demands,
            max_attempts: 1 + self.rng.below(3) as u32,
            timeout_ms: 200 + self.rng.below(20_000) as i64,
            twin,
            batch,
            worker: (kind == Kind::Execution).then(|| self.draw_worker()),
            later,
        };
        Some((order, cost))
    }

    fn draw_worker(&mut self) -> WorkerBinding {
        self.rng.pick(&WORKERS).unwrap().parse().unwrap()
    }

    /// Some are of a cheaper model, and some cost less in windows.
    fn draw_demand(&mut self, pool: &PoolId) -> Demand {
        let price = |nanos| NanoUsd::from_nanos(nanos).unwrap();
        let instead_of = self.rng.chance(20).then(|| BarePrice { unit: price(3_000), apart: None });
        let cheaper = self.rng.chance(30);
        let windows = self.pools.values().find_map(|object| object.pool.config().off_peak.clone());
        let priced = |percent_off| move |windows| OffPeakPrice { percent_off, windows };
        let dear = self.rng.chance(50) && instead_of.is_some();
        let instead_off_peak = windows.clone().filter(|_| dear).map(priced(60));
        let off_peak = windows.filter(|_| cheaper).map(priced(35));
        let flat = Demand::flat(pool.clone(), units(1 + self.rng.below(8)), price(1_000));
        Demand { instead_of, instead_off_peak, off_peak, ..flat }
    }

    /// A step that may need nothing of its home.
    fn draw_step(&mut self, home: &PoolId) -> Step {
        let amount = if self.rng.chance(50) { Tokens::ZERO } else { units(1 + self.rng.below(8)) };
        let mut demands = vec![Demand::flat(home.clone(), amount, NanoUsd::from_nanos(1_000).unwrap())];
        let others: Vec<PoolId> = self.pool_names().into_iter().filter(|name| name != home).collect();
        if amount.is_zero() || self.rng.chance(40) {
            let other = self.rng.pick(&others).unwrap().clone();
            demands.push(self.draw_demand(&other));
        }
        let worker = Some(self.draw_worker());
        Step {
            worker,
            demands,
            max_attempts: 1 + self.rng.below(3) as u32,
            timeout_ms: 200 + self.rng.below(9_000) as i64,
        }
    }

    fn submit_held(&mut self, submission: Submission, again: bool) {
        let Submission { id, client, kind, .. } = submission.clone();
        let home = id.home().unwrap();
        let mode = if kind == Kind::Reservation { Mode::NowOrNever } else { Mode::Queue };
        let before = self.pools[&home].pool.requests().count();
        let copy = submission.clone();
        let outcome = self.at_pool(&home, |object, now| {
            object.known.insert(submission.id.clone());
            object.pool.submit(submission, mode, now)
        });
        match outcome {
            Submitted::Accepted => {
                if kind == Kind::Execution || self.pools[&home].pool.request(&id).is_some() {
                    self.accepted.insert(id.clone());
                }
            }
            Submitted::Existing => panic!("{id} is new, and exists"),
            Submitted::Refused(refusal) => {
                self.saw("refused by pool");
                self.log.say(self.now, || format!("  {home} refuses it: {refusal}"));
                self.pools.get_mut(&home).unwrap().known.remove(&id);
                assert!(self.pools[&home].pool.requests().count() <= before, "{home}: a refusal left a request");
                self.at_account(&client, |object| object.account.abandon(&id));
            }
        }
        if again && outcome == Submitted::Accepted {
            self.saw("sent again");
            self.log.say(self.now, || format!("  {id} is sent again"));
            let known = self.pools[&home].pool.request(&id).is_some();
            let repeated = self.at_pool(&home, |object, now| {
                if object.ended.contains_key(&copy.id) {
                    Submitted::Existing
                } else {
                    object.pool.submit(copy, mode, now)
                }
            });
            assert!(!known || repeated == Submitted::Existing, "{id} is there twice");
        }
    }

    fn cancel(&mut self) {
        let ids: Vec<RequestId> = self.accepted.iter().cloned().collect();
        let Some(id) = self.rng.pick(&ids).cloned() else { return };
        let home = id.home().unwrap();
        let only_waiting = self.rng.chance(30);
        self.log.say(self.now, || format!("{id} is cancelled{}", if only_waiting { ", if it waits" } else { "" }));
        let ran = self.pools[&home].pool.request(&id).is_some_and(|r| matches!(r.phase, Phase::Running { .. }));
        let outcome = self.at_pool(&home, |object, now| object.pool.cancel(&id, only_waiting, now));
        // What is due at this moment happens before it: one that was ready may have started.
        // The run that one waits for is its own.
        let runs = self.pools[&home].pool.request(&id).is_some_and(|request| match request.phase {
            Phase::Following { .. } => request.first_started_at.is_some(),
            _ => matches!(request.phase, Phase::Running { .. }),
        });
        assert!(outcome != CancelOutcome::Running || (runs && only_waiting), "{id} does not run");
        if ran && outcome == CancelOutcome::Cancelled {
            self.saw("cancelled while running");
        }
    }

    fn use_a_reservation(&mut self) {
        let Some(id) = self.rng.pick(&self.reservations.clone()).cloned() else { return };
        let home = id.home().unwrap();
        let amount = units(self.rng.below(10));
        let (last, release) = (self.rng.chance(60), self.rng.chance(25));
        self.saw(if release { "reservation released" } else { "reservation used" });
        self.log.say(self.now, || {
            let so_far = if last { "in all" } else { "so far" };
            if release { format!("{id} is released") } else { format!("{id} used {} {so_far}", amount.units()) }
        });
        self.at_pool(&home, |object, now| {
            let usage = vec![Usage { pool: home.clone(), amount, parts: None, is_share: false }];
            if release { object.pool.release(&id, now) } else { object.pool.consume(&id, usage, last, now) }
        });
    }

    fn change_something(&mut self) {
        self.revision += 1;
        if self.rng.chance(30) {
            self.worker_down = !self.worker_down;
            let how = if self.worker_down { "fails everything from now on" } else { "is well again" };
            self.log.say(self.now, || format!("the worker {} {how}", WORKERS[1]));
        } else if self.rng.chance(50) {
            let Some(name) = self.rng.pick(&self.pool_names()).cloned() else { return };
            self.change_pool(&name);
        } else {
            let Some(name) = self.rng.pick(&self.client_names()).cloned() else { return };
            self.change_account(&name);
        }
    }

    fn change_pool(&mut self, name: &PoolId) {
        self.saw("pool changed");
        let mut config = self.pools[name].pool.config().clone();
        config.revision = self.revision;
        if name.as_str() == "alpha" && self.rng.chance(30) {
            config.partitions = self.draw_partitions();
        } else if self.rng.chance(50) {
            config.limits.capacity = units(4 + self.rng.below(34));
            config.limits.refill_per_second = self.draw_refill();
        } else {
            config.scheduler_running = !config.scheduler_running;
        }
        self.log.say(self.now, || {
            let limits = config.limits;
            let (capacity, refill) = (limits.capacity.units(), per_second(limits.refill_per_second));
            let scheduler = if config.scheduler_running { "runs" } else { "is stopped" };
            format!("{name} now holds {capacity}, gains {refill} a second, and {scheduler}")
        });
        let most = self.most_limits.get_mut(name).unwrap();
        most.0 = most.0.max(config.limits.capacity);
        most.1 = most.1.max(config.limits.refill_per_second);
        self.orders.entry(name.clone()).or_default().doubt();
        self.at_pool(name, |object, now| object.pool.configure(config, now));
    }

    fn change_account(&mut self, name: &ClientId) {
        self.saw("account changed");
        let mut config = self.accounts[name].account.config().clone();
        config.revision = self.revision;
        let budget = self.accounts[name].spent() + self.rng.below(300_000) as i64;
        config.budget = NanoUsd::from_nanos(budget).unwrap();
        config.max_concurrent = self.rng.below(5) as u32;
        self.log.say(self.now, || {
            format!("{name} may now spend {budget} nano-dollars and run {} at once", config.max_concurrent)
        });
        let most = self.most_budget.get_mut(name).unwrap();
        *most = (*most).max(budget);
        let slots = self.most_slots.get_mut(name).unwrap();
        *slots = (*slots).max(config.max_concurrent as usize);
        self.at_account(name, |object| object.account.configure(config));
    }

    fn crash_something(&mut self) {
        if self.rng.chance(60) {
            let Some(name) = self.rng.pick(&self.pool_names()).cloned() else { return };
            self.saw("pool crashed");
            self.log.say(self.now, || format!("{name} crashes, and comes back from its store"));
            // The calls that were under way die with the object: nobody hears what a late one of them was given.
            for message in self.messages.values() {
                if let Message::LeaseAnswer(to, id, grant, ..) = message
                    && *to == name
                {
                    self.lost_ends.insert(format!("{id}#{grant}"));
                }
            }
            self.messages.retain(|_, message| {
                !matches!(message, Message::SlotAnswer(to, ..) | Message::LeaseAnswer(to, ..) | Message::Settled(to, _) if *to == name)
            });
            self.orders.entry(name.clone()).or_default().forget();
            self.at_pool(&name, PoolObject::crash);
        } else {
            let Some(name) = self.rng.pick(&self.client_names()).cloned() else { return };
            self.saw("account crashed");
            self.log.say(self.now, || format!("{name}'s account crashes, and comes back from its store"));
            self.at_account(&name, AccountObject::crash);
        }
    }
}
