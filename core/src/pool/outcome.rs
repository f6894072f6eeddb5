//! What a run reports, and how a request ends.

use serde::{Deserialize, Serialize};

use crate::breaker::Sign;
use crate::id::{PoolId, RequestId};
use crate::optimizer::Applied;
use crate::pool::finish::{Finish, Used, bill};
use crate::pool::{Effect, LeaseEnd, Pool, Signal};
use crate::request::{Cause, Failure, Phase, Request, Status, Usage};
use crate::retry::{MAX_PAUSE_MS, backoff_ms};
use crate::units::{Instant, Tokens};

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Retry {
    /// No: the worker refused the request itself.
    No,
    /// By itself, at once, and this attempt does not count: it was refused together with others, and another one of them may
    /// be to blame.
    Alone,
    /// By itself, after a backoff: the worker failed several that were run together, or did not answer them in time.
    Apart {
        /// Whether this one tells that the worker failed: of a common call one does.
        tells: bool,
        /// It did not answer in time.
        timed_out: bool,
    },
    /// After a backoff: something between failed.
    Backoff,
    /// After a backoff: the worker failed.
    Failing,
    /// The worker has too much to do; not before this long, for anybody, if it said so.
    Busy {
        /// Milliseconds.
        pause_ms: Option<i64>,
    },
}

/// What a worker says is left of a pool's limit, in its provider's books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remaining {
    /// Of which pool.
    pub pool: PoolId,
    /// How much.
    pub left: Tokens,
    /// Until there is more.
    pub resets_in_ms: Option<i64>,
}

/// What the one who ran an attempt says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The worker answered. A pool that it said nothing about is charged as reserved.
    Succeeded {
        /// What it says it used.
        usage: Vec<Usage>,
        /// What it says is left.
        remaining: Vec<Remaining>,
    },
    /// The worker refused or failed.
    Failed {
        /// How.
        failure: Failure,
        /// Whether another attempt may help.
        retry: Retry,
    },
    /// The worker did not answer in time.
    TimedOut,
}

impl Report {
    /// Whether the worker did not answer in time, be it several that were run together.
    #[must_use]
    pub const fn timed_out(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Failed { retry: Retry::Apart { timed_out: true, .. }, .. })
    }
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The request ended by it.
    Ended,
    /// It will be tried again.
    Retrying,
    /// This step ended by it, and the next is to come.
    StepEnded {
        /// Which step, from 0.
        step: usize,
    },
    /// The request had been cancelled; what was used is charged, its end stands.
    ChargedLate,
    /// The grant is not the one that runs, or the request had ended: nothing changed.
    Ignored,
}

impl Pool {
    /// The one who ran an attempt reports. However often and late this is said, it has its effect once.
    pub fn report(&mut self, id: &RequestId, grant: u32, report: Report, now: Instant) -> ReportOutcome {
        self.event(now, |pool| pool.take_report(id, grant, report, now))
    }

    /// Notes what was done for a request besides, if it has not ended: a strategy that it has already is added to.
    pub fn note_applied(&mut self, id: &RequestId, applied: Applied) {
        let Some(request) = self.requests.get_mut(id) else { return };
        match request.applied.iter_mut().find(|known| known.strategy == applied.strategy) {
            Some(known) => known.saved_bytes = known.saved_bytes.saturating_add(applied.saved_bytes),
            None => request.applied.push(applied),
        }
        self.changes.requests.insert(id.clone());
    }

    fn take_report(&mut self, id: &RequestId, grant: u32, report: Report, now: Instant) -> ReportOutcome {
        let known = self.requests.get(id).filter(|request| request.started_grant == grant && grant > 0);
        let Some(phase) = known.map(|request| request.phase.clone()) else {
            return ReportOutcome::Ignored;
        };
        self.judge_report(id, &phase, &report, now);
        if let Phase::Running { started_at, .. } = &phase
            && (matches!(report, Report::Succeeded { .. }) || report.timed_out())
        {
            let of = self.requests.get(id).and_then(|request| Some((request.worker.clone()?, request.work.clone())));
            if let Some((worker, work)) = of {
                let run = (now.since(*started_at), !report.timed_out());
                self.learn_run_time(worker, work.as_deref(), run, now);
            }
        }
        match (phase, report) {
            (Phase::Abandoned { .. }, report) => match self.take(id) {
                Some(request) => self.close_abandoned(request, Some(report), now),
                None => ReportOutcome::Ignored,
            },
            // A lost attempt that succeeded after all spares the next one.
            (
                Phase::Running { .. } | Phase::Waiting | Phase::Parked { .. } | Phase::Acquiring { .. },
                Report::Succeeded { usage, remaining },
            ) => {
                let Some(mut request) = self.take(id) else { return ReportOutcome::Ignored };
                if matches!(request.phase, Phase::Acquiring { .. }) {
                    self.give_back_acquired(&request, false, LeaseEnd::Over, now);
                    request.phase = Phase::Waiting;
                } else if request.is_waiting() {
                    self.order_nothing_more(&request);
                }
                self.succeed(request, usage, &remaining, now)
            }
            (Phase::Running { .. }, Report::Failed { failure, retry: Retry::No }) => {
                if let Some(request) = self.take(id) {
                    self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                }
                ReportOutcome::Ended
            }
            (Phase::Running { .. }, Report::Failed { retry: Retry::Alone, failure }) => {
                let Some(request) = self.take(id) else { return ReportOutcome::Ignored };
                if request.batch_key().is_some() {
                    self.go_alone(request, now);
                    return ReportOutcome::Retrying;
                }
                self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                ReportOutcome::Ended
            }
            (Phase::Running { .. }, Report::Failed { failure, retry: Retry::Apart { timed_out, .. } }) => {
                let status = if timed_out { Status::TimedOut } else { Status::Failed };
                let outcome = self.failed_once(id, status, failure, &Signal::default(), now);
                // Whose fault it was is not known: the others are not to fail by it again.
                if let Some(request) = self.requests.get_mut(id) {
                    request.set_apart();
                }
                outcome
            }
            (Phase::Running { .. }, Report::Failed { failure, retry }) => {
                let signal = match retry {
                    Retry::Busy { pause_ms } => Signal { busy: true, pause_ms, ..Signal::default() },
                    _ => Signal::default(),
                };
                self.failed_once(id, Status::Failed, failure, &signal, now)
            }
            (Phase::Running { .. }, Report::TimedOut) => {
                let failure = Failure { code: "timed_out".into(), message: "the worker did not answer in time".into() };
                self.failed_once(id, Status::TimedOut, failure, &Signal::default(), now)
            }
            _ => ReportOutcome::Ignored,
        }
    }

    /// What a report says of its worker. One of an attempt that counts as lost was judged then, unless it went well.
    fn judge_report(&mut self, id: &RequestId, phase: &Phase, report: &Report, now: Instant) {
        let sign = match report {
            Report::Succeeded { .. } | Report::Failed { retry: Retry::No, .. } => Sign::Alive,
            Report::TimedOut | Report::Failed { retry: Retry::Apart { tells: true, timed_out: true }, .. } => {
                self.requests.get(id).map_or(Sign::Neither, |request| self.sign_of_silence(request, phase))
            }
            Report::Failed { retry: Retry::Failing | Retry::Apart { tells: true, .. }, .. } => Sign::Failed,
            Report::Failed { .. } => Sign::Neither,
        };
        if (sign == Sign::Alive || matches!(phase, Phase::Running { .. }))
            && let Some(request) = self.requests.get_mut(id)
        {
            request.sign = sign;
            if let (Some(worker), grant) = (request.worker.clone(), request.grants) {
                self.judge_worker(&worker, id, grant, sign, now);
            }
        }
    }

    /// The worker has done its work: the end, or the next step.
    fn succeed(
        &mut self,
        mut request: Request,
        usage: Vec<Usage>,
        remaining: &[Remaining],
        now: Instant,
    ) -> ReportOutcome {
        if request.later.is_empty() {
            let late = request.deadline.is_some_and(|deadline| deadline < now);
            let finish = if late { Finish::used_late(usage, request.why_expired(now)) } else { Finish::used(usage) };
            self.finish(request, Finish { remaining: remaining.to_vec(), ..finish }, now);
            return ReportOutcome::Ended;
        }
        let step = request.step();
        self.release_run(&request, &Used { usage: &usage, as_reserved: true, expired: false, remaining }, now);
        let (id, client) = (request.id.clone(), request.client.clone());
        self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
        let (lines, _) = bill(&request, &usage, true);
        request.close_step(Status::Succeeded, lines, now);
        request.next_step();
        self.raise_hold(&request);
        request.phase = Phase::Waiting;
        self.put(request);
        ReportOutcome::StepEnded { step }
    }

    /// Tells the account if more must be held for a request than was at first. However often it is told, it holds that.
    pub(super) fn raise_hold(&mut self, request: &Request) {
        let least_hold = request.least_hold();
        if least_hold > request.held {
            let (id, client) = (request.id.clone(), request.client.clone());
            self.effects.push(Effect::RaiseHold { id, client, least_hold });
        }
    }

    fn failed_once(
        &mut self,
        id: &RequestId,
        status: Status,
        failure: Failure,
        signal: &Signal,
        now: Instant,
    ) -> ReportOutcome {
        if let Some(request) = self.take(id) {
            self.retry_or_finish(request, status, failure, signal, now);
        }
        if self.requests.contains_key(id) { ReportOutcome::Retrying } else { ReportOutcome::Ended }
    }

    /// Back to its place, to be run by itself. The attempt does not count: it may have been refused for another one's sake.
    fn go_alone(&mut self, mut request: Request, now: Instant) {
        self.release_run(&request, &Used::NOTHING, now);
        let (id, client) = (request.id.clone(), request.client.clone());
        self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
        request.set_apart();
        request.attempts = request.attempts.saturating_sub(1);
        let id = request.id.clone();
        request.phase = Phase::Waiting;
        self.put(request);
        self.let_go_of_followers(&id, now);
    }

    /// After a failed attempt: back to its place after a backoff, or the end.
    pub(super) fn retry_or_finish(
        &mut self,
        mut request: Request,
        status: Status,
        failure: Failure,
        signal: &Signal,
        now: Instant,
    ) {
        self.heed_for(&request, signal, now);
        let pause_ms = signal.pause_ms.map_or(0, |pause_ms| pause_ms.clamp(0, MAX_PAUSE_MS));
        let next = now.plus(backoff_ms(&request.id, request.attempts).max(pause_ms));
        if request.expires_at() <= now {
            let message = format!("{}; of its last attempt: {}", request.why_expired(now), failure.message);
            let failure = Failure { code: "expired".into(), message };
            self.finish(request, Finish { uncertain: true, ..Finish::unused(Status::Expired, Some(failure)) }, now);
        } else if request.attempts >= request.max_attempts {
            let uncertain = status == Status::TimedOut;
            self.finish(request, Finish { uncertain, ..Finish::unused(status, Some(failure)) }, now);
        } else {
            self.release_run(&request, &Used::NOTHING, now);
            let (id, client) = (request.id.clone(), request.client.clone());
            self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
            let id = request.id.clone();
            request.phase = Phase::Parked { until: next, cause: Cause::RetryBackoff };
            self.put(request);
            self.let_go_of_followers(&id, now);
        }
    }

    /// Heeds what a worker says of its limit: the home stands for it, or, for a step that needs nothing of its home, the
    /// other pools do.
    fn heed_for(&mut self, request: &Request, signal: &Signal, now: Instant) {
        if *signal == Signal::default() {
            return;
        }
        if !request.home_amount().is_zero() {
            self.heed(signal, now);
            return;
        }
        for demand in request.others() {
            // A lease of no name: nothing is settled by it.
            let (pool, key) = (demand.pool.clone(), String::new());
            self.effects.push(Effect::SettleLease {
                pool,
                key,
                used: Tokens::ZERO,
                end: LeaseEnd::Ran,
                signal: *signal,
            });
        }
    }
}
