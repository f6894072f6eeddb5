//! Requests that are combined: each waits for others for a while, has tokens and a slot of its own, and is started with
//! those that are ready when it is. What a common call is for each of them is for the shell; here each has its own run,
//! report and end.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::optimizer::{Applied, Strategy};
use crate::pool::acquire::Started;
use crate::pool::index::entry;
use crate::pool::{Effect, Pool};
use crate::priority::Urgency;
use crate::request::{ACQUIRE_LIMIT_MS, Cause, Phase, RUN_GRACE_MS, Request};
use crate::units::Instant;

/// So many of those that wait for tokens are looked at, whether one may go.
const LOOKED_AT: usize = 64;
/// And of so many of those, whether it has its tokens in time.
const FORETOLD: usize = 4;

/// The most bytes that the inputs and parameters of a common call have together: about as many as one request may have.
pub const COMMON_CALL_MAX_BYTES: u64 = 10 * 1_048_576;

/// How many requests may be combined whose inputs and parameters have so many bytes each, where `max_size` would be if these
/// were few: as many as fit into a common call, in steps of powers of two, so that those of about the same length go together.
#[must_use]
pub fn fit_together(max_size: u32, bytes: u64) -> u32 {
    match COMMON_CALL_MAX_BYTES.checked_div(bytes) {
        Some(fit) if fit < u64::from(max_size) => {
            let power = fit.checked_ilog2().and_then(|log| 1_u32.checked_shl(log));
            power.unwrap_or(1)
        }
        _ => max_size,
    }
}

/// With which others a request may be combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchTerms {
    /// What they have in common.
    pub key: String,
    /// How many there are at most.
    pub max_size: u32,
    /// How long the first of them waits for the others, in milliseconds.
    pub window_ms: i64,
}

impl Request {
    /// What it is combined by; none after it failed together with others, for it may be the one that spoils them.
    pub(super) fn batch_key(&self) -> Option<&str> {
        self.batch.as_ref().filter(|terms| terms.max_size > 1 && !self.alone).map(|terms| terms.key.as_str())
    }

    /// From now on it is run by itself.
    pub(super) fn set_apart(&mut self) {
        self.alone = true;
        self.applied.retain(|applied| applied.strategy != Strategy::RequestBatching);
    }

    /// Whether it has all that it needs, and waits for those that it is started with.
    pub(super) fn is_ready(&self) -> bool {
        let Phase::Acquiring { slot, leased, .. } = self.phase else { return false };
        self.batch_key().is_some() && slot && leased >= self.others().len()
    }

    /// How long it may wait for others at most: half of the time that it has until it must start, for then it may still have
    /// to wait for its turn. `None` if there is no such moment.
    pub(super) fn gathers_until(&self, now: Instant) -> Option<Instant> {
        let by_deadline = self.deadline.map(|deadline| deadline.plus(self.timeout_ms.saturating_neg()));
        let by_lane = self.wait_limit_ms.map(|limit| self.enqueued_at.plus(limit));
        let must_start = [by_deadline, by_lane].into_iter().flatten().min()?;
        Some(now.plus(must_start.since(now) >> 1))
    }

    /// Until when it waits, once it has all that it needs, for those to have their tokens that it is combined with: no longer
    /// than for others to come.
    pub(super) fn waits_for_tokens_until(&self) -> Option<Instant> {
        let Phase::Acquiring { since, .. } = self.phase else { return None };
        let terms = self.batch.as_ref().filter(|_| self.is_ready())?;
        let until = since.plus(terms.window_ms.min(ACQUIRE_LIMIT_MS));
        Some(self.gathers_until(since).map_or(until, |at| at.min(until)))
    }

    /// Until when it waits, once it has all that it needs, for the answers that those are asking for that it is combined with;
    /// `None` if it has the time that any grant may take.
    pub(super) fn waits_for_answers_until(&self) -> Option<Instant> {
        let Phase::Acquiring { since, .. } = self.phase else { return None };
        self.gathers_until(since).filter(|_| self.is_ready())
    }

    /// Whether the leases that it acquired may have run out: the alarm that was to start it, or to give it up, came too late.
    pub(super) fn leases_may_be_over(&self, now: Instant) -> bool {
        let Phase::Acquiring { since, .. } = self.phase else { return false };
        !self.others().is_empty() && now.since(since) > ACQUIRE_LIMIT_MS.saturating_add(RUN_GRACE_MS)
    }

    const fn is_gathering(&self) -> bool {
        matches!(self.phase, Phase::Parked { cause: Cause::Batching, .. })
    }
}

impl Pool {
    /// Has a new request wait for others: until the first of them has waited for its window, or there are enough.
    pub(super) fn gather(&mut self, request: &mut Request, now: Instant) {
        let may_wait = request.batch_key().is_some() && request.urgency != Urgency::Immediate && !request.forced;
        let Some(terms) = request.batch.clone().filter(|_| may_wait) else { return };
        let first = self.gathering.get(&terms.key).and_then(|ids| ids.first()).and_then(|id| self.requests.get(id));
        let until = match first.map(|first| &first.phase) {
            Some(Phase::Parked { until, .. }) => *until,
            _ => now.plus(terms.window_ms),
        };
        let in_window = self.gathers_in_window_until(request, until, now);
        let limits = [request.gathers_until(now), request.force_at(), in_window];
        let until = limits.into_iter().flatten().fold(until, Instant::min);
        let waiting = self.gathering.get(&terms.key).map_or(0, BTreeSet::len);
        let enough = waiting.saturating_add(1) >= usize::try_from(terms.max_size).unwrap_or(usize::MAX);
        if enough {
            self.end_gathering(&terms.key);
        } else if until > now {
            request.phase = Phase::Parked { until, cause: Cause::Batching };
        }
    }

    /// All that wait for each other go to their places in the queue.
    pub(super) fn end_gathering(&mut self, key: &str) {
        let ids: Vec<RequestId> = self.gathering.get(key).into_iter().flatten().cloned().collect();
        for id in ids {
            if self.requests.get(&id).is_some_and(Request::is_gathering) {
                self.unpark(&id);
            }
        }
    }

    /// Grants what can be granted, and starts those that are ready and wait for none that is about to be. One that has no
    /// time left ends instead, and what it had is granted in its turn.
    pub(super) fn grant_and_start(&mut self, now: Instant, slot_of: Option<&RequestId>) {
        let mut granted = 0;
        self.grant(&mut granted, slot_of, now);
        while self.start_batches(now) {
            self.grant(&mut granted, None, now);
        }
    }

    /// Whether any started, or ended.
    fn start_batches(&mut self, now: Instant) -> bool {
        let mut any = false;
        let keys: Vec<String> = self.ready.keys().cloned().collect();
        for key in keys {
            while let Some(ids) = self.next_batch(&key, now) {
                self.start_together(&ids, now);
                any = true;
            }
        }
        any
    }

    fn next_batch(&self, key: &str, now: Instant) -> Option<Vec<RequestId>> {
        let ids = self.ready.get(key)?;
        let first = ids.first().and_then(|id| self.requests.get(id))?;
        let most = first.batch.as_ref().and_then(|terms| usize::try_from(terms.max_size).ok()).unwrap_or(1).max(1);
        let answers_may_come = || {
            let until = |id| self.requests.get(id).and_then(Request::waits_for_answers_until);
            self.pending.contains_key(key) && ids.iter().filter_map(until).all(|until| now < until)
        };
        let more_to_come = || answers_may_come() || self.tokens_are_to_come(key, ids, now);
        (ids.len() >= most || !more_to_come()).then(|| ids.iter().take(most).cloned().collect())
    }

    /// Whether one of those that these are combined with has its tokens, and a slot, while the first of these waits for that.
    fn tokens_are_to_come(&self, key: &str, ready: &BTreeSet<RequestId>, now: Instant) -> bool {
        let request = |id| self.requests.get(id);
        let until = ready.iter().filter_map(request).filter_map(Request::waits_for_tokens_until).min();
        let Some(until) = until.filter(|until| now < *until) else { return false };
        let has_slot = |one: &Request| {
            let of_client = ready.iter().filter_map(request).filter(|ready| ready.client == one.client).count();
            let taken = self.running.get(&one.client).map_or(0, BTreeSet::len).saturating_add(of_client);
            one.slots.and_then(|slots| usize::try_from(slots).ok()).is_none_or(|slots| taken < slots)
        };
        let comes_in_time = |one: &Request| {
            let place = entry(one);
            self.tokens_at(&place, self.before(&place, now), now).is_some_and(|at| at <= until)
        };
        let next = self.combinable.get(key).into_iter().flatten().take(LOOKED_AT).filter_map(request);
        let is_eligible = self.eligible(now);
        let may_come = next.filter(|one| is_eligible(&entry(one).flow()) && has_slot(one));
        self.config.scheduler_running && may_come.take(FORETOLD).any(comes_in_time)
    }

    /// Starts one that has been ready for as long as a grant may take, with those that are ready too.
    pub(super) fn start_ready(&mut self, id: &RequestId, now: Instant) {
        let key = self.requests.get(id).and_then(|request| request.batch_key().map(str::to_owned));
        let ids = key.and_then(|key| self.ready.get(&key)).cloned().unwrap_or_default();
        self.start_together(&ids.into_iter().collect::<Vec<_>>(), now);
    }

    fn start_together(&mut self, ids: &[RequestId], now: Instant) {
        let waited_too_long =
            |id: &&RequestId| self.requests.get(*id).is_some_and(|request| request.leases_may_be_over(now));
        let late: Vec<RequestId> = ids.iter().filter(waited_too_long).cloned().collect();
        for id in &late {
            self.give_up_acquiring(id, true, None, Some(now), now);
        }
        let ids: Vec<RequestId> = ids.iter().filter(|id| !late.contains(id)).cloned().collect();
        // One whose deadline leaves it less than its limit would shorten the call for all.
        let in_time = |id: &&RequestId| {
            self.requests.get(*id).is_some_and(|request| request.attempt_limit_ms(now) >= request.timeout_ms)
        };
        let (ids, alone): (Vec<&RequestId>, Vec<&RequestId>) = ids.iter().partition(in_time);
        for id in alone {
            if let Some(mut request) = self.take(id) {
                share(&mut request, 1);
                if let Some(Started { id, grant, attempt, limit_ms }) = self.start(request, now) {
                    self.effects.push(Effect::Start { id, grant, attempt, limit_ms });
                }
            }
        }
        let together = ids.len();
        let mut started: Vec<Started> = Vec::with_capacity(together);
        for id in ids {
            if let Some(mut request) = self.take(id) {
                share(&mut request, together);
                started.extend(self.start(request, now));
            }
        }
        match started.as_slice() {
            [] => {}
            [Started { id, grant, attempt, limit_ms }] => {
                self.effects.push(Effect::Start {
                    id: id.clone(),
                    grant: *grant,
                    attempt: *attempt,
                    limit_ms: *limit_ms,
                });
            }
            several => {
                let items = several.iter().map(|started| (started.id.clone(), started.grant)).collect();
                let limit_ms = several.iter().map(|started| started.limit_ms).min().unwrap_or(0);
                self.effects.push(Effect::StartBatch { items, limit_ms });
            }
        }
    }
}

/// Notes with how many others a run is made.
fn share(request: &mut Request, together: usize) {
    request.applied.retain(|applied| applied.strategy != Strategy::RequestBatching);
    if together > 1 {
        let detail = format!("one call for {together} requests");
        request.applied.push(Applied { strategy: Strategy::RequestBatching, detail, saved_bytes: 0 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{COMMON_CALL_MAX_BYTES, fit_together};

    proptest! {
        /// Whoever is combined by the same number fits into a call, and nobody waits for fewer than half of those that would.
        #[test]
        fn all_that_go_together_fit(max_size in 1_u32..=100, bytes in 0..=COMMON_CALL_MAX_BYTES) {
            let most = fit_together(max_size, bytes);
            prop_assert!((1..=max_size).contains(&most));
            let all = bytes.saturating_mul(most.into());
            prop_assert!(all <= COMMON_CALL_MAX_BYTES);
            prop_assert!(most == max_size || all.saturating_mul(2) > COMMON_CALL_MAX_BYTES);
        }
    }

    #[test]
    fn the_short_are_as_many_as_there_may_be_and_the_long_fewer() {
        let mebibytes = |n: u64| n * 1_048_576;
        let most = [0, mebibytes(2), mebibytes(3), mebibytes(5), mebibytes(6), u64::MAX];
        assert_eq!(most.map(|bytes| fit_together(4, bytes)), [4, 4, 2, 2, 1, 1]);
        assert_eq!(fit_together(3, mebibytes(3)), 3);
    }
}
