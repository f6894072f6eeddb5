//! One client's money and slots, as one state machine: `spent + held ≤ budget` and `running ≤ maxConcurrent`, at every
//! instant, because one object decides.
//!
//! It has the same contract as [`crate::pool`]: an event changes it and leaves [`AccountChanges`] to store and
//! [`AccountEffect`]s to perform afterwards.

mod model;

use std::collections::{BTreeMap, BTreeSet};

pub use model::{
    AccountChanges, AccountConfig, AccountEffect, AccountView, AtHome, ClientStatus, Held, Hold, HoldRefusal,
    PeriodTotals, SlotAnswer,
};

use crate::id::{PoolId, RequestId};
use crate::period::Period;
use crate::request::{Kind, Settlement};
use crate::units::{Instant, NanoUsd};

/// After this long a hold is asked after at its home pool, and so is a slot: the one who took the hold may have gone
/// before the pool heard of it, and the news that a slot is free may have been lost with the pool's memory. It is well
/// beyond [`crate::pool`]'s limit for a submission.
pub const ORPHAN_AFTER_MS: i64 = 90_000;

/// An account. See the module's text for its contract.
#[derive(Debug, Clone)]
pub struct Account {
    config: AccountConfig,
    periods: BTreeMap<Instant, PeriodTotals>,
    holds: BTreeMap<RequestId, Hold>,
    running: u32,
    executions: u32,
    /// Holds that their home pool has not confirmed, by when to ask.
    unconfirmed: BTreeSet<(Instant, RequestId)>,
    /// Pools with requests that were refused a slot since one was last free, with the best rank of each.
    waiting_pools: BTreeMap<PoolId, Instant>,
    changes: AccountChanges,
    effects: Vec<AccountEffect>,
}

impl Account {
    /// Brings an account back from its store.
    #[must_use]
    pub fn restore(config: AccountConfig, periods: BTreeMap<Instant, PeriodTotals>, holds: Vec<Hold>) -> Self {
        let mut account = Self {
            config,
            periods,
            holds: BTreeMap::new(),
            running: 0,
            executions: 0,
            unconfirmed: BTreeSet::new(),
            waiting_pools: BTreeMap::new(),
            changes: AccountChanges::default(),
            effects: Vec::new(),
        };
        for hold in holds {
            account.put(hold);
        }
        account.changes = AccountChanges::default();
        account
    }

    /// Takes a changed configuration, if it is not older. What is spent, held and running stays.
    pub fn configure(&mut self, config: AccountConfig) {
        if config.revision < self.config.revision || config == self.config {
            return;
        }
        let more_slots = config.max_concurrent > self.config.max_concurrent;
        self.config = config;
        self.changes.config = true;
        if more_slots {
            self.wake_next();
        }
    }

    /// Takes the configuration of a client that was deleted and is there again: its revisions begin anew.
    pub fn reopen(&mut self, config: AccountConfig) {
        self.config = config;
        self.changes.config = true;
        self.wake_next();
    }

    /// Holds the cost of a request, and gives it a slot if one is wanted and free. Asking again for the same request
    /// holds nothing more.
    ///
    /// # Errors
    /// See [`HoldRefusal`]. Nothing is held then.
    pub fn hold(
        &mut self,
        id: &RequestId,
        amount: NanoUsd,
        kind: Kind,
        period: Period,
        now: Instant,
    ) -> Result<Held, HoldRefusal> {
        self.hold_with(id, amount, kind, true, period, now)
    }

    /// Lets a request in that costs nothing and is not run, for its result was kept: whatever is left of the budget, and
    /// without a slot.
    ///
    /// # Errors
    /// The client is suspended.
    pub fn hold_nothing(&mut self, id: &RequestId, period: Period, now: Instant) -> Result<Held, HoldRefusal> {
        self.hold_with(id, NanoUsd::ZERO, Kind::Execution, false, period, now)
    }

    fn hold_with(
        &mut self,
        id: &RequestId,
        amount: NanoUsd,
        kind: Kind,
        is_run: bool,
        period: Period,
        now: Instant,
    ) -> Result<Held, HoldRefusal> {
        if let Some(hold) = self.holds.get(id) {
            let slots = self.config.max_concurrent;
            return Ok(Held { at: hold.held_at, slot: hold.slot == Some(0), slots });
        }
        if self.config.status == ClientStatus::Suspended {
            return Err(HoldRefusal::Suspended);
        }
        let totals = self.periods.get(&period.month).copied().unwrap_or_default();
        let remaining = self.remaining(totals);
        if amount < NanoUsd::ZERO || (is_run && amount > remaining) {
            return Err(HoldRefusal::Budget { remaining: remaining.or_zero(), next_period: period.end });
        }
        let wants_slot = is_run && kind == Kind::Execution;
        // Those that wait for one go first.
        let is_free = self.running < self.config.max_concurrent && self.waiting_pools.is_empty();
        let slot = (wants_slot && is_free).then_some(0);
        let held = PeriodTotals { held: totals.held.saturating_add(amount), ..totals };
        self.set_period(period.month, held);
        self.changes.holds.insert(id.clone());
        self.put(Hold {
            id: id.clone(),
            amount,
            period_start: period.month,
            held_at: now,
            slot,
            kind,
            ended: false,
            ask_at: Some(now.plus(ORPHAN_AFTER_MS)),
        });
        Ok(Held { at: now, slot: slot.is_some(), slots: self.config.max_concurrent })
    }

    /// Gives a slot to a request whose turn it is at `pool`. Asking again for the same request gives the same slot. `rank` is
    /// its place among all of this client's, as a moment: those of the least are told first when a slot is free.
    pub fn acquire_slot(
        &mut self,
        id: &RequestId,
        grant: u32,
        pool: &PoolId,
        rank: Instant,
        now: Instant,
    ) -> SlotAnswer {
        let Some(hold) = self.holds.get(id) else { return SlotAnswer::NoHold };
        if hold.slot.is_none() && self.running >= self.config.max_concurrent {
            self.waiting_pools.entry(pool.clone()).and_modify(|best| *best = rank.min(*best)).or_insert(rank);
            return SlotAnswer::Full;
        }
        if let Some(mut hold) = self.take(id) {
            hold.slot = Some(hold.slot.map_or(grant, |before| before.max(grant)));
            hold.ask_at = Some(now.plus(ORPHAN_AFTER_MS));
            self.changes.holds.insert(id.clone());
            self.put(hold);
        }
        SlotAnswer::Granted
    }

    /// A request takes more than was held for it, and goes on: what it has used it has used, so that at least this much is
    /// held from now on, be it beyond the budget.
    pub fn raise_hold(&mut self, id: &RequestId, least: NanoUsd) {
        let more = self.holds.get(id).map_or(NanoUsd::ZERO, |hold| least.saturating_sub(hold.amount));
        if more > NanoUsd::ZERO
            && let Some(mut hold) = self.take(id)
        {
            let totals = self.periods.get(&hold.period_start).copied().unwrap_or_default();
            self.set_period(hold.period_start, PeriodTotals { held: totals.held.saturating_add(more), ..totals });
            hold.amount = least;
            self.changes.holds.insert(id.clone());
            self.put(hold);
        }
    }

    /// A request was cancelled while it ran: its slot is free, and it waits for nothing. Its cost stays held until it is
    /// known what it used.
    pub fn cancelled(&mut self, id: &RequestId, grant: u32) {
        if let Some(mut hold) = self.take(id) {
            hold.ended = true;
            self.changes.holds.insert(id.clone());
            self.put(hold);
        }
        self.release_slot(id, grant);
    }

    /// Takes a slot back. One that was given for a later grant stays.
    pub fn release_slot(&mut self, id: &RequestId, grant: u32) {
        let stays = self.holds.get(id).is_none_or(|hold| hold.slot.is_none_or(|given_for| given_for > grant));
        if !stays && let Some(mut hold) = self.take(id) {
            hold.slot = None;
            self.changes.holds.insert(id.clone());
            self.put(hold);
            self.wake_next();
        }
    }

    /// A request ended: its hold goes back, its cost is charged to the period of its hold, its slot is free. `made_in` is
    /// the period that the request was made in: a use that is reported after the hold went back belongs there too. The
    /// caller sees to it that each [`Settlement::event`] comes here once.
    pub fn settle(&mut self, settlement: &Settlement, made_in: Period) -> Instant {
        let period_start = match self.take(&settlement.request) {
            Some(hold) => {
                let totals = self.periods.get(&hold.period_start).copied().unwrap_or_default();
                let rest = PeriodTotals { held: totals.held.saturating_sub(hold.amount).or_zero(), ..totals };
                self.set_period(hold.period_start, rest);
                self.changes.holds.insert(hold.id.clone());
                if hold.slot.is_some() {
                    self.wake_next();
                }
                hold.period_start
            }
            None => made_in.month,
        };
        if settlement.cost > NanoUsd::ZERO {
            let totals = self.periods.get(&period_start).copied().unwrap_or_default();
            self.set_period(
                period_start,
                PeriodTotals { spent: totals.spent.saturating_add(settlement.cost), ..totals },
            );
        }
        period_start
    }

    /// A request that was held for did not come to be: everything goes back.
    pub fn abandon(&mut self, id: &RequestId) {
        let Some(hold) = self.take(id) else { return };
        let totals = self.periods.get(&hold.period_start).copied().unwrap_or_default();
        self.set_period(
            hold.period_start,
            PeriodTotals { held: totals.held.saturating_sub(hold.amount).or_zero(), ..totals },
        );
        self.changes.holds.insert(id.clone());
        if hold.slot.is_some() {
            self.wake_next();
        }
    }

    /// Asks after holds and slots that nothing was heard of for long; at most `limit` of them.
    pub fn on_wakeup(&mut self, now: Instant, limit: usize) {
        let due: Vec<RequestId> =
            self.unconfirmed.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, id)| id.clone()).collect();
        for id in due {
            if let Some(mut hold) = self.take(&id) {
                hold.ask_at = Some(now.plus(ORPHAN_AFTER_MS));
                let slot = hold.slot;
                self.put(hold);
                self.effects.push(AccountEffect::AskHome { id, slot });
            }
        }
    }

    /// The home pool says how a request is. `slot` is that of the question: one that was given since stays.
    pub fn home_answered(&mut self, id: &RequestId, slot: Option<u32>, answer: AtHome, now: Instant) {
        if answer == AtHome::Unknown {
            self.abandon(id);
            return;
        }
        if answer == AtHome::Waiting
            && let Some(grant) = slot
        {
            self.release_slot(id, grant);
        }
        if let Some(mut hold) = self.take(id) {
            hold.ask_at = hold.slot.map(|_| now.plus(ORPHAN_AFTER_MS));
            self.changes.holds.insert(id.clone());
            self.put(hold);
        }
    }

    /// When to call [`Self::on_wakeup`].
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.unconfirmed.first().map(|(at, _)| *at)
    }

    /// What is to be stored since the last call.
    pub fn take_changes(&mut self) -> AccountChanges {
        std::mem::take(&mut self.changes)
    }

    /// What is to be done outside since the last call. Only after the changes are stored.
    pub fn take_effects(&mut self) -> Vec<AccountEffect> {
        std::mem::take(&mut self.effects)
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &AccountConfig {
        &self.config
    }

    /// What is held for a request.
    #[must_use]
    pub fn held_for(&self, id: &RequestId) -> Option<&Hold> {
        self.holds.get(id)
    }

    /// How many holds are open.
    #[must_use]
    pub fn holds_open(&self) -> u64 {
        u64::try_from(self.holds.len()).unwrap_or(u64::MAX)
    }

    /// The money of a month; see [`Period::month`].
    #[must_use]
    pub fn totals(&self, period_start: Instant) -> PeriodTotals {
        self.periods.get(&period_start).copied().unwrap_or_default()
    }

    /// The account as of `period`.
    #[must_use]
    pub fn view(&self, period: Period) -> AccountView {
        let totals = self.totals(period.month);
        AccountView {
            client: self.config.client.clone(),
            tier: self.config.tier,
            period,
            budget: self.config.budget,
            spent: totals.spent,
            held: totals.held,
            remaining: self.remaining(totals).or_zero(),
            running: self.running,
            max_concurrent: self.config.max_concurrent,
            queued: self.executions.saturating_sub(self.running),
        }
    }

    fn remaining(&self, totals: PeriodTotals) -> NanoUsd {
        self.config.budget.saturating_sub(totals.spent).saturating_sub(totals.held)
    }

    fn set_period(&mut self, start: Instant, totals: PeriodTotals) {
        self.periods.insert(start, totals);
        self.changes.periods.insert(start);
    }

    /// If a slot is free, tells the pool whose request goes first among those that were refused one. Once that has asked for
    /// it, if it has any use for it, or could not be told, this is to be called again for the next one: were they told all at
    /// once, whichever is nearer would have the slot. If a word is lost, those that wait ask by themselves, later.
    pub fn wake_next(&mut self) {
        if self.running < self.config.max_concurrent {
            let first = self.waiting_pools.iter().min_by_key(|(_, rank)| **rank).map(|(pool, _)| pool.clone());
            if let Some(pool) = first {
                self.waiting_pools.remove(&pool);
                self.effects.push(AccountEffect::WakePool { pool });
            }
        }
    }

    fn put(&mut self, hold: Hold) {
        if hold.slot.is_some() {
            self.running = self.running.saturating_add(1);
        }
        if hold.kind == Kind::Execution && !hold.ended {
            self.executions = self.executions.saturating_add(1);
        }
        if let Some(ask_at) = hold.ask_at {
            self.unconfirmed.insert((ask_at, hold.id.clone()));
        }
        self.holds.insert(hold.id.clone(), hold);
    }

    fn take(&mut self, id: &RequestId) -> Option<Hold> {
        let hold = self.holds.remove(id)?;
        if hold.slot.is_some() {
            self.running = self.running.saturating_sub(1);
        }
        if hold.kind == Kind::Execution && !hold.ended {
            self.executions = self.executions.saturating_sub(1);
        }
        if let Some(ask_at) = hold.ask_at {
            self.unconfirmed.remove(&(ask_at, hold.id.clone()));
        }
        Some(hold)
    }
}
