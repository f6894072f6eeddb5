//! A request arrives at its home pool.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::breaker::Sign;
use crate::id::{ClientId, RequestId, WorkerBinding};
use crate::off_peak::WaitsFor;
use crate::optimizer::Applied;
use crate::pipeline::Step;
use crate::pool::foretell::RETRY_HINT_MS;
use crate::pool::index::entry;
use crate::pool::supply::Leave;
use crate::pool::{BatchTerms, Effect, Pool};
use crate::priority::{Tier, Urgency};
use crate::request::{Demand, Kind, Phase, Request};
use crate::token_bucket::Availability;
use crate::units::{Instant, NanoUsd, Tokens};

/// A request that comes this long after its hold is refused: by then the account may be about to give the hold up (see
/// `account::ORPHAN_AFTER_MS`).
pub const SUBMIT_LIMIT_MS: i64 = 30_000;

/// Where a request goes when its tokens are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Into the queue.
    Queue,
    /// Back to the caller.
    NowOrNever,
}

/// A request as it is submitted; its cost is held by then.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its id, which names this pool.
    pub id: RequestId,
    /// Whose.
    pub client: ClientId,
    /// The client's tier.
    pub tier: Tier,
    /// Executed by us or by the one who reserves.
    pub kind: Kind,
    /// The lane.
    pub urgency: Urgency,
    /// When the account held its cost.
    pub held_at: Instant,
    /// Not finished by then, it expires.
    pub deadline: Option<Instant>,
    /// The home pool first.
    pub demands: Vec<Demand>,
    /// How often it may be tried, at least 1.
    pub max_attempts: u32,
    /// One attempt's limit; a reservation's time to live.
    pub timeout_ms: i64,
    /// The downstream worker of an execution, or of its first step.
    pub worker: Option<WorkerBinding>,
    /// The steps after the first.
    pub later: Vec<Step>,
    /// The account gave a slot together with the hold.
    pub has_slot: bool,
    /// How many slots the client has; they were all taken if it gave none. `None` if that is not known.
    pub slots: Option<u32>,
    /// What was done to make it cheaper.
    pub applied: Vec<Applied>,
    /// What requests that are the same have in common, if one run will do for all that are in flight.
    pub twin: Option<String>,
    /// With which others it may be combined.
    pub batch: Option<BatchTerms>,
    /// Which windows it waits for; `None`: those of its pool, if its lane does.
    pub waits_for: Option<WaitsFor>,
    /// What runs like its own have in common besides their worker: its template.
    pub work: Option<String>,
}

/// Why a request is refused. Nothing is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It needs more than the pool can hold.
    #[error("it needs more than the pool can ever hold")]
    Never,
    /// The tokens are not there, or somebody of higher rank waits for them.
    #[error("the tokens are not there now")]
    NotNow {
        /// When to try again.
        retry_at: Instant,
    },
    /// The queue is at its cap.
    #[error("the pool's queue is full")]
    QueueFull {
        /// When to try again.
        retry_at: Instant,
    },
    /// It comes too long after its hold.
    #[error("the request came too late after its admission")]
    Stale,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is kept; [`Pool::request`] tells its phase.
    Accepted,
    /// It was here before.
    Existing,
    /// It is refused.
    Refused(Refusal),
}

impl Pool {
    /// Takes a request in. If everything is there it starts at once.
    pub fn submit(&mut self, submission: Submission, mode: Mode, now: Instant) -> Submitted {
        let submitted = self.take_in(submission, mode, now);
        self.tell_others(now);
        submitted
    }

    fn take_in(&mut self, submission: Submission, mode: Mode, now: Instant) -> Submitted {
        self.advance(now);
        if self.requests.contains_key(&submission.id) {
            self.grant_and_start(now, None);
            return Submitted::Existing;
        }
        if let Err(refusal) = self.admit(&submission, now) {
            self.grant_and_start(now, None);
            return Submitted::Refused(refusal);
        }
        let id = submission.id.clone();
        let client = submission.client.clone();
        let has_slot = submission.has_slot;
        let wait_limit_ms = self.config.lanes.of(submission.urgency).max_wait_ms;
        if has_slot {
            // So one was free a moment ago, whatever was heard before.
            self.unblock(&client);
        }
        let mut request = Request { wait_limit_ms, ..waiting(submission) };
        request.held = request.least_hold();
        request.expected_run_ms = self.run_bound_ms(&request);
        request.forced = request.force_at().is_some_and(|at| at <= now);
        if request.forced {
            // It has never waited for one.
            request.waits_for = Some(WaitsFor::Nothing);
        }
        self.follow(&mut request, now);
        if request.phase == Phase::Waiting {
            self.gather(&mut request, now);
        }
        if request.phase != Phase::Waiting {
            self.put(request);
            self.lead_those_that_wait(&id, now);
            self.foretell_start(&id, now);
            if has_slot {
                self.effects.push(Effect::ReleaseSlot { id, grant: 0, client, ended: false });
            }
            self.grant_and_start(now, None);
            return Submitted::Accepted;
        }
        self.put(request);
        let no_slot = if has_slot { None } else { self.slot_too_late(&id, now) };
        if no_slot.is_none() {
            self.grant_and_start(now, has_slot.then_some(&id));
        }
        // In its place, or in the stead of an older one that goes in its turn.
        let waits = |request: &Request| matches!(request.phase, Phase::Waiting | Phase::Parked { .. });
        let still_waiting = self.requests.get(&id).is_some_and(waits);
        let too_late = no_slot.or_else(|| still_waiting.then(|| self.starts_too_late(&id, now)).flatten());
        if (still_waiting && mode == Mode::NowOrNever) || too_late.is_some() {
            let retry_at = too_late.unwrap_or_else(|| self.retry_hint(&id, now));
            self.take(&id);
            self.changes.requests.remove(&id);
            // It may have been the one that the others waited behind; what one event may not grant the next one does.
            if !self.backlog {
                self.grant_and_start(now, None);
            }
            return Submitted::Refused(Refusal::NotNow { retry_at });
        }
        // One of those may have been the one that others waited behind.
        if self.lead_those_that_wait(&id, now) && !self.backlog {
            self.grant_and_start(now, None);
        }
        self.foretell_start(&id, now);
        if still_waiting && has_slot {
            self.effects.push(Effect::ReleaseSlot { id, grant: 0, client, ended: false });
        }
        Submitted::Accepted
    }

    pub(super) fn admit(&self, submission: &Submission, now: Instant) -> Result<(), Refusal> {
        let reach = self.reach(self.partition_of(&submission.client, submission.tier));
        let steps = submission.later.iter().map(|step| &step.demands);
        let fits = |demands: &Vec<Demand>| demands.first().is_some_and(|demand| demand.amount <= reach);
        if !std::iter::once(&submission.demands).chain(steps).all(fits) {
            return Err(Refusal::Never);
        }
        if now.since(submission.held_at) > SUBMIT_LIMIT_MS {
            return Err(Refusal::Stale);
        }
        let cap = usize::try_from(self.config.queue_cap).unwrap_or(usize::MAX);
        let lane_cap = self.config.lanes.of(submission.urgency).queue_cap.unwrap_or(u32::MAX);
        let in_lane = self.lane_waiting.get(&submission.urgency).copied().unwrap_or(0);
        if self.waiting >= cap || in_lane >= lane_cap {
            let retry_at = self.head_ready_at.unwrap_or(now).max(now.plus(RETRY_HINT_MS));
            return Err(Refusal::QueueFull { retry_at });
        }
        Ok(())
    }

    fn retry_hint(&self, id: &RequestId, now: Instant) -> Instant {
        let Some(request) = self.requests.get(id) else {
            return now.plus(RETRY_HINT_MS);
        };
        let own = self.partition_of(&request.client, request.tier);
        let leave = Leave { insist: false, kept: self.kept_before(&entry(request), None, now) };
        let by_tokens = match self.availability(request.home_amount(), own, &self.wanted(now), &leave, now) {
            Availability::At(at) => at,
            _ => now.plus(RETRY_HINT_MS),
        };
        // And after those that wait.
        let by_turn = self.ready_at(request, self.ahead_of(request, now), now);
        by_tokens.max(self.state.paused_until.unwrap_or(now)).max(by_turn.unwrap_or(now))
    }
}

pub(super) fn waiting(submission: Submission) -> Request {
    let Submission { mut demands, mut later, .. } = submission;
    for demands in std::iter::once(&mut demands).chain(later.iter_mut().map(|step| &mut step.demands)) {
        if let Some(others) = demands.get_mut(1..) {
            others.sort_by(|a, b| a.pool.cmp(&b.pool));
        }
    }
    Request {
        id: submission.id,
        client: submission.client,
        tier: submission.tier,
        kind: submission.kind,
        urgency: submission.urgency,
        enqueued_at: submission.held_at,
        deadline: submission.deadline,
        demands,
        max_attempts: submission.max_attempts.max(1),
        timeout_ms: submission.timeout_ms.max(1),
        attempts: 0,
        grants: 0,
        started_grant: 0,
        first_started_at: None,
        used: Vec::new(),
        worker: submission.worker,
        wait_limit_ms: None,
        forced: false,
        own: Tokens::ZERO,
        by_share: false,
        on_turn: false,
        expected_start: None,
        applied: submission.applied,
        twin: submission.twin,
        batch: submission.batch,
        waits_for: submission.waits_for,
        work: submission.work,
        expected_run_ms: None,
        others_ready_at: None,
        left_alone: false,
        stood_back_at: None,
        sign: Sign::Neither,
        refused_by: None,
        promises: BTreeMap::new(),
        others_regain_ms: 0,
        idle_wakes: 0,
        asked_at: None,
        standing: None,
        alone: false,
        slots: submission.slots,
        held: NanoUsd::ZERO,
        past: Vec::new(),
        later,
        step_started_at: None,
        phase: Phase::Waiting,
    }
}
