//! Who is next (invariants 7 and 8), against a naive model: all scores computed, the list sorted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use proptest::prelude::*;
use rm_core::account::SlotAnswer;
use rm_core::fair_share::FairShare;
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::lane::Lanes;
use rm_core::pool::{Effect, Mode, Pool, PoolConfig, Stored, Submission};
use rm_core::priority::{PROMOTED_ONE_IN, STARVATION_BOUND_MS, Tier, Urgency, Weights};
use rm_core::request::{Demand, Kind};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

const START: i64 = 1_800_000_000_000;

fn at(ms: i64) -> Instant {
    Instant::from_millis(START + ms)
}

fn home() -> PoolId {
    "home".parse().unwrap()
}

fn pool(capacity: u64, refill: u64, scheduler_running: bool) -> Pool {
    let config = PoolConfig {
        pool: home(),
        unit: "u".into(),
        limits: BucketLimits {
            capacity: Tokens::from_units(capacity).unwrap(),
            refill_per_second: Tokens::from_units(refill).unwrap(),
            window_cap: false,
        },
        low_water_percent: 10,
        queue_cap: 100_000,
        weights: Weights::default(),
        lanes: Lanes(std::collections::BTreeMap::new()),
        partitions: Vec::new(),
        off_peak: None,
        template_windows: std::collections::BTreeMap::new(),
        scheduler_running,
        revision: 1,
    };
    let stored = Stored {
        config,
        state: None,
        fairness: FairShare::default(),
        requests: vec![],
        leases: vec![],
        unsettled: vec![],
    };
    Pool::restore(stored, at(0))
}

fn submission(n: u64, client: usize, urgency: Urgency, held_at: Instant) -> Submission {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Submission {
        id: RequestId::new(held_at, random, &home()),
        client: format!("client-{client}").parse::<ClientId>().unwrap(),
        tier: Tier::ALL[client % 4],
        kind: Kind::Execution,
        urgency,
        held_at,
        deadline: None,
        demands: vec![Demand::flat(home(), Tokens::from_units(1).unwrap(), NanoUsd::ZERO)],
        max_attempts: 1,
        timeout_ms: 600_000,
        slots: None,
        applied: Vec::new(),
        twin: None,
        batch: None,
        waits_for: None,
        work: None,
        has_slot: false,
        worker: None,
        later: Vec::new(),
    }
}

/// The requests that are granted next, in their order; their slots are given at once.
fn granted(pool: &mut Pool, now: Instant) -> Vec<RequestId> {
    let mut order = Vec::new();
    loop {
        let effects = pool.take_effects();
        if effects.is_empty() {
            return order;
        }
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now),
                Effect::Start { id, .. } => order.push(id),
                _ => {}
            }
        }
    }
}

fn start(pool: &mut Pool, now: Instant) {
    let mut config = pool.config().clone();
    (config.scheduler_running, config.revision) = (true, 2);
    pool.configure(config, now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// 7: with one token at a time, grants come in the order of the naive scores.
    #[test]
    fn grants_follow_the_score(requests in prop::collection::vec((0_usize..6, 0_usize..5, 0_i64..590_000), 1..40)) {
        let mut pool = pool(1, 1, false);
        let weights = Weights::default();
        let mut waiting = Vec::new();
        for (n, (client, lane, age)) in requests.into_iter().enumerate() {
            let submission = submission(n as u64, client, Urgency::ALL[lane], at(595_000 - age));
            // A submission must come soon after its hold.
            pool.submit(submission.clone(), Mode::Queue, submission.held_at);
            waiting.push(submission);
        }
        let mut now = at(595_000);
        start(&mut pool, now);
        let mut share = FairShare::default();
        while !waiting.is_empty() {
            let started = granted(&mut pool, now);
            for id in started {
                // What the model thinks: the highest score, then the older, then the id.
                let best = waiting.iter().min_by_key(|s| {
                    let score = weights.score(s.tier, s.urgency, 0, share.millipoints(&s.client)).total().0;
                    (s.held_at.millis() - 30 * score, s.held_at, s.id.clone())
                }).unwrap().clone();
                prop_assert_eq!(&id, &best.id);
                share.record(&best.client, 1, now);
                waiting.retain(|s| s.id != id);
            }
            now = now.plus(1_000);
            if now.since(at(0)) > STARVATION_BOUND_MS {
                break;
            }
            pool.on_wakeup(now);
        }
    }
}

/// 8: under an endless stream of enterprise work, old requests of a basic client get every fourth grant, oldest first,
/// and so start within the stated bound.
#[test]
fn nothing_starves_under_an_endless_stream() {
    let mut pool = pool(1, 1, true);
    let old: Vec<Submission> = (0..5).map(|n| submission(n, 3, Urgency::Deferred, at(n as i64))).collect();
    let mut now = at(10);
    let blocker = submission(99, 0, Urgency::Immediate, now);
    pool.submit(blocker, Mode::Queue, now);
    for request in &old {
        pool.submit(request.clone(), Mode::Queue, now);
    }
    let mut order = Vec::new();
    let mut n = 1_000;
    let mut promoted_since = None;
    while now.since(at(0)) < STARVATION_BOUND_MS + 60_000 {
        for _ in 0..2 {
            n += 1;
            pool.submit(submission(n, 0, Urgency::Immediate, now), Mode::Queue, now);
        }
        now = now.plus(1_000);
        pool.on_wakeup(now);
        let started = granted(&mut pool, now);
        if now.since(at(0)) >= STARVATION_BOUND_MS {
            promoted_since.get_or_insert(order.len());
        }
        order.extend(started);
    }
    let since = promoted_since.unwrap();
    let places: Vec<usize> = old.iter().map(|o| order.iter().position(|id| *id == o.id).expect("it starved")).collect();
    for (index, place) in places.iter().enumerate() {
        assert!(*place >= since, "it was not old yet");
        let bound = PROMOTED_ONE_IN as usize * (index + 1);
        assert!(place - since < bound + 1, "the {index}. promoted one came after {} grants", place - since);
    }
    assert!(places.is_sorted(), "promoted requests go oldest first");
}

/// 7: a client without a slot holds back nobody, and is not asked about for each of its requests.
#[test]
fn a_client_without_a_slot_is_passed_over_as_a_whole() {
    let mut pool = pool(1_000, 0, true);
    let now = at(0);
    for n in 0..1_000 {
        pool.submit(submission(n, 0, Urgency::Immediate, now), Mode::Queue, now);
    }
    let mut asked = 0;
    loop {
        let questions: Vec<_> = pool.take_effects();
        if questions.is_empty() {
            break;
        }
        for effect in questions {
            if let Effect::AcquireSlot { id, grant, .. } = effect {
                asked += 1;
                pool.slot_answered(&id, grant, Some(SlotAnswer::Full), now);
            }
        }
    }
    assert!(asked <= 4, "{asked} questions");
    pool.submit(submission(5_000, 3, Urgency::Deferred, now), Mode::Queue, now);
    assert_eq!(granted(&mut pool, now).len(), 1);
    assert_eq!(pool.view(now).available, Tokens::from_units(999).unwrap());
}
