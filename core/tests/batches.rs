//! Requests that are combined: when they are started together, and that each has its own end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::lane::{LaneLimits, Lanes};
use rm_core::optimizer::Strategy;
use rm_core::pool::{
    BatchTerms, Blocked, CancelOutcome, Effect, LeaseAnswer, Pool, PoolConfig, Report, ReportOutcome, Retry, Submission,
};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Cause, Phase, Status, Usage};
use rm_core::units::{NanoUsd, Tokens};
use support::batches::{calls, item};
use support::{PRICE, at, config, demand, failure, id_of, pool, queue, request, units};

fn used(n: u64) -> Report {
    let usage = vec![Usage { pool: id_of("home"), amount: units(n), parts: None, is_share: true }];
    Report::Succeeded { usage, remaining: vec![] }
}

#[test]
fn they_wait_for_each_other_until_there_are_enough() {
    let mut pool = pool(config(100, 0));
    let first = queue(&mut pool, item(1, 0), at(0));
    queue(&mut pool, item(2, 400), at(400));
    assert!(calls(&mut pool, at(400)).is_empty());
    let place = pool.position(&first, at(400)).unwrap();
    assert_eq!((place.blocked_by, place.estimated_start_at), (Some(Blocked::Batching), Some(at(1_000))));
    assert_eq!(pool.view(at(400)).reserved, Tokens::ZERO, "they hold no tokens meanwhile");
    queue(&mut pool, item(3, 500), at(500));
    let started = calls(&mut pool, at(500));
    assert_eq!(started.iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    assert_eq!(pool.view(at(500)).reserved, units(12));
}

#[test]
fn or_until_the_first_has_waited_for_its_window() {
    let mut pool = pool(config(100, 0));
    queue(&mut pool, item(1, 0), at(0));
    let second = queue(&mut pool, item(2, 900), at(900));
    assert_eq!(pool.next_wakeup(at(900)), Some(at(1_000)));
    assert_eq!(pool.position(&second, at(900)).unwrap().estimated_start_at, Some(at(1_000)));
    pool.on_wakeup(at(1_000));
    assert_eq!(calls(&mut pool, at(1_000))[0].len(), 2);
    queue(&mut pool, item(3, 1_100), at(1_100));
    pool.on_wakeup(at(2_100));
    assert_eq!(calls(&mut pool, at(2_100))[0].len(), 1, "nobody else came");
}

#[test]
fn who_has_no_slot_or_no_tokens_holds_back_nobody() {
    let mut pool = pool(config(9, 0));
    for n in 1..=3 {
        queue(&mut pool, item(n, 0), at(0));
    }
    let started = calls(&mut pool, at(0));
    assert_eq!(started.iter().map(Vec::len).collect::<Vec<_>>(), [2], "there are tokens for two");
    let mut pool = support::pool(config(100, 0));
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, item(n, 0), at(0))).collect();
    let grant = |pool: &Pool, id| pool.request(id).unwrap().grants;
    for (id, answer) in ids.iter().zip([SlotAnswer::Granted, SlotAnswer::Full, SlotAnswer::Granted]) {
        let grant = grant(&pool, id);
        pool.slot_answered(id, grant, Some(answer), at(1));
    }
    let batches: Vec<_> =
        pool.take_effects().into_iter().filter(|effect| matches!(effect, Effect::StartBatch { .. })).collect();
    assert_eq!(batches.len(), 1);
    assert_eq!(pool.request(&ids[1]).unwrap().phase, Phase::Waiting);
}

#[test]
fn one_that_is_ready_waits_no_longer_than_a_grant_may_take() {
    let mut pool = pool(config(100, 0));
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, item(n, 0), at(0))).collect();
    pool.slot_answered(&ids[0], 1, Some(SlotAnswer::Granted), at(1));
    pool.take_effects();
    pool.on_wakeup(at(10_000));
    assert!(matches!(pool.request(&ids[0]).unwrap().phase, Phase::Running { .. }));
}

#[test]
fn each_has_its_own_report_and_end_and_shares_add_up() {
    let mut pool = pool(config(100, 0));
    for n in 1..=3 {
        queue(&mut pool, item(n, 0), at(0));
    }
    let items = calls(&mut pool, at(0)).remove(0);
    let (one, two, three) = (&items[0], &items[1], &items[2]);
    assert_eq!(pool.cancel(&two.0, false, at(1)), CancelOutcome::Cancelled);
    assert_eq!(pool.report(&one.0, one.1, used(2), at(2)), ReportOutcome::Ended);
    let refused = Report::Failed { failure: failure(), retry: Retry::No };
    assert_eq!(pool.report(&three.0, three.1, refused, at(2)), ReportOutcome::Ended);
    assert_eq!(pool.report(&two.0, two.1, used(1), at(2)), ReportOutcome::ChargedLate);
    let changes = pool.take_changes();
    let mut ends: Vec<_> = changes.ended.iter().map(|ended| (ended.request.id.clone(), ended.end.status)).collect();
    ends.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        ends,
        [(one.0.clone(), Status::Succeeded), (two.0.clone(), Status::Cancelled), (three.0.clone(), Status::Failed)]
    );
    let done = changes.ended.iter().find(|ended| ended.end.status == Status::Succeeded).unwrap();
    let nanos = |n: i64| NanoUsd::from_nanos(n * PRICE).unwrap();
    let line = &done.end.lines[0];
    assert_eq!((line.cost, line.baseline(), line.saved.by(Strategy::RequestBatching)), (nanos(2), nanos(4), nanos(2)));
    let failed = changes.ended.iter().find(|ended| ended.end.status == Status::Failed).unwrap();
    assert!(failed.end.lines[0].saved.is_none(), "what failed saved nothing");
}

#[test]
fn after_a_common_refusal_each_is_tried_by_itself_once() {
    let mut pool = pool(config(100, 0));
    for n in 1..=3 {
        queue(&mut pool, Submission { max_attempts: 1, ..item(n, 0) }, at(0));
    }
    let items = calls(&mut pool, at(0)).remove(0);
    let refused = || Report::Failed { failure: failure(), retry: Retry::Alone };
    for (id, grant) in &items {
        assert_eq!(pool.report(id, *grant, refused(), at(1)), ReportOutcome::Retrying);
    }
    let again = calls(&mut pool, at(1));
    assert_eq!(again.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(pool.requests().all(|request| request.attempts == 1 && request.applied.is_empty()));
    let (id, grant) = &again[0][0];
    assert_eq!(pool.report(id, *grant, refused(), at(2)), ReportOutcome::Ended, "it cannot be refused like that again");
}

#[test]
fn a_common_failure_is_an_attempt_of_each() {
    for (timed_out, status) in [(false, Status::Failed), (true, Status::TimedOut)] {
        let common =
            |index| Report::Failed { failure: failure(), retry: Retry::Apart { tells: index == 0, timed_out } };
        for max_attempts in [1, 2] {
            let mut pool = pool(config(100, 0));
            for n in 1..=3 {
                queue(&mut pool, Submission { max_attempts, ..item(n, 0) }, at(0));
            }
            for (index, (id, grant)) in calls(&mut pool, at(0)).remove(0).iter().enumerate() {
                let outcome = pool.report(id, *grant, common(index), at(1));
                assert_eq!(outcome, if max_attempts == 1 { ReportOutcome::Ended } else { ReportOutcome::Retrying });
            }
            assert!(calls(&mut pool, at(1)).is_empty(), "after a backoff, if at all");
            let ended = pool.take_changes().ended;
            if max_attempts == 1 {
                assert!(ended.iter().all(|one| (one.end.status, one.end.uncertain) == (status, timed_out)));
                assert_eq!((ended.len(), pool.requests().count()), (3, 0));
                continue;
            }
            pool.on_wakeup(at(1_000));
            assert_eq!(calls(&mut pool, at(1_000)).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
            assert!(pool.requests().all(|request| request.attempts == 2 && request.applied.is_empty()));
        }
    }
}

#[test]
fn a_deadline_shortens_the_wait() {
    let mut pool = pool(config(100, 0));
    let hurried = Submission { deadline: Some(at(900)), timeout_ms: 600, ..item(1, 0) };
    queue(&mut pool, hurried, at(0));
    assert_eq!(pool.next_wakeup(at(0)), Some(at(150)), "half of what it has");
    let late = Submission { deadline: Some(at(900)), timeout_ms: 60_000, ..item(2, 0) };
    queue(&mut pool, late, at(0));
    assert!(!calls(&mut pool, at(0)).is_empty());
}

#[test]
fn those_that_have_a_deadline_are_combined_in_time_for_it() {
    let short = |n, deadline: Option<i64>| {
        let terms = BatchTerms { key: "all".into(), max_size: 3, window_ms: 20_000 };
        let deadline = deadline.map(at);
        Submission { batch: Some(terms), deadline, timeout_ms: 1_000, ..item(n, 0) }
    };
    for deadlines in [[Some(4_000), Some(4_000)], [Some(4_000), None], [None, Some(4_000)]] {
        let mut pool = pool(config(100, 0));
        for (n, deadline) in (1..).zip(deadlines) {
            queue(&mut pool, short(n, deadline), at(0));
        }
        assert!(calls(&mut pool, at(0)).is_empty());
        pool.on_wakeup(at(1_500));
        assert_eq!(calls(&mut pool, at(1_500)).iter().map(Vec::len).collect::<Vec<_>>(), [2], "{deadlines:?}");
    }
}

#[test]
fn a_lane_with_a_limit_leaves_half_of_it_for_others_to_come() {
    let lanes = Lanes([(Urgency::Batch, LaneLimits { max_wait_ms: Some(600), queue_cap: None })].into());
    let mut pool = pool(PoolConfig { lanes, ..config(100, 0) });
    for n in 1..=2 {
        queue(&mut pool, item(n, 0), at(0));
    }
    assert!(calls(&mut pool, at(0)).is_empty());
    pool.on_wakeup(at(300));
    assert_eq!(calls(&mut pool, at(300)).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
}

#[test]
fn one_that_waits_for_a_window_is_not_held_up_once_its_deadline_is_near() {
    let mut pool = pool(config(100, 0));
    let deferred =
        Submission { urgency: Urgency::Deferred, deadline: Some(at(50_000)), timeout_ms: 20_000, ..item(1, 0) };
    queue(&mut pool, deferred, at(0));
    assert_eq!(calls(&mut pool, at(0)).len(), 1, "a minute before it must start it goes on as any other");
}

#[test]
fn one_whose_time_is_short_does_not_shorten_that_of_the_others() {
    let mut pool = pool(config(100, 0));
    // Its limit is ten minutes, which it has when it comes and not any more when it starts.
    let hurried = Submission { deadline: Some(at(600_500)), ..item(1, 0) };
    queue(&mut pool, hurried, at(0));
    for n in 2..=3 {
        queue(&mut pool, item(n, 0), at(0));
    }
    let mut sizes: Vec<_> = calls(&mut pool, at(900)).iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
}

#[test]
fn a_common_failure_is_one_sign_of_its_worker() {
    let mut pool = pool(config(1_000, 0));
    for round in 0..2 {
        for n in 1..=3 {
            let submission = item(round * 10 + n, 0);
            queue(&mut pool, Submission { worker: Some("WORKER".parse().unwrap()), ..submission }, at(0));
        }
        for (index, (id, grant)) in calls(&mut pool, at(0)).remove(0).into_iter().enumerate() {
            let retry = Retry::Apart { tells: index == 0, timed_out: false };
            let failed = Report::Failed { failure: failure(), retry };
            pool.report(&id, grant, failed, at(0));
        }
        pool.take_effects();
    }
    assert!(pool.view(at(0)).breakers.iter().all(|breaker| breaker.state == "closed"), "two calls have failed");
}

#[test]
fn an_own_use_is_no_saving() {
    let mut pool = pool(config(100, 0));
    for n in 1..=3 {
        queue(&mut pool, item(n, 0), at(0));
    }
    let (id, grant) = calls(&mut pool, at(0)).remove(0).remove(0);
    let usage = vec![Usage { pool: id_of("home"), amount: units(1), parts: None, is_share: false }];
    pool.report(&id, grant, Report::Succeeded { usage, remaining: vec![] }, at(1));
    let ended = pool.take_changes().ended;
    assert!(ended[0].end.lines[0].saved.is_none(), "alone it would have used as much");
}

#[test]
fn what_one_had_that_has_no_time_left_is_granted_in_its_turn() {
    let mut pool = pool(config(8, 0));
    let ids: Vec<_> =
        (1..=2).map(|n| queue(&mut pool, Submission { deadline: Some(at(600_100)), ..item(n, 0) }, at(0))).collect();
    pool.on_wakeup(at(1_000));
    let next = queue(&mut pool, Submission { batch: None, ..item(3, 1_000) }, at(1_000));
    assert_eq!(pool.request(&next).unwrap().phase, Phase::Waiting, "there are tokens for two");
    // The slots come when there is no time left.
    let now = at(600_100);
    for id in &ids {
        let Some(grant) = pool.request(id).map(|request| request.grants) else { continue };
        pool.slot_answered(id, grant, Some(SlotAnswer::Granted), now);
    }
    assert!(!matches!(pool.request(&next).map(|request| &request.phase), Some(Phase::Waiting)), "they are there");
}

#[test]
fn those_of_a_full_call_do_not_wait_for_the_next_ones() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(100, 0) });
    let ids: Vec<_> = (1..=7).map(|n| queue(&mut pool, item(n, 0), at(0))).collect();
    pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(10));
    let (last, full) = ids.split_last().unwrap();
    assert_eq!(pool.request(last).unwrap().phase, Phase::Parked { until: at(1_000), cause: Cause::Batching });
    for id in full {
        pool.slot_answered(id, 1, Some(SlotAnswer::Granted), at(20));
    }
    let sizes: Vec<_> = calls(&mut pool, at(20)).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3], "none is larger than it may be");
    // Three are ready, and the slot of a fourth is still asked for.
    let mut pool = support::pool(PoolConfig { scheduler_running: false, ..config(100, 0) });
    let ids: Vec<_> = (1..=6).map(|n| queue(&mut pool, item(n, 0), at(0))).collect();
    pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(10));
    pool.take_effects();
    for id in &ids[..3] {
        pool.slot_answered(id, 1, Some(SlotAnswer::Granted), at(20));
    }
    assert!(matches!(&pool.take_effects()[..], [Effect::StartBatch { items, .. }] if items.len() == 3));
}

#[test]
fn an_immediate_one_does_not_wait_for_others() {
    let mut pool = pool(config(100, 0));
    let id = queue(&mut pool, Submission { urgency: Urgency::Immediate, ..item(1, 0) }, at(0));
    assert!(matches!(pool.request(&id).unwrap().phase, Phase::Acquiring { .. }));
}

#[test]
fn none_is_started_with_the_others_before_it_has_its_tokens_of_another_pool() {
    let mut pool = pool(config(100, 0));
    let of_two = |n| Submission { demands: vec![demand("home", 4), demand("other", 1)], ..item(n, 0) };
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, of_two(n), at(0))).collect();
    for id in &ids {
        pool.slot_answered(id, 1, Some(SlotAnswer::Granted), at(1));
    }
    let starts = |effect: &Effect| matches!(effect, Effect::Start { .. } | Effect::StartBatch { .. });
    assert!(!pool.take_effects().iter().any(starts));
    for id in &ids {
        pool.lease_answered(id, 1, &id_of("other"), LeaseAnswer::Granted { regain_ms: 0 }, at(2));
    }
    assert_eq!(pool.take_effects().iter().filter(|effect| starts(effect)).count(), 1);
}

#[test]
fn a_call_is_as_short_as_the_shortest_limit_and_says_for_how_many_it_is() {
    let mut pool = pool(config(100, 0));
    let (backoff, one_more) = (|| Report::Failed { failure: failure(), retry: Retry::Backoff }, at(60_000));
    for (n, timeout_ms) in [(1, 3_000), (2, 2_000), (3, 4_000)] {
        queue(&mut pool, Submission { timeout_ms, ..item(n, 0) }, at(0));
    }
    for request in pool.requests().cloned().collect::<Vec<_>>() {
        pool.slot_answered(&request.id, 1, Some(SlotAnswer::Granted), at(0));
    }
    let items = pool.take_effects().into_iter().find_map(|effect| match effect {
        Effect::StartBatch { items, limit_ms } => Some((items, limit_ms)),
        _ => None,
    });
    let (items, limit_ms) = items.unwrap();
    assert_eq!(limit_ms, 2_000);
    let of = |pool: &Pool, id| pool.request(id).unwrap().applied.clone();
    assert_eq!(of(&pool, &items[0].0)[0].detail, "one call for 3 requests");
    let (first, grant) = &items[0];
    for (other, grant) in &items[1..] {
        pool.report(other, *grant, used(1), at(1));
    }
    pool.report(first, *grant, backoff(), at(1));
    pool.on_wakeup(one_more);
    assert_eq!(calls(&mut pool, one_more).len(), 1);
    assert!(of(&pool, first).is_empty(), "this time it is run by itself");
}

#[test]
fn a_worker_that_fails_one_call_after_the_other_is_left_alone() {
    let mut pool = pool(config(1_000, 0));
    for n in 1..=5 {
        let submission = Submission { worker: Some("WORKER".parse().unwrap()), ..item(n, 0) };
        let terms = BatchTerms { key: format!("call {n}"), max_size: 3, window_ms: 0 };
        queue(&mut pool, Submission { batch: Some(terms), ..submission }, at(0));
        let (id, grant) = calls(&mut pool, at(0)).remove(0).remove(0);
        let retry = Retry::Apart { tells: true, timed_out: false };
        let failed = Report::Failed { failure: failure(), retry };
        pool.report(&id, grant, failed, at(0));
        let slot = |effect: &Effect| matches!(effect, Effect::ReleaseSlot { id: of, .. } if *of == id);
        assert!(pool.take_effects().iter().any(slot), "its slot is free meanwhile");
        pool.cancel(&id, true, at(0));
    }
    assert_eq!(pool.view(at(0)).breakers[0].state, "open");
}

#[test]
fn when_a_promoted_one_is_granted_to_start_with_others_the_turn_is_that_of_the_rest() {
    let mut pool = pool(config(13, 0));
    let one = |n, tier, urgency, amount, now: i64| Submission {
        demands: vec![demand("home", amount)],
        ..request(n, &format!("client-{n}"), tier, urgency, at(now))
    };
    // Three grants to others: the next turn is that of a promoted one.
    for n in 1..=3 {
        let id = queue(&mut pool, one(n, Tier::Basic, Urgency::Normal, 1, 0), at(0));
        pool.slot_answered(&id, 1, Some(SlotAnswer::Granted), at(0));
        pool.report(&id, 1, used(1), at(0));
    }
    let runs = |runs, revision, pool: &Pool| PoolConfig { scheduler_running: runs, revision, ..pool.config().clone() };
    pool.configure(runs(false, 2, &pool), at(1));
    let old = queue(
        &mut pool,
        Submission {
            batch: Some(BatchTerms { window_ms: 0, ..item(0, 0).batch.unwrap() }),
            ..one(4, Tier::Basic, Urgency::Batch, 4, 1)
        },
        at(1),
    );
    queue(&mut pool, one(5, Tier::Basic, Urgency::Deferred, 8, 2), at(2));
    let now = at(700_000);
    let young = queue(&mut pool, one(6, Tier::Enterprise, Urgency::Fast, 2, 700_000), now);
    pool.configure(runs(true, 3, &pool), now);
    assert!(matches!(pool.request(&old).unwrap().phase, Phase::Acquiring { .. }));
    assert!(matches!(pool.request(&young).unwrap().phase, Phase::Acquiring { .. }), "its tokens are there");
    pool.slot_answered(&old, 1, Some(SlotAnswer::Granted), now);
    assert!(matches!(pool.request(&old).unwrap().phase, Phase::Running { .. }));
}

#[test]
fn those_of_a_common_call_that_is_lost_are_run_apart() {
    let mut pool = pool(config(100, 0));
    for n in 1..=3 {
        queue(&mut pool, item(n, 0), at(0));
    }
    assert_eq!(calls(&mut pool, at(0))[0].len(), 3);
    let lost_at = pool.next_wakeup(at(0)).unwrap();
    pool.on_wakeup(lost_at);
    // All of them are tried again at the same moment.
    let again = lost_at.plus(60_000);
    pool.on_wakeup(again);
    assert_eq!(calls(&mut pool, again).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
}
