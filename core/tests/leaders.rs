//! Requests that are the same: which of them runs, and which of them wait for that, when they do not come in the order of
//! their rank, or have not the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use std::collections::VecDeque;

use rm_core::account::SlotAnswer;
use rm_core::id::{RequestId, WorkerBinding};
use rm_core::off_peak::Window;
use rm_core::pipeline::Step;
use rm_core::pool::{BatchTerms, CancelOutcome, Effect, LeaseAnswer, Pool, PoolConfig, Report, Retry, Submission};
use rm_core::priority::{STARVATION_BOUND_MS, Urgency};
use rm_core::request::{Phase, Status};
use support::{at, config, demand, failure, pool, queue, run_until, started, started_ids, twin, used};

const HOUR: i64 = 3_600_000;

fn with_window() -> PoolConfig {
    let window = Window { start: at(5 * HOUR), end: at(6 * HOUR) };
    PoolConfig { off_peak: Some(vec![window]), ..config(100, 1) }
}

fn follows(pool: &Pool, id: &RequestId, leader: &RequestId) -> bool {
    pool.request(id).unwrap().phase == Phase::Following { leader: leader.clone() }
}

fn gathering(n: u64, window_ms: i64) -> Submission {
    let batch = Some(BatchTerms { key: "all".into(), max_size: 10, window_ms });
    Submission { batch, timeout_ms: 3_000, ..twin(n, Urgency::Batch) }
}

#[test]
fn a_deadline_is_kept_though_the_same_request_waits_without_one() {
    let mut pool = pool(with_window());
    let patient = queue(&mut pool, twin(1, Urgency::Deferred), at(0));
    let deadline = Some(at(HOUR));
    let hurried = queue(&mut pool, Submission { deadline, ..twin(2, Urgency::Deferred) }, at(0));
    let force_at = pool.request(&hurried).unwrap().force_at().unwrap();
    assert!(follows(&pool, &patient, &hurried), "the one that goes first runs for both");
    let started = run_until(&mut pool, at(0), at(HOUR));
    assert_eq!(started.first(), Some(&(force_at, hurried.clone())));
}

#[test]
fn one_that_is_not_combined_does_not_wait_until_others_are_there() {
    let mut pool = pool(config(100, 1));
    let parked = queue(&mut pool, gathering(1, 30_000), at(0));
    let plain = queue(&mut pool, Submission { batch: None, ..gathering(2, 0) }, at(1));
    assert_eq!(started_ids(&mut pool, at(1)), std::slice::from_ref(&plain));
    assert!(follows(&pool, &parked, &plain));
    let mut pool = support::pool(config(100, 1));
    let parked = queue(&mut pool, gathering(1, 30_000), at(0));
    let same = queue(&mut pool, gathering(2, 30_000), at(1));
    assert!(follows(&pool, &same, &parked), "it would wait as long");
    let hurried = queue(&mut pool, Submission { deadline: Some(at(12_000)), ..gathering(3, 30_000) }, at(2));
    assert!(follows(&pool, &parked, &hurried) && follows(&pool, &same, &hurried));
    let (start, _) = run_until(&mut pool, at(2), at(12_000)).remove(0);
    assert!(start < at(9_000), "in time for its deadline: {start:?}");
}

#[test]
fn those_of_lower_rank_that_wait_have_the_result_of_one_that_goes_before_them() {
    let mut pool = pool(config(5, 0));
    let blocking = queue(&mut pool, Submission { twin: None, ..twin(9, Urgency::Normal) }, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let orders = [twin(1, Urgency::Deferred), twin(2, Urgency::Normal), twin(3, Urgency::Fast)];
    let ids = orders.map(|order| queue(&mut pool, order, at(1)));
    assert!(follows(&pool, &ids[0], &ids[2]) && follows(&pool, &ids[1], &ids[2]));
    let applied = &pool.request(&ids[0]).unwrap().applied;
    assert!(applied.len() == 1 && applied[0].detail.contains(ids[2].as_str()), "{applied:?}");
    pool.report(&blocking, grant, used(0), at(2));
    let (_, grant) = started(&mut pool, at(2)).remove(0);
    pool.take_changes();
    pool.report(&ids[2], grant, used(5), at(3));
    let ended = pool.take_changes().ended;
    let told: Vec<_> = ended.iter().map(|ended| (ended.end.status, ended.end.cost.is_none())).collect();
    assert_eq!(told, [(Status::Succeeded, false), (Status::Succeeded, true), (Status::Succeeded, true)]);
}

#[test]
fn one_that_may_have_its_turn_first_does_not_wait_for_one_that_goes_before_it_by_its_score() {
    let mut pool = pool(config(5, 0));
    queue(&mut pool, Submission { twin: None, ..twin(9, Urgency::Normal) }, at(0));
    started(&mut pool, at(0));
    let old = queue(&mut pool, twin(1, Urgency::Deferred), at(1));
    pool.on_wakeup(at(STARVATION_BOUND_MS + 2));
    let fast = twin(2, Urgency::Fast);
    queue(&mut pool, Submission { held_at: at(STARVATION_BOUND_MS + 2), ..fast }, at(STARVATION_BOUND_MS + 2));
    assert_eq!(pool.request(&old).unwrap().phase, Phase::Waiting);
}

#[test]
fn one_whose_run_has_begun_is_not_cancelled_as_one_that_waits() {
    let mut pool = pool(config(100, 0));
    let leader = queue(&mut pool, twin(1, Urgency::Normal), at(0));
    started(&mut pool, at(0));
    let follower = queue(&mut pool, twin(2, Urgency::Normal), at(1));
    assert_eq!(pool.cancel(&follower, true, at(2)), CancelOutcome::Running);
    assert!(follows(&pool, &follower, &leader));
    assert_eq!(pool.cancel(&follower, false, at(3)), CancelOutcome::Cancelled);
}

/// A pool with a window, in which one runs for two others that are the same, and is cancelled.
fn led_by_one_that_is_cancelled(others: [Submission; 2]) -> (Pool, [RequestId; 2]) {
    let mut pool = pool(with_window());
    let leader = queue(&mut pool, twin(1, Urgency::Normal), at(0));
    assert_eq!(started_ids(&mut pool, at(0)), std::slice::from_ref(&leader));
    let ids = others.map(|other| queue(&mut pool, other, at(1)));
    assert!(ids.iter().all(|id| follows(&pool, id, &leader)));
    assert_eq!(pool.cancel(&leader, false, at(2)), CancelOutcome::Cancelled);
    (pool, ids)
}

#[test]
fn those_of_one_that_is_cancelled_do_not_wait_for_one_of_lower_rank_among_them() {
    let (mut pool, [patient, normal]) =
        led_by_one_that_is_cancelled([twin(2, Urgency::Deferred), twin(3, Urgency::Normal)]);
    assert_eq!(started_ids(&mut pool, at(2)), std::slice::from_ref(&normal));
    assert!(follows(&pool, &patient, &normal), "it has the result of the one that goes first");
}

#[test]
fn those_of_one_that_is_cancelled_keep_their_deadlines() {
    let hurried = Submission { deadline: Some(at(HOUR)), ..twin(3, Urgency::Deferred) };
    let (mut pool, [patient, hurried]) = led_by_one_that_is_cancelled([twin(2, Urgency::Deferred), hurried]);
    let force_at = pool.request(&hurried).unwrap().force_at().unwrap();
    assert!(follows(&pool, &patient, &hurried));
    assert_eq!(run_until(&mut pool, at(2), at(HOUR)).first(), Some(&(force_at, hurried)));
}

#[test]
fn those_of_one_that_is_cancelled_wait_again() {
    let (mut pool, [next, last]) = led_by_one_that_is_cancelled([2, 3].map(|n| twin(n, Urgency::Normal)));
    assert!(follows(&pool, &last, &next) && pool.request(&last).unwrap().first_started_at.is_none());
    assert_eq!(pool.cancel(&last, true, at(3)), CancelOutcome::Cancelled, "nothing runs for it");
}

#[test]
fn a_promoted_one_waits_for_no_younger_one_when_its_own_is_cancelled() {
    let mut pool = pool(config(5, 0));
    let leader = queue(&mut pool, twin(1, Urgency::Normal), at(0));
    started(&mut pool, at(0));
    let old = queue(&mut pool, twin(2, Urgency::Deferred), at(1));
    let now = at(STARVATION_BOUND_MS);
    let fast = queue(&mut pool, Submission { held_at: now, ..twin(3, Urgency::Fast) }, now);
    assert!(follows(&pool, &old, &leader) && follows(&pool, &fast, &leader));
    pool.cancel(&leader, false, now);
    assert!(!follows(&pool, &old, &fast));
}

fn worker() -> Option<WorkerBinding> {
    Some("ECHO".parse().unwrap())
}

/// A pool that knows how long runs take, if one has ended.
fn after_runs_of(ms: Option<i64>) -> Pool {
    let mut pool = pool(config(100, 0));
    if let Some(ms) = ms {
        let id =
            queue(&mut pool, Submission { twin: None, worker: worker(), ..twin(90, Urgency::Normal) }, at(-10_000));
        let grant = started(&mut pool, at(-10_000))[0].1;
        pool.report(&id, grant, used(0), at(ms - 10_000));
    }
    pool
}

#[test]
fn nobody_waits_for_a_run_that_its_own_deadline_may_cut_off() {
    let by = |n, ms: Option<i64>| Submission {
        deadline: ms.map(at),
        timeout_ms: 20_000,
        worker: worker(),
        ..twin(n, Urgency::Normal)
    };
    // How long runs take, by when the first and the next are to end, and whether that waits for it.
    let cases = [
        (Some(2_500), 2_000, Some(4_000), false),
        (Some(2_500), 2_000, None, false),
        (Some(2_500), 2_000, Some(2_000), true),
        // Hardly any takes longer than three times the first.
        (Some(1_000), 2_000, Some(4_000), false),
        (Some(1_000), 2_000, Some(5_500), true),
        (Some(1_000), 2_000, None, true),
        (Some(100), 2_000, Some(4_000), true),
        // Nothing is known.
        (None, 2_000, None, false),
        (None, 12_000, Some(20_000), false),
        (None, 12_000, None, true),
        (None, 20_000, Some(21_000), true),
    ];
    for (index, (takes, first, next, waits)) in cases.into_iter().enumerate() {
        let mut pool = after_runs_of(takes);
        let leader = queue(&mut pool, by(1, Some(first)), at(0));
        started(&mut pool, at(0));
        let other = queue(&mut pool, by(2, next), at(0));
        assert_eq!(follows(&pool, &other, &leader), waits, "case {index}");
    }
}

#[test]
fn those_that_have_more_time_do_not_wait_for_a_run_that_starts_too_late() {
    let mut pool = pool(config(5, 0));
    let before = queue(&mut pool, Submission { twin: None, ..twin(1, Urgency::Normal) }, at(0));
    let grant = started(&mut pool, at(0))[0].1;
    let by = |n, ms: i64| Submission { deadline: Some(at(ms)), timeout_ms: 2_000, ..twin(n, Urgency::Normal) };
    let leader = queue(&mut pool, by(2, 10_000), at(0));
    let ids = [10_000, 11_000, 12_000].into_iter().zip(3..).map(|(ms, n)| queue(&mut pool, by(n, ms), at(0)));
    let [equal, later, last] = ids.collect::<Vec<_>>().try_into().unwrap();
    for id in [&equal, &later, &last] {
        assert!(follows(&pool, id, &leader));
    }
    pool.report(&before, grant, used(0), at(9_000));
    assert_eq!(started_ids(&mut pool, at(9_000)), std::slice::from_ref(&leader));
    assert!(follows(&pool, &equal, &leader));
    assert_eq!(pool.request(&later).unwrap().phase, Phase::Waiting);
    assert!(follows(&pool, &last, &leader), "after its end there is time for another run");
}

#[test]
fn an_older_one_keeps_its_place_when_one_comes_that_could_not_wait_for_it() {
    // One with more time until its deadline; one that gives up sooner.
    for (young_ends_at, young_limit_ms) in [(20_000, 20_000), (12_000, 5_000)] {
        let mut pool = pool(config(5, 5));
        queue(&mut pool, Submission { twin: None, ..twin(1, Urgency::Normal) }, at(0));
        assert_eq!(started(&mut pool, at(0)).len(), 1);
        let by = |n, ends_at: i64, timeout_ms| Submission {
            deadline: Some(at(ends_at)),
            timeout_ms,
            ..twin(n, Urgency::Normal)
        };
        let old = queue(&mut pool, by(2, 12_000, 20_000), at(0));
        for n in 10..30 {
            queue(&mut pool, Submission { twin: None, held_at: at(1), ..twin(n, Urgency::Normal) }, at(1));
        }
        queue(&mut pool, Submission { held_at: at(2), ..by(3, young_ends_at, young_limit_ms) }, at(2));
        assert_eq!(run_until(&mut pool, at(2), at(30_000)).first().map(|(_, id)| id), Some(&old), "it was the next");
    }
}

#[test]
fn all_steps_of_one_that_is_waited_for_are_to_end_before_its_deadline() {
    let mut pool = after_runs_of(Some(2_000));
    let later = Step { worker: worker(), demands: vec![demand("home", 5)], max_attempts: 3, timeout_ms: 20_000 };
    let by = |n, ends_at: Option<i64>| Submission {
        deadline: ends_at.map(at),
        timeout_ms: 20_000,
        worker: worker(),
        later: vec![later.clone()],
        ..twin(n, Urgency::Normal)
    };
    let leader = queue(&mut pool, by(1, Some(3_000)), at(0));
    let other = queue(&mut pool, by(2, None), at(0));
    assert!(!follows(&pool, &other, &leader));
}

#[test]
fn nobody_waits_for_one_that_is_tried_again_too_late_for_its_own_deadline() {
    let mut pool = pool(config(100, 0));
    let by = |n, ends_at: Option<i64>| Submission {
        deadline: ends_at.map(at),
        timeout_ms: 1_000,
        ..twin(n, Urgency::Normal)
    };
    let leader = queue(&mut pool, by(1, Some(10_000)), at(0));
    let other = queue(&mut pool, by(2, None), at(0));
    assert!(follows(&pool, &other, &leader));
    let grant = started(&mut pool, at(0))[0].1;
    // It is to be left alone until shortly before the deadline.
    let busy = Report::Failed { failure: failure(), retry: Retry::Busy { pause_ms: Some(9_900) } };
    pool.report(&leader, grant, busy, at(10));
    assert!(!follows(&pool, &other, &leader));
}

#[test]
fn a_younger_one_that_an_older_one_will_not_wait_for_does_not_go_before_it() {
    for ends_at in [None, Some(9_000)] {
        let mut pool = pool(config(100, 100));
        let mut send = |n, timeout_ms, deadline, held_at, answer: LeaseAnswer| {
            let demands = vec![demand("home", 5), demand("other", 2)];
            let submission = Submission { demands, timeout_ms, deadline, held_at, ..twin(n, Urgency::Normal) };
            let id = queue(&mut pool, submission, held_at);
            let mut starts = Vec::new();
            let mut effects = VecDeque::from(pool.take_effects());
            while let Some(effect) = effects.pop_front() {
                match effect {
                    Effect::AcquireSlot { id, grant, .. } => {
                        pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), held_at);
                    }
                    Effect::AcquireLease { id, grant, pool: other, .. } => {
                        pool.lease_answered(&id, grant, &other, answer, held_at);
                    }
                    Effect::Start { id, .. } => starts.push(id),
                    _ => {}
                }
                effects.extend(pool.take_effects());
            }
            (id, starts)
        };
        let refused = LeaseAnswer::NotNow { retry_at: Some(at(5_000)), ready_at: None };
        let old = send(1, 30_000, None, at(0), refused).0;
        let (_, starts) = send(2, 20_000, ends_at.map(at), at(10), LeaseAnswer::Granted { regain_ms: 0 });
        let waits = matches!(pool.request(&old).unwrap().phase, Phase::Following { .. });
        assert_eq!(starts.first() == Some(&old), ends_at.is_some(), "the older goes first");
        assert_eq!(waits, ends_at.is_none(), "it has the result of the younger");
    }
}
