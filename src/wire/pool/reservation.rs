//! Uses of reservations.

use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::request::Usage;
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::account::Idempotency;
use crate::wire::pool::BINDING;

/// What the owner of a reservation has used in all.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConsumeCall {
    pub id: RequestId,
    pub usage: Vec<Usage>,
    pub last: bool,
    /// Nothing was used: the reservation is released.
    pub release: bool,
    /// The caller's key.
    pub key: Option<Idempotency>,
    /// Only if it is this client's.
    pub client: Option<ClientId>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsumeAnswer {
    /// It is open, or was closed by this use.
    Consumed {
        /// As reserved and as used, by pool.
        lines: Vec<rm_core::request::Line>,
        cost: rm_core::units::NanoUsd,
        /// It takes no more.
        closed: bool,
    },
    /// The key was used before, for the same, and this was the answer.
    Replayed {
        answer: Box<ConsumeAnswer>,
    },
    /// The key was used before, for something else.
    Mismatch,
    /// It was released, before or now.
    Released,
    /// It ran out before: what was not used by then went back.
    Expired,
    /// It was closed by another use.
    Closed,
    /// It does not hold this pool.
    NotReserved {
        pool: PoolId,
    },
    Forbidden,
    Unknown,
}
operation!(ConsumeCall, "/consume", ConsumeAnswer);
