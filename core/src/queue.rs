//! The queue of one pool: who is next.
//!
//! Requests that are eligible or not together, and of one lane, are a [`Flow`]: first in, first out. Between flows the
//! score decides: it is that of a flow's first request, for the others of it are younger. So a pick looks at each flow that
//! waits once, not at each request. A request older than the starvation bound is promoted: promoted requests go oldest
//! first, on turns of their own.

use std::collections::BTreeMap;

use crate::fair_share::FairShare;
use crate::id::{ClientId, RequestId, WorkerBinding};
use crate::off_peak::WaitsFor;
use crate::priority::{STARVATION_BOUND_MS, Tier, Urgency, Weights};
use crate::sorted_list::SortedList;
use crate::units::{Instant, Tokens};

/// What the queue keeps of a request.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Which request.
    pub id: &'a RequestId,
    /// Whose.
    pub client: &'a ClientId,
    /// The client's tier.
    pub tier: Tier,
    /// The lane.
    pub urgency: Urgency,
    /// When it was first queued: it keeps this when it comes back.
    pub enqueued_at: Instant,
    /// What it needs of the home pool.
    pub amount: Tokens,
    /// It takes one of the client's slots.
    pub needs_slot: bool,
    /// The worker that it is for.
    pub worker: Option<&'a WorkerBinding>,
    /// An attempt of it has failed.
    pub has_failed: bool,
    /// Which windows it runs in only, if any.
    pub off_peak: Option<WaitsFor>,
    /// Its client's fairness in its home, in millipoints, if that is another pool and told it: the pools that a request
    /// needs are to rank it alike, or two might each keep the other out of its home.
    pub standing: Option<i64>,
}

/// Requests of one lane that are eligible or not together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Whose they are.
    pub client: ClientId,
    /// They take the client's slots.
    pub needs_slot: bool,
    /// The worker that they are for.
    pub worker: Option<WorkerBinding>,
    /// An attempt of each of them has failed.
    pub has_failed: bool,
    /// Which windows they run in only, if any.
    pub off_peak: Option<WaitsFor>,
    /// Their lane.
    pub urgency: Urgency,
}

impl Entry<'_> {
    /// Its flow.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow {
            client: self.client.clone(),
            needs_slot: self.needs_slot,
            worker: self.worker.cloned(),
            has_failed: self.has_failed,
            off_peak: self.off_peak.clone(),
            urgency: self.urgency,
        }
    }
}

#[derive(Debug, Clone)]
struct FlowQueue {
    tier: Tier,
    /// Each with the millionths that it needs.
    by_age: SortedList<(Instant, RequestId)>,
    /// Millionths that its requests need together.
    wanted: i64,
}

/// What goes before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// How many requests.
    pub requests: usize,
    /// Millionths that they need together.
    pub micros: i128,
}

impl Ahead {
    const fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            micros: self.micros.saturating_add(other.micros),
        }
    }
}

/// What the requests of a group need, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Those before one.
    pub ahead: i128,
    /// All of those that are asked for.
    pub all: i128,
}

/// What of a flow is before this one, whose client's fairness is so much.
fn before<'a>(
    weights: &'a Weights,
    fairness: &'a FairShare,
    (entry, standing): (&'a Entry<'_>, i64),
    now: Instant,
) -> impl Fn(&Flow, &FlowQueue) -> Ahead + 'a {
    let bonus = weights.client_bonus(entry.tier, standing);
    let own = (weights.key(entry.urgency, entry.enqueued_at, bonus, now), entry.enqueued_at, entry.id);
    move |flow, queue| {
        let bonus = weights.client_bonus(queue.tier, fairness.millipoints(&flow.client));
        let (requests, micros) = queue.by_age.measure_while(|(enqueued_at, id)| {
            (weights.key(flow.urgency, *enqueued_at, bonus, now), *enqueued_at, id) < own
        });
        Ahead { requests, micros }
    }
}

/// The queue. It holds what waits for tokens; what is parked is kept outside until it is due.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    flows: BTreeMap<Flow, FlowQueue>,
    len: usize,
    /// Millionths that all entries need together.
    wanted: i64,
}

/// The request whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Which request.
    pub id: RequestId,
    /// Whether it is older than the starvation bound.
    pub promoted: bool,
}

impl Queue {
    /// How many requests wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What all entries need together.
    #[must_use]
    pub fn wanted(&self) -> Tokens {
        Tokens::clamped(self.wanted)
    }

    /// Adds a request, at the place that its age gives it.
    pub fn insert(&mut self, entry: &Entry<'_>) {
        let queue = self.flows.entry(entry.flow()).or_insert_with(|| FlowQueue {
            tier: entry.tier,
            by_age: SortedList::default(),
            wanted: 0,
        });
        queue.tier = entry.tier;
        if queue.by_age.insert((entry.enqueued_at, entry.id.clone()), entry.amount.micros()) {
            self.len = self.len.saturating_add(1);
            self.wanted = self.wanted.saturating_add(entry.amount.micros());
            queue.wanted = queue.wanted.saturating_add(entry.amount.micros());
        }
    }

    /// Takes a request out.
    pub fn remove(&mut self, entry: &Entry<'_>) {
        let flow = entry.flow();
        let Some(queue) = self.flows.get_mut(&flow) else {
            return;
        };
        if let Some(micros) = queue.by_age.remove(&(entry.enqueued_at, entry.id.clone())) {
            self.len = self.len.saturating_sub(1);
            self.wanted = self.wanted.saturating_sub(micros);
            queue.wanted = queue.wanted.saturating_sub(micros);
        }
        if queue.by_age.is_empty() {
            self.flows.remove(&flow);
        }
    }

    /// The next request among the flows that `eligible` lets through, by their first request. On a promoted turn that is the oldest promoted
    /// one, if there is any; else it is the one with the highest score.
    pub fn pick(
        &self,
        weights: &Weights,
        fairness: &FairShare,
        promoted_turn: bool,
        now: Instant,
        eligible: impl Fn(&Flow, Tier, &RequestId) -> bool,
    ) -> Option<Pick> {
        let is_old = |enqueued_at: Instant| now.since(enqueued_at) >= STARVATION_BOUND_MS;
        let lets_through = |flow: &Flow, queue: &FlowQueue| {
            queue.by_age.first().is_some_and(|(_, first)| eligible(flow, queue.tier, first))
        };
        let waiting = || self.flows.iter().filter(|(flow, queue)| lets_through(flow, queue));
        if promoted_turn {
            let oldest = waiting().filter_map(|(_, queue)| queue.by_age.first()).min();
            if let Some((enqueued_at, id)) = oldest
                && is_old(*enqueued_at)
            {
                return Some(Pick { id: id.clone(), promoted: true });
            }
        }
        let (_, enqueued_at, id) = waiting()
            .filter_map(|(flow, queue)| {
                let (enqueued_at, id) = queue.by_age.first()?;
                let bonus = weights.client_bonus(queue.tier, fairness.millipoints(&flow.client));
                Some((weights.key(flow.urgency, *enqueued_at, bonus, now), *enqueued_at, id))
            })
            .min()?;
        Some(Pick { id: id.clone(), promoted: is_old(enqueued_at) })
    }

    /// The fairness of a request's client, in millipoints: that of its home, as it was told. But where others of its client and
    /// lane wait here it is theirs, for among them it goes by its age.
    fn standing_of(&self, fairness: &FairShare, entry: &Entry<'_>) -> i64 {
        let told = entry.standing.filter(|_| !self.has_lane_of(entry.client, entry.urgency));
        told.unwrap_or_else(|| fairness.millipoints(entry.client))
    }

    /// Whether any of this client and lane wait here.
    fn has_lane_of(&self, client: &ClientId, urgency: Urgency) -> bool {
        let first = Flow {
            client: client.clone(),
            needs_slot: false,
            worker: None,
            has_failed: false,
            off_peak: None,
            urgency: Urgency::Immediate,
        };
        let mut of_client = self.flows.range(first..).take_while(|(flow, _)| flow.client == *client);
        of_client.any(|(flow, _)| flow.urgency == urgency)
    }

    /// Whether one request goes before another by the score, neither of which need be here.
    #[must_use]
    pub fn is_before(
        &self,
        weights: &Weights,
        fairness: &FairShare,
        one: &Entry<'_>,
        other: &Entry<'_>,
        now: Instant,
    ) -> bool {
        let place = |entry: &Entry<'_>| {
            let bonus = weights.client_bonus(entry.tier, self.standing_of(fairness, entry));
            weights.key(entry.urgency, entry.enqueued_at, bonus, now)
        };
        (place(one), one.enqueued_at, one.id) < (place(other), other.enqueued_at, other.id)
    }

    /// What is before this one, of the flows that `eligible` lets through, in the order of the score as it is now.
    #[must_use]
    pub fn ahead_of(
        &self,
        weights: &Weights,
        fairness: &FairShare,
        entry: &Entry<'_>,
        now: Instant,
        eligible: impl Fn(&Flow, Tier) -> bool,
    ) -> Ahead {
        let before = before(weights, fairness, (entry, self.standing_of(fairness, entry)), now);
        let counted = self.flows.iter().filter(|(flow, queue)| eligible(flow, queue.tier));
        counted.fold(Ahead::default(), |sum, (flow, queue)| sum.and(before(flow, queue)))
    }

    /// What is older than this one, of the flows that `eligible` lets through.
    #[must_use]
    pub fn older_than(&self, entry: &Entry<'_>, eligible: impl Fn(&Flow, Tier) -> bool) -> Ahead {
        let own = (entry.enqueued_at, entry.id);
        let counted = self.flows.iter().filter(|(flow, queue)| eligible(flow, queue.tier));
        counted.fold(Ahead::default(), |sum, (_, queue)| {
            let (requests, micros) = queue.by_age.measure_while(|(enqueued_at, id)| (*enqueued_at, id) < own);
            sum.and(Ahead { requests, micros })
        })
    }

    /// What is needed by the group that `group` puts a flow into, a number below `groups`: by those before this one, and, of
    /// the flows of which it says so, by all.
    pub fn needs_by(
        &self,
        weights: &Weights,
        fairness: &FairShare,
        entry: &Entry<'_>,
        now: Instant,
        groups: usize,
        group: impl Fn(&Flow, Tier, &RequestId) -> Option<(usize, bool)>,
    ) -> Vec<Needs> {
        let before = before(weights, fairness, (entry, self.standing_of(fairness, entry)), now);
        let mut needs = vec![Needs::default(); groups];
        for (flow, queue) in &self.flows {
            let group = queue.by_age.first().and_then(|(_, first)| group(flow, queue.tier, first));
            if let Some((index, with_all)) = group
                && let Some(sum) = needs.get_mut(index)
            {
                sum.ahead = sum.ahead.saturating_add(before(flow, queue).micros);
                let all = if with_all { i128::from(queue.wanted) } else { 0 };
                sum.all = sum.all.saturating_add(all);
            }
        }
        needs
    }

    /// Whether a flow waits that `wanted` says yes to.
    #[must_use]
    pub fn has(&self, wanted: impl Fn(&Flow) -> bool) -> bool {
        self.flows.keys().any(wanted)
    }

    /// What the requests need together, by the group that `group` puts their flow into: a number below `groups`.
    #[must_use]
    pub fn wanted_by(&self, groups: usize, group: impl Fn(&Flow, Tier) -> Option<usize>) -> Vec<Tokens> {
        let mut wanted = vec![Tokens::ZERO; groups];
        for (flow, queue) in &self.flows {
            if let Some(sum) = group(flow, queue.tier).and_then(|index| wanted.get_mut(index)) {
                *sum = sum.saturating_add(Tokens::clamped(queue.wanted));
            }
        }
        wanted
    }
}
