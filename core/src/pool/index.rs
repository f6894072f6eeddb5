//! The indexes over the requests of a pool: each request is in those that its phase puts it in.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::RequestId;
use crate::pool::inquirers::QueueElsewhere;
use crate::pool::{Pool, timer};
use crate::queue::Entry;
use crate::request::{Cause, Kind, Phase, Request};

impl Pool {
    /// Takes a request out of every index, so that it can be changed. It must come back by [`Self::put`] or end.
    pub(super) fn take(&mut self, id: &RequestId) -> Option<Request> {
        let request = self.requests.remove(id)?;
        for timer in timer::of_request(&request).into_iter().flatten() {
            self.timers.remove(&timer);
        }
        if request.is_waiting() {
            self.waiting = self.waiting.saturating_sub(1);
            if let Some(count) = self.lane_waiting.get_mut(&request.urgency) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some(twin) = &request.twin {
            forget(&mut self.twins, twin, id);
        }
        if let Some(queue) = queue_elsewhere(&request)
            && let Some(waiting) = self.elsewhere.get_mut(&queue)
        {
            waiting.remove(&(request.enqueued_at, id.clone()));
            if waiting.is_empty() {
                self.elsewhere.remove(&queue);
                self.inquirers.queue_is_empty(&queue);
            }
        }
        if request.has_asked_elsewhere() {
            self.standings.asked.remove(id);
        }
        match &request.phase {
            Phase::Following { leader } => {
                if let Some(ids) = self.followers.get_mut(leader) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.followers.remove(leader);
                    }
                }
            }
            Phase::Waiting => {
                let queue = if request.home_amount().is_zero() { &mut self.free } else { &mut self.queue };
                queue.remove(&entry(&request));
                self.inquirers.comes_no_more(&request.client, id);
                if let Some(key) = request.batch_key() {
                    forget(&mut self.combinable, key, id);
                }
            }
            Phase::Acquiring { .. } if request.is_ready() => {
                forget(&mut self.ready, request.batch_key().unwrap_or_default(), id);
            }
            Phase::Acquiring { .. } => {
                self.question_ends(&request);
                if let Some(key) = request.batch_key() {
                    count_down(&mut self.pending, key);
                }
            }
            Phase::Running { .. } => {
                if let Some(ids) = self.running.get_mut(&request.client) {
                    ids.remove(&request.id);
                    if ids.is_empty() {
                        self.running.remove(&request.client);
                    }
                }
            }
            Phase::Parked { cause: Cause::Batching, .. } => {
                forget(&mut self.gathering, request.batch_key().unwrap_or_default(), id);
            }
            Phase::Parked { .. } | Phase::Abandoned { .. } => {}
        }
        Some(request)
    }

    pub(super) fn index(&mut self, request: &Request) {
        for timer in timer::of_request(request).into_iter().flatten() {
            self.timers.insert(timer);
        }
        if request.is_waiting() {
            self.waiting = self.waiting.saturating_add(1);
            let count = self.lane_waiting.entry(request.urgency).or_default();
            *count = count.saturating_add(1);
        }
        let leads = !matches!(request.phase, Phase::Following { .. } | Phase::Abandoned { .. });
        if let Some(twin) = request.twin.clone().filter(|_| leads) {
            self.twins.entry(twin).or_default().insert(request.id.clone());
        }
        if let Some(queue) = queue_elsewhere(request) {
            self.elsewhere.entry(queue).or_default().insert((request.enqueued_at, request.id.clone()));
        }
        if request.has_asked_elsewhere() {
            self.standings.asked.insert(request.id.clone());
        }
        match &request.phase {
            Phase::Following { leader } => {
                self.followers.entry(leader.clone()).or_default().insert(request.id.clone());
            }
            Phase::Waiting => {
                let queue = if request.home_amount().is_zero() { &mut self.free } else { &mut self.queue };
                queue.insert(&entry(request));
                if let Some(key) = request.batch_key() {
                    self.combinable.entry(key.to_owned()).or_default().insert(request.id.clone());
                }
            }
            Phase::Acquiring { .. } if request.is_ready() => {
                let key = request.batch_key().unwrap_or_default().to_owned();
                self.ready.entry(key).or_default().insert(request.id.clone());
            }
            Phase::Acquiring { .. } => {
                self.question_begins(request);
                if let Some(key) = request.batch_key() {
                    let count = self.pending.entry(key.to_owned()).or_insert(0);
                    *count = count.saturating_add(1);
                }
            }
            Phase::Running { .. } if request.kind == Kind::Execution => {
                self.running.entry(request.client.clone()).or_default().insert(request.id.clone());
            }
            Phase::Parked { cause: Cause::Batching, .. } => {
                let key = request.batch_key().unwrap_or_default().to_owned();
                self.gathering.entry(key).or_default().insert(request.id.clone());
            }
            Phase::Running { .. } | Phase::Parked { .. } | Phase::Abandoned { .. } => {}
        }
    }

    pub(super) fn put(&mut self, request: Request) {
        self.index(&request);
        self.changes.requests.insert(request.id.clone());
        self.requests.insert(request.id.clone(), request);
    }
}

/// With which others it waits for another pool: in the order of their age.
pub(super) fn queue_elsewhere(request: &Request) -> Option<QueueElsewhere> {
    let pool = &request.awaits()?.pool;
    Some((pool.clone(), entry(request).flow()))
}

/// What the queue needs to know of a request.
pub(super) fn entry(request: &Request) -> Entry<'_> {
    Entry {
        id: &request.id,
        client: &request.client,
        tier: request.tier,
        urgency: request.rank_urgency(),
        enqueued_at: request.enqueued_at,
        amount: request.home_amount(),
        needs_slot: request.kind == Kind::Execution,
        worker: request.worker.as_ref(),
        has_failed: request.worker.is_some() && request.attempts > 0,
        off_peak: request.window(),
        standing: None,
    }
}

fn forget(sets: &mut BTreeMap<String, BTreeSet<RequestId>>, key: &str, id: &RequestId) {
    if let Some(ids) = sets.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            sets.remove(key);
        }
    }
}

fn count_down<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(counts: &mut BTreeMap<K, u32>, key: &Q) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
