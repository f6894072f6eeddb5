//! Who goes first: whether grants pass over those of higher rank, or older ones of the same client and lane (invariant 7).
//!
//! The rank is reckoned here anew, from what the score is said to be. Fairness changes within an event: each grant lowers its
//! client's, and what came to nothing raises it. So what one that waits has is taken for as low, and what one has that was
//! granted for as high as it can have been at any of the event's grants.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rm_core::fair_share::{FairShare, weight};
use rm_core::id::{ClientId, PoolId, RequestId, WorkerBinding};
use rm_core::off_peak::WaitsFor;
use rm_core::pool::{Blocked, Lease, LeaseOrder};
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::request::{Demand, Kind, Phase, Request};
use rm_core::units::{Instant, NanoUsd};

use super::checks::may_be_kept;
use super::orders::Orders;
use super::shell::PoolObject;
use super::turns::Waiting;

/// Waiting adds its points in so long.
const WAIT_MS: i64 = 600_000;
/// Thousandths of a point.
const WAIT_MILLIPOINTS: i64 = 20_000;
/// What the fairness of a client may differ by from what it was at a grant, if the event was the first for a second: then all
/// uses are rounded anew.
const ROUNDED_MILLIPOINTS: i64 = 2;

/// Those of a pool's requests that wait for its tokens, and how fairness is before an event.
pub(crate) struct Ranks {
    waiting: BTreeMap<RequestId, Place>,
    /// Whose requests of which lanes wait in the queue, for whatever.
    lanes: BTreeSet<(ClientId, Urgency)>,
    fairness: FairShare,
}

/// What was found around an event, or around all events so far.
#[derive(Debug, Default)]
pub struct Passed {
    /// One that was granted, and one of higher rank that still waits.
    pub by_lower: Option<String>,
    /// One that was granted, and an older one of its client's lane that still waits.
    pub by_younger: Option<String>,
    /// Whether the ranks of any two were compared.
    pub ranks: bool,
    /// Whether the ages of any two of one lane were.
    pub ages: bool,
}

struct Place {
    flow: Flow,
    /// Its client's turn may be kept, and then others go before it.
    may_be_kept: bool,
}

/// Requests that are granted in the order of their age.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    client: ClientId,
    lane: Urgency,
    worker: Option<WorkerBinding>,
    window: Option<WaitsFor>,
    has_failed: bool,
    kind: Kind,
}

impl Flow {
    fn of(request: &Request, attempts: u32) -> Self {
        Self {
            client: request.client.clone(),
            lane: request.rank_urgency(),
            worker: request.worker.clone(),
            window: request.window(),
            has_failed: request.worker.is_some() && attempts > 0,
            kind: request.kind,
        }
    }
}

/// What an event granted, or one that waits.
struct Ranked<'a> {
    id: &'a RequestId,
    client: &'a ClientId,
    tier: Tier,
    lane: Urgency,
    enqueued_at: Instant,
    /// Its client's fairness, if it is that of its home which counts.
    standing: Option<i64>,
}

impl<'a> Ranked<'a> {
    fn here(request: &'a Request) -> Self {
        Self {
            id: &request.id,
            client: &request.client,
            tier: request.tier,
            lane: request.rank_urgency(),
            enqueued_at: request.enqueued_at,
            standing: None,
        }
    }

    /// Of another home, with the fairness that its client has there, at most.
    fn of_order((id, order, standing): (&'a RequestId, &'a LeaseOrder, Option<i64>)) -> Self {
        Self {
            id,
            client: &order.client,
            tier: order.tier,
            lane: order.urgency,
            enqueued_at: order.enqueued_at,
            standing,
        }
    }

    fn lane(&self) -> (ClientId, Urgency) {
        (self.client.clone(), self.lane)
    }

    /// The greater goes first.
    fn rank(&self, weights: &Weights, fairness: i64, now: Instant) -> (i64, Reverse<(Instant, &'a RequestId)>) {
        let points = weights.tiers[&self.tier] + weights.urgencies[&self.lane] + fairness;
        let waited = now.since(self.enqueued_at).min(WAIT_MS);
        (points * WAIT_MS + waited * WAIT_MILLIPOINTS, Reverse((self.enqueued_at, self.id)))
    }
}

/// The fairness at the grants of an event.
struct Fairness {
    /// Before the first of them.
    at_first: FairShare,
    /// Whose grants they were, and what they weigh.
    weights: Vec<(ClientId, i64)>,
    rounded: i64,
    now: Instant,
}

impl Fairness {
    /// What it is before the grants is known by what it is after them: what was given back was so before.
    fn of(before: &FairShare, after: &FairShare, weights: Vec<(ClientId, i64)>, now: Instant) -> Self {
        let mut at_first = after.clone();
        for (client, weight) in &weights {
            at_first.forget(client, *weight);
        }
        let mut decayed = before.clone();
        let some_client = weights.first().map(|(client, _)| client);
        some_client.into_iter().for_each(|client| decayed.record(client, 0, now));
        let changed = |client| (before.millipoints(client) - decayed.millipoints(client)).abs();
        let most = weights.iter().map(|(client, _)| changed(client)).max().unwrap_or(0);
        let rounded = if decayed == *before { 0 } else { ROUNDED_MILLIPOINTS + most };
        Self { at_first, weights, rounded, now }
    }

    fn after(&self, grants: impl Fn(&ClientId) -> bool) -> FairShare {
        let mut fairness = self.at_first.clone();
        for (client, weight) in self.weights.iter().filter(|(client, _)| grants(client)) {
            fairness.record(client, *weight, self.now);
        }
        fairness
    }

    fn least(&self, of: &ClientId) -> i64 {
        self.after(|client| client == of).millipoints(of) - self.rounded
    }

    fn most(&self, of: &ClientId) -> i64 {
        self.after(|client| client != of).millipoints(of) + self.rounded
    }
}

impl Ranks {
    pub(crate) fn of(object: &PoolObject, now: Instant) -> Self {
        let waits = |request: &&Request| {
            request.phase == Phase::Waiting
                && !request.home_amount().is_zero()
                && object.pool.held_up_by(&request.id, now) == Some(Blocked::Tokens)
        };
        let place = |request: &Request| Place {
            flow: Flow::of(request, request.attempts),
            may_be_kept: may_be_kept(object, &request.client),
        };
        let waiting = object.pool.requests().filter(waits);
        let in_queue = object.pool.requests().filter(|request| request.phase == Phase::Waiting);
        Self {
            lanes: in_queue.map(|request| (request.client.clone(), request.rank_urgency())).collect(),
            waiting: waiting.map(|request| (request.id.clone(), place(request))).collect(),
            fairness: object.pool.fairness().clone(),
        }
    }

    /// Whom the grants of an event have passed over, of those that waited before and still do.
    pub(crate) fn passed_over(&self, before: &Waiting, object: &PoolObject, orders: &Orders, now: Instant) -> Passed {
        let mut found = Passed::default();
        let granted: Vec<&Request> = before.granted_since(object).collect();
        let leased: Vec<&Lease> = before.leased_since(object).collect();
        if granted.is_empty() && leased.is_empty() || self.waiting.is_empty() {
            return found;
        }
        let after = Self::of(object, now);
        let still = |(id, after): (&RequestId, &Place)| {
            let before = self.waiting.get(id).filter(|before| before.flow == after.flow)?;
            Some((object.pool.request(id)?, before.may_be_kept || after.may_be_kept))
        };
        let waiting: Vec<(&Request, bool)> = after.waiting.iter().filter_map(still).collect();
        let with_tokens = || granted.iter().copied().filter(|request| !request.home_amount().is_zero());
        for one in with_tokens() {
            // A start is an attempt; it was none yet when it was granted.
            let started = u32::from(one.started_grant == one.grants);
            let flow = Flow::of(one, one.attempts.saturating_sub(started));
            found.compare_ages(one, waiting.iter().map(|(other, _)| *other).filter(|other| after.has(other, &flow)));
        }
        let weights = granted.iter().map(|request| (request.client.clone(), weight_of(request)));
        let of_leases = leased.iter().filter_map(|lease| Some((lease.client.clone()?, lease.weight)));
        let fairness = Fairness::of(&self.fairness, &after.fairness, weights.chain(of_leases).collect(), now);
        // What a share grants of its own is nobody else's turn, and a turn of the promoted ones goes by age.
        let here = with_tokens().filter(|request| !request.on_turn && !request.by_share).map(Ranked::here);
        let of_others = leased.iter().filter(|lease| !lease.promoted && !lease.by_share);
        let of_others = of_others.filter_map(|lease| Some(Ranked::of_order(orders.asked(&lease.key)?)));
        let by_rank: Vec<Ranked<'_>> = here.chain(of_others).collect();
        let others = waiting.iter().filter(|(_, may_be_kept)| !may_be_kept).map(|(other, _)| Ranked::here(other));
        let lanes = self.lanes.union(&after.lanes).cloned().collect();
        found.compare_ranks(&by_rank, others, &lanes, &object.pool.config().weights, &fairness);
        found
    }

    fn has(&self, request: &Request, flow: &Flow) -> bool {
        self.waiting.get(&request.id).is_some_and(|place| place.flow == *flow)
    }
}

impl Passed {
    fn compare_ages<'a>(&mut self, one: &Request, waiting: impl Iterator<Item = &'a Request>) {
        for other in waiting {
            self.ages = true;
            if (other.enqueued_at, &other.id) < (one.enqueued_at, &one.id) {
                let passed = format!("{} is granted, and the older {} of its lane waits", one.id, other.id);
                self.by_younger.get_or_insert(passed);
            }
        }
    }

    fn compare_ranks<'a>(
        &mut self,
        granted: &[Ranked<'_>],
        waiting: impl Iterator<Item = Ranked<'a>>,
        lanes: &BTreeSet<(ClientId, Urgency)>,
        weights: &Weights,
        fairness: &Fairness,
    ) {
        for other in waiting {
            for one in granted {
                self.ranks = true;
                let (most, least) = match one.standing {
                    // Of one client it is the same, whatever it is.
                    None if one.client == other.client => (0, 0),
                    // Where others of its lane wait here it has the fairness that its client has here.
                    told => {
                        let here =
                            Some(fairness.most(one.client)).filter(|_| told.is_none() || lanes.contains(&one.lane()));
                        (told.max(here).unwrap_or_default(), fairness.least(other.client))
                    }
                };
                let (its, others) = (one.rank(weights, most, fairness.now), other.rank(weights, least, fairness.now));
                if others > its {
                    let passed = format!("{} is granted ({}), and {} waits ({})", one.id, its.0, other.id, others.0);
                    self.by_lower.get_or_insert(passed);
                }
            }
        }
    }

    /// Adds what was found around another event.
    pub(crate) fn add(&mut self, pool: &PoolId, found: Self) {
        let at_pool = |passed: String| format!("{pool}: {passed}");
        self.by_lower = self.by_lower.take().or(found.by_lower.map(at_pool));
        self.by_younger = self.by_younger.take().or(found.by_younger.map(at_pool));
    }
}

/// What a grant weighs in its client's share of the pool.
fn weight_of(request: &Request) -> i64 {
    let cost = request.demands.first().and_then(Demand::estimated_cost);
    weight(cost.unwrap_or(NanoUsd::ZERO), request.home_amount())
}
