//! Requests whose result is there already, or about to be: a result that was kept, and the same request in flight.

use std::collections::BTreeSet;

use crate::id::RequestId;
use crate::optimizer::{Applied, Strategy};
use crate::pipeline::merged;
use crate::pool::finish::Finish;
use crate::pool::submit::{SUBMIT_LIMIT_MS, waiting};
use crate::pool::{Effect, Ended, Pool, Refusal, Submission, Submitted};
use crate::request::{Cause, End, Failure, Line, Phase, Request, Status, Usage};
use crate::units::{Instant, NanoUsd, Tokens};

/// The most requests that wait for one: each has an end in the event of its end.
const FOLLOWERS_MAX: usize = 128;
/// The most of those that are the same that are looked at.
const LEADERS_MAX: usize = 64;

impl Pool {
    /// Takes a request in that ends at once, with a result that was kept. It needs no tokens, no slot and no place in the
    /// queue. `usage` is what it would have used.
    pub fn serve(&mut self, submission: Submission, usage: &[Usage], detail: String, now: Instant) -> Submitted {
        self.event(now, |pool| {
            if pool.requests.contains_key(&submission.id) {
                return Submitted::Existing;
            }
            if now.since(submission.held_at) > SUBMIT_LIMIT_MS {
                return Submitted::Refused(Refusal::Stale);
            }
            let mut request = waiting(submission);
            if request.deadline.is_some_and(|deadline| deadline < now) {
                let failure = Failure { code: "expired".into(), message: request.why_expired(now).into() };
                pool.finish(request, Finish::unused(Status::Expired, Some(failure)), now);
                return Submitted::Accepted;
            }
            request.applied.push(Applied { strategy: Strategy::Cache, detail, saved_bytes: 0 });
            // It waits for nothing: without its result it would be run at the price of now.
            let lines = spared_lines(&mut request, usage.to_vec(), Strategy::Cache, (now, None));
            pool.end_without_run(request, lines, None, now);
            Submitted::Accepted
        })
    }

    fn end_without_run(&mut self, request: Request, lines: Vec<Line>, result_of: Option<RequestId>, now: Instant) {
        let end = End {
            status: Status::Succeeded,
            failure: None,
            finished_at: now,
            lines,
            cost: NanoUsd::ZERO,
            uncertain: false,
        };
        self.settle(&request, request.id.as_str().to_owned(), &end, now);
        self.effects.push(Effect::Finished { id: request.id.clone() });
        self.changes.requests.remove(&request.id);
        self.changes.ended.push(Ended { request, end, result_of });
    }

    /// Has a new request wait for the same one that is in flight, if there is one that is not behind it.
    pub(super) fn follow(&mut self, request: &mut Request, now: Instant) {
        let Some(leader) = self.leader_for(request, now) else { return };
        if matches!(leader.phase, Phase::Running { .. }) {
            request.first_started_at = Some(now);
        }
        waits_for(request, leader.id.clone());
    }

    /// A request does not wait for those that are the same and wait, for it goes before them or waits in no such place: they
    /// wait for it, with those that wait for them. Whether there are any.
    pub(super) fn lead_those_that_wait(&mut self, id: &RequestId, now: Instant) -> bool {
        let may_lead = |one: &&Request| one.twin.is_some() && !matches!(one.phase, Phase::Following { .. });
        let Some(leader) = self.requests.get(id).filter(may_lead).cloned() else { return false };
        let twins = leader.twin.as_ref().and_then(|twin| self.twins.get(twin)).into_iter().flatten().rev();
        let goes_after = |one: &&Request| {
            let waits = matches!(one.phase, Phase::Waiting | Phase::Parked { .. }) && one.first_started_at.is_none();
            // A promoted one may have its turn before this one.
            let may_follow = || self.may_follow(one, &leader, now);
            one.id != *id
                && waits
                && !self.is_old(one.enqueued_at, now)
                && !has_place_before(one, &leader)
                && may_follow()
        };
        let others = twins.take(LEADERS_MAX).filter_map(|id| self.requests.get(id)).filter(goes_after);
        let others: Vec<RequestId> = others.map(|one| one.id.clone()).collect();
        let any = !others.is_empty();
        for other in others.into_iter().take(FOLLOWERS_MAX) {
            let theirs: Vec<RequestId> = self.followers.get(&other).into_iter().flatten().cloned().collect();
            let together = theirs.len().saturating_add(1);
            let known = self.followers.get(id).map_or(0, BTreeSet::len);
            if known.saturating_add(together) > FOLLOWERS_MAX {
                continue;
            }
            let mut free = Vec::new();
            for one in std::iter::once(other).chain(theirs) {
                let Some(mut request) = self.take(&one) else { continue };
                if !self.may_follow(&request, &leader, now) {
                    free.push(request);
                    continue;
                }
                self.order_nothing_more(&request);
                if matches!(leader.phase, Phase::Running { .. }) {
                    request.first_started_at = request.first_started_at.or(Some(now));
                }
                waits_for(&mut request, id.clone());
                self.put(request);
            }
            self.lead_each_other(free, now);
        }
        any
    }

    /// A request that was underway waits again; one that is the same may have started meanwhile.
    pub(super) fn follow_the_same_that_runs(&mut self, id: &RequestId, now: Instant) {
        let twin = self.requests.get(id).and_then(|request| request.twin.as_ref());
        let same = twin.and_then(|twin| self.twins.get(twin)).into_iter().flatten().rev().take(LEADERS_MAX);
        let runs = |id: &&RequestId| {
            self.requests.get(*id).is_some_and(|request| matches!(request.phase, Phase::Running { .. }))
        };
        if let Some(leader) = same.filter(|other| *other != id).find(runs).cloned() {
            self.lead_those_that_wait(&leader, now);
        }
    }

    /// Of those that are the same and in flight the one to wait for: one that is underway, if it may. Among many the last
    /// ones are looked at; those before them may wait for something that this one does not.
    fn leader_for(&self, request: &Request, now: Instant) -> Option<&Request> {
        let same = request.twin.as_ref().and_then(|twin| self.twins.get(twin)).into_iter().flatten();
        let leaders = same.rev().take(LEADERS_MAX).filter_map(|id| self.requests.get(id));
        let may_lead = |leader: &&Request| !self.is_full(&leader.id) && self.may_follow(request, leader, now);
        leaders.filter(may_lead).min_by_key(|leader| !is_underway(leader))
    }

    /// Whether a request has as many followers as may end with it in one event.
    fn is_full(&self, leader: &RequestId) -> bool {
        self.followers.get(leader).is_some_and(|followers| followers.len() >= FOLLOWERS_MAX)
    }

    /// A request that was underway waits again: those that follow it and are not behind it do not wait with it.
    pub(super) fn let_go_of_followers(&mut self, leader: &RequestId, now: Instant) {
        let followers: Vec<RequestId> = self.followers.get(leader).into_iter().flatten().cloned().collect();
        let Some(waiting) = self.requests.get(leader).filter(|_| !followers.is_empty()).cloned() else { return };
        let mut free = Vec::new();
        for id in followers {
            let Some(mut follower) = self.take(&id) else { continue };
            self.waits_again(&mut follower, now);
            if self.may_follow(&follower, &waiting, now) {
                self.put(follower);
            } else {
                free.push(follower);
            }
        }
        self.lead_each_other(free, now);
    }

    /// A request has started, and so have those that wait for it; but those that have more time than its deadline has left
    /// for its run do not wait any longer.
    pub(super) fn followers_start(&mut self, leader: &Request, now: Instant) {
        let followers: Vec<RequestId> = self.followers.get(&leader.id).into_iter().flatten().cloned().collect();
        let mut free = Vec::new();
        for id in followers {
            let Some(mut follower) = self.take(&id) else { continue };
            if self.may_be_cut_off(leader, &follower, now) {
                free.push(follower);
                continue;
            }
            follower.first_started_at = follower.first_started_at.or(Some(now));
            self.put(follower);
        }
        self.lead_each_other(free, now);
    }

    /// Whether a request may wait for another one: that is underway, or waits in no place that this one would not, and for no
    /// longer, and has the time to end.
    fn may_follow(&self, request: &Request, leader: &Request, now: Instant) -> bool {
        // One whose lane has a limit is told at once if it cannot be kept: it waits in the queue itself.
        let may_wait = || request.wait_limit_ms.is_none() && waits_no_longer(leader, request, now);
        leader.timeout_ms <= request.timeout_ms
            && (is_underway(leader) || may_wait())
            && !self.may_be_cut_off(leader, request, now)
    }

    /// Whether a run may be cut off by its deadline, which is nearer than that of a request that would wait for its result:
    /// it has less time than such runs take; or than hardly any takes, and afterwards there would be too little for another.
    pub(super) fn may_be_cut_off(&self, leader: &Request, request: &Request, now: Instant) -> bool {
        let Some(deadline) = leader.deadline else { return false };
        if request.deadline.is_some_and(|own| own <= deadline) {
            return false;
        }
        let starts_at = match leader.phase {
            Phase::Running { started_at, .. } => started_at,
            Phase::Parked { until, cause: Cause::RetryBackoff } => until,
            _ => now,
        };
        let (usual_ms, most_ms) = self.whole_run_ms(leader);
        let left_ms = deadline.since(starts_at);
        let is_too_late_then = request.deadline.is_some_and(|own| deadline.plus(most_ms) > own);
        left_ms < usual_ms || (left_ms < most_ms && is_too_late_then)
    }

    /// A request has ended. If its worker has `answered`, those that waited for it have its result, at no cost. If it failed
    /// each of them is run; if it was cancelled or expired they wait for each other.
    pub(super) fn end_followers(&mut self, leader: &RequestId, end: &End, answered: bool, now: Instant) {
        let mut followers: Vec<Request> = Vec::new();
        while let Some(id) = self.followers.get(leader).and_then(|ids| ids.first()).cloned() {
            followers.extend(self.take(&id));
        }
        if answered {
            for mut follower in followers {
                let usage = end.lines.iter().map(used_for).collect();
                let started_at = follower.first_started_at.unwrap_or(now);
                let waited_since = self.waited_for_window(&mut follower, started_at);
                let by = Strategy::RequestBatching;
                let lines = spared_lines(&mut follower, usage, by, (started_at, waited_since));
                self.end_without_run(follower, lines, Some(leader.clone()), now);
            }
            return;
        }
        match end.status {
            // What failed may fail again: they do not wait for each other's failures.
            Status::Failed | Status::TimedOut => {
                followers.into_iter().for_each(|follower| self.run_for_itself(follower, now))
            }
            _ => self.lead_each_other(followers, now),
        }
    }

    /// It was not its own run that had started. What its lane has for a limit counts anew.
    fn waits_again(&self, follower: &mut Request, now: Instant) {
        if follower.first_started_at.take().is_some() && follower.wait_limit_ms.is_some() {
            let limit = self.config.lanes.of(follower.urgency).max_wait_ms;
            follower.wait_limit_ms = limit.map(|ms| now.since(follower.enqueued_at).saturating_add(ms));
        }
    }

    fn run_for_itself(&mut self, mut follower: Request, now: Instant) {
        self.waits_again(&mut follower, now);
        follower.twin = None;
        follower.applied.retain(|applied| applied.strategy != Strategy::RequestBatching);
        follower.phase = Phase::Waiting;
        self.put(follower);
    }

    /// None of these has one to wait for any more: those that go first are run, and the others wait for one of them, but for
    /// whom that would be later than its own run.
    fn lead_each_other(&mut self, mut followers: Vec<Request>, now: Instant) {
        let place = |one: &Request| {
            let force_at = one.force_at();
            (one.is_off_peak(), one.rank_urgency(), force_at.is_none(), force_at, one.enqueued_at, one.id.clone())
        };
        followers.sort_by_cached_key(place);
        let mut leaders: Vec<RequestId> = Vec::new();
        for mut follower in followers {
            self.waits_again(&mut follower, now);
            let may_lead = |leader: &&Request| {
                let has_its_turn_first =
                    self.is_old(follower.enqueued_at, now) && follower.enqueued_at < leader.enqueued_at;
                leader.timeout_ms <= follower.timeout_ms
                    && !has_its_turn_first
                    && waits_no_longer(leader, &follower, now)
                    && !self.may_be_cut_off(leader, &follower, now)
            };
            let leader = leaders.iter().filter_map(|id| self.requests.get(id)).find(may_lead);
            match leader.map(|leader| leader.id.clone()) {
                Some(leader) => waits_for(&mut follower, leader),
                None => {
                    follower.applied.retain(|applied| applied.strategy != Strategy::RequestBatching);
                    follower.phase = Phase::Waiting;
                    leaders.push(follower.id.clone());
                }
            }
            self.put(follower);
        }
    }
}

/// What a line says of the use.
fn used_for(line: &Line) -> Usage {
    Usage {
        pool: line.pool.clone(),
        amount: line.actual,
        parts: Some(line.parts),
        is_share: !line.saved.request_batching.is_none(),
    }
}

/// The bill of a request that was not run, for its result was there. What getting that has used of a pool was used by all
/// its steps together: it counts once. `priced_at` is when it would have been run, and since when it waited for its window.
fn spared_lines(
    request: &mut Request,
    mut usage: Vec<Usage>,
    by: Strategy,
    (at, waited_since): (Instant, Option<Instant>),
) -> Vec<Line> {
    let later = request.later.iter_mut().flat_map(|step| &mut step.demands);
    let demands = request.demands.iter_mut().chain(later).filter(|demand| !demand.amount.is_zero());
    merged(demands.map(|demand| {
        demand.price_at(at, waited_since);
        let place = usage.iter().position(|usage| usage.pool == demand.pool);
        let nothing = || Usage { pool: demand.pool.clone(), amount: Tokens::ZERO, parts: None, is_share: false };
        let used = place.map_or_else(nothing, |place| usage.swap_remove(place));
        Line::spared(demand, &used, by)
    }))
}

const fn is_underway(request: &Request) -> bool {
    matches!(request.phase, Phase::Running { .. } | Phase::Acquiring { .. })
}

/// Notes whose result a request waits for.
fn waits_for(request: &mut Request, leader: RequestId) {
    request.applied.retain(|applied| applied.strategy != Strategy::RequestBatching);
    let detail = format!("the same as {leader}, which was in flight");
    request.applied.push(Applied { strategy: Strategy::RequestBatching, detail, saved_bytes: 0 });
    request.phase = Phase::Following { leader };
}

/// Whether a request waits for its turn, or for another pool, in a place of the same rank before that of another one, which
/// waits too.
fn has_place_before(request: &Request, other: &Request) -> bool {
    let is_combined = matches!(request.phase, Phase::Parked { cause: Cause::Batching, .. });
    let is_first = (request.enqueued_at, &request.id) < (other.enqueued_at, &other.id);
    let is_like = request.rank_urgency() == other.rank_urgency() && !request.is_off_peak();
    is_first && is_like && !is_combined && !is_underway(other)
}

/// Whether one that is not underway waits in no place that the other one would not, and for no longer.
fn waits_no_longer(leader: &Request, request: &Request, now: Instant) -> bool {
    let is_later =
        |theirs: Option<Instant>, own: Option<Instant>| own.is_some_and(|own| theirs.is_none_or(|at| at > own));
    let waits_elsewhere = leader.is_off_peak()
        && (leader.window() != request.window() || is_later(leader.force_at(), request.force_at()));
    let is_behind = waits_elsewhere || leader.rank_urgency() > request.rank_urgency();
    // One that is tried again is waited for, if there is time for that.
    let is_parked = match leader.phase {
        Phase::Parked { until, cause: Cause::RetryBackoff } => {
            request.deadline.is_some_and(|deadline| until.plus(leader.timeout_ms) > deadline)
        }
        Phase::Parked { until, cause: Cause::Batching } => {
            request.batch_key() != leader.batch_key() || is_later(Some(until), request.gathers_until(now))
        }
        _ => false,
    };
    !(is_behind || is_parked)
}
