//! Messages arrive: what the objects make of them, and what the downstream workers do.

use rm_core::account::{AtHome, SlotAnswer};
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::period::Period;
use rm_core::pool::{LeaseAnswer, LeaseEnd, Remaining, Report, ReportOutcome, Retry};
use rm_core::request::{Failure, Usage};
use rm_core::units::NanoUsd;

use super::shell::Message;
use super::world::{WORKERS, World, units};

impl World {
    pub(crate) fn deliver(&mut self, message: Message) {
        self.delivered += 1;
        self.log.say(self.now, || message.to_string());
        match message {
            Message::AcquireSlot(client, pool, id, grant, least_hold, rank) => {
                let now = self.now;
                self.raise_hold(&client, &id, least_hold);
                let granted =
                    self.at_account(&client, |object| object.account.acquire_slot(&id, grant, &pool, rank, now));
                if granted == SlotAnswer::Full {
                    self.saw("slot refused");
                }
                self.send_answer(Message::SlotAnswer(pool, id, grant, Some(granted)));
            }
            Message::SlotAnswer(pool, id, grant, granted) => {
                self.at_pool(&pool, |object, now| object.pool.slot_answered(&id, grant, granted, now));
            }
            Message::RaiseHold(client, id, least_hold) => self.raise_hold(&client, &id, least_hold),
            Message::ReleaseSlot(client, id, grant, ended) => {
                self.at_account(&client, |object| match ended {
                    true => object.account.cancelled(&id, grant),
                    false => object.account.release_slot(&id, grant),
                });
            }
            Message::AcquireLease(pool, home, id, grant, order) => {
                self.orders.entry(pool.clone()).or_default().asks(&id, &order);
                let answer = self.at_pool(&pool, |object, now| object.pool.acquire_lease(order.clone(), now));
                self.orders.entry(pool.clone()).or_default().answered(&id, &order, answer, self.now);
                self.saw(match answer {
                    LeaseAnswer::Granted { .. } => "lease granted",
                    LeaseAnswer::Ready => "lease ready",
                    LeaseAnswer::LeftAlone { .. } => "worker left alone elsewhere",
                    _ => "lease refused",
                });
                self.send_answer(Message::LeaseAnswer(home, id, grant, pool, answer));
            }
            Message::LeaseAnswer(home, id, grant, pool, answer) => {
                self.at_pool(&home, |object, now| object.pool.lease_answered(&id, grant, &pool, answer, now));
            }
            Message::LeaseFree(home, pool, came_to_nothing, available) => {
                self.at_pool(&home, |object, now| object.pool.lease_free(&pool, came_to_nothing, available, now));
            }
            Message::OrdersOver(pool, keys) => {
                for key in &keys {
                    self.order_ends(&pool, key, LeaseEnd::Over);
                }
                self.at_pool(&pool, |object, now| object.pool.orders_over(&keys, now));
            }
            Message::Standings(pool, home, standings, stood_at) => {
                let orders = self.orders.entry(pool.clone()).or_default();
                standings.iter().for_each(|(client, standing)| orders.stands(&home, client, *standing, stood_at));
                self.at_pool(&pool, |object, now| object.pool.standings_told(&home, &standings, stood_at, now));
            }
            Message::HeldBack(pool, keeper, waiting) => {
                if waiting.contains(&pool) {
                    self.saw("ring of pools");
                    self.orders.entry(pool.clone()).or_default().doubt();
                }
                self.at_pool(&pool, |object, now| object.pool.held_back_told(&keeper, waiting, now));
            }
            Message::SettleLease(pool, key, used, end, signal) => {
                self.order_ends(&pool, &key, end);
                self.at_pool(&pool, |object, now| object.pool.settle_lease(&key, used, end, &signal, now));
            }
            Message::Settle(pool, event) => self.settle(pool, event),
            Message::Settled(pool, event) => {
                self.at_pool(&pool, |object, now| object.pool.settlement_confirmed(&event, now));
            }
            Message::Wake(pool, client) => {
                self.at_pool(&pool, |object, now| object.pool.client_woken(&client, now));
                self.send_answer(Message::Woken(client));
            }
            Message::Woken(client) => self.at_account(&client, |object| object.account.wake_next()),
            Message::AskHome(client, id, slot) => {
                let home = &self.pools[&id.home().unwrap()];
                let known = if home.known.contains(&id) { AtHome::Busy } else { AtHome::Unknown };
                let answer = home.pool.at_home(&id).unwrap_or(known);
                match answer {
                    AtHome::Unknown => self.saw("orphan given up"),
                    AtHome::Waiting if slot.is_some() => self.saw("lost slot found"),
                    _ => {}
                }
                self.send_answer(Message::HomeAnswer(client, id, slot, answer));
            }
            Message::HomeAnswer(client, id, slot, answer) => {
                let now = self.now;
                self.at_account(&client, |object| object.account.home_answered(&id, slot, answer, now));
            }
            Message::Start(pool, id, grant) => self.run(pool, id, grant),
            Message::Report(pool, id, grant, report) => self.report(&pool, &id, grant, report),
        }
    }

    /// An answer gets lost with the caller only.
    fn send_answer(&mut self, answer: Message) {
        let delay = 1 + self.rng.below(40) as i64;
        self.deliver_later(answer, delay);
    }

    fn raise_hold(&mut self, client: &ClientId, id: &RequestId, least: NanoUsd) {
        let Some(held) = self.accounts[client].holds.get(id).map(|hold| hold.amount) else { return };
        if least > held {
            self.saw("hold raised");
            *self.beyond_holds.get_mut(client).unwrap() += least.nanos() - held.nanos();
        }
        self.at_account(client, |object| object.account.raise_hold(id, least));
    }

    fn settle(&mut self, pool: PoolId, event: String) {
        let Some(settlement) = self.pools[&pool].settlements.get(&event).cloned() else { return };
        let client = settlement.client.clone();
        if !self.accounts[&client].charges.contains_key(&event) {
            let held = self.accounts[&client].holds.get(&settlement.request).map_or(0, |hold| hold.amount.nanos());
            *self.beyond_holds.get_mut(&client).unwrap() += (settlement.cost.nanos() - held).max(0);
            let period = Period::month_of(self.now);
            self.at_account(&client, |object| {
                object.charges.insert(event.clone(), settlement.cost);
                object.account.settle(&settlement, period);
            });
        }
        self.send_answer(Message::Settled(pool, event));
    }

    /// A downstream worker does its work, or does not.
    fn run(&mut self, pool: PoolId, id: RequestId, grant: u32) {
        let failure = || Failure { code: "x".into(), message: "x".into() };
        let worker = self.pools[&pool].pool.request(&id).and_then(|request| request.worker.clone());
        let is_down = self.worker_down && worker.is_some_and(|worker| worker.as_str() == WORKERS[1]);
        let report = match self.rng.below(12) {
            _ if is_down => {
                self.saw("worker out of order");
                Report::Failed { failure: failure(), retry: Retry::Failing }
            }
            0..6 => {
                let amount = units(self.rng.below(12));
                let usage = if self.rng.chance(60) {
                    vec![Usage { pool: pool.clone(), amount, parts: None, is_share: self.rng.chance(30) }]
                } else {
                    vec![]
                };
                let left = self.rng.chance(10).then(|| Remaining {
                    pool: pool.clone(),
                    left: units(self.rng.below(6)),
                    resets_in_ms: self.rng.chance(50).then(|| self.rng.below(3_000) as i64),
                });
                Report::Succeeded { usage, remaining: left.into_iter().collect() }
            }
            6 if self.rng.chance(30) => Report::Failed { failure: failure(), retry: Retry::Alone },
            6 if self.rng.chance(30) => {
                let retry = Retry::Apart { tells: self.rng.chance(50), timed_out: self.rng.chance(50) };
                Report::Failed { failure: failure(), retry }
            }
            6 => Report::Failed { failure: failure(), retry: Retry::No },
            7 => Report::Failed { failure: failure(), retry: Retry::Backoff },
            8 => Report::Failed { failure: failure(), retry: Retry::Failing },
            9 => {
                let pause_ms = self.rng.chance(50).then(|| self.rng.below(3_000) as i64);
                Report::Failed { failure: failure(), retry: Retry::Busy { pause_ms } }
            }
            10 => Report::TimedOut,
            _ => return,
        };
        self.send(Message::Report(pool, id, grant, report));
    }

    fn report(&mut self, pool: &PoolId, id: &RequestId, grant: u32, report: Report) {
        let pause = match &report {
            Report::Failed { retry: Retry::Busy { pause_ms: Some(pause_ms) }, .. } => Some(self.now.plus(*pause_ms)),
            Report::Succeeded { remaining, .. } => {
                let empty = remaining.iter().find(|remaining| remaining.left.is_zero());
                empty.and_then(|remaining| remaining.resets_in_ms).map(|pause_ms| self.now.plus(pause_ms))
            }
            _ => None,
        };
        let outcome = self.at_pool(pool, |object, now| object.pool.report(id, grant, report, now));
        match outcome {
            ReportOutcome::Retrying => self.saw("retried"),
            ReportOutcome::StepEnded { .. } => self.saw("step ended"),
            ReportOutcome::ChargedLate => self.saw("charged late"),
            ReportOutcome::Ended | ReportOutcome::Ignored => {}
        }
        if let Some(until) = pause.filter(|_| outcome != ReportOutcome::Ignored) {
            self.saw("pool paused");
            let before = self.paused_until.get(pool).copied().unwrap_or(until);
            self.paused_until.insert(pool.clone(), before.max(until));
        }
    }

    fn order_ends(&mut self, pool: &PoolId, key: &str, end: LeaseEnd) {
        if let Some(id) = key.split('#').next().and_then(|id| id.parse().ok()) {
            self.orders.entry(pool.clone()).or_default().ended(&id, key, end, self.now);
        }
    }
}
