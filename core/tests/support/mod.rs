//! What several of these files need: a pool, requests for it, and an account and other pools that say yes to everything.

// Each file is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod batches;
pub mod network;

use rm_core::account::SlotAnswer;
use rm_core::fair_share::FairShare;
use rm_core::id::{PoolId, RequestId};
use rm_core::lane::Lanes;
use rm_core::off_peak::Window;
use rm_core::pool::{
    Effect, Ended, LeaseAnswer, LeaseOrder, Mode, Pool, PoolConfig, Report, Stored, Submission, Submitted,
};
use rm_core::pricing::OffPeakPrice;
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::request::{Demand, Failure, Kind, Usage};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

/// A price of a whole unit, in billionths of a dollar.
pub const PRICE: i64 = 1_000;

pub fn at(ms: i64) -> Instant {
    Instant::from_millis(1_800_000_000_000 + ms)
}

pub fn units(n: u64) -> Tokens {
    Tokens::from_units(n).unwrap()
}

pub fn id_of(name: &str) -> PoolId {
    name.parse().unwrap()
}

pub fn demand(pool: &str, amount: u64) -> Demand {
    Demand::flat(id_of(pool), units(amount), NanoUsd::from_nanos(PRICE).unwrap())
}

/// A pool named `home`, whose lanes have no limits.
pub fn config(capacity: u64, refill: u64) -> PoolConfig {
    PoolConfig {
        pool: id_of("home"),
        unit: "u".into(),
        limits: BucketLimits { capacity: units(capacity), refill_per_second: units(refill), window_cap: false },
        low_water_percent: 10,
        queue_cap: 100_000,
        weights: Weights::default(),
        lanes: Lanes(std::collections::BTreeMap::new()),
        partitions: Vec::new(),
        off_peak: None,
        template_windows: std::collections::BTreeMap::new(),
        scheduler_running: true,
        revision: 1,
    }
}

pub fn stored(config: PoolConfig) -> Stored {
    Stored { config, state: None, fairness: FairShare::default(), requests: vec![], leases: vec![], unsettled: vec![] }
}

pub fn pool(config: PoolConfig) -> Pool {
    Pool::restore(stored(config), at(0))
}

/// An execution that needs one unit of its home.
pub fn request(n: u64, client: &str, tier: Tier, urgency: Urgency, held_at: Instant) -> Submission {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Submission {
        id: RequestId::new(at(0), random, &id_of("home")),
        client: client.parse().unwrap(),
        tier,
        kind: Kind::Execution,
        urgency,
        held_at,
        deadline: None,
        demands: vec![demand("home", 1)],
        max_attempts: 3,
        timeout_ms: 600_000,
        applied: Vec::new(),
        twin: None,
        batch: None,
        waits_for: None,
        work: None,
        has_slot: false,
        slots: Some(1),
        worker: None,
        later: Vec::new(),
    }
}

/// The same, of a standard client in the normal lane.
pub fn normal(n: u64, amount: u64, held_at: Instant) -> Submission {
    Submission {
        demands: vec![demand("home", amount)],
        ..request(n, &format!("client-{n}"), Tier::Standard, Urgency::Normal, held_at)
    }
}

pub fn queue(pool: &mut Pool, submission: Submission, now: Instant) -> RequestId {
    let id = submission.id.clone();
    assert_eq!(pool.submit(submission, Mode::Queue, now), Submitted::Accepted);
    id
}

/// What starts now, in its order and with its grant, if every slot and every lease is given.
pub fn started(pool: &mut Pool, now: Instant) -> Vec<(RequestId, u32)> {
    let mut order = Vec::new();
    loop {
        let effects = pool.take_effects();
        if effects.is_empty() {
            return order;
        }
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now),
                Effect::AcquireLease { id, grant, pool: other, .. } => {
                    pool.lease_answered(&id, grant, &other, LeaseAnswer::Granted { regain_ms: 0 }, now);
                }
                Effect::Start { id, grant, .. } => order.push((id, grant)),
                _ => {}
            }
        }
    }
}

/// The same, without the grants.
pub fn started_ids(pool: &mut Pool, now: Instant) -> Vec<RequestId> {
    started(pool, now).into_iter().map(|(id, _)| id).collect()
}

/// An order for a lease of one unit for a request, by its first grant.
pub fn lease_order(id: &RequestId, client: &str, tier: Tier, urgency: Urgency) -> LeaseOrder {
    LeaseOrder {
        key: format!("{id}#1"),
        client: client.parse().unwrap(),
        tier,
        urgency,
        enqueued_at: at(0),
        amount: units(1),
        cost: NanoUsd::ZERO,
        worker: None,
        slots: None,
        returns: true,
        inquires: false,
        regain_ms: 0,
        standing: None,
        stood_at: None,
        ttl_ms: 60_000,
    }
}

/// Lets the pool's alarms go off until `until`, and tells what starts and when.
pub fn run_until(pool: &mut Pool, from: Instant, until: Instant) -> Vec<(Instant, RequestId)> {
    let mut order: Vec<_> = started_ids(pool, from).into_iter().map(|id| (from, id)).collect();
    let mut now = from;
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= until) {
        now = next.max(now.plus(1));
        pool.on_wakeup(now);
        order.extend(started_ids(pool, now).into_iter().map(|id| (now, id)));
    }
    order
}

pub fn used(n: u64) -> Report {
    Report::Succeeded {
        usage: vec![Usage { pool: id_of("home"), amount: units(n), parts: None, is_share: false }],
        remaining: vec![],
    }
}

pub fn failure() -> Failure {
    Failure { code: "x".into(), message: "x".into() }
}

/// A request that is the same as all others of these.
pub fn twin(n: u64, urgency: Urgency) -> Submission {
    Submission {
        twin: Some("the same".into()),
        demands: vec![demand("home", 5)],
        ..request(n, "client", Tier::Standard, urgency, at(0))
    }
}

/// What so many units cost.
pub fn cost(units: i64) -> NanoUsd {
    NanoUsd::from_nanos(units * PRICE).unwrap()
}

/// A use that costs half in a window from 50 to 1000.
pub fn halved(submission: Submission) -> Submission {
    let windows = vec![Window { start: at(50), end: at(1_000) }];
    let off_peak = Some(OffPeakPrice { percent_off: 50, windows });
    let demands = submission.demands.into_iter().map(|demand| Demand { off_peak: off_peak.clone(), ..demand });
    Submission { demands: demands.collect(), ..submission }
}

/// What has ended since the last question, in the order of the ids.
pub fn ends(pool: &mut Pool) -> Vec<Ended> {
    let mut ended = pool.take_changes().ended;
    ended.sort_by(|one, other| one.request.id.cmp(&other.request.id));
    ended
}
