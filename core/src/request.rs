//! A request, and the phases of its life.
//!
//! ```text
//!            ┌──────── no slot, no second pool, retry ────────┐
//!            ▼                                                 │
//!        Waiting ──tokens──► Acquiring ──all there──► Running ─┤
//!            ▲ │                  │                      │     │
//!            │ └──── cancelled, expired ──► an end ◄─────┘     │
//!          Parked ◄────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::bill::{End, Line, Settlement, Usage};
pub use crate::demand::Demand;

use crate::breaker::Sign;
use crate::id::{ClientId, PoolId, RequestId, WorkerBinding};
use crate::off_peak::WaitsFor;
use crate::optimizer::Applied;
use crate::pipeline::{PastStep, Step};
use crate::pool::BatchTerms;
use crate::priority::{Tier, UnknownName, Urgency};
use crate::units::{Instant, NanoUsd, Tokens};

// What serde asks takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(ms: &i64) -> bool {
    *ms == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_never(count: &u32) -> bool {
    *count == 0
}

/// What is done with the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A downstream worker is called. It takes one of the client's slots, and waits in the queue.
    Execution,
    /// A worker took the tokens itself, and will say what it used. Granted at once or not at all, without a slot.
    Reservation,
}

/// Why a request waits outside the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An attempt failed.
    RetryBackoff,
    /// Another pool that it needs has not got its tokens.
    SecondaryPool,
    /// The client's account did not answer.
    Concurrency,
    /// It waits for others to be combined with.
    Batching,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// In the queue.
    Waiting,
    /// Outside the queue until then; it comes back to its place.
    Parked {
        /// When it comes back.
        until: Instant,
        /// Why it is out.
        cause: Cause,
    },
    /// The home pool's tokens are taken; the slot, and then the other pools one by one, are asked for.
    Acquiring {
        /// When the home pool's tokens were taken.
        since: Instant,
        /// Whether the client's slot is there.
        slot: bool,
        /// How many of the other pools are leased.
        leased: usize,
        /// The account said meanwhile that a slot is free, or the pool that is asked that tokens were given back: a refusal that
        /// crossed it is out of date.
        woken: bool,
    },
    /// Everything is there and the work is being done.
    Running {
        /// When the home pool's tokens were taken.
        since: Instant,
        /// When it started.
        started_at: Instant,
        /// If nobody reports until then, the attempt is lost.
        lease_until: Instant,
    },
    /// The same request is in flight, and this one waits for its result.
    Following {
        /// Which one that is.
        leader: RequestId,
    },
    /// Cancelled while it ran: it has its end, and its tokens and slot went back. Its worker may still be at it, so its
    /// cost stays held until that reports what it used, or the lease is over.
    Abandoned {
        /// Until when a report is waited for.
        lease_until: Instant,
    },
}

/// A request that has not ended, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Which one.
    pub id: RequestId,
    /// Whose.
    pub client: ClientId,
    /// The client's tier when it was admitted.
    pub tier: Tier,
    /// Executed by us or by the one who reserved.
    pub kind: Kind,
    /// The lane.
    pub urgency: Urgency,
    /// When the account held its cost: its age counts from here.
    pub enqueued_at: Instant,
    /// Not finished by then, it expires.
    pub deadline: Option<Instant>,
    /// The home pool first, then the others by name.
    pub demands: Vec<Demand>,
    /// How often it may be tried.
    pub max_attempts: u32,
    /// One attempt's limit; a reservation's time to live.
    pub timeout_ms: i64,
    /// How often it was started.
    pub attempts: u32,
    /// How often its tokens were taken, with or without a start. The number of a grant is a fencing token: what belongs
    /// to an earlier grant is recognised, however late it arrives.
    pub grants: u32,
    /// The grant with which it was last started; 0 is none.
    pub started_grant: u32,
    /// When it was first started.
    pub first_started_at: Option<Instant>,
    /// What a reservation's owner has said it used so far.
    pub used: Vec<Usage>,
    /// The downstream worker of an execution, or of its current step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerBinding>,
    /// How long it may wait for its first start; its lane's limit when it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_limit_ms: Option<i64>,
    /// Which windows it waits for; `None`: those of its pool, if its lane does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// What runs like its own have in common besides their worker: its template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// How long hardly any run like its own takes, as was known when it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_run_ms: Option<i64>,
    /// When another pool that it needs will have its tokens, as that one said when it last refused them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_ready_at: Option<Instant>,
    /// Which one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<PoolId>,
    /// What the pools that refused it said when they would have its tokens, until they have granted them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub promises: BTreeMap<PoolId, Instant>,
    /// The longest that another pool which granted its tokens may take to have them again, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others_regain_ms: i64,
    /// How often it was woken for what another pool had given to a grant that came to nothing, since something else came
    /// back there.
    #[serde(default, skip_serializing_if = "is_never")]
    pub idle_wakes: u32,
    /// Another pool that it needs leaves its worker alone, and said so when it was last asked. That is not stored: after a
    /// crash it asks again.
    #[serde(skip)]
    pub left_alone: bool,
    /// What its last attempt has said of its worker: the pools that leased it tokens are told in the same event.
    #[serde(skip)]
    pub sign: Sign,
    /// An older one, which needs more of another pool and waits for this one, went in its turn. Until that has answered for it
    /// as well its turns are its own.
    #[serde(skip)]
    pub stood_back_at: Option<PoolId>,
    /// When another pool was last asked for it. That is not stored: after a crash it asks again.
    #[serde(skip)]
    pub asked_at: Option<Instant>,
    /// Its client's fairness in millipoints when it was last granted, if it needs other pools too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<i64>,
    /// Its deadline does not let it wait for a window any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// How much of its home tokens came from its partition's own share.
    #[serde(default, skip_serializing_if = "Tokens::is_none")]
    pub own: Tokens,
    /// It was granted out of its partition's share, on a turn of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_share: bool,
    /// It was granted on a turn of the promoted ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_turn: bool,
    /// When it was expected to start, when it came and had to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_start: Option<Instant>,
    /// What was done to make it cheaper.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Applied>,
    /// What requests that are the same have in common, if it may wait for one that is in flight, or be waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// With which others it may be combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchTerms>,
    /// It was refused, or failed, together with others: it is tried by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// How many its client may run at once, as it was when it was admitted; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// What was held for it at first.
    #[serde(default, skip_serializing_if = "NanoUsd::is_none")]
    pub held: NanoUsd,
    /// Steps that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastStep>,
    /// Steps that are not due yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<Step>,
    /// When the current step was first started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<Instant>,
    /// Where it stands.
    pub phase: Phase,
}

/// A request that nobody granted in this long expires, whatever its deadline: a day.
pub const MAX_AGE_MS: i64 = 86_400_000;
/// The same for one that waits for an off-peak window, the next of which may be a week away: eight days.
pub const OFF_PEAK_MAX_AGE_MS: i64 = 8 * 86_400_000;
/// A run may take this much longer than its limit before it counts as lost: the way to the worker and back.
pub(crate) const RUN_GRACE_MS: i64 = 5_000;
/// How long the slot and the other pools may take to answer before a grant is given up.
pub(crate) const ACQUIRE_LIMIT_MS: i64 = 10_000;
/// A deferred request is let out of its window this much before it must start to keep its deadline.
pub const FORCE_SLACK_MS: i64 = 60_000;

impl Request {
    /// What it needs of its home pool.
    #[must_use]
    pub fn home_amount(&self) -> Tokens {
        self.demands.first().map_or(Tokens::ZERO, |demand| demand.amount)
    }

    /// When its home granted it, while it has what that gave.
    #[must_use]
    pub const fn granted_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Acquiring { since, .. } | Phase::Running { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Until when it waits outside the queue.
    #[must_use]
    pub const fn parked_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Parked { until, .. } => Some(until),
            _ => None,
        }
    }

    /// What it needs of other pools.
    #[must_use]
    pub fn others(&self) -> &[Demand] {
        self.demands.get(1..).unwrap_or_default()
    }

    /// What it waits for, if that is nothing but another pool's tokens.
    #[must_use]
    pub fn awaits(&self) -> Option<&Demand> {
        match self.phase {
            Phase::Parked { cause: Cause::SecondaryPool, .. } => {
                let refused = self.others().iter().find(|demand| Some(&demand.pool) == self.refused_by.as_ref());
                refused.or_else(|| self.others().first())
            }
            Phase::Acquiring { slot: true, leased, .. } => self.others().get(leased),
            _ => None,
        }
    }

    /// Whether it waits, needs other pools too, and its last grant came to nothing: they may keep tokens for it.
    #[must_use]
    pub fn has_asked_elsewhere(&self) -> bool {
        let waits = matches!(self.phase, Phase::Waiting | Phase::Parked { cause: Cause::SecondaryPool, .. });
        waits && self.grants > self.started_grant && !self.others().is_empty()
    }

    /// Whether it has not started: in the queue, parked or acquiring.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Parked { .. } | Phase::Acquiring { .. } | Phase::Following { .. })
    }

    /// When it expires in the queue.
    #[must_use]
    pub fn expires_at(&self) -> Instant {
        // One that its deadline forces out of its window has waited for that until then.
        let oldest = self.enqueued_at.plus(if self.waited_for().is_some() { OFF_PEAK_MAX_AGE_MS } else { MAX_AGE_MS });
        let limit = self.wait_limit_ms.filter(|_| self.first_started_at.is_none());
        let by_lane = limit.map_or(oldest, |limit| self.enqueued_at.plus(limit));
        self.deadline.map_or(oldest, |deadline| deadline.min(oldest)).min(by_lane)
    }

    /// Which windows it waits for; `None` once its deadline does not let it.
    #[must_use]
    pub fn window(&self) -> Option<WaitsFor> {
        self.waited_for().filter(|_| !self.forced)
    }

    /// Which windows it waits for, or has waited for until its deadline did not let it any more.
    pub(crate) fn waited_for(&self) -> Option<WaitsFor> {
        let by_lane = if self.urgency == Urgency::Deferred { WaitsFor::Pool } else { WaitsFor::Nothing };
        Some(self.waits_for.clone().unwrap_or(by_lane)).filter(|windows| *windows != WaitsFor::Nothing)
    }

    /// Whether it waits for an off-peak window.
    #[must_use]
    pub fn is_off_peak(&self) -> bool {
        self.window().is_some()
    }

    /// The lane that it ranks in: one that its deadline forces out of its window goes among the normal ones.
    #[must_use]
    pub fn rank_urgency(&self) -> Urgency {
        if self.forced { Urgency::Normal.min(self.urgency) } else { self.urgency }
    }

    /// When its deadline forces it out of its window: in time for one attempt, as long as they take, and for a while in the
    /// queue.
    #[must_use]
    pub fn force_at(&self) -> Option<Instant> {
        let deadline = self.deadline.filter(|_| self.is_off_peak())?;
        let later = self.later.iter().fold(0_i64, |sum, step| sum.saturating_add(step.timeout_ms));
        let run_ms = self.expected_run_ms.unwrap_or(self.timeout_ms).min(self.timeout_ms);
        let needed = run_ms.saturating_add(later).saturating_add(FORCE_SLACK_MS);
        Some(deadline.plus(needed.saturating_neg()))
    }

    /// For how long another pool's tokens are leased: as long as an attempt may take, and everything before it and after it.
    #[must_use]
    pub const fn lease_ttl_ms(&self) -> i64 {
        self.timeout_ms.saturating_add(RUN_GRACE_MS.saturating_mul(2)).saturating_add(ACQUIRE_LIMIT_MS)
    }

    /// How long the next attempt may take: its own limit, or what is left until the deadline.
    #[must_use]
    pub fn attempt_limit_ms(&self, now: Instant) -> i64 {
        self.deadline.map_or(self.timeout_ms, |deadline| self.timeout_ms.min(deadline.since(now)))
    }
}

/// How a request ended. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The worker answered.
    Succeeded,
    /// The worker refused, or failed too often.
    Failed,
    /// The last attempt took too long, or was lost.
    TimedOut,
    /// The caller did not want it any more.
    Cancelled,
    /// Not finished by its deadline; or a reservation that nobody settled.
    Expired,
}

impl Status {
    /// The status's name, as in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Expired];
}

impl std::str::FromStr for Status {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownName)
    }
}

/// What the caller is told of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}
