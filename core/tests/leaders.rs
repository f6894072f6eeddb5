//! Requests that are the same: which of them runs, and which of them wait for that, when they do not come in the order of
//! their rank, or have not the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::off_peak::Window;
use rm_core::pool::{BatchTerms, CancelOutcome, Pool, PoolConfig, Submission};
use rm_core::priority::{STARVATION_BOUND_MS, Urgency};
use rm_core::request::{Phase, Status};
use support::{at, config, pool, queue, run_until, started, started_ids, twin, used};

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
