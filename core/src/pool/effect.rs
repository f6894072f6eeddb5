//! What an event leaves behind: what is to be stored, and what is to be done outside.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::{LeaseEnd, LeaseOrder, Signal};
use crate::request::{End, Request, Settlement};
use crate::units::{Instant, NanoUsd, Tokens};

/// A request that ended, whole, for the pool forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// As it was at the end.
    pub request: Request,
    /// How it ended.
    pub end: End,
    /// Its result is that of another request, which ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_of: Option<RequestId>,
}

/// What is to be stored, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The configuration.
    pub config: bool,
    /// [`Pool::state`](crate::pool::Pool::state).
    pub state: bool,
    /// Requests that are new or changed. One that the pool does not know any more has nothing left to come back for.
    pub requests: BTreeSet<RequestId>,
    /// Requests that ended.
    pub ended: Vec<Ended>,
    /// Use that was reported after the end: the end as it was, with the lines and cost that it has now.
    pub late: Vec<Ended>,
    /// Reservations that were refused: nothing is kept of them.
    pub dropped: Vec<RequestId>,
    /// Leases that are new or gone.
    pub leases: BTreeSet<String>,
    /// What the accounts must learn.
    pub settlements: Vec<Settlement>,
    /// Events of settlements that the accounts have confirmed.
    pub settled: Vec<String>,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Call the downstream worker, and report by `grant`.
    Start {
        /// Which request.
        id: RequestId,
        /// The grant that it runs under.
        grant: u32,
        /// The attempt, from 1.
        attempt: u32,
        /// How long it may take.
        limit_ms: i64,
    },
    /// Call the downstream worker once for several requests, and report each by its grant.
    StartBatch {
        /// Which requests, each with the grant that it runs under; at least two.
        items: Vec<(RequestId, u32)>,
        /// How long it may take.
        limit_ms: i64,
    },
    /// A reservation was granted.
    Reserved {
        /// Which one.
        id: RequestId,
        /// Until when.
        expires_at: Instant,
    },
    /// A reservation was refused.
    ReservationRefused {
        /// Which one.
        id: RequestId,
        /// When to try again, if that is known.
        retry_at: Option<Instant>,
    },
    /// Ask the client's account for a slot; the answer goes to `Pool::slot_answered`.
    AcquireSlot {
        /// For which request.
        id: RequestId,
        /// For which grant.
        grant: u32,
        /// Of whom.
        client: ClientId,
        /// See [`Effect::RaiseHold`]: a step does not run before its account knows what the ones before it have cost.
        least_hold: NanoUsd,
        /// Its place among the client's requests of all homes: when it came, less what its lane is worth in waiting.
        rank: Instant,
    },
    /// Something took more than was held for it, and the request goes on: its account holds this much at least.
    RaiseHold {
        /// Of which request.
        id: RequestId,
        /// Of whom.
        client: ClientId,
        /// What to hold.
        least_hold: NanoUsd,
    },
    /// Give a slot back.
    ReleaseSlot {
        /// Of which request.
        id: RequestId,
        /// Of which grant.
        grant: u32,
        /// Of whom.
        client: ClientId,
        /// The request has ended; what it used is still to come.
        ended: bool,
    },
    /// Ask another pool for its tokens; the answer goes to `Pool::lease_answered`.
    AcquireLease {
        /// For which request.
        id: RequestId,
        /// For which grant.
        grant: u32,
        /// Of which pool.
        pool: PoolId,
        /// What is asked.
        order: LeaseOrder,
    },
    /// Tell another pool what was used of its lease; the rest goes back.
    SettleLease {
        /// Of which pool.
        pool: PoolId,
        /// Which lease.
        key: String,
        /// What was used.
        used: Tokens,
        /// How it ends.
        end: LeaseEnd,
        /// What the downstream worker said of its limit.
        signal: Signal,
    },
    /// Tell another pool that nothing is asked of it any more under these names: it need keep nothing for them. To
    /// [`Pool::orders_over`]; if this gets lost, it keeps it for a while.
    ///
    /// [`Pool::orders_over`]: crate::pool::Pool::orders_over
    OrdersOver {
        /// Which pool.
        pool: PoolId,
        /// The names of the leases.
        keys: Vec<String>,
    },
    /// Tell another pool that tokens were given back here, for which a request of its own has asked in vain. If this gets
    /// lost, it asks again by itself.
    LeaseFree {
        /// Which pool.
        home: PoolId,
        /// All of them were held by grants that came to nothing.
        came_to_nothing: bool,
        /// What is there now.
        available: Tokens,
    },
    /// Tell another pool what the fairness of these clients is here, in millipoints; to [`Pool::standings_told`]. If this
    /// gets lost, it keeps tokens for one of them a while longer than it must.
    ///
    /// [`Pool::standings_told`]: crate::pool::Pool::standings_told
    TellStandings {
        /// Which pool.
        pool: PoolId,
        /// The clients.
        standings: BTreeMap<ClientId, i64>,
        /// When that was so.
        stood_at: Instant,
    },
    /// Tell another pool that tokens are kept for its requests which these pools wait for; to [`Pool::held_back_told`]. If this
    /// gets lost, it is told again.
    ///
    /// [`Pool::held_back_told`]: crate::pool::Pool::held_back_told
    TellHeldBack {
        /// Which pool.
        pool: PoolId,
        /// Those that wait: none, if none does any more.
        waiting: BTreeSet<PoolId>,
    },
    /// Deliver a stored settlement to the client's account; confirm by `Pool::settlement_confirmed`.
    Settle {
        /// The settlement's event.
        event: String,
    },
    /// A request ended: wake who waits for it.
    Finished {
        /// Which request.
        id: RequestId,
    },
}
