//! Lanes: how many may wait, for how long, and when deferred work may run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::lane::{IMMEDIATE_WAIT_MS, LaneLimits, Lanes};
use rm_core::off_peak::Window;
use rm_core::pipeline::Step;
use rm_core::pool::{Effect, Mode, Pool, PoolConfig, Refusal, Report, Retry, Submission, Submitted};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{FORCE_SLACK_MS, Status};
use support::{at, config, demand, failure, pool, queue, request, run_until, started, started_ids, used};

fn order(n: u64, urgency: Urgency, now: i64) -> Submission {
    Submission { has_slot: true, ..request(n, "client", Tier::Standard, urgency, at(now)) }
}

/// A pool whose one token is taken.
fn taken(refill: u64, config_of: impl FnOnce(PoolConfig) -> PoolConfig) -> Pool {
    let mut pool = pool(config_of(config(1, refill)));
    queue(&mut pool, order(0, Urgency::Normal, 0), at(0));
    assert_eq!(started(&mut pool, at(0)).len(), 1);
    pool
}

fn is_full(outcome: Submitted) -> bool {
    matches!(outcome, Submitted::Refused(Refusal::QueueFull { .. }))
}

#[test]
fn a_lane_takes_no_more_than_its_cap_and_the_others_go_on() {
    let caps = LaneLimits { queue_cap: Some(2), max_wait_ms: None };
    let mut pool = taken(0, |config| PoolConfig { lanes: Lanes([(Urgency::Batch, caps)].into()), ..config });
    let first = queue(&mut pool, order(1, Urgency::Batch, 0), at(0));
    queue(&mut pool, order(2, Urgency::Batch, 0), at(0));
    assert!(is_full(pool.submit(order(3, Urgency::Batch, 0), Mode::Queue, at(0))));
    queue(&mut pool, order(4, Urgency::Normal, 0), at(0));
    pool.cancel(&first, false, at(0));
    queue(&mut pool, order(5, Urgency::Batch, 0), at(0));
    assert!(is_full(pool.submit(order(6, Urgency::Batch, 0), Mode::Queue, at(0))));
}

#[test]
fn a_queue_takes_no_more_than_its_cap() {
    let mut pool = taken(0, |config| PoolConfig { queue_cap: 2, ..config });
    let first = queue(&mut pool, order(1, Urgency::Batch, 0), at(0));
    queue(&mut pool, order(2, Urgency::Normal, 0), at(0));
    assert!(is_full(pool.submit(order(3, Urgency::Immediate, 0), Mode::Queue, at(0))));
    pool.cancel(&first, false, at(0));
    queue(&mut pool, order(4, Urgency::Batch, 0), at(0));
}

/// Immediate work waits for half a minute at most.
fn with_immediate(config: PoolConfig) -> PoolConfig {
    PoolConfig { lanes: Lanes::default(), ..config }
}

#[test]
fn an_immediate_request_that_would_come_too_late_is_refused_at_once() {
    let mut pool = taken(1, with_immediate);
    for n in 1..=30 {
        queue(&mut pool, order(n, Urgency::Immediate, 0), at(0));
    }
    let refused = pool.submit(order(31, Urgency::Immediate, 0), Mode::Queue, at(0));
    let Submitted::Refused(Refusal::NotNow { retry_at }) = refused else { panic!("it was taken in: {refused:?}") };
    assert!(retry_at >= at(1_000));
    queue(&mut pool, order(32, Urgency::Fast, 0), at(0));
    assert_eq!(run_until(&mut pool, at(0), at(30_000)).len(), 30, "what was taken in starts in time");
}

#[test]
fn an_immediate_request_that_comes_too_late_after_all_expires() {
    let mut pool = taken(1, with_immediate);
    let id = queue(&mut pool, order(1, Urgency::Immediate, 0), at(0));
    let mut stopped = pool.config().clone();
    (stopped.scheduler_running, stopped.revision) = (false, 2);
    pool.configure(stopped, at(0));
    pool.on_wakeup(at(IMMEDIATE_WAIT_MS - 1));
    assert!(pool.request(&id).is_some());
    assert_eq!(pool.next_wakeup(at(IMMEDIATE_WAIT_MS - 1)), Some(at(IMMEDIATE_WAIT_MS)));
    pool.on_wakeup(at(IMMEDIATE_WAIT_MS));
    let ended = pool.take_changes().ended;
    assert_eq!((ended.len(), ended[0].end.status), (1, Status::Expired));
}

#[test]
fn a_lanes_limit_is_for_the_first_start_only() {
    let mut pool = pool(with_immediate(config(10, 10)));
    let id = queue(&mut pool, order(1, Urgency::Immediate, 0), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let report = Report::Failed { failure: failure(), retry: Retry::Busy { pause_ms: Some(40_000) } };
    pool.report(&id, grant, report, at(1_000));
    assert_eq!(run_until(&mut pool, at(1_000), at(50_000)).len(), 1, "it is tried again after the pause");
}

#[test]
fn what_nobody_grants_expires_with_its_deadline() {
    let mut pool = taken(0, |config| config);
    let mut submission = order(1, Urgency::Normal, 0);
    submission.deadline = Some(at(5_000));
    let id = queue(&mut pool, submission, at(0));
    run_until(&mut pool, at(0), at(4_999));
    assert!(pool.request(&id).is_some());
    run_until(&mut pool, at(4_999), at(5_000));
    let ended = pool.take_changes().ended;
    assert_eq!((ended.len(), ended[0].end.status), (1, Status::Expired));
}

const OPENS: i64 = 3_600_000;

/// Deferred work runs from one hour on, for half an hour.
fn with_window(config: PoolConfig) -> PoolConfig {
    let window = Window { start: at(OPENS), end: at(OPENS + 1_800_000) };
    PoolConfig { off_peak: Some(vec![window]), ..config }
}

#[test]
fn deferred_work_waits_for_its_window_and_holds_back_nobody() {
    let mut pool = pool(with_window(config(10, 1)));
    let deferred = queue(&mut pool, order(1, Urgency::Deferred, 0), at(0));
    let normal = queue(&mut pool, order(2, Urgency::Batch, 1), at(1));
    let (id, grant) = started(&mut pool, at(1)).remove(0);
    assert_eq!(id, normal);
    pool.report(&id, grant, used(1), at(2));
    assert_eq!(run_until(&mut pool, at(2), at(OPENS)), [(at(OPENS), deferred)], "by the pool's own alarm");
    let closed = OPENS + 1_800_000;
    pool.on_wakeup(at(closed));
    queue(&mut pool, order(3, Urgency::Deferred, closed), at(closed));
    assert!(started_ids(&mut pool, at(closed)).is_empty(), "the window's end is not in it");
}

#[test]
fn a_deadline_forces_deferred_work_out_of_its_window_in_time_for_all_its_steps() {
    let mut pool = pool(with_window(config(10, 1)));
    let mut submission = order(1, Urgency::Deferred, 0);
    let (timeout_ms, deadline) = (10_000, 600_000);
    let step = Step { worker: None, demands: vec![demand("home", 1)], max_attempts: 1, timeout_ms: 20_000 };
    (submission.deadline, submission.timeout_ms) = (Some(at(deadline)), timeout_ms);
    submission.later = vec![step.clone(), step];
    let id = queue(&mut pool, submission, at(0));
    let forced_at = at(deadline - timeout_ms - 40_000 - FORCE_SLACK_MS);
    assert_eq!(run_until(&mut pool, at(0), at(deadline)).first(), Some(&(forced_at, id)));
}

#[test]
fn deferred_work_that_cannot_wait_when_it_comes_goes_at_once_and_as_normal_work() {
    let mut pool = taken(1, with_window);
    for n in 1..4 {
        queue(&mut pool, order(n, Urgency::Batch, 0), at(0));
    }
    let mut submission = order(9, Urgency::Deferred, 0);
    (submission.deadline, submission.timeout_ms) = (Some(at(60_000)), 1_000);
    let id = queue(&mut pool, submission.clone(), at(0));
    assert_eq!(run_until(&mut pool, at(0), at(1_000)), [(at(1_000), id.clone())], "before what is less urgent");
    let mut idle = support::pool(with_window(config(1, 1)));
    queue(&mut idle, submission, at(0));
    assert_eq!(started_ids(&mut idle, at(0)), [id], "in the same event");
}

/// An immediate request of the client whose run the pool of [`taken`] has, without a slot.
fn without_slot(n: u64) -> Submission {
    Submission { has_slot: false, demands: vec![demand("home", 0)], ..order(n, Urgency::Immediate, 0) }
}

fn refused_until(pool: &mut Pool, submission: Submission, now: i64) -> Option<i64> {
    match pool.submit(submission, Mode::Queue, at(now)) {
        Submitted::Refused(Refusal::NotNow { retry_at }) => Some(retry_at.since(at(now))),
        other => {
            assert_eq!(other, Submitted::Accepted);
            None
        }
    }
}

#[test]
fn an_immediate_request_is_refused_if_its_clients_slots_are_taken_for_longer() {
    let mut pool = taken(0, with_immediate);
    // The run's limit is 600 s; nothing else is known of it.
    assert_eq!(refused_until(&mut pool, without_slot(1), 0), Some(300_000 - IMMEDIATE_WAIT_MS));
    assert!(pool.requests().count() == 1 && pool.take_changes().ended.is_empty(), "nothing is kept of it");
    let other = Submission { client: "other".parse().unwrap(), ..without_slot(2) };
    assert_eq!(refused_until(&mut pool, other, 0), None, "what another client runs says nothing");
    let later = Submission { held_at: at(290_000), ..without_slot(3) };
    assert_eq!(refused_until(&mut pool, later, 290_000), None, "it is about to end");
}

#[test]
fn when_a_slot_comes_free_is_learnt_from_the_runs_before() {
    let worker = || Some("WORKER".parse().unwrap());
    let run = |n, slot| Submission { worker: worker(), has_slot: slot, ..order(n, Urgency::Normal, 0) };
    let mut pool = pool(with_immediate(config(100, 0)));
    for (n, ms) in [(1, 1_000), (2, 1_000), (3, 1_000)] {
        let id = queue(&mut pool, run(n, true), at(0));
        let (_, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, used(1), at(ms));
    }
    queue(&mut pool, run(4, true), at(10_000));
    started(&mut pool, at(10_000));
    let mut wait = |n, now: i64| {
        let immediate = Submission { urgency: Urgency::Immediate, held_at: at(now), ..run(n, false) };
        let id = queue(&mut pool, immediate, at(now));
        let grant = pool.request(&id).unwrap().grants;
        pool.slot_answered(&id, grant, Some(SlotAnswer::Full), at(now));
        pool.position(&id, at(now)).unwrap().estimated_start_at.unwrap().since(at(now))
    };
    assert_eq!(wait(5, 10_400), 600);
    assert_eq!(wait(6, 10_400), 1_600, "after the one before it");
}

#[test]
fn an_immediate_request_is_refused_where_nothing_will_come_and_waits_for_what_may_come_back() {
    let mut pool = pool(with_immediate(config(10, 0)));
    let all = Submission { demands: vec![demand("home", 8)], ..order(1, Urgency::Normal, 0) };
    let id = queue(&mut pool, all, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let three = |n| Submission { demands: vec![demand("home", 3)], ..order(n, Urgency::Immediate, 0) };
    assert_eq!(refused_until(&mut pool, three(2), 0), None);
    pool.report(&id, grant, used(8), at(1));
    assert_eq!(refused_until(&mut pool, three(3), 2), Some(IMMEDIATE_WAIT_MS - 2), "two are left, and none is out");
}

#[test]
fn what_its_deadline_forces_out_of_its_window_after_days_runs() {
    let day = 24 * 3_600_000;
    let window = Window { start: at(7 * day), end: at(7 * day + 1_800_000) };
    let mut pool = pool(PoolConfig { off_peak: Some(vec![window]), ..config(10, 1) });
    let deadline = Some(at(3 * day));
    let id = queue(&mut pool, Submission { deadline, ..order(1, Urgency::Deferred, 0) }, at(0));
    let force_at = pool.request(&id).unwrap().force_at().unwrap();
    let started = run_until(&mut pool, at(0), at(3 * day));
    assert_eq!(started.first(), Some(&(force_at, id)), "it is not over at the age that others end at");
}

#[test]
fn a_slot_that_comes_after_the_lanes_limit_comes_too_late() {
    let mut pool = pool(PoolConfig { lanes: Lanes::default(), ..config(10, 1) });
    let immediate = Submission { has_slot: false, ..order(1, Urgency::Immediate, 0) };
    let id = queue(&mut pool, immediate, at(0));
    let limit = pool.request(&id).unwrap().wait_limit_ms.unwrap();
    // Its account does not answer, until it does after the limit.
    let mut now = at(0);
    loop {
        let asked = pool.take_effects().into_iter().find_map(|effect| match effect {
            Effect::AcquireSlot { grant, .. } => Some(grant),
            _ => None,
        });
        let next = pool.next_wakeup(now).unwrap();
        match asked {
            Some(grant) if next > at(limit) => {
                pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(limit + 1));
                break;
            }
            _ => {
                now = next;
                pool.on_wakeup(now);
            }
        }
    }
    let ended = pool.take_changes().ended;
    assert_eq!((ended.len(), ended[0].end.status), (1, Status::Expired));
    let given_back = |effect: &Effect| matches!(effect, Effect::ReleaseSlot { .. });
    assert!(pool.take_effects().iter().any(given_back), "and the slot is free again");
}

#[test]
fn those_that_wait_for_a_window_are_told_when_they_start_in_it() {
    let mut pool = pool(with_window(config(100, 5)));
    let of = |n| Submission { demands: vec![demand("home", 60)], ..order(n, Urgency::Deferred, 0) };
    let ids = [1, 2, 3].map(|n| queue(&mut pool, of(n), at(0)));
    let foretold = ids.map(|id| pool.position(&id, at(0)).unwrap().estimated_start_at.unwrap());
    assert_eq!(foretold, [at(OPENS), at(OPENS + 4_000), at(OPENS + 16_000)]);
    let starts: Vec<_> = run_until(&mut pool, at(0), at(OPENS + 20_000)).into_iter().map(|(at, _)| at).collect();
    assert_eq!(starts, foretold);
}
