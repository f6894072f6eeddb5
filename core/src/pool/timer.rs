//! What is due when.

use crate::breaker::Sign;
use crate::id::{ClientId, RequestId};
use crate::optimizer::Strategy;
use crate::pool::{Pool, Signal};
use crate::request::{ACQUIRE_LIMIT_MS, Cause, Failure, Kind, Phase, Request, Status};
use crate::units::Instant;

use super::finish::Finish;

/// The first wait before a settlement is sent again; it doubles up to a minute.
const SETTLE_RETRY_MS: i64 = 1_000;
/// So many settlements of one moment are sent at once, the others in as large parts after it: those of several events too,
/// for the reports of a common call come one after the other.
const SETTLED_AT_ONCE: usize = 16;
/// How long the next part waits.
const SETTLED_EVERY_MS: i64 = 100;

/// What is due at a moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request has waited too long.
    Expire(RequestId),
    /// A deferred request can wait for its window no longer.
    Force(RequestId),
    /// A parked request comes back.
    Unpark(RequestId),
    /// One that is ready waits no longer for others to have their tokens, or their answers.
    Join(RequestId),
    /// A grant has been acquiring for too long.
    Acquire(RequestId),
    /// Nobody reported.
    Run(RequestId),
    /// A lease of a request with another home ran out.
    Lease(String),
    /// Ask a client's account again.
    Unblock(ClientId),
    /// Send a settlement (again).
    Settle(String),
}

/// The timers that a request has in its phase.
pub(super) fn of_request(request: &Request) -> [Option<(Instant, Timer)>; 3] {
    let id = || request.id.clone();
    let expire = || Some((request.expires_at(), Timer::Expire(id())));
    let force = || request.force_at().map(|at| (at, Timer::Force(id())));
    match request.phase {
        Phase::Waiting => [expire(), force(), None],
        Phase::Following { .. } => [expire(), None, None],
        Phase::Parked { until, .. } => [expire(), force(), Some((until, Timer::Unpark(id())))],
        Phase::Acquiring { since, .. } => {
            let join = |at| (at, Timer::Join(id()));
            let acquire = (since.plus(ACQUIRE_LIMIT_MS), Timer::Acquire(id()));
            [Some(acquire), request.waits_for_tokens_until().map(join), request.waits_for_answers_until().map(join)]
        }
        Phase::Running { lease_until, .. } | Phase::Abandoned { lease_until } => {
            [Some((lease_until, Timer::Run(id()))), None, None]
        }
    }
}

impl Request {
    /// Why it ends as expired.
    pub(super) fn why_expired(&self, now: Instant) -> &'static str {
        match (self.deadline.filter(|deadline| *deadline <= now), self.wait_limit_ms) {
            (Some(_), _) => "it was not finished by its deadline",
            (None, Some(_)) if self.first_started_at.is_none() => "it waited for longer than its lane allows",
            (None, _) => "it waited for longer than any request may",
        }
    }
}

impl Pool {
    /// Refills the bucket, and lets everything happen that was due by `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        self.refill(now);
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let Some((_, timer)) = self.timers.pop_first() else {
                break;
            };
            match timer {
                Timer::Expire(id) => self.expire(&id, now),
                Timer::Force(id) => self.force(&id),
                Timer::Unpark(id) => self.park_is_over(&id, now),
                // It is started at the end of the event.
                Timer::Join(_) => {}
                Timer::Acquire(id) if self.requests.get(&id).is_some_and(Request::is_ready) => {
                    self.start_ready(&id, now);
                }
                Timer::Acquire(id) => self.account_is_silent(&id, now),
                Timer::Run(id) => self.run_lost(&id, now),
                Timer::Lease(key) => self.lease_ran_out(&key, now),
                Timer::Unblock(client) => {
                    self.blocked.remove(&client);
                }
                Timer::Settle(event) => self.send_settlement(event, now),
            }
        }
        self.orders.forget_late(now);
        if self.state.paused_until.is_some_and(|until| until <= now) {
            self.state.paused_until = None;
        }
    }

    fn expire(&mut self, id: &RequestId, now: Instant) {
        if let Some(request) = self.take(id) {
            self.order_nothing_more(&request);
            let failure = Failure { code: "expired".into(), message: request.why_expired(now).into() };
            self.finish(request, Finish::unused(Status::Expired, Some(failure)), now);
        }
    }

    fn force(&mut self, id: &RequestId) {
        if let Some(mut request) = self.take(id) {
            request.forced = true;
            self.put(request);
        }
    }

    /// One that waited for others does not do so alone.
    fn park_is_over(&mut self, id: &RequestId, now: Instant) {
        let gathers = self
            .requests
            .get(id)
            .filter(|request| matches!(request.phase, Phase::Parked { cause: Cause::Batching, .. }));
        match gathers.and_then(|request| request.batch_key().map(str::to_owned)) {
            Some(key) => self.end_gathering(&key),
            None => self.inquire_or_return(id, now),
        }
    }

    pub(super) fn unpark(&mut self, id: &RequestId) {
        if let Some(mut request) = self.take(id) {
            request.phase = Phase::Waiting;
            self.put(request);
        }
    }

    /// The lease of a run is over and nobody reported: the one who ran it is gone, or never was.
    fn run_lost(&mut self, id: &RequestId, now: Instant) {
        let Some(mut request) = self.take(id) else { return };
        // Of a common call all are lost: that is no sign for each of them.
        let together = request.applied.iter().any(|applied| applied.strategy == Strategy::RequestBatching);
        if matches!(request.phase, Phase::Running { .. }) {
            request.sign = if together { Sign::Neither } else { self.sign_of_silence(&request, &request.phase) };
            self.judge(&request, request.sign, now);
        }
        match (&request.phase, request.kind) {
            (Phase::Abandoned { .. }, _) => {
                self.close_abandoned(request, None, now);
            }
            (_, Kind::Reservation) => {
                let finish = Finish {
                    status: Status::Expired,
                    failure: None,
                    used: request.used.clone(),
                    as_reserved: false,
                    uncertain: request.used.is_empty(),
                    expired: true,
                    remaining: Vec::new(),
                };
                self.finish(request, finish, now);
            }
            (_, Kind::Execution) => {
                let failure = Failure {
                    code: "attempt_lost".into(),
                    message: "the attempt did not report within its time limit".into(),
                };
                self.retry_or_finish(request, Status::TimedOut, failure, &Signal::default(), now);
                // Whose fault it was is not known: of a common call the others are not to be lost by it again.
                if together && let Some(request) = self.requests.get_mut(id) {
                    request.set_apart();
                }
            }
        }
    }

    /// Sends a settlement, and again until it is confirmed. Of many in one event some wait for their turn: an event may make
    /// so many calls only.
    pub(super) fn send_settlement(&mut self, event: String, now: Instant) {
        let Some((tries, next_at)) = self.unsettled.get_mut(&event) else {
            return;
        };
        let (_, before) = Some(self.settling).filter(|(at, _)| *at == now).unwrap_or((now, 0));
        let part = before.checked_div(SETTLED_AT_ONCE).and_then(|part| i64::try_from(part).ok()).unwrap_or(0);
        self.settling = (now, before.saturating_add(1));
        if part > 0 {
            *next_at = now.plus(part.saturating_mul(SETTLED_EVERY_MS));
            self.timers.insert((*next_at, Timer::Settle(event)));
            return;
        }
        let wait = SETTLE_RETRY_MS.saturating_mul(1_i64.checked_shl((*tries).min(6)).unwrap_or(64)).min(60_000);
        *tries = tries.saturating_add(1);
        *next_at = now.plus(wait);
        self.timers.insert((*next_at, Timer::Settle(event.clone())));
        self.effects.push(super::Effect::Settle { event });
    }

    /// The account has a settlement.
    pub fn settlement_confirmed(&mut self, event: &str, now: Instant) {
        self.event(now, |pool| {
            if let Some((_, next_at)) = pool.unsettled.remove(event) {
                pool.timers.remove(&(next_at, Timer::Settle(event.to_owned())));
                pool.changes.settled.push(event.to_owned());
            }
        });
    }
}
