//! Requests of other pools that wait for tokens here: their rank counts, and one that does not come holds back nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::id::RequestId;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{LeaseAnswer, LeaseEnd, LeaseOrder, Pool, PoolConfig, Signal, Submission};
use rm_core::priority::{STARVATION_BOUND_MS, Tier, Urgency};
use rm_core::units::Instant;
use support::{
    at, config, demand, id_of, lease_order, pool, queue, request, run_until, started, started_ids, units, used,
};

/// An order for a request of another home.
fn order(n: u8, client: &str, tier: Tier, urgency: Urgency, amount: u64) -> LeaseOrder {
    let id = RequestId::new(at(0), [n; 10], &id_of("elsewhere"));
    LeaseOrder { amount: units(amount), ..lease_order(&id, client, tier, urgency) }
}

fn high(n: u8, amount: u64) -> LeaseOrder {
    order(n, "high", Tier::Enterprise, Urgency::Fast, amount)
}

fn low(n: u8, amount: u64) -> LeaseOrder {
    order(n, "low", Tier::Basic, Urgency::Normal, amount)
}

/// A pool whose tokens are all out, with what brings them back.
fn empty(config: PoolConfig) -> (Pool, (RequestId, u32)) {
    let all = config.limits.capacity;
    let mut pool = pool(config);
    let mut holder = request(0, "holder", Tier::Basic, Urgency::Normal, at(0));
    holder.demands[0].amount = all;
    queue(&mut pool, holder, at(0));
    let holder = started(&mut pool, at(0)).remove(0);
    (pool, holder)
}

fn share(percent: u8, lends: bool) -> Partition {
    Partition { name: "basic".into(), member: Member::Tier(Tier::Basic), percent, lends }
}

fn is_granted(pool: &mut Pool, order: LeaseOrder, now: Instant) -> bool {
    pool.acquire_lease(order, now).is_granted()
}

#[test]
fn what_comes_free_at_once_goes_to_those_of_higher_rank_whoever_asks_first() {
    let (mut pool, (holder, grant)) = empty(config(10, 0));
    assert!((1..=8).all(|n| !is_granted(&mut pool, high(n, 1), at(1))));
    let member = queue(&mut pool, request(9, "here", Tier::Basic, Urgency::Normal, at(1)), at(1));
    assert!(!is_granted(&mut pool, low(11, 1), at(1)));
    pool.report(&holder, grant, used(0), at(100));
    assert_eq!(started_ids(&mut pool, at(100)), std::slice::from_ref(&member), "there is one for it");
    pool.report(&member, 1, used(1), at(100));
    assert!(is_granted(&mut pool, low(11, 1), at(101)), "and one more");
    assert!(!is_granted(&mut pool, low(12, 1), at(101)), "the others are of higher rank");
    assert!((1..=8).all(|n| is_granted(&mut pool, high(n, 1), at(102))));
}

#[test]
fn one_that_does_not_ask_when_it_should_holds_back_nobody() {
    let (mut pool, (holder, grant)) = empty(config(10, 0));
    assert!(!is_granted(&mut pool, high(1, 10), at(0)));
    let here = queue(&mut pool, request(9, "here", Tier::Basic, Urgency::Normal, at(1)), at(1));
    pool.report(&holder, grant, used(0), at(100));
    assert_eq!(run_until(&mut pool, at(100), at(60_000)), [(at(10_100), here)], "for ten seconds it is expected");
}

#[test]
fn a_share_that_is_lent_comes_back_for_a_member_that_has_its_home_elsewhere() {
    let mut pool = pool(PoolConfig { partitions: vec![share(30, true)], ..config(10, 1) });
    for n in 0..30 {
        queue(&mut pool, request(n, "others", Tier::Enterprise, Urgency::Fast, at(0)), at(0));
    }
    let run_all = |pool: &mut Pool, now| {
        for (id, grant) in started(pool, now) {
            pool.report(&id, grant, used(1), now);
        }
    };
    run_all(&mut pool, at(0));
    let mut granted_at = None;
    for second in 1..20 {
        let now = at(second * 1_000);
        pool.on_wakeup(now);
        run_all(&mut pool, now);
        if is_granted(&mut pool, low(1, 2), now) {
            granted_at = granted_at.or(Some(second));
        } else {
            let view = &pool.view(now).partitions[0];
            assert_eq!((view.wanted, view.claimed), (units(2), units(2)), "it is said");
        }
    }
    assert_eq!(granted_at, Some(3), "as soon as the pool has gained what it asked for at the first second");
}

/// Seconds until an order of five is granted that asks every five seconds, beside requests of lower rank that take one a
/// second of the same part; `old` is one of the lowest rank that waits for its promotion.
fn granted_beside_members(partition: Partition, old: bool) -> Option<i64> {
    let (mut pool, (holder, grant)) = empty(PoolConfig { partitions: vec![partition], ..config(10, 1) });
    pool.report(&holder, grant, used(10), at(0));
    for second in 1..1_000_i64 {
        let now = at(second * 1_000);
        let lane = if old { Urgency::Fast } else { Urgency::Deferred };
        let held_at = if old { now } else { at(0) };
        queue(&mut pool, request(10 + second as u64, "low", Tier::Basic, lane, held_at), now);
        for (id, grant) in started(&mut pool, now) {
            pool.report(&id, grant, used(1), now);
        }
        let lane = if old { Urgency::Deferred } else { Urgency::Fast };
        if second % 5 == 0 && is_granted(&mut pool, order(1, "low", Tier::Basic, lane, 5), now.plus(500)) {
            return Some(second);
        }
    }
    None
}

#[test]
fn members_of_its_own_part_do_not_pass_it_over() {
    for lends in [true, false] {
        for percent in [100, 50] {
            assert_eq!(granted_beside_members(share(percent, lends), false), Some(10), "{percent} {lends}");
            let old = granted_beside_members(share(percent, lends), true);
            assert!(old.is_some_and(|second| second <= 610), "{percent} {lends}: {old:?}");
        }
    }
}

#[test]
fn a_promoted_member_has_its_turn_beside_leases_out_of_the_same_part() {
    let (mut pool, (holder, grant)) = empty(PoolConfig { partitions: vec![share(100, false)], ..config(10, 1) });
    pool.report(&holder, grant, used(10), at(0));
    let mut old = request(2, "old", Tier::Basic, Urgency::Deferred, at(0));
    old.demands = vec![demand("home", 5)];
    let old = queue(&mut pool, old, at(0));
    for second in 1..2_000_i64 {
        let now = at(second * 1_000);
        let id = RequestId::new(now, [8; 10], &id_of("elsewhere"));
        let order = LeaseOrder {
            key: format!("{id}#1"),
            enqueued_at: now,
            ..order(8, "member", Tier::Basic, Urgency::Fast, 1)
        };
        let key = order.key.clone();
        if is_granted(&mut pool, order, now) {
            pool.settle_lease(&key, units(1), LeaseEnd::Ran, &Signal::default(), now);
        }
        if started_ids(&mut pool, now).contains(&old) {
            assert!(second < 650, "at {second} s");
            return;
        }
    }
    panic!("it never starts");
}

#[test]
fn a_lease_of_a_promoted_one_that_came_to_nothing_gives_the_turn_back_to_its_part() {
    let old = |n: u8| LeaseOrder { enqueued_at: at(-700_000), ..low(n, 1) };
    let mut pool = pool(PoolConfig { partitions: vec![share(50, false)], ..config(10, 0) });
    let young = |n: u8| LeaseOrder { enqueued_at: at(0), ..order(n, "young", Tier::Basic, Urgency::Fast, 1) };
    assert!((1..=3).all(|n| is_granted(&mut pool, young(n), at(0))));
    assert!(is_granted(&mut pool, old(4), at(0)), "it has the fourth");
    assert!(pool.lease(&old(4).key).is_some_and(|lease| lease.promoted && lease.by_share));
    pool.settle_lease(&old(4).key, units(0), LeaseEnd::Returns { needed_at: Some(at(1)) }, &Signal::default(), at(1));
    assert!(is_granted(&mut pool, old(5), at(1)));
    assert!(pool.lease(&old(5).key).is_some_and(|lease| lease.promoted), "it is still its turn");
}

#[test]
fn when_an_order_should_be_granted_counts_those_before_it() {
    let (mut pool, _) = empty(config(10, 1));
    let ready_at = |pool: &mut Pool, order| match pool.acquire_lease(order, at(0)) {
        LeaseAnswer::NotNow { ready_at, .. } => ready_at,
        other => panic!("{other:?}"),
    };
    assert_eq!(ready_at(&mut pool, high(1, 3)), Some(at(3_000)));
    assert_eq!(ready_at(&mut pool, high(2, 3)), Some(at(6_000)));
    assert_eq!(ready_at(&mut pool, low(3, 2)), Some(at(8_000)));
    assert_eq!(ready_at(&mut pool, high(4, 1)), Some(at(7_000)), "what is of lower rank is not before it");
    let here = queue(&mut pool, request(9, "here", Tier::Standard, Urgency::Deferred, at(0)), at(0));
    assert_eq!(pool.position(&here, at(0)).unwrap().estimated_start_at, Some(at(10_000)), "nor is it told less here");
    let told = pool.foretell(request(10, "low", Tier::Basic, Urgency::Deferred, at(0)), at(0));
    assert_eq!(told, Ok(Some(at(11_000))));
}

#[test]
fn no_more_is_kept_for_a_client_than_it_has_slots_for() {
    let (mut pool, (holder, grant)) = empty(config(10, 0));
    for n in 1..=8 {
        assert!(!is_granted(&mut pool, LeaseOrder { slots: Some(2), ..high(n, 1) }, at(1)));
    }
    assert_eq!(pool.view(at(1)).kept, units(2));
    pool.report(&holder, grant, used(0), at(100));
    assert!((11..=18).all(|n| is_granted(&mut pool, low(n, 1), at(101))), "it can run two at once");
    assert!(!is_granted(&mut pool, low(19, 1), at(101)));
}

#[test]
fn one_that_was_admitted_when_its_client_had_no_slots_has_one_when_it_asks() {
    let (mut pool, (holder, grant)) = empty(config(10, 0));
    for n in 1..=2 {
        assert!(!is_granted(&mut pool, LeaseOrder { slots: Some(0), ..high(n, 8) }, at(1)));
    }
    assert_eq!(pool.view(at(1)).kept, units(8), "one, and no more");
    pool.report(&holder, grant, used(0), at(100));
    assert!(!is_granted(&mut pool, low(3, 4), at(101)));
    assert!(is_granted(&mut pool, high(1, 8), at(102)));
}

#[test]
fn what_is_kept_for_a_client_is_kept_for_those_of_its_that_go_first() {
    let (mut pool, _) = empty(config(10, 0));
    let only = |order: LeaseOrder, enqueued_at| LeaseOrder { slots: Some(1), enqueued_at, ..order };
    let now = at(STARVATION_BOUND_MS);
    let mut kept_for = |order| {
        assert!(!is_granted(&mut pool, order, now));
        pool.view(now).kept
    };
    let normal = |n, amount| order(n, "high", Tier::Enterprise, Urgency::Normal, amount);
    assert_eq!(kept_for(only(normal(1, 2), at(9_000))), units(2));
    assert_eq!(kept_for(only(normal(2, 3), at(9_001))), units(2), "it came later");
    assert_eq!(kept_for(only(high(3, 4), at(9_002))), units(4), "its lane is before");
    assert_eq!(kept_for(only(normal(4, 5), at(0))), units(5), "it is promoted");
    assert_eq!(kept_for(only(high(3, 4), at(9_002))), units(5));
}

/// How many of those that are here start within ten minutes, and when the first does, in seconds, after that order was refused.
fn started_beside(order: LeaseOrder) -> (usize, i64) {
    let mut pool = pool(config(2_000, 1));
    let mut all = request(0, "all", Tier::Basic, Urgency::Normal, at(0));
    all.demands[0].amount = units(2_000);
    queue(&mut pool, all, at(0));
    started(&mut pool, at(0));
    assert!(!is_granted(&mut pool, order, at(0)));
    for n in 1..=200 {
        let submission = request(n, "here", Tier::Basic, Urgency::Deferred, at(0));
        queue(&mut pool, Submission { demands: vec![demand("home", 5)], ..submission }, at(0));
    }
    let starts = run_until(&mut pool, at(0), at(599_000));
    (starts.len(), starts[0].0.since(at(0)) / 1_000)
}

#[test]
fn for_one_whose_home_gains_slowly_nothing_is_kept_before_it_is_needed_nor_for_longer_than_until_it_is_promoted() {
    let (count, first) = started_beside(LeaseOrder { regain_ms: 7_200_000, ..high(1, 1_800) });
    assert!(count >= 118 && first == 5, "{count} of the 119 that there are tokens for, from {first} s on");
    let soon_promoted = LeaseOrder { enqueued_at: at(-590_000), regain_ms: 400_000, ..high(1, 1_800) };
    let (_, first) = started_beside(soon_promoted);
    assert!(first <= 70, "{first} s");
}

#[test]
fn what_is_kept_for_one_later_is_kept_from_when_it_is_promoted() {
    let (mut pool, _) = empty(config(100, 1));
    let slow = LeaseOrder { enqueued_at: at(-590_000), regain_ms: 600_000, ..high(1, 5) };
    assert!(!is_granted(&mut pool, slow, at(0)));
    assert_eq!((pool.view(at(9_999)).kept, pool.view(at(10_000)).kept), (units(0), units(5)));
}

#[test]
fn what_is_kept_for_one_later_takes_no_slot_from_what_is_kept_now() {
    let (mut pool, _) = empty(config(100, 1));
    let only = |order: LeaseOrder, enqueued_at| LeaseOrder { slots: Some(1), enqueued_at, ..order };
    let slow = LeaseOrder { regain_ms: 600_000, ..only(high(1, 5), at(0)) };
    assert!(!is_granted(&mut pool, slow.clone(), at(1)));
    assert!(!is_granted(&mut pool, only(high(2, 7), at(1)), at(2)));
    assert_eq!(pool.view(at(2)).kept, units(7), "that one's home has its tokens in five minutes only");
    assert!(!is_granted(&mut pool, LeaseOrder { key: slow.key.replace("#1", "#2"), regain_ms: 0, ..slow }, at(3)));
    assert_eq!(pool.view(at(3)).kept, units(5), "now it is the one that goes first");
}

#[test]
fn one_that_asks_again_is_no_other_one() {
    let (mut pool, _) = empty(config(10, 0));
    let only = LeaseOrder { slots: Some(1), ..high(1, 1) };
    assert!(!is_granted(&mut pool, only.clone(), at(0)));
    assert!(!is_granted(&mut pool, only, at(5_000)));
    assert_eq!(pool.view(at(12_000)).kept, units(1), "for ten seconds from its last question on");
}

#[test]
fn one_that_was_told_of_tokens_has_a_moment_to_ask_and_not_one_each_time() {
    let mut pool = pool(config(10, 0));
    let half = |n| {
        let holder = request(n, "holder", Tier::Basic, Urgency::Normal, at(0));
        Submission { demands: vec![demand("home", 5)], slots: Some(2), ..holder }
    };
    queue(&mut pool, half(1), at(0));
    queue(&mut pool, half(2), at(0));
    let runs = started(&mut pool, at(0));
    assert!(!is_granted(&mut pool, high(1, 10), at(0)));
    pool.report(&runs[0].0, runs[0].1, used(0), at(9_900));
    assert!(!is_granted(&mut pool, low(2, 1), at(19_800)), "it is expected until ten seconds after that");
    pool.report(&runs[1].0, runs[1].1, used(0), at(19_850));
    assert!(is_granted(&mut pool, low(2, 1), at(19_950)), "it was told before, and did not ask");
}

#[test]
fn the_first_of_a_part_is_waited_for_though_others_go_before_it_in_the_pool() {
    let half = |name: &str, tier| Partition { name: name.into(), member: Member::Tier(tier), percent: 50, lends: true };
    let parts = vec![half("enterprise", Tier::Enterprise), half("basic", Tier::Basic)];
    let mut pool = pool(PoolConfig { partitions: parts, ..config(20, 2) });
    for (n, client, tier) in [(1, "high", Tier::Enterprise), (2, "low", Tier::Basic)] {
        let most = Submission { demands: vec![demand("home", 10)], ..request(n, client, tier, Urgency::Normal, at(0)) };
        queue(&mut pool, most, at(0));
        let (first, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&first, grant, used(10), at(0));
        for m in 0..200 {
            queue(&mut pool, request(n * 10_000 + m, client, tier, Urgency::Normal, at(0)), at(0));
        }
    }
    let granted = (1..100_i64).find(|second| {
        let now = at(second * 1_000);
        pool.on_wakeup(now);
        for (id, grant) in started(&mut pool, now) {
            pool.report(&id, grant, used(1), now);
        }
        // Before the members of its own part, and after those of the other one.
        second % 5 == 0 && is_granted(&mut pool, order(1, "low-too", Tier::Basic, Urgency::Fast, 8), now.plus(500))
    });
    assert_eq!(granted, Some(10), "all that comes into the share is kept for it");
}

#[test]
fn of_very_many_the_oldest_are_known() {
    let (mut pool, _) = empty(config(1_000, 0));
    let of = |n: i64, amount| {
        let id = RequestId::new(at(n), [7; 10], &id_of("elsewhere"));
        LeaseOrder { key: format!("{id}#1"), enqueued_at: at(n), ..low(1, amount) }
    };
    assert!((1..=256).all(|n| !is_granted(&mut pool, of(n, 1), at(500))));
    assert_eq!(pool.view(at(500)).kept, units(256));
    assert!(!is_granted(&mut pool, of(0, 5), at(500)));
    assert_eq!(pool.view(at(500)).kept, units(260), "in the place of the youngest");
    assert!(!is_granted(&mut pool, of(400, 7), at(500)));
    assert_eq!(pool.view(at(500)).kept, units(260));
}

#[test]
fn among_the_orders_of_a_part_rank_counts_too_and_so_does_what_they_are_told() {
    let mut pool = pool(PoolConfig { partitions: vec![share(50, false)], ..config(10, 2) });
    let others = order(1, "others", Tier::Standard, Urgency::Normal, 5);
    assert!(is_granted(&mut pool, others, at(0)) && is_granted(&mut pool, low(2, 2), at(0)));
    let first = order(3, "low", Tier::Basic, Urgency::Fast, 5);
    assert!(!is_granted(&mut pool, first, at(0)), "three are left of the share");
    let LeaseAnswer::NotNow { ready_at, .. } = pool.acquire_lease(low(4, 1), at(0)) else {
        panic!("what is left of it is kept for the first");
    };
    assert_eq!(ready_at, Some(at(1_500)), "both need six, three are there, and the pool gains two a second");
}

#[test]
fn an_order_out_of_a_share_that_is_lent_leaves_what_others_of_the_part_wait_for() {
    let mut pool = pool(PoolConfig { partitions: vec![share(50, true)], ..config(100, 10) });
    let mut all = request(0, "holder", Tier::Standard, Urgency::Normal, at(0));
    all.demands = vec![demand("home", 100)];
    queue(&mut pool, all, at(0));
    assert_eq!(started(&mut pool, at(0)).len(), 1);
    let first = order(1, "a", Tier::Basic, Urgency::Fast, 20);
    assert!(!is_granted(&mut pool, first.clone(), at(0)));
    assert!(!is_granted(&mut pool, low(2, 20), at(2_100)), "it is of lower rank");
    assert!(is_granted(&mut pool, first, at(2_200)));
}

#[test]
fn a_lease_on_the_turn_of_the_promoted_ones_uses_it_up() {
    let old = |n: u8| LeaseOrder { enqueued_at: at(-700_000), ..low(n, 1) };
    let mut pool = pool(config(10, 0));
    assert!((1..=3).all(|n| is_granted(&mut pool, high(n, 1), at(0))));
    assert!(is_granted(&mut pool, old(4), at(0)) && is_granted(&mut pool, old(5), at(0)));
    let promoted = |n| pool.lease(&old(n).key).map(|lease| lease.promoted);
    assert_eq!([promoted(4), promoted(5)], [Some(true), Some(false)]);
}

#[test]
fn what_was_granted_is_kept_until_another_pool_has_its_own_if_that_says_when() {
    let mut pool = pool(config(10, 1));
    let returns = |pool: &mut Pool, n: u32, needed_at: Option<i64>, now: i64| {
        let order = LeaseOrder { key: high(1, 8).key.replace("#1", &format!("#{n}")), ..high(1, 8) };
        assert!(is_granted(pool, order.clone(), at(now)), "{n}");
        let end = LeaseEnd::Returns { needed_at: needed_at.map(at) };
        pool.settle_lease(&order.key, units(0), end, &Signal::default(), at(now));
    };
    let kept = |pool: &Pool, now| pool.view(at(now)).kept;
    returns(&mut pool, 1, None, 0);
    assert_eq!(kept(&pool, 0), units(0), "nobody knows when it is needed");
    returns(&mut pool, 2, Some(20_000), 0);
    assert_eq!((kept(&pool, 11_999), kept(&pool, 12_000)), (units(0), units(8)), "it is gained in eight seconds");
    assert!(!is_granted(&mut pool, low(2, 3), at(12_000)));
}

#[test]
fn a_client_with_one_slot_has_its_share_kept_though_it_waits_for_more_than_that_too() {
    let (mut pool, _) = empty(PoolConfig { partitions: vec![share(50, false)], ..config(100, 10) });
    let basic = |n, client, urgency, amount| {
        let order = order(n, client, Tier::Basic, urgency, amount);
        LeaseOrder { slots: Some(1), ..order }
    };
    assert!(!is_granted(&mut pool, basic(1, "client", Urgency::Normal, 60), at(0)));
    assert!(!is_granted(&mut pool, basic(2, "client", Urgency::Normal, 10), at(0)));
    // Twelve of the share are there.
    let now = at(2_400);
    assert!(is_granted(&mut pool, basic(3, "other", Urgency::Batch, 2), now));
    assert!(!is_granted(&mut pool, basic(4, "other", Urgency::Batch, 1), now), "ten are kept");
    assert!(is_granted(&mut pool, basic(2, "client", Urgency::Normal, 10), now));
}
