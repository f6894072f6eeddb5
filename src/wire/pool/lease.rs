//! Leases of tokens for requests with another home.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, PoolId};
use rm_core::pool::{LeaseEnd, LeaseOrder, Signal};
use rm_core::units::{Instant, Tokens};
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::pool::BINDING;

/// Lease tokens for a request with another home.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseCall {
    pub order: LeaseOrder,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseReply {
    Granted,
    NotNow {
        retry_at: Option<Instant>,
        #[serde(default)]
        ready_at: Option<Instant>,
    },
    Never,
}
operation!(LeaseCall, "/lease", LeaseReply);

/// Another pool was given tokens back, for which a request of this one has asked in vain.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseFreeCall {
    pub pool: PoolId,
}
operation!(LeaseFreeCall, "/lease-free", ());

/// What the fairness of these clients is in their home.
#[derive(Debug, Serialize, Deserialize)]
pub struct StandingsCall {
    pub home: PoolId,
    /// In millipoints.
    pub standings: BTreeMap<ClientId, i64>,
}
operation!(StandingsCall, "/standings", ());

/// What was used of a lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettleLeaseCall {
    pub key: String,
    pub used: Tokens,
    /// How it ends.
    #[serde(default)]
    pub end: LeaseEnd,
    /// What the downstream worker said of the limit.
    pub signal: Signal,
}
operation!(SettleLeaseCall, "/settle-lease", ());
