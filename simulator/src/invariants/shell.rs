//! What the Worker does: it stores changes before it performs effects, and an effect is a message that may be late,
//! doubled or lost. Objects come back from what is stored.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::account::{Account, AccountConfig, AccountEffect, AtHome, Hold, PeriodTotals, SlotAnswer};
use rm_core::fair_share::FairShare;
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::pool::{Effect, Lease, LeaseAnswer, LeaseOrder, Pool, PoolConfig, PoolState, Report, Stored};
use rm_core::request::{End, Request, Settlement};
use rm_core::units::{Instant, NanoUsd, Tokens};

/// What is on its way. The first field is the object that it goes to.
#[derive(Debug, Clone)]
pub enum Message {
    AcquireSlot(ClientId, PoolId, RequestId, u32),
    SlotAnswer(PoolId, RequestId, u32, Option<SlotAnswer>),
    ReleaseSlot(ClientId, RequestId, u32),
    AcquireLease(PoolId, PoolId, RequestId, u32, LeaseOrder),
    LeaseAnswer(PoolId, RequestId, u32, PoolId, LeaseAnswer),
    SettleLease(PoolId, String, Tokens),
    Settle(PoolId, String),
    Settled(PoolId, String),
    Wake(PoolId, ClientId),
    AskHome(ClientId, RequestId, Option<u32>),
    HomeAnswer(ClientId, RequestId, Option<u32>, AtHome),
    Start(PoolId, RequestId, u32),
    Report(PoolId, RequestId, u32, Report),
}

/// A pool and its store.
pub struct PoolObject {
    pub pool: Pool,
    config: PoolConfig,
    state: Option<PoolState>,
    requests: BTreeMap<RequestId, Request>,
    leases: BTreeMap<String, Lease>,
    pub settlements: BTreeMap<String, Settlement>,
    pub ended: BTreeMap<RequestId, End>,
    pub known: BTreeSet<RequestId>,
}

impl PoolObject {
    pub fn new(config: PoolConfig, now: Instant) -> Self {
        let stored = Stored {
            config: config.clone(),
            state: None,
            fairness: FairShare::default(),
            requests: Vec::new(),
            leases: Vec::new(),
            unsettled: Vec::new(),
        };
        Self {
            pool: Pool::restore(stored, now),
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
    pub fn save(&mut self) -> Vec<Effect> {
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
            let before = self.ended.insert(id.clone(), ended.end.clone());
            assert!(before.is_none(), "{id} ended twice: {before:?} and {:?}", ended.end);
        }
        for late in &changes.late {
            let end = self.ended.get_mut(&late.request.id).expect("use is late only after an end");
            end.cost = late.end.cost;
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
        self.pool.take_effects()
    }

    /// Forgets everything that is not stored.
    pub fn crash(&mut self, now: Instant) {
        self.pool = Pool::restore(
            Stored {
                config: self.config.clone(),
                state: self.state.clone(),
                fairness: FairShare::default(),
                requests: self.requests.values().cloned().collect(),
                leases: self.leases.values().cloned().collect(),
                unsettled: self.settlements.keys().cloned().collect(),
            },
            now,
        );
        self.pool.on_wakeup(now);
    }

    /// The leases held here for requests with another home.
    pub fn leased(&self) -> i64 {
        self.leases.values().map(|lease| lease.amount.micros()).sum()
    }

    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }
}

/// An account and its store.
pub struct AccountObject {
    pub account: Account,
    config: AccountConfig,
    periods: BTreeMap<Instant, PeriodTotals>,
    pub holds: BTreeMap<RequestId, Hold>,
    /// What was charged, by event.
    pub charges: BTreeMap<String, NanoUsd>,
}

impl AccountObject {
    pub fn new(config: AccountConfig) -> Self {
        Self {
            account: Account::restore(config.clone(), BTreeMap::new(), Vec::new()),
            config,
            periods: BTreeMap::new(),
            holds: BTreeMap::new(),
            charges: BTreeMap::new(),
        }
    }

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

    pub fn crash(&mut self) {
        let holds = self.holds.values().cloned().collect();
        self.account = Account::restore(self.config.clone(), self.periods.clone(), holds);
    }

    pub fn spent(&self) -> i64 {
        self.periods.values().map(|totals| totals.spent.nanos()).sum()
    }

    pub fn held(&self) -> i64 {
        self.periods.values().map(|totals| totals.held.nanos()).sum()
    }
}
