//! What a pool may give out (invariant 1) when its limits change, and what its use costs (invariant 9).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::partition::{Member, Partition};
use rm_core::pool::{Mode, Pool, PoolConfig, Refusal, Submitted};
use rm_core::request::{Line, Usage};
use rm_core::token_bucket::{BucketLimits, TokenBucket};
use rm_core::units::{NanoUsd, Tokens};
use support::{at, config, demand, id_of, normal, pool, queue, started, units, used};

fn resized(pool: &mut Pool, capacity: u64, refill: u64, ms: i64) -> Tokens {
    let before = pool.config().clone();
    let limits = BucketLimits { capacity: units(capacity), refill_per_second: units(refill), ..before.limits };
    pool.configure(PoolConfig { limits, revision: before.revision + 1, ..before }, at(ms));
    pool.view(at(ms)).available
}

#[test]
fn a_pool_that_is_made_larger_has_no_more_than_before() {
    let mut pool = pool(config(10, 0));
    queue(&mut pool, normal(1, 6, at(0)), at(0));
    started(&mut pool, at(0));
    assert_eq!(resized(&mut pool, 100, 0, 1), units(4));
    assert_eq!(resized(&mut pool, 3, 0, 2), units(3));
    assert_eq!(resized(&mut pool, 100, 0, 3), units(3), "what did not fit is gone");
}

#[test]
fn a_bucket_that_is_resized_is_refilled_under_its_old_limits_first() {
    let limits = |refill| BucketLimits { capacity: units(100), refill_per_second: units(refill), window_cap: false };
    let mut bucket = TokenBucket::holding(&limits(1), Tokens::ZERO, at(0));
    bucket.resize(&limits(1), &limits(50), at(1_000));
    assert_eq!(bucket.level(), units(1));
}

#[test]
fn the_time_before_a_change_is_refilled_as_it_was_before() {
    let mut pool = pool(config(1_000, 1));
    queue(&mut pool, normal(1, 1_000, at(0)), at(0));
    started(&mut pool, at(0));
    assert_eq!(resized(&mut pool, 1_000, 100, 10_000), units(10));
    assert_eq!(resized(&mut pool, 1_000, 1, 11_000), units(110));
    assert_eq!(pool.view(at(12_000)).available, units(111));
}

#[test]
fn use_beyond_a_reservation_is_paid_back_before_anybody_is_granted_again() {
    let mut pool = pool(config(10, 1));
    queue(&mut pool, normal(1, 10, at(0)), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, used(15), at(0));
    let next = queue(&mut pool, normal(2, 1, at(0)), at(0));
    let order = support::run_until(&mut pool, at(0), at(6_000));
    assert_eq!(order, [(at(6_000), next)]);
    let ledger = pool.ledger();
    assert_eq!((ledger.consumed, ledger.overused), (units(10).micros(), units(5).micros()));
}

#[test]
fn a_view_that_is_brought_up_to_date_has_what_the_pool_has() {
    for overuse in [0, 3, 15] {
        let mut pool = pool(config(10, 2));
        queue(&mut pool, normal(1, 6, at(0)), at(0));
        let (id, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, used(6 + overuse), at(0));
        let seen = pool.view(at(0));
        for ms in [0, 500, 3_000, 6_000, 30_000] {
            assert_eq!(seen.clone().at(at(ms)).available, pool.view(at(ms)).available, "{overuse}, {ms}");
        }
    }
}

#[test]
fn so_have_its_partitions() {
    for lends in [true, false] {
        let member = Member::Client("client-1".parse().unwrap());
        let part = Partition { name: "part".into(), member, percent: 50, lends };
        let mut pool = pool(PoolConfig { partitions: vec![part], ..config(20, 2) });
        queue(&mut pool, normal(1, 8, at(0)), at(0));
        let (id, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, used(8), at(0));
        let seen = pool.view(at(0));
        assert_eq!(seen.partitions[0].available, units(2));
        for ms in [0, 500, 3_000, 30_000] {
            assert_eq!(seen.clone().at(at(ms)).partitions, pool.view(at(ms)).partitions, "{lends}, {ms}");
        }
    }
}

#[test]
fn a_submission_that_comes_too_long_after_its_hold_is_refused() {
    let mut pool = pool(config(10, 1));
    let stale = pool.submit(normal(1, 1, at(0)), Mode::Queue, at(30_001));
    assert_eq!(stale, Submitted::Refused(Refusal::Stale), "its hold may be given up by now");
    queue(&mut pool, normal(1, 1, at(1)), at(30_001));
    assert_eq!(pool.submit(normal(1, 1, at(1)), Mode::Queue, at(30_001)), Submitted::Existing);
}

#[test]
fn what_cannot_be_counted_is_neither_held_for_nor_free() {
    let mut dear = demand("home", 1_000_000);
    dear.unit_price = NanoUsd::MAX;
    assert_eq!(dear.estimated_cost(), None, "nothing can be held for it");
    dear.amount = units(1);
    let usage = Usage { pool: id_of("home"), amount: units(1_000_000), parts: None, is_share: false };
    let line = Line::of(&dear, Some(&usage), true);
    assert_eq!((line.actual, line.cost), (units(1), NanoUsd::MAX), "it is billed as it was reserved");
}

#[test]
fn part_of_a_nano_dollar_is_a_nano_dollar() {
    let price = NanoUsd::from_nanos(3).unwrap();
    let micro = Tokens::from_micros(1).unwrap();
    assert_eq!(price.times(micro), NanoUsd::from_nanos(1));
    assert_eq!(price.times(units(2)), NanoUsd::from_nanos(6));
    assert_eq!(price.times(Tokens::ZERO), Some(NanoUsd::ZERO));
}
