//! The operations of the `ClientAccount` object, which is called by its client's id.

use rm_core::account::{AccountConfig, AccountView, SlotAnswer};
use rm_core::id::{PoolId, RequestId};
use rm_core::optimizer::Strategy;
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Failure, Kind, Settlement};
use rm_core::units::{Instant, NanoUsd};
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::execution::OptimizationView;

/// The namespace's binding.
pub const BINDING: &str = "ACCOUNT";

/// A caller's idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idempotency {
    /// The key, with the operation that it belongs to.
    pub key: String,
    /// The body's fingerprint.
    pub fingerprint: String,
}

/// Hold the cost of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldCall {
    /// Which request, if it is a new one.
    pub id: RequestId,
    /// How much.
    pub amount: NanoUsd,
    /// What the request is.
    pub kind: Kind,
    /// If that does not fit: the same request by other ids, at other costs. The first that fits is held.
    #[serde(default)]
    pub or: Vec<HoldChoice>,
    /// The same request by another id, which its pool has refused: what is held for that goes back, and the key is this one's.
    #[serde(default)]
    pub instead_of: Option<RequestId>,
    /// It is not to be run: its result was kept at that time. It takes no slot.
    #[serde(default)]
    pub kept_at: Option<Instant>,
    /// The caller's key.
    pub idempotency: Option<Idempotency>,
}

/// Another way to do the same.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldChoice {
    /// Which request.
    pub id: RequestId,
    /// How much.
    pub amount: NanoUsd,
}

/// What became of a hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldAnswer {
    /// It is held.
    Held {
        /// Which of the choices is not the first.
        #[serde(default)]
        other: Option<RequestId>,
        /// When.
        at: Instant,
        /// Whether a slot came with it.
        slot: bool,
        /// How many slots the client has.
        #[serde(default)]
        slots: Option<u32>,
        /// The client's tier.
        tier: Tier,
        /// When the client's kept results were purged last. It does not wait for the same one in flight from before.
        #[serde(default)]
        purged_at: Option<Instant>,
    },
    /// The key was used before, with the same body, for this request.
    Replayed {
        /// Which request.
        id: RequestId,
        /// When its cost was held.
        at: Instant,
        /// Its cost is still held; else it has ended.
        open: bool,
        /// What is held.
        #[serde(default)]
        amount: Option<NanoUsd>,
        /// The client's tier.
        tier: Tier,
    },
    /// The key was used before, with another body.
    Mismatch,
    /// It does not fit in the budget.
    BudgetExceeded {
        /// What is left.
        remaining: NanoUsd,
        /// When the next period begins.
        next_period: Instant,
    },
    /// The client is suspended.
    Suspended,
    /// There is no such client.
    UnknownClient,
    /// What was kept by then has been purged.
    Purged,
}
operation!(HoldCall, "/hold", HoldAnswer);

/// What a key was used for, if it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct FindKeyCall {
    /// The caller's key.
    pub idempotency: Idempotency,
}
operation!(FindKeyCall, "/find-key", Option<HoldAnswer>);

/// Give back what is held for a request that did not come to be.
#[derive(Debug, Serialize, Deserialize)]
pub struct AbandonCall {
    /// Which request.
    pub id: RequestId,
}
operation!(AbandonCall, "/abandon", ());

/// Give a slot to a request whose turn it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct AcquireSlotCall {
    /// Which request.
    pub id: RequestId,
    /// For which grant.
    pub grant: u32,
    /// At which pool.
    pub pool: PoolId,
    /// What is to be held for it at least.
    #[serde(default)]
    pub least_hold: NanoUsd,
    /// Its place among the client's requests, as a moment.
    #[serde(default)]
    pub rank: Option<Instant>,
}
operation!(AcquireSlotCall, "/acquire-slot", SlotAnswer);

/// A request takes more than was held for it, and goes on.
#[derive(Debug, Serialize, Deserialize)]
pub struct RaiseHoldCall {
    /// Which request.
    pub id: RequestId,
    /// What is to be held for it at least.
    pub least_hold: NanoUsd,
}
operation!(RaiseHoldCall, "/raise-hold", ());

/// Take a slot back.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseSlotCall {
    /// Of which request.
    pub id: RequestId,
    /// Of which grant.
    pub grant: u32,
    /// The request has ended; what it used is still to come.
    pub ended: bool,
}
operation!(ReleaseSlotCall, "/release-slot", ());

/// A request ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettleCall {
    /// How, and what it costs.
    pub settlement: Settlement,
    /// What the record says of the request.
    pub template: Option<String>,
    /// The downstream worker; none for a reservation.
    pub worker: Option<String>,
    /// The model that was billed.
    pub model: Option<String>,
    /// What the request would have cost without any optimisation.
    pub baseline: NanoUsd,
    /// What requests that are the same have in common.
    #[serde(default)]
    pub same: Option<String>,
    /// By when it was to be finished.
    #[serde(default)]
    pub deadline: Option<Instant>,
    /// The strategies that it was made for.
    #[serde(default)]
    pub tried: Vec<Strategy>,
    /// What was applied to it.
    #[serde(default)]
    pub optimizations: Vec<OptimizationView>,
    /// When it was admitted.
    pub created_at: Instant,
    /// Its lane.
    pub urgency: Urgency,
    /// How often it was started.
    pub attempts: u32,
    /// When it was first started.
    pub started_at: Option<Instant>,
    /// What was held for it.
    pub estimated: NanoUsd,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}
operation!(SettleCall, "/settle", ());

/// The account as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct ViewCall {}
operation!(ViewCall, "/view", Option<AccountView>);

/// Let go of the account: its client is about to be deleted.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloseCall {
    /// Whatever it holds: the client is deleted by now, and what came in between ends without a slot.
    pub force: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloseAnswer {
    /// It holds nothing more, until it is configured again.
    Closed,
    /// Something is held for requests that have not ended, or charges are on their way to the record.
    Busy {
        /// Holds.
        holds: u64,
        /// Charges.
        charges: u64,
    },
}
operation!(CloseCall, "/close", CloseAnswer);

/// Nothing that was kept of the client's results until now is to be used any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct PurgeCall {}
operation!(PurgeCall, "/purge", ());

/// When that was last said, if it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct PurgedAtCall {}
operation!(PurgedAtCall, "/purged-at", Option<Instant>);

/// The client's configuration changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConfigureCall {
    /// As it is now.
    pub config: AccountConfig,
}
operation!(ConfigureCall, "/configure", ());

/// The scheduler's tick.
#[derive(Debug, Serialize, Deserialize)]
pub struct TickCall {}
operation!(TickCall, "/tick", ());
