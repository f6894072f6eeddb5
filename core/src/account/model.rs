//! What an account consists of, what it is asked and what it answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{ClientId, PoolId, RequestId};
use crate::period::Period;
use crate::priority::Tier;
use crate::request::Kind;
use crate::units::{Instant, NanoUsd};

/// Whether a client may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientStatus {
    /// It may.
    Active,
    /// It may not begin anything.
    Suspended,
}

/// A client as the operator set it, with what its tier adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountConfig {
    /// Who.
    pub client: ClientId,
    /// Its tier.
    pub tier: Tier,
    /// What it may spend in a period.
    pub budget: NanoUsd,
    /// How many of its requests may run at once.
    pub max_concurrent: u32,
    /// Where its months begin: a name of the IANA time-zone database.
    #[serde(default = "AccountConfig::utc")]
    pub time_zone: String,
    /// Whether it may be served.
    pub status: ClientStatus,
    /// Rises with each change in D1.
    pub revision: i64,
}

impl AccountConfig {
    fn utc() -> String {
        "UTC".into()
    }
}

/// The money of one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeriodTotals {
    /// Charged.
    pub spent: NanoUsd,
    /// Held for requests that have not ended.
    pub held: NanoUsd,
}

/// What is held for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// For which request.
    pub id: RequestId,
    /// How much.
    pub amount: NanoUsd,
    /// The month that it was made in, and is settled in; see [`Period::month`].
    pub period_start: Instant,
    /// When it was made.
    pub held_at: Instant,
    /// The grant that a slot was given for; `Some(0)` is one given with the hold.
    pub slot: Option<u32>,
    /// What the request is.
    pub kind: Kind,
    /// It was cancelled while it ran, and what it used is still to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// When to ask the home pool how the request is; `None` once it is known there and has no slot.
    pub ask_at: Option<Instant>,
}

/// Why nothing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HoldRefusal {
    /// It does not fit in what is left.
    #[error("the budget has {remaining:?} left in this period")]
    Budget {
        /// What is left.
        remaining: NanoUsd,
        /// When the next period begins.
        next_period: Instant,
    },
    /// The client is suspended.
    #[error("the client is suspended")]
    Suspended,
}

/// A hold that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When: a request's age counts from here.
    pub at: Instant,
    /// Whether a slot came with it.
    pub slot: bool,
    /// How many the client has.
    pub slots: u32,
}

/// What is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChanges {
    /// The configuration.
    pub config: bool,
    /// Months whose totals changed; see [`Period::month`].
    pub periods: BTreeSet<Instant>,
    /// Holds that are new, changed or gone.
    pub holds: BTreeSet<RequestId>,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountEffect {
    /// Tell a pool that a slot is free, and then [`Account::wake_next`](crate::account::Account::wake_next) anew.
    WakePool {
        /// Which pool.
        pool: PoolId,
    },
    /// Ask the home pool how a request is; the answer goes to [`Account::home_answered`].
    AskHome {
        /// Which request.
        id: RequestId,
        /// The grant that it has a slot for, to be given back with the answer.
        slot: Option<u32>,
    },
}

/// What becomes of the question for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SlotAnswer {
    /// It is given.
    Granted,
    /// The client runs as many as it may. The pool is told when one is free.
    Full,
    /// Nothing is held for the request: it must not run.
    NoHold,
}

/// How a request is, for its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AtHome {
    /// The pool never heard of it.
    Unknown,
    /// It waits, and has no use for a slot.
    Waiting,
    /// It runs, or is about to; or it has ended, and the account will be told.
    Busy,
}

/// What an account looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Who.
    pub client: ClientId,
    /// Its tier.
    pub tier: Tier,
    /// The period.
    pub period: Period,
    /// What may be spent in it.
    pub budget: NanoUsd,
    /// What was.
    pub spent: NanoUsd,
    /// What is held.
    pub held: NanoUsd,
    /// What is left, not below zero.
    pub remaining: NanoUsd,
    /// How many requests run.
    pub running: u32,
    /// How many may.
    pub max_concurrent: u32,
    /// How many wait.
    pub queued: u32,
}
