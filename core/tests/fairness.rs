//! Fairness: no client pushes out another of its tier, and nobody is passed over for ever (invariants 7 and 8).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::fair_share::HALF_LIFE_MS;
use rm_core::id::RequestId;
use rm_core::pool::{Effect, Mode, Pool, PoolConfig, Refusal, Submission, Submitted};
use rm_core::priority::{PROMOTED_ONE_IN, STARVATION_BOUND_MS, Tier, Urgency};
use rm_core::request::Kind;
use rm_core::units::Instant;
use support::{at, config, demand, pool, queue, request, run_until, started, started_ids, used};

fn standard(pool: &mut Pool, n: u64, client: &str, held_at: Instant, now: Instant) -> RequestId {
    queue(pool, request(n, client, Tier::Standard, Urgency::Normal, held_at), now)
}

fn let_run(pool: &mut Pool, runs: bool, now: Instant) {
    let before = pool.config().clone();
    pool.configure(PoolConfig { scheduler_running: runs, revision: before.revision + 1, ..before }, now);
}

/// The order in which a pool of one token at a time starts what waits.
fn order_of(pool: &mut Pool, now: Instant, seconds: i64) -> Vec<RequestId> {
    run_until(pool, now, now.plus(seconds * 1_000)).into_iter().map(|(_, id)| id).collect()
}

#[test]
fn ten_thousand_requests_of_one_client_do_not_push_out_one_of_another() {
    let mut pool = pool(config(1, 1));
    let_run(&mut pool, false, at(0));
    let many: Vec<RequestId> = (0..10_000).map(|n| standard(&mut pool, n, "loud", at(0), at(0))).collect();
    let single = standard(&mut pool, 20_000, "quiet", at(0), at(0));
    let_run(&mut pool, true, at(0));
    let order = order_of(&mut pool, at(0), 50);
    let place = order.iter().position(|id| *id == single).expect("it is among the first");
    assert!(place <= 1, "{place} went before it");
    let others: Vec<&RequestId> = order.iter().filter(|id| **id != single).collect();
    assert_eq!(others, many.iter().take(others.len()).collect::<Vec<_>>(), "first in, first out");
}

#[test]
fn within_a_client_and_lane_the_oldest_goes_first_whenever_it_arrived_at_the_pool() {
    let mut pool = pool(config(1, 1));
    let_run(&mut pool, false, at(0));
    let ages = [7_000, 3_000, 9_000, 1_000, 5_000];
    let mut sent: Vec<(i64, RequestId)> = ages
        .into_iter()
        .zip(0..)
        .map(|(age, n)| (age, standard(&mut pool, n, "one", at(10_000 - age), at(10_000))))
        .collect();
    let_run(&mut pool, true, at(10_000));
    let order = order_of(&mut pool, at(10_000), 10);
    sent.sort_by_key(|(age, _)| -age);
    assert_eq!(order, sent.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

#[test]
fn two_clients_of_a_tier_take_turns() {
    let mut pool = pool(config(1, 1));
    let_run(&mut pool, false, at(0));
    for n in 0..40 {
        standard(&mut pool, n, "early", at(0), at(0));
    }
    let late: Vec<RequestId> = (40..80).map(|n| standard(&mut pool, n, "late", at(0), at(0))).collect();
    let_run(&mut pool, true, at(0));
    let order = order_of(&mut pool, at(0), 40);
    let theirs = order.iter().take(40).filter(|id| late.contains(id)).count();
    assert!((19..=21).contains(&theirs), "{theirs} of the first 40");
}

#[test]
fn what_a_client_was_granted_long_ago_is_forgotten() {
    let mut pool = pool(config(10, 1));
    for n in 0..10 {
        standard(&mut pool, n, "once", at(0), at(0));
    }
    for (id, grant) in started(&mut pool, at(0)) {
        pool.report(&id, grant, used(1), at(0));
    }
    let later = at(10 * HALF_LIFE_MS);
    for n in 10..20 {
        standard(&mut pool, n, "now", later, later);
    }
    assert_eq!(started_ids(&mut pool, later).len(), 10);
    let back = standard(&mut pool, 20, "now", later, later);
    let first = standard(&mut pool, 21, "once", later, later);
    assert_eq!(order_of(&mut pool, later, 2), [first, back]);
}

/// A grant that came to nothing is not held against the client.
#[test]
fn a_grant_that_was_refused_a_slot_does_not_count_as_use() {
    let mut pool = pool(config(1, 1));
    standard(&mut pool, 0, "one", at(0), at(0));
    standard(&mut pool, 1, "other", at(0), at(0));
    let before = pool.position(&request(0, "one", Tier::Standard, Urgency::Normal, at(0)).id, at(0)).unwrap();
    let effects = pool.take_effects();
    let [Effect::AcquireSlot { id, grant, .. }] = effects.as_slice() else { panic!("one is granted: {effects:?}") };
    pool.slot_answered(id, *grant, Some(SlotAnswer::Full), at(1));
    let after = pool.position(id, at(1)).unwrap();
    assert_eq!(before.score.fairness.0, 0, "it was granted everything");
    assert_eq!(after.score.fairness.0, 10_000, "it was granted nothing");
}

/// 8: one in four is a promoted one's, exactly, however many promoted ones wait.
#[test]
fn promoted_requests_start_within_four_grants_each() {
    const OLD: u64 = 12;
    let mut pool = pool(config(1, 1));
    let_run(&mut pool, false, at(0));
    let old: Vec<RequestId> = (0..OLD)
        .map(|n| queue(&mut pool, request(n, "patient", Tier::Basic, Urgency::Deferred, at(n as i64)), at(1_000)))
        .collect();
    let mut now = at(STARVATION_BOUND_MS + 1_000);
    let mut n = 1_000;
    let mut order = Vec::new();
    // What goes first by its score takes no turn of theirs.
    queue(&mut pool, request(n, "busy", Tier::Enterprise, Urgency::Immediate, now), now);
    let_run(&mut pool, true, now);
    while order.len() < 4 * (OLD as usize + 1) {
        for _ in 0..2 {
            n += 1;
            queue(&mut pool, request(n, "busy", Tier::Enterprise, Urgency::Immediate, now), now);
        }
        order.extend(started_ids(&mut pool, now));
        now = now.plus(1_000);
        pool.on_wakeup(now);
    }
    let places: Vec<usize> = old.iter().map(|id| order.iter().position(|o| o == id).expect("it starved")).collect();
    assert!(places.is_sorted(), "oldest first: {places:?}");
    for (older, place) in places.iter().enumerate() {
        let bound = PROMOTED_ONE_IN as usize * (older + 1);
        assert!(*place < bound, "with {older} older it was grant {}", place + 1);
    }
    let gaps: Vec<usize> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap == PROMOTED_ONE_IN as usize), "and the others have the rest: {gaps:?}");
}

#[test]
fn a_promoted_client_without_a_slot_holds_back_nobody_and_goes_on_when_it_has_one() {
    let mut pool = pool(config(1, 1));
    let_run(&mut pool, false, at(0));
    let old = queue(&mut pool, request(0, "patient", Tier::Basic, Urgency::Deferred, at(0)), at(0));
    let now = at(STARVATION_BOUND_MS);
    pool.on_wakeup(now);
    for n in 1..9 {
        queue(&mut pool, request(n, "busy", Tier::Enterprise, Urgency::Immediate, now), now);
    }
    let_run(&mut pool, true, now);
    let mut order = Vec::new();
    for second in 0..4 {
        let now = now.plus(second * 1_000);
        pool.on_wakeup(now);
        loop {
            let effects = pool.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::AcquireSlot { id, grant, client, .. } => {
                        let full = client.as_str() == "patient";
                        let answer = if full { SlotAnswer::Full } else { SlotAnswer::Granted };
                        pool.slot_answered(&id, grant, Some(answer), now);
                    }
                    Effect::Start { id, .. } => order.push(id),
                    _ => {}
                }
            }
        }
    }
    assert_eq!((order.len(), order.contains(&old)), (4, false), "no second was lost");
    let now = now.plus(4_000);
    pool.client_woken(&"patient".parse().unwrap(), now.plus(-500));
    assert!(order_of(&mut pool, now.plus(-500), 5).iter().take(4).any(|id| *id == old));
}

#[test]
fn a_blocked_client_is_asked_about_again_in_case_the_news_was_lost() {
    let mut pool = pool(config(1, 1));
    let id = standard(&mut pool, 0, "one", at(0), at(0));
    let Some(Effect::AcquireSlot { grant, .. }) = pool.take_effects().pop() else { panic!("it asks for a slot") };
    pool.slot_answered(&id, grant, Some(SlotAnswer::Full), at(0));
    assert!(order_of(&mut pool, at(0), 4).is_empty());
    assert_eq!(order_of(&mut pool, at(4_000), 2), [id]);
}

#[test]
fn the_news_of_a_free_slot_is_heeded_at_once() {
    let mut pool = pool(config(1, 1));
    let id = standard(&mut pool, 0, "one", at(0), at(0));
    let Some(Effect::AcquireSlot { grant, .. }) = pool.take_effects().pop() else { panic!("it asks for a slot") };
    pool.slot_answered(&id, grant, Some(SlotAnswer::Full), at(0));
    pool.take_effects();
    pool.client_woken(&"one".parse().unwrap(), at(10));
    assert_eq!(started_ids(&mut pool, at(10)), [id]);
}

#[test]
fn a_token_that_is_refilled_is_granted_when_it_is_there() {
    let mut pool = pool(config(1, 1));
    let ids: Vec<RequestId> = (0..3).map(|n| standard(&mut pool, n, "one", at(0), at(0))).collect();
    let order = run_until(&mut pool, at(0), at(10_000));
    let expected: Vec<_> = ids.into_iter().enumerate().map(|(n, id)| (at(n as i64 * 1_000), id)).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_reservation_needs_no_slot() {
    let mut pool = pool(config(10, 0));
    let id = standard(&mut pool, 0, "one", at(0), at(0));
    let Some(Effect::AcquireSlot { grant, .. }) = pool.take_effects().pop() else { panic!("it asks for a slot") };
    pool.slot_answered(&id, grant, Some(SlotAnswer::Full), at(0));
    let reservation = request(1, "one", Tier::Standard, Urgency::Normal, at(0));
    let reservation = Submission { kind: Kind::Reservation, ..reservation };
    assert_eq!(pool.submit(reservation, Mode::NowOrNever, at(0)), Submitted::Accepted);
    assert!(matches!(pool.take_effects().as_slice(), [Effect::Reserved { .. }]));
}

#[test]
fn a_reservation_that_is_refused_lets_go_those_that_waited_behind_it() {
    let mut pool = pool(config(10, 1));
    let first = Submission { demands: vec![demand("home", 10)], ..request(0, "a", Tier::Basic, Urgency::Batch, at(0)) };
    queue(&mut pool, first, at(0));
    assert_eq!(started_ids(&mut pool, at(0)).len(), 1);
    let waits = queue(&mut pool, request(1, "b", Tier::Basic, Urgency::Batch, at(0)), at(0));
    let large = request(2, "c", Tier::Enterprise, Urgency::Immediate, at(1_000));
    let large = Submission { kind: Kind::Reservation, demands: vec![demand("home", 10)], ..large };
    let refused = pool.submit(large, Mode::NowOrNever, at(1_000));
    assert!(matches!(refused, Submitted::Refused(Refusal::NotNow { .. })));
    assert_eq!(started_ids(&mut pool, at(1_000)), [waits], "its token is there since this moment");
}
