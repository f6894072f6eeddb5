//! Reservations: their owner takes the tokens itself, and says what it used.

use crate::id::RequestId;
use crate::pool::finish::Finish;
use crate::pool::{Pool, ReportOutcome};
use crate::request::{Kind, Phase, Status, Usage};
use crate::units::Instant;

impl Pool {
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
                self.raise_hold(&request);
                self.put(request);
            }
        }
        if last { ReportOutcome::Ended } else { ReportOutcome::Retrying }
    }
}
