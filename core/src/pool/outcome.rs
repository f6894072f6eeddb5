//! What a run reports, and how a request ends.

use serde::{Deserialize, Serialize};

use crate::breaker::Sign;
use crate::id::{PoolId, RequestId};
use crate::pipeline::{merged, says_something, total};
use crate::pool::lease::lease_key;
use crate::pool::{Effect, Ended, Pool, Signal};
use crate::request::{Cause, Demand, End, Failure, Kind, Line, Phase, Request, Settlement, Status, Usage};
use crate::retry::{MAX_PAUSE_MS, backoff_ms};
use crate::units::{Instant, NanoUsd, Tokens};

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Retry {
    /// No: the worker refused the request itself.
    No,
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

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is cancelled, by this or by an earlier call.
    Cancelled,
    /// It runs, and only waiting requests were to be cancelled.
    Running,
    /// The pool does not know it: it ended, or never was.
    Unknown,
}

/// How to end a request.
pub(super) struct Finish {
    pub status: Status,
    pub failure: Option<Failure>,
    pub used: Vec<Usage>,
    /// A pool that `used` does not name was used as reserved; else it was not used.
    pub as_reserved: bool,
    pub uncertain: bool,
    pub expired: bool,
    pub remaining: Vec<Remaining>,
}

/// What a run has used of its pools.
struct Used<'a> {
    usage: &'a [Usage],
    /// A pool that `usage` does not name was used as reserved; else it was not used.
    as_reserved: bool,
    /// It was not settled in time.
    expired: bool,
    /// What the worker says is left.
    remaining: &'a [Remaining],
}

impl Used<'_> {
    const NOTHING: Self = Self { usage: &[], as_reserved: false, expired: false, remaining: &[] };
}

impl Finish {
    /// An end without any use.
    pub(super) const fn unused(status: Status, failure: Option<Failure>) -> Self {
        Self {
            status,
            failure,
            used: Vec::new(),
            as_reserved: false,
            uncertain: false,
            expired: false,
            remaining: Vec::new(),
        }
    }

    fn used(usage: Vec<Usage>) -> Self {
        Self {
            status: Status::Succeeded,
            failure: None,
            used: usage,
            as_reserved: true,
            uncertain: false,
            expired: false,
            remaining: Vec::new(),
        }
    }
}

/// The bill of a request: a line for each pool, and their sum.
fn bill(request: &Request, used: &[Usage], as_reserved: bool) -> (Vec<Line>, NanoUsd) {
    let line = |demand: &Demand| Line::of(demand, used.iter().find(|usage| usage.pool == demand.pool), as_reserved);
    let lines: Vec<Line> = request.demands.iter().map(line).filter(says_something).collect();
    let cost = total(&lines);
    (lines, cost)
}

impl Pool {
    /// The one who ran an attempt reports. However often and late this is said, it has its effect once.
    pub fn report(&mut self, id: &RequestId, grant: u32, report: Report, now: Instant) -> ReportOutcome {
        self.event(now, |pool| pool.take_report(id, grant, report, now))
    }

    fn take_report(&mut self, id: &RequestId, grant: u32, report: Report, now: Instant) -> ReportOutcome {
        let known = self.requests.get(id).filter(|request| request.started_grant == grant && grant > 0);
        let Some(phase) = known.map(|request| request.phase.clone()) else {
            return ReportOutcome::Ignored;
        };
        self.judge_report(id, &phase, &report, now);
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
                    self.give_back_acquired(&request, false, now);
                    request.phase = Phase::Waiting;
                }
                self.succeed(request, usage, &remaining, now)
            }
            (Phase::Running { .. }, Report::Failed { failure, retry: Retry::No }) => {
                if let Some(request) = self.take(id) {
                    self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                }
                ReportOutcome::Ended
            }
            (Phase::Running { .. }, Report::Failed { failure, retry }) => {
                let signal = match retry {
                    Retry::Busy { pause_ms } => Signal { busy: true, pause_ms, ..Signal::default() },
                    Retry::No | Retry::Backoff | Retry::Failing => Signal::default(),
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
            Report::Failed { retry: Retry::Failing, .. } | Report::TimedOut => Sign::Failed,
            Report::Failed { retry: Retry::Backoff | Retry::Busy { .. }, .. } => Sign::Neither,
        };
        if (sign == Sign::Alive || matches!(phase, Phase::Running { .. }))
            && let Some(request) = self.requests.get(id).cloned()
        {
            self.judge(&request, sign, now);
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
            self.finish(request, Finish { remaining: remaining.to_vec(), ..Finish::used(usage) }, now);
            return ReportOutcome::Ended;
        }
        let step = request.step();
        self.release_run(&request, &Used { usage: &usage, as_reserved: true, expired: false, remaining }, now);
        let (id, client) = (request.id.clone(), request.client.clone());
        self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
        let (lines, _) = bill(&request, &usage, true);
        request.close_step(Status::Succeeded, lines, now);
        request.next_step();
        request.phase = Phase::Waiting;
        self.put(request);
        ReportOutcome::StepEnded { step }
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
            self.finish(request, Finish { uncertain: true, ..Finish::unused(Status::Expired, Some(failure)) }, now);
        } else if request.attempts >= request.max_attempts {
            let uncertain = status == Status::TimedOut;
            self.finish(request, Finish { uncertain, ..Finish::unused(status, Some(failure)) }, now);
        } else {
            self.release_run(&request, &Used::NOTHING, now);
            let (id, client) = (request.id.clone(), request.client.clone());
            self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
            request.phase = Phase::Parked { until: next, cause: Cause::RetryBackoff };
            self.put(request);
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
            self.effects.push(Effect::SettleLease { pool, key, used: Tokens::ZERO, signal: *signal });
        }
    }

    /// Settles the tokens of a run, here and in the other pools.
    fn release_run(&mut self, request: &Request, used: &Used<'_>, now: Instant) {
        let used_of = |pool: &PoolId, reserved: Tokens| {
            let otherwise = if used.as_reserved { reserved } else { Tokens::ZERO };
            used.usage.iter().find(|usage| usage.pool == *pool).map_or(otherwise, |usage| usage.amount)
        };
        let signal_of = |pool: &PoolId| {
            let said = used.remaining.iter().find(|remaining| remaining.pool == *pool);
            said.map_or(Signal::default(), |said| Signal {
                remaining: Some(said.left),
                resets_in_ms: said.resets_in_ms,
                ..Signal::default()
            })
        };
        let (reserved, since) = match request.phase {
            Phase::Running { since, .. } => (request.home_amount(), since),
            _ => (Tokens::ZERO, now),
        };
        let home = self.config.pool.clone();
        let home_used = used_of(&home, request.home_amount());
        if !reserved.is_zero() || !home_used.is_zero() {
            self.settle_tokens(self.taken_by(request, reserved, since), home_used, used.expired, now);
        }
        self.heed(&signal_of(&home), now);
        let was_started = request.started_grant > 0;
        for demand in request.others() {
            let amount = used_of(&demand.pool, demand.amount);
            let holds = matches!(request.phase, Phase::Running { .. });
            if was_started && (holds || !amount.is_zero()) {
                let (pool, key) = (demand.pool.clone(), lease_key(&request.id, request.started_grant));
                let signal = signal_of(&pool);
                self.effects.push(Effect::SettleLease { pool, key, used: amount, signal });
            }
        }
    }

    /// Ends a request that is out of every index: the tokens go back, the end is recorded, the account is told.
    pub(super) fn finish(&mut self, mut request: Request, finish: Finish, now: Instant) {
        let used = Used {
            usage: &finish.used,
            as_reserved: finish.as_reserved,
            expired: finish.expired,
            remaining: &finish.remaining,
        };
        self.release_run(&request, &used, now);
        let (mut lines, mut cost) = bill(&request, &finish.used, finish.as_reserved);
        if request.is_pipeline() {
            request.close_last_step(finish.status, lines, now);
            lines = merged(request.past.iter().flat_map(|step| step.lines.iter().cloned()));
            cost = total(&lines);
        }
        let end = End {
            status: finish.status,
            failure: finish.failure,
            finished_at: now,
            lines: lines.clone(),
            cost,
            uncertain: finish.uncertain,
        };
        let event = request.id.as_str().to_owned();
        self.settle(&request, event, &end, now);
        self.effects.push(Effect::Finished { id: request.id.clone() });
        self.changes.requests.remove(&request.id);
        self.changes.ended.push(Ended { request, end });
    }

    fn settle(&mut self, request: &Request, event: String, end: &End, now: Instant) {
        self.changes.settlements.push(Settlement {
            event: event.clone(),
            request: request.id.clone(),
            client: request.client.clone(),
            status: end.status,
            kind: request.kind,
            at: now,
            lines: end.lines.clone(),
            cost: end.cost,
            uncertain: end.uncertain,
        });
        self.unsettled.insert(event.clone(), (0, now));
        self.send_settlement(event, now);
    }

    /// A cancelled run reports after all, or never will (`None`). Its end stands; its use is charged, and the rest of what
    /// is held for it goes back.
    pub(super) fn close_abandoned(
        &mut self,
        mut request: Request,
        report: Option<Report>,
        now: Instant,
    ) -> ReportOutcome {
        self.changes.requests.insert(request.id.clone());
        let (usage, remaining, uncertain) = match report {
            Some(Report::Succeeded { usage, remaining }) => (Some(usage), remaining, false),
            Some(Report::Failed { .. }) => (None, Vec::new(), false),
            Some(Report::TimedOut) | None => (None, Vec::new(), true),
        };
        let as_reserved = usage.is_some();
        let usage = usage.unwrap_or_default();
        let used = Used { usage: &usage, as_reserved, expired: false, remaining: &remaining };
        self.release_run(&request, &used, now);
        let (mut lines, mut cost) = bill(&request, &usage, as_reserved);
        if request.is_pipeline() {
            request.close_last_step(Status::Cancelled, lines, now);
            lines = merged(request.past.iter().flat_map(|step| step.lines.iter().cloned()));
            cost = total(&lines);
        }
        let end = End { status: Status::Cancelled, failure: None, finished_at: now, lines, cost, uncertain };
        self.settle(&request, request.id.as_str().to_owned(), &end, now);
        self.changes.late.push(Ended { request, end });
        if as_reserved { ReportOutcome::ChargedLate } else { ReportOutcome::Ignored }
    }

    /// Ends a request that runs, as cancelled. Its tokens and its slot go back; its cost stays held until it is known what
    /// it used, or a loop of running and cancelling would spend what the budget has not got.
    fn abandon(&mut self, mut request: Request, lease_until: Instant, now: Instant) {
        self.release_run(&request, &Used::NOTHING, now);
        let (id, client) = (request.id.clone(), request.client.clone());
        self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: true });
        let lines = merged(request.past.iter().flat_map(|step| step.lines.iter().cloned()));
        let cost = total(&lines);
        let end = End { status: Status::Cancelled, failure: None, finished_at: now, lines, cost, uncertain: false };
        self.effects.push(Effect::Finished { id: request.id.clone() });
        request.phase = Phase::Abandoned { lease_until };
        self.changes.ended.push(Ended { request: request.clone(), end });
        self.put(request);
    }

    /// Cancels a request. Its tokens and its slot go back at once, and so does its money if it waits. If it runs, its
    /// worker may still be at work on it: what that has used is charged when it is known, and the rest goes back then.
    pub fn cancel(&mut self, id: &RequestId, only_waiting: bool, now: Instant) -> CancelOutcome {
        self.event(now, |pool| pool.try_cancel(id, only_waiting, now))
    }

    fn try_cancel(&mut self, id: &RequestId, only_waiting: bool, now: Instant) -> CancelOutcome {
        let Some(request) = self.requests.get(id) else { return CancelOutcome::Unknown };
        match (&request.phase, request.kind) {
            (Phase::Abandoned { .. }, _) => return CancelOutcome::Cancelled,
            (Phase::Running { .. }, _) if only_waiting => return CancelOutcome::Running,
            _ => {}
        }
        let Some(mut request) = self.take(id) else { return CancelOutcome::Unknown };
        match request.phase {
            Phase::Running { lease_until, .. } if request.kind == Kind::Execution => {
                self.judge(&request, Sign::Neither, now);
                self.abandon(request, lease_until, now);
            }
            _ => {
                if matches!(request.phase, Phase::Acquiring { .. }) {
                    self.give_back_acquired(&request, false, now);
                    request.phase = Phase::Waiting;
                }
                self.finish(request, Finish::unused(Status::Cancelled, None), now);
            }
        }
        CancelOutcome::Cancelled
    }

    /// The owner of a reservation does not need the rest of it. What it has said it used is charged.
    pub fn release(&mut self, id: &RequestId, now: Instant) -> ReportOutcome {
        self.event(now, |pool| pool.close(id, now))
    }

    fn close(&mut self, id: &RequestId, now: Instant) -> ReportOutcome {
        if !self.is_open_reservation(id) {
            return ReportOutcome::Ignored;
        }
        if let Some(request) = self.take(id) {
            let used = request.used.clone();
            let status = if used.is_empty() { Status::Cancelled } else { Status::Succeeded };
            self.finish(request, Finish { status, as_reserved: false, ..Finish::used(used) }, now);
        }
        ReportOutcome::Ended
    }

    fn is_open_reservation(&self, id: &RequestId) -> bool {
        self.requests
            .get(id)
            .is_some_and(|request| request.kind == Kind::Reservation && matches!(request.phase, Phase::Running { .. }))
    }

    /// The owner of a reservation says what it has used in all so far. With `last` the reservation ends.
    pub fn consume(&mut self, id: &RequestId, usage: Vec<Usage>, last: bool, now: Instant) -> ReportOutcome {
        self.event(now, |pool| pool.add_use(id, usage, last, now))
    }

    fn add_use(&mut self, id: &RequestId, usage: Vec<Usage>, last: bool, now: Instant) -> ReportOutcome {
        if !self.is_open_reservation(id) {
            return ReportOutcome::Ignored;
        }
        if let Some(mut request) = self.take(id) {
            for new in usage {
                match request.used.iter_mut().find(|usage| usage.pool == new.pool) {
                    Some(usage) if new.amount >= usage.amount => *usage = new,
                    Some(_) => {}
                    None => request.used.push(new),
                }
            }
            if last {
                let used = request.used.clone();
                self.finish(request, Finish { as_reserved: false, ..Finish::used(used) }, now);
            } else {
                self.put(request);
            }
        }
        if last { ReportOutcome::Ended } else { ReportOutcome::Retrying }
    }
}
