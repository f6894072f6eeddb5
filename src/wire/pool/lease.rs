//! Leases of tokens for requests with another home.
//!
//! While a new version is rolled out, pools of both versions call each other: what one of them does not know of is left out, or
//! said in the old way too.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::id::{ClientId, PoolId};
use rm_core::pool::{LeaseAnswer, LeaseEnd, LeaseOrder, Signal};
use rm_core::units::{Instant, Tokens};
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::pool::BINDING;

/// Lease tokens for a request with another home.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseCall {
    pub order: LeaseOrder,
    /// Which answers the caller understands: 1 is none of those since the first version.
    #[serde(default)]
    pub answers: u8,
}

/// All of them.
pub const ANSWERS: u8 = 1;

/// What became of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseReply {
    /// For a caller that does not understand `Leased`.
    Granted,
    Leased {
        regain_ms: i64,
    },
    Ready,
    NotNow {
        retry_at: Option<Instant>,
        #[serde(default)]
        ready_at: Option<Instant>,
    },
    /// For a caller that says which worker it is for.
    LeftAlone {
        until: Option<Instant>,
    },
    Never,
}
operation!(LeaseCall, "/lease", LeaseReply);

impl LeaseReply {
    /// What is said to a caller that understands these answers.
    pub const fn of(answer: LeaseAnswer, answers: u8) -> Self {
        match answer {
            LeaseAnswer::Granted { .. } if answers < ANSWERS => Self::Granted,
            LeaseAnswer::Granted { regain_ms } => Self::Leased { regain_ms },
            LeaseAnswer::Ready => Self::Ready,
            LeaseAnswer::NotNow { retry_at, ready_at } => Self::NotNow { retry_at, ready_at },
            LeaseAnswer::LeftAlone { until } => Self::LeftAlone { until },
            LeaseAnswer::Never => Self::Never,
            LeaseAnswer::Unreachable => Self::NotNow { retry_at: None, ready_at: None },
        }
    }

    /// What was said.
    pub const fn answer(self) -> LeaseAnswer {
        match self {
            Self::Granted => LeaseAnswer::Granted { regain_ms: 0 },
            Self::Leased { regain_ms } => LeaseAnswer::Granted { regain_ms },
            Self::Ready => LeaseAnswer::Ready,
            Self::NotNow { retry_at, ready_at } => LeaseAnswer::NotNow { retry_at, ready_at },
            Self::LeftAlone { until } => LeaseAnswer::LeftAlone { until },
            Self::Never => LeaseAnswer::Never,
        }
    }
}

/// Another pool was given tokens back, for which a request of this one has asked in vain.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseFreeCall {
    pub pool: PoolId,
    /// They were held by a grant that came to nothing.
    #[serde(default)]
    pub came_to_nothing: bool,
    /// What is there now; `None` is not known.
    #[serde(default)]
    pub available: Option<Tokens>,
}
operation!(LeaseFreeCall, "/lease-free", ());

/// What the fairness of these clients is in their home.
#[derive(Debug, Serialize, Deserialize)]
pub struct StandingsCall {
    pub home: PoolId,
    /// In millipoints.
    pub standings: BTreeMap<ClientId, i64>,
    /// When that was so; `None` is now.
    #[serde(default)]
    pub stood_at: Option<Instant>,
}
operation!(StandingsCall, "/standings", ());

/// Tokens are kept for requests of the pool that is called, and these pools wait for that: none, if none does any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldBackCall {
    /// The one that keeps them.
    pub keeper: PoolId,
    pub waiting: BTreeSet<PoolId>,
}
operation!(HeldBackCall, "/held-back", ());

/// Nothing is asked any more under these names.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrdersOverCall {
    pub keys: Vec<String>,
}
operation!(OrdersOverCall, "/orders-over", ());

/// What was used of a lease.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettleLeaseCall {
    pub key: String,
    pub used: Tokens,
    /// How it ends; `None` is what a caller says that tells only whether a run had the tokens.
    #[serde(default)]
    pub end: Option<End>,
    /// When they are needed again that will be asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_at: Option<Instant>,
    /// A run had the tokens: for a pool that does not know of `end`.
    pub after_run: bool,
    /// What the downstream worker said of the limit.
    pub signal: Signal,
}
operation!(SettleLeaseCall, "/settle-lease", ());

/// How a lease ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    Ran,
    Returns,
    Over,
}

impl SettleLeaseCall {
    pub const fn new(key: String, used: Tokens, end: LeaseEnd, signal: Signal) -> Self {
        let (said, needed_at) = match end {
            LeaseEnd::Ran => (End::Ran, None),
            LeaseEnd::Returns { needed_at } => (End::Returns, needed_at),
            LeaseEnd::Over => (End::Over, None),
        };
        let after_run = matches!(end, LeaseEnd::Ran);
        Self { key, used, end: Some(said), needed_at, after_run, signal }
    }

    /// How the lease ends.
    pub const fn end(&self) -> LeaseEnd {
        match self.end {
            Some(End::Ran) => LeaseEnd::Ran,
            None if self.after_run => LeaseEnd::Ran,
            Some(End::Over) => LeaseEnd::Over,
            Some(End::Returns) | None => LeaseEnd::Returns { needed_at: self.needed_at },
        }
    }
}

#[cfg(test)]
mod tests {
    use rm_core::pool::{LeaseAnswer, LeaseEnd, Signal};
    use rm_core::units::{Instant, Tokens};

    use super::{ANSWERS, LeaseReply, SettleLeaseCall};

    fn read(json: &str) -> LeaseEnd {
        serde_json::from_str::<SettleLeaseCall>(json).unwrap().end()
    }

    #[test]
    fn the_end_of_a_lease_is_understood_from_before_and_by_those_before() {
        assert_eq!(read(r#"{"key":"k","used":0,"after_run":true,"signal":{"busy":false}}"#), LeaseEnd::Ran);
        let nothing = r#"{"key":"k","used":0,"after_run":false,"signal":{"busy":false}}"#;
        assert_eq!(read(nothing), LeaseEnd::Returns { needed_at: None });
        for end in [LeaseEnd::Ran, LeaseEnd::Over, LeaseEnd::Returns { needed_at: Some(Instant::from_millis(5)) }] {
            let call = SettleLeaseCall::new("k".into(), Tokens::ZERO, end, Signal::default());
            let json = serde_json::to_value(&call).unwrap();
            assert_eq!(json.get("after_run").and_then(serde_json::Value::as_bool), Some(end == LeaseEnd::Ran));
            assert_eq!(read(&json.to_string()), end);
        }
    }

    #[test]
    fn a_caller_from_before_is_answered_as_before() {
        let granted = LeaseAnswer::Granted { regain_ms: 7 };
        assert_eq!(serde_json::to_string(&LeaseReply::of(granted, 0)).unwrap(), "\"granted\"");
        assert_eq!(LeaseReply::of(granted, ANSWERS).answer(), granted);
    }
}
