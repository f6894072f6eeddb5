//! First in, first out within a client's lane, also of those that need several pools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::lane::{LaneLimits, Lanes};
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Effect, LeaseAnswer, Mode, Pool, PoolConfig, Submission, Submitted};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::Phase;
use rm_core::units::Instant;
use support::network::Network;
use support::{at, config, demand, id_of, pool, queue, request, started_ids, units};

fn of(n: u64, client: &str, now: Instant) -> Submission {
    Submission { slots: Some(100), ..request(n, client, Tier::Standard, Urgency::Normal, now) }
}

/// Two clients whose requests need the same pools, each of them another one first. When those of each started, with what they
/// needed of the other pools.
fn crossed(others: usize, late: u64, amounts: impl Fn(u64) -> (u64, u64), has_slot: bool) -> [Vec<(Instant, u64)>; 2] {
    let mut net = Network::new(&["a", "b", "c"], 30, 3);
    net.sent_before(late * 1_000);
    let mut ids: [Vec<(RequestId, u64)>; 2] = Default::default();
    for (n, ms) in (0..12).zip((0..).step_by(40)) {
        net.run(at(ms));
        let (more, less) = amounts(n);
        for (home, (client, of_client)) in ["a", "b"].into_iter().zip(["one", "two"].into_iter().zip(&mut ids)) {
            let other = if home == "a" { "b" } else { "a" };
            let needs = [(home, more), (other, less), ("c", less)];
            let submission = Submission { has_slot, ..of(n, client, at(ms)) };
            of_client.push((net.send(&needs[..=others], submission, at(ms)), less));
        }
    }
    net.run(at(90_000));
    ids.map(|ids| ids.into_iter().map(|(id, less)| (net.starts[&id], less)).collect())
}

#[test]
fn requests_that_need_the_same_pools_start_in_the_order_in_which_they_came() {
    for late in 0..10 {
        for (others, has_slot) in [(1, false), (1, true), (2, false), (2, true)] {
            for starts in crossed(others, late, |_| (10, 5), has_slot) {
                assert!(starts.is_sorted(), "{starts:?}");
            }
        }
    }
}

#[test]
fn only_one_that_needs_less_of_another_pool_may_start_before_an_older_one() {
    for late in 0..30 {
        for starts in crossed(1 + usize::from(late % 2 == 0), late, |n| (8 + n % 5, 3 + n * 7 % 5), false) {
            for (n, younger) in starts.iter().enumerate() {
                let passes = |older: &&(Instant, u64)| younger.0 < older.0;
                let passed: Vec<_> = starts[..n].iter().filter(passes).collect();
                assert!(passed.iter().all(|older| younger.1 < older.1), "{starts:?}");
                assert!(passed.len() <= 1, "{starts:?}");
            }
        }
    }
}

/// A home `a` with plenty, and a pool `b` of which standard clients have a fifth; all else of it others have for as long as
/// this takes.
fn with_a_share() -> Network {
    let member = Member::Tier(Tier::Standard);
    let share = Partition { name: "standard".into(), member, percent: 20, lends: false };
    let other = PoolConfig { pool: id_of("b"), partitions: vec![share], ..config(100, 10) };
    let mut net = Network::of([PoolConfig { pool: id_of("a"), ..config(1_000, 100) }, other].into_iter());
    for n in 0..20 {
        net.send(&[("b", 60)], request(n, "large", Tier::Enterprise, Urgency::Immediate, at(0)), at(0));
    }
    net.run(at(100));
    net
}

#[test]
fn one_that_its_share_is_enough_for_is_not_held_back_by_older_ones_that_it_is_not() {
    for (older, urgency) in [(1, Urgency::Normal), (2, Urgency::Normal), (20, Urgency::Normal), (20, Urgency::Fast)] {
        let mut net = with_a_share();
        let of = |n, urgency, now| Submission { urgency, ..of(n, "one", now) };
        let older: Vec<_> =
            (0..older).map(|n| net.send(&[("a", 1), ("b", 40)], of(100 + n, urgency, at(100)), at(100))).collect();
        for (n, ms) in (0..20).zip((2_000..).step_by(2_000)) {
            net.run(at(ms));
            let younger = net.send(&[("a", 1), ("b", 4)], of(200 + n, urgency, at(ms)), at(ms));
            net.run(at(ms + 1_999));
            let waited = net.starts.get(&younger).map(|started| started.since(at(ms)));
            assert!(waited.is_some_and(|ms| ms < 500), "{n}: {waited:?}");
        }
        assert!(older.iter().all(|id| !net.starts.contains_key(id)), "they wait");
    }
}

#[test]
fn many_that_their_share_is_enough_for_start_as_it_is_refilled_whoever_older_waits_for_more() {
    for (older, slots) in [(1, 1), (1, 1_000), (30, 1), (30, 20)] {
        let mut net = with_a_share();
        net.slots = slots;
        for n in 0..older {
            net.send(&[("a", 1), ("b", 40)], of(100 + n, "one", at(100)), at(100));
        }
        net.run(at(1_000));
        let younger: Vec<_> =
            (0..10).map(|n| net.send(&[("a", 1), ("b", 4)], of(200 + n, "one", at(1_000)), at(1_000))).collect();
        // Twenty are there, and two a second come.
        net.run(at(21_000));
        let started = younger.iter().filter(|id| net.starts.contains_key(id)).count();
        assert_eq!(started, 10, "{older} older ones, {slots} slots");
    }
}

/// A first request that the pool `other` has refused, a second one of its lane, and what the second was told.
fn two_of_one_lane(needed: u64, second: Submission) -> (Pool, RequestId, Submitted) {
    let mut home = pool(PoolConfig { lanes: Lanes::default(), ..config(1_000, 1) });
    let taken = queue(&mut home, Submission { demands: vec![demand("home", 500)], ..of(1, "somebody", at(0)) }, at(0));
    assert_eq!(started_ids(&mut home, at(0)), [taken]);
    let needs = |amount| vec![demand("home", amount), demand("other", 1)];
    let first = Submission { has_slot: true, urgency: second.urgency, demands: needs(200), ..of(2, "client", at(0)) };
    let first = queue(&mut home, first, at(0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(4_000)), ready_at: Some(at(4_000)) };
    home.lease_answered(&first, 1, &id_of("other"), not_now, at(1));
    home.take_effects();
    let submitted = home.submit(Submission { demands: needs(needed), ..second }, Mode::Queue, at(2));
    (home, first, submitted)
}

fn is_parked(pool: &Pool, id: &RequestId) -> bool {
    pool.request(id).unwrap().parked_until().is_some()
}

#[test]
fn the_older_goes_in_the_turn_of_the_younger_and_nobody_before_that() {
    let younger = of(3, "client", at(2));
    let id = younger.id.clone();
    let (mut home, first, submitted) = two_of_one_lane(300, younger.clone());
    assert_eq!(submitted, Submitted::Accepted);
    assert_eq!((is_parked(&home, &first), is_parked(&home, &id)), (false, true), "it waits in the older one's stead");
    let effects = home.take_effects();
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { id, .. } if *id == first);
    assert!(effects.iter().any(asks), "{effects:?}");
    let (home, first, _) = two_of_one_lane(900, younger);
    assert_eq!((is_parked(&home, &first), is_parked(&home, &id)), (true, false), "its turn has not come");
}

#[test]
fn one_that_has_its_slot_goes_itself_or_gives_it_back() {
    let younger = Submission { has_slot: true, ..of(3, "client", at(2)) };
    let id = younger.id.clone();
    let (mut home, first, _) = two_of_one_lane(300, younger.clone());
    assert!(is_parked(&home, &first));
    let effects = home.take_effects();
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireLease { id: asking, .. } if *asking == id);
    assert!(effects.iter().any(asks), "{effects:?}");
    let (mut home, _, _) = two_of_one_lane(900, younger);
    let effects = home.take_effects();
    let frees = |effect: &Effect| matches!(effect, Effect::ReleaseSlot { id: of, grant: 0, .. } if *of == id);
    assert!(effects.iter().any(frees), "{effects:?}");
}

#[test]
fn one_that_would_start_too_late_is_refused_though_an_older_one_of_its_lane_waits_elsewhere() {
    for has_slot in [true, false] {
        let immediate = Submission { has_slot, urgency: Urgency::Immediate, ..of(3, "client", at(2)) };
        let (home, first, submitted) = two_of_one_lane(900, immediate);
        assert!(matches!(submitted, Submitted::Refused(_)), "{submitted:?}");
        assert_eq!(home.requests().filter(|request| request.client.as_str() == "client").count(), 1);
        assert!(home.request(&first).is_some());
    }
}

#[test]
fn one_that_needs_less_goes_after_the_older_one_also_where_that_is_refused_and_had_the_only_slot() {
    let needs = |amount| vec![demand("home", 100), demand("other", amount)];
    let not_now = || LeaseAnswer::NotNow { retry_at: None, ready_at: None };
    let asking = |home: &mut Pool| -> Vec<RequestId> {
        let of = |effect| if let Effect::AcquireSlot { id, .. } = effect { Some(id) } else { None };
        home.take_effects().into_iter().filter_map(of).collect()
    };
    for (amount, goes_too) in [(1, false), (2, true)] {
        let mut home = pool(config(1_000, 1));
        let older = Submission { demands: needs(amount), has_slot: true, ..of(1, "client", at(0)) };
        let older = queue(&mut home, older, at(0));
        home.lease_answered(&older, 1, &id_of("other"), not_now(), at(1));
        home.take_effects();
        let younger = queue(&mut home, Submission { demands: needs(1), ..of(2, "client", at(2)) }, at(2));
        let both = [older.clone(), younger.clone()];
        assert_eq!(asking(&mut home), both[..if goes_too { 2 } else { 1 }]);
        home.slot_answered(&older, 2, Some(SlotAnswer::Granted), at(3));
        if goes_too {
            home.slot_answered(&younger, 1, Some(SlotAnswer::Full), at(3));
            home.take_effects();
            home.lease_answered(&older, 2, &id_of("other"), not_now(), at(4));
            home.client_woken(&"client".parse().unwrap(), at(5));
            assert_eq!(asking(&mut home), [younger], "it is its own turn");
        }
    }
}

#[test]
fn what_the_older_one_is_told_is_not_taken_for_what_the_younger_one_would_be() {
    let (mut home, first, _) = two_of_one_lane(300, of(3, "client", at(2)));
    let younger = of(3, "client", at(2)).id;
    home.slot_answered(&first, 2, Some(SlotAnswer::Granted), at(3));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(9_000)), ready_at: Some(at(9_000)) };
    home.lease_answered(&first, 2, &id_of("other"), not_now, at(4));
    home.take_effects();
    home.on_wakeup(at(4_000));
    assert!(is_parked(&home, &younger));
    let effects = home.take_effects();
    let goes = |effect: &Effect| matches!(effect, Effect::AcquireSlot { .. });
    assert!(!effects.iter().any(goes), "not even the older one, in its turn: {effects:?}");
}

#[test]
fn two_that_are_the_same_are_run_once() {
    let needs = || vec![demand("home", 100), demand("other", 1)];
    let limits = Lanes([(Urgency::Normal, LaneLimits { max_wait_ms: Some(60_000), queue_cap: None })].into());
    let mut home = pool(PoolConfig { lanes: limits, ..config(1_000, 1) });
    let same =
        |n, has_slot, now| Submission { demands: needs(), has_slot, held_at: now, ..support::twin(n, Urgency::Normal) };
    let older = queue(&mut home, same(1, true, at(0)), at(0));
    let not_now = LeaseAnswer::NotNow { retry_at: None, ready_at: None };
    home.lease_answered(&older, 1, &id_of("other"), not_now, at(1));
    home.take_effects();
    let younger = queue(&mut home, same(2, false, at(2)), at(2));
    assert_eq!(started_ids(&mut home, at(3)), [younger]);
    assert!(matches!(home.request(&older).unwrap().phase, Phase::Following { .. }));
}

#[test]
fn one_that_stood_back_for_one_that_a_third_pool_refuses_does_so_once() {
    let needs = |c| vec![demand("home", 1), demand("b", 5), demand("c", c)];
    let not_now = || LeaseAnswer::NotNow { retry_at: None, ready_at: None };
    let granted = || LeaseAnswer::Granted { regain_ms: 0 };
    let (b, c) = (id_of("b"), id_of("c"));
    let mut home = pool(config(1_000, 1));
    let older = queue(&mut home, Submission { demands: needs(60), has_slot: true, ..of(1, "client", at(0)) }, at(0));
    home.lease_answered(&older, 1, &b, granted(), at(1));
    home.lease_answered(&older, 1, &c, not_now(), at(1));
    let younger = queue(&mut home, Submission { demands: needs(10), ..of(2, "client", at(2)) }, at(2));
    home.slot_answered(&older, 2, Some(SlotAnswer::Granted), at(3));
    home.slot_answered(&younger, 1, Some(SlotAnswer::Granted), at(3));
    home.lease_answered(&older, 2, &b, granted(), at(4));
    home.lease_answered(&younger, 1, &b, not_now(), at(4));
    home.lease_answered(&older, 2, &c, not_now(), at(5));
    assert!(is_parked(&home, &older) && is_parked(&home, &younger));
    home.take_effects();
    home.lease_free(&b, false, units(5), at(6));
    let effects = home.take_effects();
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { id, .. } if *id == younger);
    assert!(effects.iter().any(asks), "{effects:?}");
    assert!(is_parked(&home, &older), "what it waits for has not said anything new");
}

#[test]
fn one_that_stood_back_goes_next_whoever_else_is_older() {
    let needs = |amount| vec![demand("home", 1), demand("other", amount)];
    let refused = |home: &mut Pool, id: &RequestId, ready_at| {
        let grant = home.request(id).unwrap().grants;
        home.slot_answered(id, grant, Some(SlotAnswer::Granted), at(5));
        home.lease_answered(id, grant, &id_of("other"), LeaseAnswer::NotNow { retry_at: ready_at, ready_at }, at(5));
    };
    let mut home = pool(config(1_000, 1));
    let large = queue(&mut home, Submission { demands: needs(60), ..of(1, "client", at(0)) }, at(0));
    refused(&mut home, &large, None);
    for n in 2..5 {
        home.take_effects();
        let id = queue(&mut home, Submission { demands: needs(10), ..of(n, "client", at(0)) }, at(0));
        let asks = |effect| if let Effect::AcquireSlot { id, .. } = effect { Some(id) } else { None };
        let asking: Vec<_> = home.take_effects().into_iter().filter_map(asks).collect();
        assert_eq!(asking, [large.clone(), id.clone()], "not an equal one that was refused before");
        refused(&mut home, &large, None);
        refused(&mut home, &id, Some(at(4_000)));
    }
}

#[test]
fn one_of_another_home_goes_before_the_younger_ones_of_its_lane_whatever_it_has_used_there() {
    for late in 0..10 {
        let mut net = Network::new(&["a", "b"], 12, 3);
        net.sent_before(late * 1_000);
        for n in 0..4 {
            net.send(&[("a", 4)], of(n, "other", at(0)), at(0));
        }
        // The other client uses nothing of `b`.
        net.send(&[("b", 5), ("a", 3)], of(10, "client", at(0)), at(0));
        net.run(at(600));
        let older = net.send(&[("b", 6), ("a", 1)], of(11, "client", at(600)), at(600));
        let mut younger = Vec::new();
        for (n, ms) in (0..20).zip((1_000..).step_by(2_000)) {
            net.run(at(ms));
            younger.push(net.send(&[("a", 4), ("b", 1)], of(100 + n, "client", at(ms)), at(ms)));
            net.send(&[("a", 4)], of(200 + n, "other", at(ms)), at(ms));
        }
        net.run(at(60_000));
        let started = net.starts[&older];
        let before = younger.iter().filter(|id| net.starts.get(*id).is_some_and(|at| *at < started)).count();
        assert_eq!(before, 0, "it started after {} ms", started.since(at(600)));
    }
}
