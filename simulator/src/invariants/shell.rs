//! What the Worker does: it stores changes before it performs effects, and an effect is a message that may be late,
//! doubled or lost. Objects come back from what is stored.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::account::{Account, AccountConfig, AccountEffect, AtHome, Hold, PeriodTotals, SlotAnswer};
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::pool::{
    Effect, Ended, Lease, LeaseAnswer, LeaseEnd, LeaseOrder, Pool, PoolConfig, PoolState, Report, Signal, Stored,
};
use rm_core::request::{Request, Settlement, Status};
use rm_core::units::{Instant, NanoUsd, Tokens};

use crate::setup;

/// What is on its way. The first field is the object that it goes to.
#[derive(Debug, Clone)]
pub enum Message {
    /// A pool asks an account for a slot, and says what is to be held at least.
    AcquireSlot(ClientId, PoolId, RequestId, u32, NanoUsd, Instant),
    /// A pool tells an account that a request takes more than is held for it.
    RaiseHold(ClientId, RequestId, NanoUsd),
    /// What the account said; `None` is no answer.
    SlotAnswer(PoolId, RequestId, u32, Option<SlotAnswer>),
    /// A pool gives a slot back.
    ReleaseSlot(ClientId, RequestId, u32, bool),
    /// A home asks another pool for tokens.
    AcquireLease(PoolId, PoolId, RequestId, u32, LeaseOrder),
    /// What the other pool said.
    LeaseAnswer(PoolId, RequestId, u32, PoolId, LeaseAnswer),
    /// A pool tells a home that tokens were given back.
    LeaseFree(PoolId, PoolId, bool, Tokens),
    /// A home tells another pool what the fairness of its clients is.
    OrdersOver(PoolId, Vec<String>),
    Standings(PoolId, PoolId, BTreeMap<ClientId, i64>, Instant),
    /// A pool says which pools wait for what it keeps for requests of another.
    HeldBack(PoolId, PoolId, BTreeSet<PoolId>),
    /// A home tells another pool what was used.
    SettleLease(PoolId, String, Tokens, LeaseEnd, Signal),
    /// A pool tells an account of an end.
    Settle(PoolId, String),
    /// The account has it.
    Settled(PoolId, String),
    /// An account tells a pool that a slot is free.
    Wake(PoolId, ClientId),
    /// The pool has been told.
    Woken(ClientId),
    /// An account asks after a request.
    AskHome(ClientId, RequestId, Option<u32>),
    /// How the request is.
    HomeAnswer(ClientId, RequestId, Option<u32>, AtHome),
    /// A pool starts a run.
    Start(PoolId, RequestId, u32),
    /// A worker reports.
    Report(PoolId, RequestId, u32, Report),
}

/// What an event left behind, once its changes are stored.
#[derive(Debug)]
pub struct Saved {
    /// What is to be done outside.
    pub effects: Vec<Effect>,
    /// Which requests ended, and how.
    pub ended: Vec<(RequestId, Status)>,
}

/// A pool and its store.
#[derive(Debug)]
pub struct PoolObject {
    /// The state machine.
    pub pool: Pool,
    config: PoolConfig,
    state: Option<PoolState>,
    requests: BTreeMap<RequestId, Request>,
    /// What is leased to requests with another home, as stored.
    pub leases: BTreeMap<String, Lease>,
    /// Settlements that the account has not confirmed, by event.
    pub settlements: BTreeMap<String, Settlement>,
    /// How requests ended.
    pub ended: BTreeMap<RequestId, Ended>,
    /// Requests that the store has heard of, ended or not.
    pub known: BTreeSet<RequestId>,
}

impl PoolObject {
    /// A pool that was never used.
    #[must_use]
    pub fn new(config: PoolConfig, now: Instant) -> Self {
        Self {
            pool: setup::new_pool(config.clone(), now),
            config,
            state: None,
            requests: BTreeMap::new(),
            leases: BTreeMap::new(),
            settlements: BTreeMap::new(),
            ended: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// Stores what changed, and gives back what is to be done.
    pub fn save(&mut self) -> Saved {
        let changes = self.pool.take_changes();
        if changes.config {
            self.config = self.pool.config().clone();
        }
        if changes.state {
            self.state = Some(self.pool.state().clone());
        }
        for id in &changes.requests {
            match self.pool.request(id) {
                Some(request) => {
                    self.known.insert(id.clone());
                    self.requests.insert(id.clone(), request.clone());
                }
                None => {
                    self.requests.remove(id);
                }
            }
        }
        for id in &changes.dropped {
            self.requests.remove(id);
            self.known.remove(id);
        }
        for ended in &changes.ended {
            let id = &ended.request.id;
            self.known.insert(id.clone());
            if self.pool.request(id).is_none() {
                self.requests.remove(id);
            }
            let before = self.ended.insert(id.clone(), ended.clone());
            let before = before.map(|before| before.end);
            assert!(before.is_none(), "{id} ended twice: {before:?} and {:?}", ended.end);
        }
        for late in &changes.late {
            let ended = self.ended.get_mut(&late.request.id).expect("use is late only after an end");
            let end = &mut ended.end;
            end.cost = late.end.cost;
            end.lines.clone_from(&late.end.lines);
        }
        for key in &changes.leases {
            match self.pool.lease(key) {
                Some(lease) => self.leases.insert(key.clone(), lease.clone()),
                None => self.leases.remove(key),
            };
        }
        for settlement in changes.settlements {
            let before = self.settlements.insert(settlement.event.clone(), settlement);
            assert!(before.is_none(), "a settlement twice");
        }
        for event in &changes.settled {
            self.settlements.remove(event);
        }
        let ended = changes.ended.into_iter().map(|ended| (ended.request.id, ended.end.status)).collect();
        Saved { effects: self.pool.take_effects(), ended }
    }

    /// Forgets everything that is not stored.
    pub fn crash(&mut self, now: Instant) {
        self.pool = Pool::restore(
            Stored {
                state: self.state.clone(),
                requests: self.requests.values().cloned().collect(),
                leases: self.leases.values().cloned().collect(),
                unsettled: self.settlements.keys().cloned().collect(),
                ..setup::unused(self.config.clone())
            },
            now,
        );
        self.pool.on_wakeup(now);
    }

    /// How much is leased here to requests with another home.
    #[must_use]
    pub fn leased(&self) -> i64 {
        self.leases.values().map(|lease| lease.amount.micros()).sum()
    }

    /// How many leases are open here.
    #[must_use]
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }
}

/// An account and its store.
#[derive(Debug)]
pub struct AccountObject {
    /// The state machine.
    pub account: Account,
    config: AccountConfig,
    periods: BTreeMap<Instant, PeriodTotals>,
    /// What is held, by request.
    pub holds: BTreeMap<RequestId, Hold>,
    /// What was charged, by event.
    pub charges: BTreeMap<String, NanoUsd>,
}

impl AccountObject {
    /// An account that was never used.
    #[must_use]
    pub fn new(config: AccountConfig) -> Self {
        Self {
            account: setup::new_account(config.clone()),
            config,
            periods: BTreeMap::new(),
            holds: BTreeMap::new(),
            charges: BTreeMap::new(),
        }
    }

    /// Stores what changed, and gives back what is to be done.
    pub fn save(&mut self) -> Vec<AccountEffect> {
        let changes = self.account.take_changes();
        if changes.config {
            self.config = self.account.config().clone();
        }
        for start in changes.periods {
            self.periods.insert(start, self.account.totals(start));
        }
        for id in changes.holds {
            match self.account.held_for(&id) {
                Some(hold) => self.holds.insert(id, hold.clone()),
                None => self.holds.remove(&id),
            };
        }
        self.account.take_effects()
    }

    /// Forgets everything that is not stored.
    pub fn crash(&mut self) {
        let holds = self.holds.values().cloned().collect();
        self.account = Account::restore(self.config.clone(), self.periods.clone(), holds);
    }

    /// What was charged, over all periods, in nano-dollars.
    #[must_use]
    pub fn spent(&self) -> i64 {
        self.periods.values().map(|totals| totals.spent.nanos()).sum()
    }

    /// What is held, over all periods, in nano-dollars.
    #[must_use]
    pub fn held(&self) -> i64 {
        self.periods.values().map(|totals| totals.held.nanos()).sum()
    }
}
