//! Cancellation.

use crate::breaker::Sign;
use crate::id::RequestId;
use crate::pipeline::{merged, total};
use crate::pool::finish::{Finish, Used, bill};
use crate::pool::{Effect, Ended, LeaseEnd, Pool, Report, ReportOutcome};
use crate::request::{End, Kind, Phase, Request, Status};
use crate::units::Instant;

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
impl Pool {
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
            Some(report) => (None, Vec::new(), report.timed_out()),
            None => (None, Vec::new(), true),
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
        self.changes.late.push(Ended { request, end, result_of: None });
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
        let (id, ended) = (request.id.clone(), end.clone());
        self.changes.ended.push(Ended { request: request.clone(), end, result_of: None });
        self.put(request);
        self.end_followers(&id, &ended, false, now);
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
            // The run that it waits for is its own.
            (Phase::Following { .. }, _) if only_waiting && request.first_started_at.is_some() => {
                return CancelOutcome::Running;
            }
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
                    self.give_back_acquired(&request, false, LeaseEnd::Over, now);
                    request.phase = Phase::Waiting;
                } else {
                    self.order_nothing_more(&request);
                }
                self.finish(request, Finish::unused(Status::Cancelled, None), now);
            }
        }
        CancelOutcome::Cancelled
    }
}
