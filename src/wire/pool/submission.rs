//! Requests for their home pool.

use rm_core::id::RequestId;
use rm_core::off_peak::WaitsFor;
use rm_core::optimizer::{Applied, waits_too_long};
use rm_core::pipeline::Step;
use rm_core::pool::{BatchTerms, PositionView};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Demand, Kind, Usage};
use rm_core::units::Instant;
use serde::{Deserialize, Serialize};

use crate::host::object::operation;
use crate::wire::execution::{ExecutionView, Spec};
use crate::wire::payload::Payload;
use crate::wire::pool::{BINDING, Run};

/// A request for its home pool. Its cost is held by now. The same request may be submitted again.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubmitCall {
    pub id: RequestId,
    pub tier: Tier,
    pub kind: Kind,
    pub urgency: Urgency,
    pub held_at: Instant,
    pub deadline: Option<Instant>,
    pub demands: Vec<Demand>,
    pub max_attempts: u32,
    pub timeout_ms: i64,
    /// The steps after the first.
    pub later: Vec<Step>,
    /// The account gave a slot together with the hold.
    pub has_slot: bool,
    /// How many the client has, if that is known.
    #[serde(default)]
    pub slots: Option<u32>,
    /// What was done to make it cheaper.
    #[serde(default)]
    pub applied: Vec<Applied>,
    /// What requests that are the same have in common, if one run will do for all that are in flight.
    #[serde(default)]
    pub twin: Option<String>,
    /// Which windows it waits for; `None`: those of its pool, if its lane does.
    #[serde(default)]
    pub waits_for: Option<WaitsFor>,
    /// With which others it may be combined.
    #[serde(default)]
    pub batch: Option<BatchTerms>,
    /// Its result was kept from another one: it is not run.
    #[serde(default)]
    pub kept: Option<Kept>,
    /// For which wait it is taken in; `None` is for any.
    #[serde(default)]
    pub provided: Option<Provided>,
    /// It has ended before: it is not to be taken in as new.
    pub only_known: bool,
    pub spec: Spec,
    pub input: Payload,
    /// The caller will run it, if it starts at once.
    pub run_here: bool,
    /// How long to wait for its end, if it does not.
    pub wait_ms: i64,
}

/// For which wait a pool takes a request in that may go to another model's: for what was foretold to each of many at the same
/// moment does not hold for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Provided {
    /// It starts before its deadline.
    InTime,
    /// It is not so much longer than the other pool's that it would go there.
    NotTooLongBeside {
        /// Milliseconds.
        wait_ms: i64,
    },
    /// That of its own model's pool is so much longer that it went away from there.
    MuchLessThan {
        /// Milliseconds; `None` if that is not a matter of time.
        wait_ms: Option<i64>,
    },
}

impl Provided {
    /// Whether a wait is one of those; `None` is one that is not a matter of time.
    pub fn allows(self, wait_ms: Option<i64>, deadline: Option<Instant>, now: Instant) -> bool {
        match self {
            Self::InTime => deadline.is_none_or(|deadline| wait_ms.is_some_and(|ms| now.plus(ms) < deadline)),
            Self::NotTooLongBeside { wait_ms: other_ms } => !waits_too_long(wait_ms, Some(other_ms)),
            Self::MuchLessThan { wait_ms: own_ms } => waits_too_long(own_ms, wait_ms),
        }
    }
}

/// A result that was kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// What getting it has used.
    pub usage: Vec<Usage>,
    /// The result.
    pub result: Payload,
    /// Where it is from, for people.
    pub detail: String,
}

/// What became of a submission.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubmitAnswer {
    /// It has started, and the caller is to run it.
    RunHere {
        /// The run.
        run: Run,
    },
    /// It is here: as it stands now, or after the wait.
    Here {
        /// The execution.
        execution: Box<ExecutionView>,
        /// Its place, while it waits.
        position: Option<PositionView>,
    },
    /// A reservation was granted.
    Reserved {
        /// Until when.
        expires_at: Instant,
    },
    /// Nothing is kept of it.
    Refused {
        /// Why.
        refusal: SubmitRefusal,
    },
}
operation!(SubmitCall, "/submit", SubmitAnswer);

/// Why a submission was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubmitRefusal {
    /// More than the pool can hold.
    Never,
    /// Not now.
    NotNow {
        /// When to try again.
        retry_at: Instant,
    },
    /// The queue is at its cap.
    QueueFull {
        /// When to try again.
        retry_at: Instant,
    },
    /// It would wait for longer than what it was provided for, or was refused by this id before.
    TooLong {
        /// How long, in milliseconds; `None` if that is not a matter of time.
        wait_ms: Option<i64>,
    },
    /// Too long after its admission.
    Stale,
    /// There is no such pool.
    UnknownPool,
}

#[cfg(test)]
mod tests {
    use rm_core::optimizer::DOWNGRADE_MARGIN_MS;
    use rm_core::units::Instant;

    use super::Provided;

    #[test]
    fn a_wait_is_taken_for_what_it_was_provided_for() {
        let allows = |provided: Provided, wait_ms, deadline: Option<i64>| {
            provided.allows(wait_ms, deadline.map(Instant::from_millis), Instant::from_millis(100))
        };
        assert!(allows(Provided::InTime, Some(49), Some(150)) && !allows(Provided::InTime, Some(50), Some(150)));
        assert!(!allows(Provided::InTime, None, Some(150)) && allows(Provided::InTime, None, None));
        let beside = Provided::NotTooLongBeside { wait_ms: 10 };
        assert!(allows(beside, Some(10 + DOWNGRADE_MARGIN_MS), None));
        assert!(!allows(beside, Some(11 + DOWNGRADE_MARGIN_MS), None) && !allows(beside, None, None));
        let less = Provided::MuchLessThan { wait_ms: Some(11 + DOWNGRADE_MARGIN_MS) };
        assert!(allows(less, Some(10), None) && !allows(less, Some(11), None) && !allows(less, None, None));
        let than_ever = Provided::MuchLessThan { wait_ms: None };
        assert!(allows(than_ever, Some(i64::MAX), None) && !allows(than_ever, None, None));
    }
}
