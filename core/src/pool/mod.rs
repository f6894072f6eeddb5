//! One resource pool: its bucket, its queue, and the requests whose home it is, as one state machine.
//!
//! Each public method that takes `now` and `&mut self` is one event. It first lets everything happen that was due by
//! `now`, then does its own work, then grants what can be granted, and leaves what it changed in [`Changes`] and what
//! is to be done outside in a list of [`Effect`]s. The shell stores the changes before it performs an effect or
//! answers, and calls [`Pool::on_wakeup`] at [`Pool::next_wakeup`]. An effect's answer comes back as an event of its
//! own. All effects can be derived again from the stored state, so that a crash between two steps loses none.

mod acquire;
mod batch;
mod cancel;
mod effect;
mod elsewhere;
mod finish;
mod first_in;
mod foretell;
mod give_backs;
mod grant;
mod held_back;
mod index;
mod inquirers;
mod keep;
mod lease;
mod lease_end;
mod lease_use;
mod orders;
mod outcome;
mod outlook;
mod position;
mod questions;
mod reservation;
mod snapshot;
mod spared;
mod standing;
mod state;
mod submit;
mod supply;
mod timer;
mod view;
mod window;

use std::collections::{BTreeMap, BTreeSet};

pub use acquire::LeaseAnswer;
pub use batch::{BatchTerms, COMMON_CALL_MAX_BYTES, fit_together};
pub use cancel::CancelOutcome;
pub use effect::{Changes, Effect, Ended};
pub use grant::MAX_GRANTS_PER_EVENT;
pub use lease::{Lease, LeaseEnd, LeaseOrder};
pub use outcome::{Remaining, Report, ReportOutcome, Retry};
pub use position::{Blocked, PositionView};
pub use state::{Ledger, PoolConfig, PoolState, StartsForetold, Stored};
pub use submit::{Mode, Refusal, Submission, Submitted};
pub use supply::Signal;
pub use view::{BreakerView, LaneView, PartitionView, PoolView, QueueView};

use crate::fair_share::FairShare;
use crate::id::{ClientId, RequestId};
use crate::partition::Shares;
use crate::priority::Urgency;
use crate::queue::Queue;
use crate::request::{Phase, Request};
use crate::throttle::Throttle;
use crate::token_bucket::TokenBucket;
use crate::units::Instant;
use timer::Timer;

/// A pool. See the module's text for its contract.
#[derive(Debug, Clone)]
pub struct Pool {
    config: PoolConfig,
    state: PoolState,
    fairness: FairShare,
    requests: BTreeMap<RequestId, Request>,
    leases: BTreeMap<String, Lease>,
    queue: Queue,
    /// Those that wait, and need nothing of this pool: steps of pipelines.
    free: Queue,
    timers: BTreeSet<(Instant, Timer)>,
    /// Clients without a free slot, and when to ask again in case the news that one is free got lost.
    blocked: BTreeMap<ClientId, Instant>,
    /// How many requests wait: in the queue, parked or acquiring.
    waiting: usize,
    /// The same by lane.
    lane_waiting: BTreeMap<Urgency, u32>,
    /// The executions that a client runs here.
    running: BTreeMap<ClientId, BTreeSet<RequestId>>,
    /// Those that are in flight and wait for no other, by what others that are the same have in common with them.
    twins: BTreeMap<String, BTreeSet<RequestId>>,
    /// Those that wait for another pool's tokens: by that pool and their flow, in the order of their age.
    elsewhere: BTreeMap<inquirers::QueueElsewhere, BTreeSet<(Instant, RequestId)>>,
    /// Who of them is to be woken for what that pool was given back.
    give_backs: give_backs::GiveBacks,
    /// Who of them asks it.
    inquirers: inquirers::Inquirers,
    /// Those that wait for the result of one in flight.
    followers: BTreeMap<RequestId, BTreeSet<RequestId>>,
    /// Those that wait for others to be combined with, by what they have in common.
    gathering: BTreeMap<String, BTreeSet<RequestId>>,
    /// Those that may be combined and wait for tokens, by the key that they have in common.
    combinable: BTreeMap<String, BTreeSet<RequestId>>,
    /// Those that have all that they need, and how many are about to, by the same.
    ready: BTreeMap<String, BTreeSet<RequestId>>,
    pending: BTreeMap<String, u32>,
    /// The executions of a client that are in the phase `Acquiring`, and not ready.
    questions: BTreeMap<ClientId, questions::Questions>,
    /// Settlements that the account has not confirmed: how often they were sent, and when to send them next.
    unsettled: BTreeMap<String, (u32, Instant)>,
    /// How many settlements were due at the last moment at which one was.
    settling: (Instant, usize),
    /// Requests of other pools that asked for tokens here in vain.
    orders: orders::Orders,
    held_back: held_back::HeldBack,
    lease_uses: lease_use::LeaseUses,
    standings: standing::Standings,
    /// Tokens were given back in this event: `Some(true)` if all of them by grants that came to nothing.
    gave_back: Option<bool>,
    /// When the tokens for the request whose turn it is are there.
    head_ready_at: Option<Instant>,
    /// More could be granted than one event may.
    backlog: bool,
    changes: Changes,
    effects: Vec<Effect>,
}

impl Pool {
    /// Brings a pool back from its store. What was half acquired is given up, and tried again.
    #[must_use]
    pub fn restore(stored: Stored, now: Instant) -> Self {
        let Stored { config, state, fairness, requests, leases, unsettled } = stored;
        let fresh = || PoolState {
            bucket: TokenBucket::full(&config.limits, now),
            ledger: Ledger::default(),
            paused_until: None,
            since_promoted: 0,
            turns: BTreeMap::new(),
            shares: Shares::default(),
            throttle: Throttle::default(),
            breakers: BTreeMap::new(),
            run_times: BTreeMap::new(),
            work_times: BTreeMap::new(),
            foretold: StartsForetold::default(),
        };
        let state = state.unwrap_or_else(fresh);
        let mut pool = Self {
            config,
            state,
            fairness,
            requests: BTreeMap::new(),
            leases: BTreeMap::new(),
            queue: Queue::default(),
            free: Queue::default(),
            timers: BTreeSet::new(),
            blocked: BTreeMap::new(),
            waiting: 0,
            lane_waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            twins: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            give_backs: give_backs::GiveBacks::default(),
            inquirers: inquirers::Inquirers::default(),
            followers: BTreeMap::new(),
            gathering: BTreeMap::new(),
            combinable: BTreeMap::new(),
            ready: BTreeMap::new(),
            pending: BTreeMap::new(),
            questions: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            settling: (now, 0),
            orders: orders::Orders::default(),
            standings: standing::Standings::default(),
            held_back: held_back::HeldBack::default(),
            lease_uses: lease_use::LeaseUses::default(),
            gave_back: None,
            head_ready_at: None,
            backlog: false,
            changes: Changes::default(),
            effects: Vec::new(),
        };
        if !pool.state.shares.fits(&pool.config.partitions) {
            pool.refill(now);
            pool.fit_shares(now);
        }
        for lease in leases {
            pool.timers.insert((lease.expires_at, Timer::Lease(lease.key.clone())));
            pool.leases.insert(lease.key.clone(), lease);
        }
        for event in unsettled {
            pool.unsettled.insert(event.clone(), (0, now));
            pool.timers.insert((now, Timer::Settle(event)));
        }
        let mut half_acquired = Vec::new();
        for request in requests {
            if matches!(request.phase, Phase::Acquiring { .. }) {
                half_acquired.push(request.id.clone());
            }
            if !matches!(request.phase, Phase::Abandoned { .. }) {
                pool.raise_hold(&request);
            }
            pool.index(&request);
            pool.requests.insert(request.id.clone(), request);
        }
        for id in half_acquired {
            pool.give_up_acquiring(&id, false, None, Some(now), now);
        }
        pool
    }

    /// Takes a changed configuration, if it is newer or no different in revision. Counters, queue and level stay.
    pub fn configure(&mut self, config: PoolConfig, now: Instant) {
        self.event(now, |pool| {
            if config.revision >= pool.config.revision && config != pool.config {
                pool.reconfigure(config, now);
            }
        });
    }

    fn reconfigure(&mut self, config: PoolConfig, now: Instant) {
        let before = self.limits();
        self.state.bucket.resize(&before, &self.state.throttle.apply(&config.limits), now);
        let refit = config.partitions != self.config.partitions || config.limits != self.config.limits;
        self.config = config;
        if refit {
            self.fit_shares(now);
        }
        self.changes.config = true;
        self.changes.state = true;
    }

    fn fit_shares(&mut self, now: Instant) {
        let level = self.state.bucket.level();
        self.state.shares.fit(&self.config.partitions, &self.config.limits, level, now);
        let names: BTreeSet<&String> = self.config.partitions.iter().map(|partition| &partition.name).collect();
        self.state.turns.retain(|name, _| names.contains(name));
        self.orders.forget();
        self.changes.state = true;
    }

    /// Lets everything happen that is due, and grants what can be granted.
    pub fn on_wakeup(&mut self, now: Instant) {
        self.event(now, |_| {});
    }

    /// One event: what is due happens first, and what can be granted is granted last, whatever the event itself does.
    fn event<T>(&mut self, now: Instant, body: impl FnOnce(&mut Self) -> T) -> T {
        self.advance(now);
        let outcome = body(self);
        self.grant_and_start(now, None);
        self.tell_others(now);
        outcome
    }

    /// What an event has changed for other pools is told to them.
    fn tell_others(&mut self, now: Instant) {
        self.wake_lease_waiters(now);
        self.tell_standings(now);
        self.tell_held_back(now);
    }

    /// When to call [`Self::on_wakeup`], if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let backlog = self.backlog.then(|| now.plus(1));
        [timer, backlog, self.head_ready_at, self.held_back.due_at()].into_iter().flatten().min()
    }

    /// What is to be stored since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// What is to be done outside since the last call. Only after the changes are stored.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// The part of the state that is stored as one.
    #[must_use]
    pub const fn state(&self) -> &PoolState {
        &self.state
    }

    /// Recent use by client.
    #[must_use]
    pub const fn fairness(&self) -> &FairShare {
        &self.fairness
    }

    /// A request that the pool has not let go of.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<&Request> {
        self.requests.get(id)
    }

    /// All of them.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.values()
    }

    /// A lease of a request with another home.
    #[must_use]
    pub fn lease(&self, key: &str) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// How well starts were foretold.
    #[must_use]
    pub const fn starts_foretold(&self) -> StartsForetold {
        self.state.foretold
    }

    /// Where all tokens have gone.
    #[must_use]
    pub const fn ledger(&self) -> Ledger {
        self.state.ledger
    }
}
