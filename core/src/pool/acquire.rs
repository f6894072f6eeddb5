//! Between the home pool's tokens and the start: the client's slot, then the other pools, one by one in the order of
//! their names. All or nothing: whatever is refused gives back everything that was taken before, and the request returns
//! to its place in the queue.

use crate::account::SlotAnswer;
use crate::breaker::Sign;
use crate::id::{ClientId, PoolId, RequestId};
use crate::pool::elsewhere::{RECHECK_MS, asks_again_at, kept_word};
use crate::pool::finish::Finish;
use crate::pool::grant::weight_of;
use crate::pool::index::queue_elsewhere;
use crate::pool::lease::lease_key;
use crate::pool::timer::Timer;
use crate::pool::{Effect, LeaseEnd, Pool, Signal};
use crate::request::{Cause, Failure, Kind, Phase, RUN_GRACE_MS, Request, Status};
use crate::units::{Instant, Tokens};

/// When to ask an account again whether a slot is free, in case the news got lost.
const SLOT_RECHECK_MS: i64 = 5_000;
/// When to ask an account again that did not answer.
const ACCOUNT_RECHECK_MS: i64 = 1_000;

/// What another pool said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The tokens are leased.
    Granted {
        /// How long that pool would take to have them again, were they given back, in milliseconds.
        regain_ms: i64,
    },
    /// They would be, but it was only asked whether: they are kept for a while.
    Ready,
    /// Not now.
    NotNow {
        /// When to ask again, if that is known.
        retry_at: Option<Instant>,
        /// When it should be granted, by what waits before it, if that is a matter of time.
        ready_at: Option<Instant>,
    },
    /// Its worker keeps failing, and is left alone by that pool.
    LeftAlone {
        /// When it may be tried, if that is known: one that tries it may be under way.
        until: Option<Instant>,
    },
    /// More than that pool can hold.
    Never,
    /// It did not answer; it may have leased them.
    Unreachable,
}

impl LeaseAnswer {
    /// Whether the tokens are leased.
    #[must_use]
    pub const fn is_granted(&self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

/// An execution that is to be run.
pub(super) struct Started {
    pub id: RequestId,
    pub grant: u32,
    pub attempt: u32,
    pub limit_ms: i64,
}

impl Pool {
    /// Asks for what is still missing, or starts.
    pub(super) fn acquire_next(&mut self, mut request: Request, now: Instant) {
        let Phase::Acquiring { slot, leased, .. } = request.phase else {
            self.put(request);
            return;
        };
        let id = request.id.clone();
        let grant = request.grants;
        if request.kind == Kind::Execution && !slot {
            let (client, least_hold) = (request.client.clone(), request.least_hold());
            let rank = self.config.weights.rank_in_client(request.rank_urgency(), request.enqueued_at);
            self.effects.push(Effect::AcquireSlot { id, grant, client, least_hold, rank });
            self.put(request);
            return;
        }
        if let Some(demand) = request.others().get(leased) {
            let order = self.order_for(&request, demand, false, now);
            self.standings.order_tells(&demand.pool, &order);
            self.effects.push(Effect::AcquireLease { id, grant, pool: demand.pool.clone(), order });
            request.asked_at = Some(now);
            self.put(request);
            return;
        }
        if request.is_ready() {
            // It is started with others, at the end of the event.
            self.put(request);
            return;
        }
        if let Some(Started { id, grant, attempt, limit_ms }) = self.start(request, now) {
            self.effects.push(Effect::Start { id, grant, attempt, limit_ms });
        }
    }

    /// Starts a request that has all that it needs. An execution is still to be run; `None` if there is no time left for
    /// it, and for a reservation.
    pub(super) fn start(&mut self, mut request: Request, now: Instant) -> Option<Started> {
        let Phase::Acquiring { since, .. } = request.phase else {
            self.put(request);
            return None;
        };
        let (id, grant) = (request.id.clone(), request.grants);
        if request.leases_may_be_over(now) {
            self.put(request);
            self.give_up_acquiring(&id, true, None, Some(now), now);
            return None;
        }
        let limit_ms = request.attempt_limit_ms(now);
        if request.expires_at() <= now && request.kind == Kind::Execution {
            self.give_back_acquired(&request, true, LeaseEnd::Over, now);
            let failure = Failure { code: "expired".into(), message: request.why_expired(now).into() };
            request.phase = Phase::Waiting;
            self.finish(request, Finish::unused(Status::Expired, Some(failure)), now);
            return None;
        }
        let waited_since = self.waited_for_window(&mut request, since);
        for demand in &mut request.demands {
            demand.price_at(now, waited_since);
        }
        request.attempts = request.attempts.saturating_add(1);
        request.started_grant = grant;
        (request.others_regain_ms, request.idle_wakes, request.sign) = (0, 0, Sign::Neither);
        request.promises.clear();
        request.step_started_at = request.step_started_at.or(Some(now));
        if request.first_started_at.is_none() {
            request.first_started_at = Some(now);
            self.compare_start(&request, now);
        }
        let attempt = request.attempts;
        let started = match request.kind {
            Kind::Execution => {
                let lease_until = now.plus(limit_ms).plus(RUN_GRACE_MS);
                request.phase = Phase::Running { since, started_at: now, lease_until };
                self.followers_start(&request, now);
                Some(Started { id: id.clone(), grant, attempt, limit_ms })
            }
            Kind::Reservation => {
                let lease_until = now.plus(request.timeout_ms);
                request.phase = Phase::Running { since, started_at: now, lease_until };
                self.effects.push(Effect::Reserved { id: id.clone(), expires_at: lease_until });
                None
            }
        };
        self.put(request);
        // Those that are the same and could not wait for one that waited itself.
        self.lead_those_that_wait(&id, now);
        started
    }

    /// Compares a first start with what was foretold, if the request had to wait.
    fn compare_start(&mut self, request: &Request, now: Instant) {
        let Some(expected) = request.expected_start else { return };
        let foretold = &mut self.state.foretold;
        let error = now.since(expected).max(expected.since(now));
        foretold.count = foretold.count.saturating_add(1);
        foretold.error_ms = foretold.error_ms.saturating_add(error);
        foretold.late = foretold.late.saturating_add(u64::from(now > expected));
        self.changes.state = true;
    }

    /// The account answered an [`Effect::AcquireSlot`]; `None` is no answer.
    pub fn slot_answered(&mut self, id: &RequestId, grant: u32, answer: Option<SlotAnswer>, now: Instant) {
        self.event(now, |pool| pool.take_slot_answer(id, grant, answer, now));
    }

    fn take_slot_answer(&mut self, id: &RequestId, grant: u32, answer: Option<SlotAnswer>, now: Instant) {
        let Some(request) = self.requests.get(id) else { return };
        let client = request.client.clone();
        let current = (request.grants == grant).then(|| request.phase.clone());
        match (current, answer) {
            (Some(Phase::Acquiring { since, slot: false, leased, .. }), Some(SlotAnswer::Granted)) => {
                self.question_answered(&client, true);
                if let Some(mut request) = self.take(id) {
                    request.phase = Phase::Acquiring { since, slot: true, leased, woken: false };
                    self.acquire_next(request, now);
                }
            }
            (Some(Phase::Acquiring { slot: false, woken, .. }), Some(SlotAnswer::Full)) => {
                self.question_answered(&client, false);
                self.give_up_acquiring(id, true, None, None, now);
                if !woken {
                    self.block(client, now.plus(SLOT_RECHECK_MS));
                    self.wants_nothing_more(id);
                }
            }
            (Some(Phase::Acquiring { slot: false, .. }), Some(SlotAnswer::NoHold)) => {
                if let Some(mut request) = self.take(id) {
                    self.give_back_acquired(&request, true, LeaseEnd::Over, now);
                    request.phase = Phase::Waiting;
                    let failure = Failure {
                        code: "not_admitted".into(),
                        message: "nothing is held for it: its admission was taken back".into(),
                    };
                    self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                }
            }
            (Some(Phase::Acquiring { slot: false, .. }), None) => self.account_is_silent(id, now),
            (Some(Phase::Running { .. } | Phase::Acquiring { .. }), _) => {}
            (_, Some(SlotAnswer::Granted)) => {
                self.effects.push(Effect::ReleaseSlot { id: id.clone(), grant, client, ended: false });
            }
            _ => {}
        }
    }

    /// An account did not answer: its client is left alone for a while, and so is this request.
    pub(super) fn account_is_silent(&mut self, id: &RequestId, now: Instant) {
        let until = now.plus(ACCOUNT_RECHECK_MS);
        let asks = |request: &&Request| matches!(request.phase, Phase::Acquiring { slot: false, .. });
        let asked = self.requests.get(id).filter(asks).filter(|request| request.kind == Kind::Execution);
        if let Some(client) = asked.map(|request| request.client.clone()) {
            self.block(client, until);
        }
        self.give_up_acquiring(id, false, Some(until), None, now);
    }

    fn block(&mut self, client: ClientId, recheck: Instant) {
        if let Some(before) = self.blocked.insert(client.clone(), recheck) {
            self.timers.remove(&(before, Timer::Unblock(client.clone())));
        }
        self.timers.insert((recheck, Timer::Unblock(client)));
    }

    /// The account says that this client has a slot free.
    pub fn client_woken(&mut self, client: &ClientId, now: Instant) {
        self.event(now, |pool| pool.unblock(client));
    }

    pub(super) fn unblock(&mut self, client: &ClientId) {
        if let Some(recheck) = self.blocked.remove(client) {
            self.timers.remove(&(recheck, Timer::Unblock(client.clone())));
        }
        for id in self.acquiring(client) {
            if let Some(Request { phase: Phase::Acquiring { slot: false, woken, .. }, .. }) = self.requests.get_mut(&id)
            {
                *woken = true;
            }
        }
    }

    /// Another pool answered an [`Effect::AcquireLease`].
    pub fn lease_answered(&mut self, id: &RequestId, grant: u32, pool: &PoolId, answer: LeaseAnswer, now: Instant) {
        self.event(now, |home| home.take_lease_answer(id, grant, pool, answer, now));
    }

    fn take_lease_answer(&mut self, id: &RequestId, grant: u32, pool: &PoolId, answer: LeaseAnswer, now: Instant) {
        let asked = self.requests.get(id).is_some_and(|request| {
            let Phase::Acquiring { leased, .. } = request.phase else {
                return false;
            };
            request.grants == grant && request.others().get(leased).is_some_and(|demand| demand.pool == *pool)
        });
        if !asked && self.is_inquired(id, grant, pool) {
            self.take_inquiry_answer(id, pool, answer, now);
            return;
        }
        if !asked {
            let still_held = self.requests.get(id).is_some_and(|request| {
                request.grants == grant && matches!(request.phase, Phase::Running { .. } | Phase::Acquiring { .. })
            });
            if answer.is_granted() && !still_held {
                let waits = self.requests.get(id).is_some_and(Request::is_waiting);
                self.effects.push(Effect::SettleLease {
                    pool: pool.clone(),
                    key: lease_key(id, grant),
                    used: Tokens::ZERO,
                    end: if waits { LeaseEnd::Returns { needed_at: Some(now) } } else { LeaseEnd::Over },
                    signal: Signal::default(),
                });
            }
            return;
        }
        if let Some(request) = self.requests.get_mut(id) {
            request.others_ready_at = if let LeaseAnswer::NotNow { ready_at, .. } = answer { ready_at } else { None };
            request.refused_by = Some(pool.clone()).filter(|_| !answer.is_granted());
            request.stood_back_at.take_if(|at| at == pool);
        }
        let queue = self.requests.get(id).and_then(queue_elsewhere);
        match answer {
            LeaseAnswer::Granted { regain_ms } => {
                if let Some(mut request) = self.take(id) {
                    request.others_regain_ms = request.others_regain_ms.max(regain_ms);
                    request.promises.remove(pool);
                    if let Phase::Acquiring { leased, woken, .. } = &mut request.phase {
                        *leased = leased.saturating_add(1);
                        *woken = false;
                    }
                    self.acquire_next(request, now);
                }
                if let Some(queue) = queue {
                    self.had_enough(&queue, now);
                }
            }
            LeaseAnswer::NotNow { retry_at, ready_at } => {
                if let Some(amount) = self.requests.get(id).and_then(|request| Some(request.awaits()?.amount)) {
                    self.had_not_enough(pool, amount);
                }
                let until =
                    self.requests.get(id).and_then(|request| self.waits_elsewhere_until(request, retry_at, now));
                let promised = self.requests.get_mut(id).and_then(|request| kept_word(request, pool, ready_at));
                let needed_at = if until.is_none() { Some(now) } else { promised };
                self.give_up_acquiring(id, true, until, needed_at, now);
                self.foretell_start(id, now);
            }
            LeaseAnswer::LeftAlone { until } => {
                let enqueued_at = self.requests.get(id).map_or(now, |request| request.enqueued_at);
                self.give_up_acquiring(id, true, Some(asks_again_at(until, None, enqueued_at, now)), None, now);
                if let Some(request) = self.requests.get_mut(id) {
                    request.left_alone = true;
                }
                self.wants_nothing_more(id);
            }
            // That is the answer to an inquiry.
            LeaseAnswer::Ready => self.give_up_acquiring(id, false, None, Some(now), now),
            LeaseAnswer::Unreachable => {
                self.give_up_acquiring(id, false, Some(now.plus(RECHECK_MS)), None, now);
            }
            LeaseAnswer::Never => {
                if let Some(mut request) = self.take(id) {
                    self.give_back_acquired(&request, true, LeaseEnd::Over, now);
                    request.phase = Phase::Waiting;
                    let failure = Failure {
                        code: "unsatisfiable".into(),
                        message: format!("it needs more than the pool `{pool}` can hold now"),
                    };
                    self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
                }
            }
        }
    }

    /// Gives back everything that a grant took so far. What is asked for and not answered may have been granted, so it
    /// is given back as well, unless `refused` says that the answer was no. `end` is what becomes of the leases.
    pub(super) fn give_back_acquired(&mut self, request: &Request, refused: bool, end: LeaseEnd, now: Instant) {
        let Phase::Acquiring { since, leased, slot, .. } = request.phase else {
            return;
        };
        self.settle_tokens(self.taken_by(request, request.home_amount(), since), Tokens::ZERO, false, now);
        if !request.home_amount().is_zero() {
            self.note_gave_back(end != LeaseEnd::Over);
        }
        self.fairness.forget(&request.client, weight_of(request));
        self.turn_came_to_nothing(request);
        self.judge(request, Sign::Neither, now);
        let slot_is_asked = request.kind == Kind::Execution && !slot;
        let in_flight = usize::from(!refused && !slot_is_asked);
        let is_last = end == LeaseEnd::Over && request.kind == Kind::Execution;
        let told = if is_last { request.others().len() } else { leased.saturating_add(in_flight) };
        self.end_leases(request, told, end);
        if request.kind == Kind::Execution && (slot || !refused) {
            let (id, client) = (request.id.clone(), request.client.clone());
            self.effects.push(Effect::ReleaseSlot { id, grant: request.grants, client, ended: false });
        }
    }

    /// Gives up a grant. An execution returns to its place, at once or at `park_until`; a reservation is refused. The pools
    /// that leased their tokens are told when they will be `needed_at`, if that is known.
    pub(super) fn give_up_acquiring(
        &mut self,
        id: &RequestId,
        refused: bool,
        park_until: Option<Instant>,
        needed_at: Option<Instant>,
        now: Instant,
    ) {
        let Some(mut request) = self.take(id) else {
            return;
        };
        let Phase::Acquiring { slot, leased, .. } = request.phase else {
            self.put(request);
            return;
        };
        let end = if request.kind == Kind::Reservation { LeaseEnd::Over } else { LeaseEnd::Returns { needed_at } };
        self.give_back_acquired(&request, refused, end, now);
        if request.kind == Kind::Reservation {
            self.effects.push(Effect::ReservationRefused { id: id.clone(), retry_at: park_until });
            self.changes.dropped.push(request.id);
            return;
        }
        let cause = if slot { Cause::SecondaryPool } else { Cause::Concurrency };
        if slot && request.refused_by.is_none() {
            request.refused_by = request.others().get(leased).map(|demand| demand.pool.clone());
        }
        request.phase = park_until.map_or(Phase::Waiting, |until| Phase::Parked { until, cause });
        self.put(request);
        self.let_go_of_followers(id, now);
        self.follow_the_same_that_runs(id, now);
    }
}
