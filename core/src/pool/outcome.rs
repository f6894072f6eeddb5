//! What a run reports, and how a request ends.

use crate::id::{PoolId, RequestId};
use crate::pool::lease::lease_key;
use crate::pool::{Effect, Ended, Pool};
use crate::request::{
    Cause, Demand, End, Failure, Kind, Line, Phase, Request, Settlement, Status, USE_KEYS_MAX, Usage, UseKey,
};
use crate::retry::{MAX_PAUSE_MS, backoff_ms};
use crate::units::{Instant, NanoUsd, Tokens};

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the worker refused the request itself.
    No,
    /// After a backoff.
    Backoff,
    /// Not before this long, for anybody: the worker said so.
    After {
        /// Milliseconds.
        pause_ms: i64,
    },
}

/// What the one who ran an attempt says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The worker answered. A pool that it said nothing about is charged as reserved.
    Succeeded {
        /// What it says it used.
        usage: Vec<Usage>,
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
}

impl Finish {
    /// An end without any use.
    pub(super) const fn unused(status: Status, failure: Option<Failure>) -> Self {
        Self { status, failure, used: Vec::new(), as_reserved: false, uncertain: false, expired: false }
    }

    fn used(usage: Vec<Usage>) -> Self {
        Self {
            status: Status::Succeeded,
            failure: None,
            used: usage,
            as_reserved: true,
            uncertain: false,
            expired: false,
        }
    }
}

/// The bill of a request: a line for each pool, and their sum.
fn bill(request: &Request, used: &[Usage], as_reserved: bool) -> (Vec<Line>, NanoUsd) {
    let line = |demand: &Demand| Line::of(demand, used.iter().find(|usage| usage.pool == demand.pool), as_reserved);
    let lines: Vec<Line> = request.demands.iter().map(line).collect();
    let total = lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.cost));
    (lines, total)
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
        match (phase, report) {
            (Phase::Abandoned { .. }, report) => self.charge_late(id, report, now),
            // A lost attempt that succeeded after all spares the next one.
            (
                Phase::Running { .. } | Phase::Waiting | Phase::Parked { .. } | Phase::Acquiring { .. },
                Report::Succeeded { usage },
            ) => {
                if let Some(mut request) = self.take(id) {
                    if matches!(request.phase, Phase::Acquiring { .. }) {
                        self.give_back_acquired(&request, false, now);
                        request.phase = Phase::Waiting;
                    }
                    self.finish(request, Finish::used(usage), now);
                }
                ReportOutcome::Ended
            }
            (Phase::Running { .. }, Report::Failed { failure, retry: Retry::No }) => {
                if let Some(request) = self.take(id) {
                    self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                }
                ReportOutcome::Ended
            }
            (Phase::Running { .. }, Report::Failed { failure, retry }) => {
                let pause_ms = match retry {
                    Retry::After { pause_ms } => Some(pause_ms.clamp(0, MAX_PAUSE_MS)),
                    Retry::No | Retry::Backoff => None,
                };
                self.failed_once(id, Status::Failed, failure, pause_ms, now)
            }
            (Phase::Running { .. }, Report::TimedOut) => {
                let failure = Failure { code: "timed_out".into(), message: "the worker did not answer in time".into() };
                self.failed_once(id, Status::TimedOut, failure, None, now)
            }
            _ => ReportOutcome::Ignored,
        }
    }

    fn failed_once(
        &mut self,
        id: &RequestId,
        status: Status,
        failure: Failure,
        pause_ms: Option<i64>,
        now: Instant,
    ) -> ReportOutcome {
        if let Some(request) = self.take(id) {
            self.retry_or_finish(request, status, failure, pause_ms, now);
        }
        if self.requests.contains_key(id) { ReportOutcome::Retrying } else { ReportOutcome::Ended }
    }

    /// After a failed attempt: back to its place after a backoff, or the end.
    pub(super) fn retry_or_finish(
        &mut self,
        mut request: Request,
        status: Status,
        failure: Failure,
        pause_ms: Option<i64>,
        now: Instant,
    ) {
        if let Some(pause_ms) = pause_ms {
            let until = now.plus(pause_ms);
            self.state.paused_until = Some(self.state.paused_until.map_or(until, |before| before.max(until)));
            self.changes.state = true;
        }
        let backoff = backoff_ms(&request.id, request.attempts).max(pause_ms.unwrap_or(0));
        let next = now.plus(backoff);
        if request.expires_at() <= now {
            self.finish(request, Finish { uncertain: true, ..Finish::unused(Status::Expired, Some(failure)) }, now);
        } else if request.attempts >= request.max_attempts {
            let uncertain = status == Status::TimedOut;
            self.finish(request, Finish { uncertain, ..Finish::unused(status, Some(failure)) }, now);
        } else {
            self.release_run(&request, &[], false, false, now);
            let (id, client) = (request.id.clone(), request.client.clone());
            self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client });
            request.phase = Phase::Parked { until: next, cause: Cause::RetryBackoff };
            self.put(request);
        }
    }

    /// Settles the tokens of a run, here and in the other pools.
    fn release_run(&mut self, request: &Request, used: &[Usage], as_reserved: bool, expired: bool, now: Instant) {
        let used_of = |pool: &PoolId, reserved: Tokens| {
            let otherwise = if as_reserved { reserved } else { Tokens::ZERO };
            used.iter().find(|usage| usage.pool == *pool).map_or(otherwise, |usage| usage.amount)
        };
        let (reserved, since) = match request.phase {
            Phase::Running { since, .. } => (request.home_amount(), since),
            _ => (Tokens::ZERO, now),
        };
        let home_used = used_of(&self.config.pool.clone(), request.home_amount());
        if !reserved.is_zero() || !home_used.is_zero() {
            self.settle_tokens(reserved, home_used, since, expired, now);
        }
        let was_started = request.started_grant > 0;
        for demand in request.others() {
            let amount = used_of(&demand.pool, demand.amount);
            let holds = matches!(request.phase, Phase::Running { .. });
            if was_started && (holds || !amount.is_zero()) {
                let key = lease_key(&request.id, request.started_grant);
                self.effects.push(Effect::SettleLease { pool: demand.pool.clone(), key, used: amount });
            }
        }
    }

    /// Ends a request that is out of every index: the tokens go back, the end is recorded, the account is told.
    pub(super) fn finish(&mut self, request: Request, finish: Finish, now: Instant) {
        self.release_run(&request, &finish.used, finish.as_reserved, finish.expired, now);
        let (lines, cost) = bill(&request, &finish.used, finish.as_reserved);
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

    /// A cancelled run reports after all. Its end stands; its use is charged.
    fn charge_late(&mut self, id: &RequestId, report: Report, now: Instant) -> ReportOutcome {
        let Some(request) = self.take(id) else {
            return ReportOutcome::Ignored;
        };
        self.changes.requests.insert(request.id.clone());
        let Report::Succeeded { usage } = report else {
            return ReportOutcome::Ignored;
        };
        self.release_run(&request, &usage, true, false, now);
        let (lines, cost) = bill(&request, &usage, true);
        let end = End { status: Status::Cancelled, failure: None, finished_at: now, lines, cost, uncertain: false };
        self.settle(&request, format!("{id}~late"), &end, now);
        self.changes.late.push(Ended { request, end });
        ReportOutcome::ChargedLate
    }

    /// Cancels a request. Everything that is held for it goes back at once; if it runs, what it turns out to have used
    /// is charged when that is reported.
    pub fn cancel(&mut self, id: &RequestId, only_waiting: bool, now: Instant) -> CancelOutcome {
        self.event(now, |pool| pool.try_cancel(id, only_waiting, now))
    }

    fn try_cancel(&mut self, id: &RequestId, only_waiting: bool, now: Instant) -> CancelOutcome {
        let Some(phase) = self.requests.get(id).map(|request| request.phase.clone()) else {
            return CancelOutcome::Unknown;
        };
        let running = match phase {
            Phase::Abandoned { .. } => return CancelOutcome::Cancelled,
            Phase::Running { .. } if only_waiting => return CancelOutcome::Running,
            Phase::Running { lease_until, .. } => Some(lease_until),
            Phase::Waiting | Phase::Parked { .. } | Phase::Acquiring { .. } => None,
        };
        if let Some(mut request) = self.take(id) {
            if matches!(request.phase, Phase::Acquiring { .. }) {
                self.give_back_acquired(&request, false, now);
                request.phase = Phase::Waiting;
            }
            let mut late = request.clone();
            self.finish(request, Finish::unused(Status::Cancelled, None), now);
            if let Some(lease_until) = running
                && late.kind == Kind::Execution
            {
                late.phase = Phase::Abandoned { lease_until };
                self.put(late);
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
    pub fn consume(
        &mut self,
        id: &RequestId,
        usage: Vec<Usage>,
        last: bool,
        key: Option<UseKey>,
        now: Instant,
    ) -> ReportOutcome {
        self.event(now, |pool| pool.add_use(id, usage, last, key, now))
    }

    fn add_use(
        &mut self,
        id: &RequestId,
        usage: Vec<Usage>,
        last: bool,
        key: Option<UseKey>,
        now: Instant,
    ) -> ReportOutcome {
        if !self.is_open_reservation(id) {
            return ReportOutcome::Ignored;
        }
        if let Some(mut request) = self.take(id) {
            if let Some(key) = key {
                if request.use_keys.len() >= USE_KEYS_MAX {
                    request.use_keys.remove(0);
                }
                request.use_keys.push(key);
            }
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
