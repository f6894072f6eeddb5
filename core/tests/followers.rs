//! Requests that are the same: one runs, and the others have its result; whatever becomes of it, each has its own end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::lane::{LaneLimits, Lanes};
use rm_core::off_peak::{WaitsFor, Window};
use rm_core::optimizer::Strategy;
use rm_core::pool::{BatchTerms, Blocked, CancelOutcome, Effect, Pool, PoolConfig, Report, Retry, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Phase, Status, Usage};
use rm_core::units::{NanoUsd, Tokens};
use support::{
    at, config, cost, demand, ends, failure, halved, pool, queue, request, started, stored, twin, units, used,
};

/// A pool in which the first of three that are the same runs.
fn three() -> (Pool, Vec<RequestId>, u32) {
    let mut pool = pool(config(100, 0));
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, twin(n, Urgency::Normal), at(0))).collect();
    let running = started(&mut pool, at(0));
    assert_eq!(running.len(), 1);
    (pool, ids, running[0].1)
}

#[test]
fn they_have_the_result_at_no_cost_and_what_it_would_have_cost_is_saved() {
    let (mut pool, ids, grant) = three();
    assert_eq!(pool.view(at(0)).reserved, units(5), "one has tokens");
    assert_eq!(pool.position(&ids[1], at(0)).unwrap().blocked_by, Some(Blocked::InFlight));
    pool.report(&ids[0], grant, used(3), at(10));
    let ended = ends(&mut pool);
    let told: Vec<_> = ended
        .iter()
        .map(|ended| (ended.end.status, ended.end.cost, ended.end.lines[0].baseline(), ended.result_of.clone()))
        .collect();
    let follower = (Status::Succeeded, NanoUsd::ZERO, cost(3), Some(ids[0].clone()));
    assert_eq!(told, [(Status::Succeeded, cost(3), cost(3), None), follower.clone(), follower]);
    assert_eq!(ended[1].end.lines[0].saved.by(Strategy::RequestBatching), cost(3));
    assert_eq!((pool.view(at(10)).reserved, pool.requests().count()), (Tokens::ZERO, 0));
}

#[test]
fn if_the_one_that_runs_has_no_result_the_next_is_run() {
    type Fault = fn(&mut Pool, &RequestId, u32);
    let faults: [Fault; 3] = [
        |pool, id, grant| {
            pool.report(id, grant, Report::Failed { failure: failure(), retry: Retry::No }, at(10));
        },
        |pool, id, _| assert_eq!(pool.cancel(id, false, at(10)), CancelOutcome::Cancelled),
        |pool, _, _| pool.on_wakeup(at(700_000)),
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        let mut pool = pool(config(100, 0));
        let only = |n| Submission { max_attempts: 1, ..twin(n, Urgency::Normal) };
        let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, only(n), at(0))).collect();
        let grant = started(&mut pool, at(0))[0].1;
        fault(&mut pool, &ids[0], grant);
        let now = at(if index == 2 { 700_000 } else { 10 });
        let next = started(&mut pool, now);
        // After a cancellation one does for the others; after a failure none waits for another one's.
        let run: Vec<_> = next.iter().map(|(id, _)| id).collect();
        if index == 1 {
            assert_eq!(run, [&ids[1]]);
            assert_eq!(pool.request(&ids[2]).unwrap().phase, Phase::Following { leader: ids[1].clone() });
        } else {
            assert_eq!(run, [&ids[1], &ids[2]], "fault {index}");
            pool.report(&ids[2], next[1].1, used(5), now);
        }
        assert!(pool.request(&ids[1]).unwrap().applied.is_empty(), "it runs for itself");
        pool.report(&ids[1], next[0].1, used(5), now);
        let done = ends(&mut pool);
        assert_eq!(done.iter().filter(|ended| ended.end.status == Status::Succeeded).count(), 2, "fault {index}");
    }
}

#[test]
fn one_that_waits_is_cancelled_and_expires_on_its_own() {
    let (mut pool, ids, grant) = three();
    assert_eq!(pool.cancel(&ids[1], false, at(1)), CancelOutcome::Cancelled);
    let late = Submission { deadline: Some(at(50)), ..twin(4, Urgency::Normal) };
    let late = queue(&mut pool, late, at(2));
    pool.on_wakeup(at(50));
    let ended: Vec<_> = ends(&mut pool).into_iter().map(|ended| (ended.request.id, ended.end.status)).collect();
    assert_eq!(ended, [(ids[1].clone(), Status::Cancelled), (late, Status::Expired)]);
    pool.report(&ids[0], grant, used(5), at(60));
    assert_eq!(ends(&mut pool).len(), 2);
}

#[test]
fn nobody_waits_for_one_of_lower_rank_that_has_not_begun() {
    let mut pool = pool(PoolConfig { off_peak: Some(vec![]), ..config(100, 0) });
    let deferred = queue(&mut pool, twin(1, Urgency::Deferred), at(0));
    let normal = queue(&mut pool, twin(2, Urgency::Normal), at(0));
    assert_eq!(started(&mut pool, at(0)).len(), 1);
    assert_eq!(
        pool.request(&deferred).unwrap().phase,
        Phase::Following { leader: normal.clone() },
        "the other way round"
    );
    assert!(matches!(pool.request(&normal).unwrap().phase, Phase::Running { .. }));
}

#[test]
fn a_crash_forgets_nobody() {
    let (pool, ids, grant) = three();
    let mut kept = stored(pool.config().clone());
    kept.state = Some(pool.state().clone());
    kept.requests = pool.requests().cloned().collect();
    let mut pool = Pool::restore(kept, at(5));
    pool.report(&ids[0], grant, used(5), at(10));
    assert_eq!(ends(&mut pool).len(), 3);
}

#[test]
fn one_that_is_more_urgent_does_not_wait_with_a_leader_that_has_to_wait_again() {
    let mut pool = pool(config(100, 0));
    let leader = queue(&mut pool, twin(1, Urgency::Deferred), at(0));
    let grant = started(&mut pool, at(0))[0].1;
    let urgent = queue(&mut pool, twin(2, Urgency::Immediate), at(1));
    let patient = queue(&mut pool, twin(3, Urgency::Deferred), at(1));
    assert!(matches!(pool.request(&urgent).unwrap().phase, Phase::Following { .. }));
    let mut closed = pool.config().clone();
    (closed.off_peak, closed.revision) = (Some(vec![]), 2);
    pool.configure(closed, at(2));
    pool.report(&leader, grant, Report::Failed { failure: failure(), retry: Retry::Backoff }, at(3));
    assert_eq!(started(&mut pool, at(3)).iter().map(|(id, _)| id).collect::<Vec<_>>(), [&urgent]);
    assert_eq!(pool.request(&patient).unwrap().phase, Phase::Following { leader }, "it is tried again");
}

#[test]
fn no_more_wait_for_one_than_can_end_with_it() {
    for (sent, leading) in [(129, 1), (130, 2), (259, 3)] {
        let mut pool = pool(config(1_000, 0));
        (1..=sent).for_each(|n| drop(queue(&mut pool, twin(n, Urgency::Normal), at(0))));
        let leads = pool.requests().filter(|request| !matches!(request.phase, Phase::Following { .. })).count();
        assert_eq!(leads, leading, "each has a hundred and twenty-eight at most");
    }
}

#[test]
fn what_ends_together_is_settled_a_few_at_a_time() {
    let mut pool = pool(config(1_000, 0));
    let ids: Vec<_> = (1..=129).map(|n| queue(&mut pool, twin(n, Urgency::Normal), at(0))).collect();
    let grant = started(&mut pool, at(0))[0].1;
    pool.report(&ids[0], grant, used(5), at(10));
    assert_eq!(ends(&mut pool).len(), 129);
    let mut settled = std::collections::BTreeSet::new();
    let mut now = at(10);
    while settled.len() < 129 {
        let sent: Vec<String> = pool
            .take_effects()
            .into_iter()
            .filter_map(|effect| if let Effect::Settle { event } = effect { Some(event) } else { None })
            .collect();
        assert!(sent.len() <= 16, "{} at once", sent.len());
        for event in sent {
            pool.settlement_confirmed(&event, now);
            settled.insert(event);
        }
        now = pool.next_wakeup(now).unwrap_or(now);
        assert!(now < at(2_000), "{} are settled", settled.len());
        pool.on_wakeup(now);
    }
}

#[test]
fn they_start_with_the_one_that_runs_and_wait_again_with_it() {
    let mut pool = pool(config(100, 0));
    let first_started = |pool: &Pool, id: &RequestId| pool.request(id).unwrap().first_started_at;
    let no_slot = |n, now| Submission { has_slot: false, held_at: at(now), ..twin(n, Urgency::Normal) };
    let leader = queue(&mut pool, no_slot(1, 0), at(0));
    let before = queue(&mut pool, no_slot(2, 1), at(1));
    assert_eq!(pool.request(&before).unwrap().phase, Phase::Following { leader: leader.clone() });
    // The leader is refused its slot: who is not before it waits with it.
    pool.slot_answered(&leader, 1, Some(SlotAnswer::Full), at(2));
    assert_eq!(pool.request(&before).unwrap().phase, Phase::Following { leader: leader.clone() });
    assert_eq!(first_started(&pool, &before), None);
    pool.client_woken(&pool.request(&leader).unwrap().client.clone(), at(3));
    pool.slot_answered(&leader, 2, Some(SlotAnswer::Granted), at(10));
    let after = queue(&mut pool, no_slot(3, 20), at(20));
    assert_eq!((first_started(&pool, &before), first_started(&pool, &after)), (Some(at(10)), Some(at(20))));
    pool.report(&leader, 2, Report::Failed { failure: failure(), retry: Retry::Backoff }, at(30));
    for id in [&before, &after] {
        assert_eq!(first_started(&pool, id), None, "it was not its own run that had started");
        assert_eq!(pool.request(id).unwrap().phase, Phase::Following { leader: leader.clone() }, "it is tried again");
    }
    let hurried = Submission { deadline: Some(at(1_000)), ..no_slot(4, 40) };
    let hurried = queue(&mut pool, hurried, at(40));
    assert!(matches!(pool.request(&hurried).unwrap().phase, Phase::Acquiring { .. }), "it has no time for that");
}

#[test]
fn one_that_failed_leads_nobody() {
    let (mut pool, ids, grant) = three();
    pool.report(&ids[0], grant, Report::Failed { failure: failure(), retry: Retry::No }, at(10));
    let next = queue(&mut pool, Submission { held_at: at(11), ..twin(4, Urgency::Normal) }, at(11));
    assert!(!matches!(pool.request(&next).unwrap().phase, Phase::Following { .. }), "what failed may fail again");
}

#[test]
fn those_of_one_that_expires_wait_for_the_first_of_them() {
    let mut pool = pool(PoolConfig { off_peak: Some(vec![]), ..config(100, 0) });
    let leader = Submission { deadline: Some(at(50)), timeout_ms: 1, ..twin(1, Urgency::Deferred) };
    let full = queue(&mut pool, request(9, "full", Tier::Standard, Urgency::Normal, at(0)), at(0));
    assert!(pool.request(&full).is_some());
    let leader = queue(&mut pool, Submission { demands: vec![demand("home", 100)], ..leader }, at(0));
    let others: Vec<_> = (2..=4).map(|n| queue(&mut pool, twin(n, Urgency::Deferred), at(0))).collect();
    assert_eq!(pool.request(&others[0]).unwrap().phase, Phase::Following { leader });
    pool.on_wakeup(at(50));
    assert_eq!(ends(&mut pool)[0].end.status, Status::Expired);
    assert_eq!(pool.request(&others[0]).unwrap().phase, Phase::Waiting);
    for other in &others[1..] {
        assert_eq!(pool.request(other).unwrap().phase, Phase::Following { leader: others[0].clone() });
    }
}

#[test]
fn nobody_waits_for_one_that_waits_where_it_would_not() {
    let windows = std::collections::BTreeMap::from([("other".to_owned(), vec![])]);
    let mut closed = config(100, 0);
    (closed.off_peak, closed.template_windows) = (Some(vec![]), windows);
    let follows = |leader: Submission, one: Submission| {
        let mut pool = pool(closed.clone());
        let leader = queue(&mut pool, leader, at(0));
        let one = queue(&mut pool, one, at(0));
        pool.request(&one).unwrap().phase == Phase::Following { leader }
    };
    let of_the_template =
        |n| Submission { waits_for: Some(WaitsFor::Template("other".into())), ..twin(n, Urgency::Deferred) };
    let large = |n, urgency| Submission { demands: vec![demand("home", 100)], ..twin(n, urgency) };
    let stopped = |leader: Submission, one: Submission| {
        let lanes = Lanes::default();
        let mut pool = pool(PoolConfig { scheduler_running: false, lanes, ..config(100, 0) });
        let leader = queue(&mut pool, leader, at(0));
        let one = queue(&mut pool, one, at(0));
        pool.request(&one).unwrap().phase == Phase::Following { leader }
    };
    assert!(follows(of_the_template(1), of_the_template(2)));
    assert!(!follows(of_the_template(1), twin(2, Urgency::Deferred)), "in another window");
    assert!(stopped(large(1, Urgency::Normal), large(2, Urgency::Normal)));
    assert!(!stopped(large(1, Urgency::Normal), large(2, Urgency::Fast)), "in a lower lane");
    assert!(!stopped(large(1, Urgency::Immediate), large(2, Urgency::Immediate)), "in a lane that has a limit");
    assert!(stopped(large(1, Urgency::Normal), twin(2, Urgency::Deferred)), "one that would wait longer");
}

#[test]
fn those_that_wait_for_the_same_window_wait_for_one_and_one_of_a_shorter_limit_for_none() {
    let mut pool = pool(PoolConfig { off_peak: Some(vec![]), ..config(100, 0) });
    let leader = queue(&mut pool, twin(1, Urgency::Deferred), at(0));
    let same = queue(&mut pool, twin(2, Urgency::Deferred), at(0));
    assert_eq!(pool.request(&same).unwrap().phase, Phase::Following { leader });
    let short = Submission { timeout_ms: 1_000, ..twin(3, Urgency::Deferred) };
    let short = queue(&mut pool, short, at(0));
    assert_eq!(pool.request(&short).unwrap().phase, Phase::Waiting);
}

#[test]
fn each_is_told_what_its_own_use_would_have_cost_when_it_came() {
    let windows = Some(vec![Window { start: at(50), end: at(1_000) }]);
    let mut pool = pool(PoolConfig { off_peak: windows, ..config(100, 0) });
    let patient = queue(&mut pool, halved(twin(1, Urgency::Deferred)), at(0));
    let patient_too = queue(&mut pool, halved(twin(2, Urgency::Deferred)), at(0));
    pool.on_wakeup(at(50));
    let running = started(&mut pool, at(50));
    let normal = queue(&mut pool, halved(twin(3, Urgency::Normal)), at(60));
    assert_eq!(pool.request(&normal).unwrap().phase, Phase::Following { leader: patient.clone() });
    pool.report(&patient, running[0].1, used(4), at(70));
    let told: Vec<_> = ends(&mut pool)
        .iter()
        .map(|ended| {
            let line = &ended.end.lines[0];
            let saved = |by| line.saved.by(by);
            for strategy in Strategy::ALL.into_iter().filter(|by| !saved(*by).is_none()) {
                let told = ended.request.applied.iter().any(|applied| applied.strategy == strategy);
                assert!(told, "{strategy:?} is said to have been applied");
            }
            (
                ended.request.id.clone(),
                line.cost,
                saved(Strategy::OffPeak),
                saved(Strategy::RequestBatching),
                line.baseline(),
            )
        })
        .collect();
    let (none, half, full) = (NanoUsd::ZERO, cost(2), cost(4));
    assert_eq!(
        told,
        [
            (patient, half, half, none, full),
            (patient_too, none, half, half, full),
            // It would have had the lower price without waiting for it: that is nobody's saving.
            (normal, none, none, half, half),
        ]
    );
}

#[test]
fn the_price_of_who_waits_for_one_is_that_of_its_start() {
    let mut pool = pool(config(100, 0));
    let no_slot = |n, now| Submission { has_slot: false, held_at: at(now), ..halved(twin(n, Urgency::Normal)) };
    let leader = queue(&mut pool, no_slot(1, 900), at(900));
    queue(&mut pool, no_slot(2, 900), at(900));
    pool.slot_answered(&leader, 1, Some(SlotAnswer::Granted), at(950));
    queue(&mut pool, no_slot(3, 990), at(990));
    queue(&mut pool, no_slot(4, 1_010), at(1_010));
    pool.report(&leader, 1, used(4), at(1_020));
    let baselines: Vec<_> = ends(&mut pool).iter().map(|ended| ended.end.lines[0].baseline()).collect();
    assert_eq!(baselines, [cost(2), cost(2), cost(2), cost(4)], "only the last one came after the window");
}

#[test]
fn one_that_has_the_result_of_a_share_would_have_used_its_estimate() {
    let mut pool = pool(config(100, 0));
    let terms = BatchTerms { key: "all".into(), max_size: 2, window_ms: 0 };
    let leader = Submission { batch: Some(terms.clone()), ..twin(1, Urgency::Batch) };
    let leader = queue(&mut pool, leader, at(0));
    queue(&mut pool, Submission { batch: Some(terms), ..twin(2, Urgency::Batch) }, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let usage = vec![Usage { pool: support::id_of("home"), amount: units(2), parts: None, is_share: true }];
    pool.report(&leader, grant, Report::Succeeded { usage, remaining: vec![] }, at(1));
    let baselines: Vec<_> = ends(&mut pool).iter().map(|ended| ended.end.lines[0].baseline()).collect();
    assert_eq!(baselines, [cost(5), cost(5)], "by itself each would have used five");
}

#[test]
fn the_result_of_a_common_run_would_have_cost_its_estimate() {
    let mut pool = pool(config(10, 0));
    let share = [Usage { pool: support::id_of("home"), amount: units(2), parts: None, is_share: true }];
    pool.serve(twin(1, Urgency::Normal), &share, "kept".into(), at(0));
    assert_eq!(ends(&mut pool)[0].end.lines[0].baseline(), cost(5));
}

#[test]
fn one_that_nobody_may_wait_for_keeps_the_others_from_waiting_for_each_other_no_longer() {
    let closed = PoolConfig { off_peak: Some(vec![]), ..config(100, 0) };
    let long = Submission { timeout_ms: 900_000, ..twin(1, Urgency::Normal) };
    let deferred = Submission { waits_for: Some(WaitsFor::Pool), ..twin(1, Urgency::Deferred) };
    for first in [deferred, long] {
        let mut pool = pool(closed.clone());
        queue(&mut pool, first.clone(), at(0));
        let ids: Vec<_> = (2..=20).map(|n| queue(&mut pool, twin(n, Urgency::Normal), at(1))).collect();
        let runs = started(&mut pool, at(1));
        assert!(runs.iter().any(|(id, _)| *id == ids[0]));
        assert!(runs.iter().all(|(id, _)| *id == ids[0] || *id == first.id), "{runs:?}");
    }
}

#[test]
fn one_that_is_underway_is_waited_for_rather_than_one_that_waits_itself() {
    let mut pool = pool(config(5, 0));
    let running = queue(&mut pool, twin(1, Urgency::Normal), at(0));
    assert_eq!(started(&mut pool, at(0)).len(), 1);
    // It does not wait for a run that may take longer than it has itself.
    let short = Submission { timeout_ms: 1_000, ..twin(2, Urgency::Fast) };
    queue(&mut pool, short, at(1));
    let third = queue(&mut pool, twin(3, Urgency::Normal), at(2));
    let phase = &pool.request(&third).unwrap().phase;
    assert!(matches!(phase, Phase::Following { leader } if *leader == running), "{phase:?}");
}

/// A pool whose normal lane has a limit of a minute, and which has nothing for five seconds.
fn with_a_limit() -> Pool {
    let lanes = Lanes([(Urgency::Normal, LaneLimits { max_wait_ms: Some(60_000), queue_cap: None })].into());
    let mut pool = pool(PoolConfig { lanes, ..config(10, 1) });
    let first = request(9, "other", Tier::Enterprise, Urgency::Normal, at(0));
    let taken = queue(&mut pool, Submission { demands: vec![demand("home", 10)], ..first }, at(0));
    assert_eq!(started(&mut pool, at(0)), [(taken, 1)]);
    pool
}

fn follows(pool: &Pool, id: &RequestId, leader: &RequestId) -> bool {
    pool.request(id).unwrap().phase == Phase::Following { leader: leader.clone() }
}

#[test]
fn one_whose_lane_has_a_limit_waits_itself_until_the_same_one_has_started() {
    let mut pool = with_a_limit();
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, twin(n, Urgency::Normal), at(0))).collect();
    assert!(ids.iter().all(|id| pool.request(id).unwrap().phase == Phase::Waiting));
    pool.on_wakeup(at(5_000));
    assert_eq!(started(&mut pool, at(5_000)), [(ids[0].clone(), 1)]);
    assert!(ids[1..].iter().all(|id| follows(&pool, id, &ids[0])), "they are run once");
    pool.report(&ids[0], 1, used(5), at(5_100));
    assert_eq!(ends(&mut pool).len(), 3);
}

#[test]
fn the_limit_of_its_lane_counts_anew_when_the_run_that_it_waited_for_came_to_nothing() {
    for cancelled in [false, true] {
        let mut pool = with_a_limit();
        let ids: Vec<_> = (1..=2).map(|n| queue(&mut pool, twin(n, Urgency::Normal), at(0))).collect();
        pool.on_wakeup(at(5_000));
        assert_eq!(started(&mut pool, at(5_000)), [(ids[0].clone(), 1)]);
        let stopped = PoolConfig { scheduler_running: false, revision: 2, ..pool.config().clone() };
        pool.configure(stopped, at(50_000));
        let now = at(100_000);
        if cancelled {
            assert_eq!(pool.cancel(&ids[0], false, now), CancelOutcome::Cancelled);
        } else {
            pool.report(&ids[0], 1, Report::Failed { failure: failure(), retry: Retry::No }, now);
        }
        assert_eq!(pool.request(&ids[1]).unwrap().phase, Phase::Waiting, "it is to be run");
        ends(&mut pool);
        pool.on_wakeup(at(159_999));
        assert_eq!(ends(&mut pool).len(), 0);
        pool.on_wakeup(at(160_000));
        assert_eq!(ends(&mut pool).iter().map(|ended| ended.end.status).collect::<Vec<_>>(), [Status::Expired]);
    }
}

#[test]
fn one_that_has_no_slot_waits_for_the_same_one_that_had_it() {
    let mut pool = with_a_limit();
    let small = |n| Submission { demands: vec![demand("home", 1)], slots: Some(2), ..twin(n, Urgency::Normal) };
    let ids: Vec<_> = (1..=2).map(|n| queue(&mut pool, small(n), at(0))).collect();
    pool.on_wakeup(at(2_000));
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { .. });
    assert_eq!(pool.take_effects().iter().filter(|effect| asks(effect)).count(), 2);
    pool.slot_answered(&ids[0], 1, Some(SlotAnswer::Granted), at(2_001));
    pool.slot_answered(&ids[1], 1, Some(SlotAnswer::Full), at(2_001));
    assert!(follows(&pool, &ids[1], &ids[0]));
}
