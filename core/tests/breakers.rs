//! Breakers: a worker that keeps failing is left alone, and tried again with one request at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::breaker::{FAILURES_MAX, FIRST_CHOICE_MS, OPEN_FIRST_MS};
use rm_core::id::RequestId;
use rm_core::off_peak::{WaitsFor, Window};
use rm_core::pool::{Effect, Pool, PoolConfig, Report, Retry, Submission};
use rm_core::priority::Urgency;
use rm_core::units::Instant;
use support::{at, config, demand, failure, normal, pool, queue, run_until, started, used};

fn order(n: u64, worker: &str, now: Instant) -> Submission {
    Submission { worker: Some(worker.parse().unwrap()), max_attempts: 1, ..normal(n, 1, now) }
}

fn failing() -> Report {
    Report::Failed { failure: failure(), retry: Retry::Failing }
}

/// A pool whose worker `BAD` has just failed often enough, and that two more requests for it wait in.
fn broken(report: Report) -> Pool {
    let mut pool = pool(config(1_000, 0));
    for n in 0..u64::from(FAILURES_MAX) {
        queue(&mut pool, order(n, "BAD", at(0)), at(0));
    }
    for (id, grant) in started(&mut pool, at(0)) {
        pool.report(&id, grant, report.clone(), at(0));
    }
    for n in 10..12 {
        queue(&mut pool, order(n, "BAD", at(0)), at(0));
    }
    pool
}

fn one(mut started: Vec<(RequestId, u32)>) -> (RequestId, u32) {
    assert_eq!(started.len(), 1, "{started:?}");
    started.remove(0)
}

/// The one that tries the worker again, woken by the pool's own alarm.
fn probe(pool: &mut Pool, from: Instant) -> (Instant, RequestId, u32) {
    let now = pool.next_wakeup(from).expect("it is tried again");
    pool.on_wakeup(now);
    let (id, grant) = one(started(pool, now));
    (now, id, grant)
}

#[test]
fn a_worker_that_keeps_failing_is_left_alone_and_holds_back_nobody_else() {
    for report in [failing(), Report::TimedOut] {
        let mut pool = broken(report);
        assert!(started(&mut pool, at(0)).is_empty());
        let other = queue(&mut pool, order(20, "GOOD", at(1)), at(1));
        assert_eq!(one(started(&mut pool, at(1))).0, other);
        settle(&mut pool, at(1));
        let (now, id, grant) = probe(&mut pool, at(1));
        assert!(started(&mut pool, now.plus(5_000)).is_empty(), "one at a time");
        pool.report(&id, grant, used(1), now.plus(5_001));
        assert_eq!(started(&mut pool, now.plus(5_001)).len(), 1, "it is well again");
    }
}

#[test]
fn it_is_left_alone_for_ten_seconds_and_for_twice_as_long_after_a_probe_that_fails() {
    let mut pool = broken(failing());
    settle(&mut pool, at(0));
    let (first, id, grant) = probe(&mut pool, at(0));
    assert_eq!(first, at(OPEN_FIRST_MS));
    pool.report(&id, grant, failing(), first);
    settle(&mut pool, first);
    let (second, _, _) = probe(&mut pool, first);
    assert_eq!(second, first.plus(2 * OPEN_FIRST_MS));
}

/// So that no settlement is sent again, and the pool's alarm is the breaker's.
fn settle(pool: &mut Pool, now: Instant) {
    for settlement in pool.take_changes().settlements {
        pool.settlement_confirmed(&settlement.event, now);
    }
    pool.take_effects();
}

#[test]
fn attempts_that_are_lost_count_as_failures() {
    let mut pool = pool(config(1_000, 0));
    for n in 0..u64::from(FAILURES_MAX) {
        queue(&mut pool, Submission { timeout_ms: 1_000, ..order(n, "BAD", at(0)) }, at(0));
    }
    assert_eq!(started(&mut pool, at(0)).len(), FAILURES_MAX as usize);
    pool.on_wakeup(at(10_000));
    queue(&mut pool, order(10, "BAD", at(10_000)), at(10_000));
    assert!(run_until(&mut pool, at(10_000), at(19_000)).is_empty());
}

/// Whether a worker that answered `first` once after so long, if at all, is left alone after enough have been given up after
/// `limit_ms` each, which was left of their deadline or was their own limit.
fn left_alone_after(first: Option<i64>, limit_ms: i64, by_deadline: bool) -> bool {
    let mut pool = pool(config(1_000, 0));
    let mut now = at(0);
    if let Some(took) = first {
        queue(&mut pool, Submission { timeout_ms: 10_000, ..order(100, "SLOW", now) }, now);
        let (id, grant) = one(started(&mut pool, now));
        now = now.plus(took);
        pool.report(&id, grant, used(1), now);
    }
    for n in 0..u64::from(FAILURES_MAX) {
        let impatient = if by_deadline {
            Submission { timeout_ms: 10_000, deadline: Some(now.plus(limit_ms)), ..order(n, "SLOW", now) }
        } else {
            Submission { timeout_ms: limit_ms, ..order(n, "SLOW", now) }
        };
        queue(&mut pool, impatient, now);
        let (id, grant) = one(started(&mut pool, now));
        now = now.plus(limit_ms);
        pool.report(&id, grant, Report::TimedOut, now.plus(3));
    }
    queue(&mut pool, order(200, "SLOW", now), now.plus(4));
    started(&mut pool, now.plus(4)).is_empty()
}

#[test]
fn a_worker_that_was_given_less_time_than_it_takes_has_not_failed() {
    for by_deadline in [true, false] {
        assert!(!left_alone_after(Some(2_000), 300, by_deadline), "it takes two seconds, and nobody waited for them");
        assert!(left_alone_after(Some(2_000), 2_500, by_deadline), "these were long enough");
    }
    assert!(!left_alone_after(None, 300, true), "their deadline says nothing of the worker");
    assert!(left_alone_after(None, 300, false), "their limit is all that is known of it");
}

#[test]
fn attempts_lost_that_had_less_time_than_its_runs_take_are_no_failures() {
    let mut pool = pool(config(1_000, 0));
    queue(&mut pool, Submission { timeout_ms: 60_000, ..order(100, "SLOW", at(0)) }, at(0));
    let (id, grant) = one(started(&mut pool, at(0)));
    pool.report(&id, grant, used(1), at(20_000));
    for n in 0..u64::from(FAILURES_MAX) {
        queue(&mut pool, Submission { timeout_ms: 1_000, ..order(n, "SLOW", at(20_000)) }, at(20_000));
    }
    assert_eq!(started(&mut pool, at(20_000)).len(), FAILURES_MAX as usize);
    pool.on_wakeup(at(30_000));
    queue(&mut pool, order(10, "SLOW", at(30_000)), at(30_000));
    assert_eq!(started(&mut pool, at(30_000)).len(), 1);
}

#[test]
fn the_next_is_the_probe_when_one_is_cancelled() {
    let mut pool = broken(failing());
    settle(&mut pool, at(0));
    let (now, id, _) = probe(&mut pool, at(0));
    pool.cancel(&id, false, now.plus(1));
    assert_ne!(one(started(&mut pool, now.plus(1))).0, id);
}

#[test]
fn the_next_is_the_probe_when_one_finds_no_slot() {
    let mut pool = broken(failing());
    settle(&mut pool, at(0));
    let now = pool.next_wakeup(at(0)).unwrap();
    pool.on_wakeup(now);
    let effects = pool.take_effects();
    let [Effect::AcquireSlot { id, grant, .. }] = effects.as_slice() else { panic!("one is tried: {effects:?}") };
    pool.slot_answered(id, *grant, Some(SlotAnswer::Full), now);
    assert_ne!(one(started(&mut pool, now)).0, *id);
}

#[test]
fn a_refusal_of_the_request_itself_is_no_failure_of_its_worker() {
    let refused = Report::Failed { failure: failure(), retry: Retry::No };
    assert_eq!(started(&mut broken(refused), at(0)).len(), 2);
}

/// Six requests of one client, called "failing", that have failed, and the breaker is open; they may be tried again.
fn poisoned() -> Pool {
    let mut pool = pool(config(1_000, 0));
    for n in 0..6 {
        let again = Submission { max_attempts: 5, client: "failing".parse().unwrap(), ..order(n, "BAD", at(0)) };
        queue(&mut pool, again, at(0));
    }
    for (id, grant) in started(&mut pool, at(0)) {
        pool.report(&id, grant, failing(), at(0));
    }
    settle(&mut pool, at(0));
    pool
}

#[test]
fn one_that_has_not_failed_yet_tries_the_worker_first() {
    // Of another client, and of the same one, be it behind those that failed.
    for client in ["another", "failing"] {
        let mut pool = poisoned();
        let good = Submission { client: client.parse().unwrap(), ..order(20, "BAD", at(5_000)) };
        let good = queue(&mut pool, Submission { tier: rm_core::priority::Tier::Basic, ..good }, at(5_000));
        pool.on_wakeup(at(9_000));
        let ahead = |id: &RequestId| pool.position(id, at(9_000)).unwrap().ahead;
        let failed: Vec<u64> =
            pool.requests().filter(|one| one.id != good && one.is_waiting()).map(|one| ahead(&one.id)).collect();
        assert_eq!((ahead(&good), failed.iter().min(), failed.len()), (0, Some(&1), 6), "it is first, and told so");
        let (now, id) = run_until(&mut pool, at(9_000), at(OPEN_FIRST_MS)).remove(0);
        assert_eq!((now, &id), (at(OPEN_FIRST_MS), &good), "{client}");
        pool.report(&id, 1, used(1), now.plus(1));
        assert_eq!(started(&mut pool, now.plus(1)).len(), 6, "the worker is well: the others are tried too");
    }
}

#[test]
fn one_that_waits_for_a_window_is_not_told_to_try_the_worker_first() {
    let window = Window { start: at(3_600_000), end: at(7_200_000) };
    let mut pool = poisoned();
    pool.configure(PoolConfig { off_peak: Some(vec![window]), revision: 2, ..pool.config().clone() }, at(1));
    let waits = Submission { urgency: Urgency::Deferred, waits_for: Some(WaitsFor::Pool), ..order(20, "BAD", at(1)) };
    let waits = queue(&mut pool, waits, at(1));
    pool.on_wakeup(at(9_000));
    let ahead = |id: &RequestId| pool.position(id, at(9_000)).unwrap().ahead;
    let failed: Vec<u64> = pool.requests().filter(|one| one.id != waits).map(|one| ahead(&one.id)).collect();
    assert_eq!((failed.iter().min(), ahead(&waits)), (Some(&0), 6));
}

#[test]
fn those_that_have_failed_try_the_worker_when_no_other_can() {
    let mut pool = poisoned();
    assert_eq!(run_until(&mut pool, at(0), at(OPEN_FIRST_MS)).len(), 1);

    // The other one waits for a slot of its client.
    let mut pool = poisoned();
    let other = Submission { client: "another".parse().unwrap(), ..order(20, "BAD", at(1)) };
    queue(&mut pool, other, at(1));
    pool.on_wakeup(at(OPEN_FIRST_MS));
    let effects = pool.take_effects();
    let [Effect::AcquireSlot { id, grant, client, .. }] = effects.as_slice() else {
        panic!("one is tried: {effects:?}")
    };
    assert_eq!(client.as_str(), "another");
    pool.slot_answered(id, *grant, Some(SlotAnswer::Full), at(OPEN_FIRST_MS));
    assert_eq!(started(&mut pool, at(OPEN_FIRST_MS)).len(), 1);
}

#[test]
fn one_that_has_not_failed_and_has_not_its_tokens_holds_them_back_for_a_moment_only() {
    let mut pool = poisoned();
    let other = Submission { tier: rm_core::priority::Tier::Basic, ..order(20, "BAD", at(1)) };
    queue(&mut pool, order(30, "GOOD", at(1)), at(1));
    assert_eq!(started(&mut pool, at(1)).len(), 1, "one token is out");
    queue(&mut pool, Submission { demands: vec![demand("home", 1_000)], ..other }, at(1));
    let probes = run_until(&mut pool, at(1), at(OPEN_FIRST_MS + 10_000));
    assert_eq!(probes.len(), 1, "{probes:?}");
    assert_eq!(probes[0].0, at(OPEN_FIRST_MS + FIRST_CHOICE_MS));
}

#[test]
fn when_one_will_start_counts_the_one_that_tries_the_worker_first() {
    let mut pool = broken(failing());
    let start = |n: u64, pool: &Pool| {
        let id = order(n, "BAD", at(0)).id;
        pool.position(&id, at(1)).unwrap().estimated_start_at
    };
    assert_eq!(start(10, &pool), Some(at(OPEN_FIRST_MS)));
    let second = start(11, &pool).unwrap();
    assert!(second > at(OPEN_FIRST_MS), "the worker has to answer first");
    settle(&mut pool, at(0));
    let (now, id, grant) = probe(&mut pool, at(0));
    assert!(start(11, &pool).unwrap() > now, "the one that tries it is not done");
    pool.report(&id, grant, used(1), now.plus(5));
    assert_eq!(started(&mut pool, now.plus(5)).len(), 1);
}
