//! When a request will start, as far as that can be foretold, and what could be taken now.

use std::collections::BTreeSet;

use crate::breaker::Sign;
use crate::id::{ClientId, RequestId, WorkerBinding};
use crate::pool::index::entry;
use crate::pool::state::WorkTime;
use crate::pool::submit::waiting;
use crate::pool::supply::Leave;
use crate::pool::{Pool, Refusal, Submission};
use crate::priority::Tier;
use crate::queue::{Ahead, Flow};
use crate::request::{Cause, Kind, Phase, Request};
use crate::run_time::RunTime;
use crate::token_bucket::Availability;
use crate::units::{Instant, Tokens};

/// The hint when nothing better is known.
pub(super) const RETRY_HINT_MS: i64 = 1_000;

/// The most kinds of work whose run times are known: they are stored with the state at each change.
const WORK_TIMES_MAX: usize = 32;

fn work_key(worker: &WorkerBinding, work: &str) -> String {
    format!("{worker} {work}")
}

impl Pool {
    /// When the tokens for it and for all before it are refilled, as far as they may be taken for it, and nothing of its
    /// own holds it up any more. `None` if that is not a matter of time, or not known.
    pub(super) fn estimated_start(&self, request: &Request, ahead: Ahead, now: Instant) -> Option<Instant> {
        if let Phase::Following { leader } = &request.phase {
            let leader = self.requests.get(leader)?;
            return if leader.is_waiting() { self.estimated_start(leader, ahead, now) } else { Some(now) };
        }
        let slot = if self.lacks_slot(request) { self.slot_free_at(request, now)? } else { now };
        self.ready_at(request, ahead, now).map(|at| at.max(slot))
    }

    /// The same, its client's slots left aside.
    pub(super) fn ready_at(&self, request: &Request, ahead: Ahead, now: Instant) -> Option<Instant> {
        if !self.config.scheduler_running {
            return None;
        }
        let is_free = request.home_amount().is_zero();
        let has_tokens = is_free || matches!(request.phase, Phase::Acquiring { .. });
        let window = match self.is_open_for(request.window().as_ref(), now) {
            Err(opens_at) => [opens_at, request.force_at()].into_iter().flatten().min()?,
            Ok(()) => now,
        };
        // Those that wait for a window have what is there when it opens, one after the other.
        let by_tokens = if has_tokens { now } else { self.tokens_at(&entry(request), ahead, window)? };
        let parked = match request.phase {
            // When that pool has said is over, it is asked again.
            Phase::Parked { until, cause: Cause::SecondaryPool } => {
                request.others_ready_at.map(|at| if at > now { at } else { until })?
            }
            Phase::Parked { until, .. } => until,
            Phase::Acquiring { .. } if request.is_ready() => {
                request.waits_for_tokens_until().map_or(now, |at| at.max(now))
            }
            // Whether another pool has its tokens is not known before that has answered.
            Phase::Acquiring { .. } if !request.others().is_empty() => request.others_ready_at?.max(now),
            _ => now,
        };
        let worker = self.worker_is_tried_at(request, now).unwrap_or(now);
        [by_tokens, parked, window, worker].into_iter().max()
    }

    /// When a request's worker is left alone no more, if it is: its turn to try it comes, or the one whose turn that is has
    /// done so, and the worker is well.
    fn worker_is_tried_at(&self, request: &Request, now: Instant) -> Option<Instant> {
        let worker = request.worker.as_ref()?;
        let breaker = self.state.breakers.get(worker).filter(|breaker| breaker.probes())?;
        if let Some((probe, _)) = breaker.probe() {
            return if *probe == request.id {
                None
            } else {
                Some(self.expected_end(probe, now).unwrap_or_else(|| now.plus(self.run_ms(request))))
            };
        }
        let place = entry(request);
        let goes_first =
            |other: &Flow, _| other.worker.as_ref() == Some(worker) && other.has_failed <= place.has_failed;
        let queue = if request.home_amount().is_zero() { &self.free } else { &self.queue };
        let ahead = queue.ahead_of(&self.config.weights, &self.fairness, &place, now, goes_first).requests;
        let others_go_first =
            place.has_failed && queue.has(|other| goes_first(other, request.tier) && !other.has_failed);
        let tried_at = breaker.opens_until().map_or(now, |until| until.max(now));
        Some(if ahead > 0 || others_go_first { tried_at.plus(self.run_ms(request)) } else { tried_at })
    }

    /// When a request would start that came now, if that is a matter of time: nothing is kept of it.
    ///
    /// # Errors
    /// It would not be taken in, or wait for longer than its lane allows.
    pub fn foretell(&self, submission: Submission, now: Instant) -> Result<Option<Instant>, Refusal> {
        self.admit(&submission, now)?;
        let wait_limit_ms = self.config.lanes.of(submission.urgency).max_wait_ms;
        let request = Request { wait_limit_ms, ..waiting(submission) };
        // Slots are the same for each pool that could be asked.
        let start = self.ready_at(&request, self.ahead_of(&request, now), now);
        match self.too_late(&request, start, now) {
            Some(retry_at) => Err(Refusal::NotNow { retry_at }),
            None => Ok(start),
        }
    }

    /// Whether it has no slot of its client's, and none is known to be free.
    fn lacks_slot(&self, request: &Request) -> bool {
        let asks = matches!(request.phase, Phase::Acquiring { slot: false, .. });
        request.kind == Kind::Execution && (asks || self.blocked.contains_key(&request.client))
    }

    /// When one of its client's slots is free for it, by how long runs take. `None` unless the client's slots are all taken by
    /// runs of this pool, for else that is for other pools to know; and if the client has none.
    fn slot_free_at(&self, request: &Request, now: Instant) -> Option<Instant> {
        let all_here = |running: &&BTreeSet<RequestId>| {
            let slots = request.slots.and_then(|slots| usize::try_from(slots).ok());
            slots.is_some_and(|slots| running.len() >= slots)
        };
        let running = self.running.get(&request.client).filter(all_here)?;
        let mut ends: Vec<Instant> = running.iter().filter_map(|id| self.expected_end(id, now)).collect();
        ends.sort_unstable();
        let place = entry(request);
        let flow = place.flow();
        let may_go = |other: &Flow| {
            other.worker.as_ref().is_none_or(|worker| self.lets_through(worker, now))
                && self.is_open_for(other.off_peak.as_ref(), now).is_ok()
        };
        let own =
            |other: &Flow, _| other.client == request.client && other.needs_slot && (*other == flow || may_go(other));
        let ahead = self.queue.ahead_of(&self.config.weights, &self.fairness, &place, now, own).requests;
        // The slots that are free first go to those before it, and come free again after as many runs.
        let rounds = ahead.checked_div(ends.len()).and_then(|rounds| i64::try_from(rounds).ok()).unwrap_or(0);
        let turn = ahead.checked_rem(ends.len()).and_then(|index| ends.get(index)).copied().unwrap_or(now);
        Some(turn.plus(rounds.saturating_mul(self.run_ms(request))))
    }

    fn expected_end(&self, id: &RequestId, now: Instant) -> Option<Instant> {
        let request = self.requests.get(id)?;
        let Phase::Running { started_at, .. } = request.phase else { return None };
        Some(started_at.plus(self.run_ms(request)).max(now))
    }

    /// How long runs like this one took so far: of its worker for its kind of work, or else for any.
    fn run_time(&self, request: &Request) -> Option<&RunTime> {
        let worker = request.worker.as_ref()?;
        let of_work = request.work.as_ref().and_then(|work| self.state.work_times.get(&work_key(worker, work)));
        of_work.map(|known| &known.time).or_else(|| self.state.run_times.get(worker))
    }

    /// How long a run takes: as long as they took so far, or half of its limit while nothing is known.
    fn run_ms(&self, request: &Request) -> i64 {
        let limit_ms = request.timeout_ms;
        self.run_time(request).map_or(limit_ms >> 1, RunTime::mean_ms).min(limit_ms)
    }

    /// How long a request takes from the start of the step that it is at, if it never waits in between: as long as runs took
    /// so far, or half of their limits; and how long hardly any takes, or all of their limits.
    pub(super) fn whole_run_ms(&self, request: &Request) -> (i64, i64) {
        let step = |known: Option<&RunTime>, limit_ms: i64| {
            let (usual, most) = known.map_or((limit_ms >> 1, limit_ms), |known| (known.mean_ms(), known.bound_ms()));
            (usual.min(limit_ms), most.min(limit_ms))
        };
        let of_worker = |worker: &Option<WorkerBinding>| worker.as_ref().and_then(|one| self.state.run_times.get(one));
        let later = request.later.iter().map(|later| step(of_worker(&later.worker), later.timeout_ms));
        later.fold(step(self.run_time(request), request.timeout_ms), |(usual, most), (one, at_most)| {
            (usual.saturating_add(one), most.saturating_add(at_most))
        })
    }

    /// How long hardly any run takes, if one has ended.
    pub(super) fn run_bound_ms(&self, request: &Request) -> Option<i64> {
        self.run_time(request).map(RunTime::bound_ms)
    }

    /// What it says of a worker that an attempt in this phase was not answered in time. Nothing, if it had less time than
    /// runs take, or, while none has succeeded, less than its own limit for its deadline's sake: whoever waits for too
    /// short a time is not to make others wait.
    pub(super) fn sign_of_silence(&self, request: &Request, phase: &Phase) -> Sign {
        let Phase::Running { started_at, .. } = phase else { return Sign::Neither };
        let needed_ms = self.run_time(request).map_or(request.timeout_ms, RunTime::mean_ms);
        if request.attempt_limit_ms(*started_at) < needed_ms { Sign::Neither } else { Sign::Failed }
    }

    /// A run took so long, and ended then or was given up.
    pub(super) fn learn_run_time(
        &mut self,
        worker: WorkerBinding,
        work: Option<&str>,
        (ms, ended): (i64, bool),
        now: Instant,
    ) {
        let learn = |time: &mut RunTime| if ended { time.observe(ms) } else { time.observe_unended(ms) };
        if let Some(work) = work {
            let at = now.millis();
            let times = &mut self.state.work_times;
            let key = work_key(&worker, work);
            if let Some(known) = times.get_mut(&key) {
                learn(&mut known.time);
                known.at = at;
            } else if ended {
                times.insert(key, WorkTime { time: RunTime::first(ms), at });
            }
            let oldest = times.iter().min_by_key(|(_, known)| known.at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| times.len() > WORK_TIMES_MAX) {
                times.remove(&oldest);
            }
        }
        if let Some(known) = self.state.run_times.get_mut(&worker) {
            learn(known);
        } else if ended {
            self.state.run_times.insert(worker, RunTime::first(ms));
        }
        self.changes.state = true;
    }

    /// Notes when a request is expected to start that does not at once.
    pub(super) fn foretell_start(&mut self, id: &RequestId, now: Instant) {
        let waits = |request: &&Request| {
            request.kind == Kind::Execution
                && request.first_started_at.is_none()
                && request.expected_start.is_none()
                && request.is_waiting()
        };
        let Some(request) = self.requests.get(id).filter(waits) else { return };
        let expected = self.estimated_start(request, self.ahead_of(request, now), now);
        if let Some(request) = self.requests.get_mut(id) {
            request.expected_start = expected;
        }
    }

    /// When to come again, if a request would start later than its lane allows.
    pub(super) fn starts_too_late(&self, id: &RequestId, now: Instant) -> Option<Instant> {
        let request = self.requests.get(id)?;
        // A slot of which it is not known when it is free is no reason.
        let slot = if self.lacks_slot(request) { self.slot_free_at(request, now) } else { None };
        let ready_at = self.ready_at(request, self.ahead_of(request, now), now);
        self.too_late(request, ready_at.map(|at| slot.map_or(at, |slot| at.max(slot))), now)
    }

    fn too_late(&self, request: &Request, start: Option<Instant>, now: Instant) -> Option<Instant> {
        let last = latest_start(request)?;
        match start {
            Some(start) => come_again(start, last, now),
            // Nothing is refilled, and less is out than it needs: it would wait in vain.
            None if self.config.scheduler_running && !self.could_come_back(request.home_amount(), now) => Some(last),
            None => None,
        }
    }

    /// The same for one that comes without a slot, by its slot alone.
    pub(super) fn slot_too_late(&self, id: &RequestId, now: Instant) -> Option<Instant> {
        let request = self.requests.get(id)?;
        let last = latest_start(request)?;
        match self.slot_free_at(request, now) {
            Some(free_at) => come_again(free_at, last, now),
            None => (request.slots == Some(0)).then_some(last),
        }
    }

    /// Whether there would be this much if all that is out came back unused.
    fn could_come_back(&self, amount: Tokens, now: Instant) -> bool {
        let ledger = self.state.ledger;
        let settled = ledger.consumed.saturating_add(ledger.released).saturating_add(ledger.expired);
        let out = Tokens::clamped(ledger.reserved.saturating_sub(settled));
        amount.saturating_add(self.state.bucket.debt()) <= self.available(now).saturating_add(out)
    }

    /// The most that can ever be taken at once; see [`Self::wait_for`].
    #[must_use]
    pub fn reach_of(&self, for_whom: Option<(&ClientId, Tier)>) -> Tokens {
        for_whom.map_or(self.config.limits.capacity, |(client, tier)| self.reach(self.partition_of(client, tier)))
    }

    /// When an amount could be taken, if nobody waited for it: `Ok(0)` is now. `for_whom` is a client and its tier: what is
    /// set aside for others is not there for them, nor what the members of another partition wait for. Without it, all that
    /// is there counts.
    ///
    /// # Errors
    /// `Some` is not by waiting; `None` is more than can ever be had.
    pub fn wait_for(
        &self,
        amount: Tokens,
        for_whom: Option<(&ClientId, Tier)>,
        now: Instant,
    ) -> Result<i64, Availability> {
        let supply = self.supply_at(now);
        let paused_ms = self.state.paused_until.map_or(0, |until| until.since(now));
        let availability = match for_whom {
            None => supply.bucket.availability(&supply.throttle.apply(&self.config.limits), amount, now),
            Some((client, tier)) => {
                let own = self.partition_of(client, tier);
                self.availability_of(&supply, amount, own, &self.wanted(now), &Leave::default(), now)
            }
        };
        match availability {
            Availability::Now => Ok(paused_ms),
            Availability::At(at) => Ok(at.since(now).max(paused_ms)),
            other => Err(other),
        }
    }
}

/// By when a request must start, if its lane has a limit.
fn latest_start(request: &Request) -> Option<Instant> {
    let limit = request.wait_limit_ms.filter(|_| request.kind == Kind::Execution)?;
    Some(request.enqueued_at.plus(limit))
}

/// When to come again for a start that is expected after the last moment for it.
fn come_again(start: Instant, last: Instant, now: Instant) -> Option<Instant> {
    (start > last).then(|| now.plus(start.since(last).max(RETRY_HINT_MS)))
}
