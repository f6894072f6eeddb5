//! A pool that is held back by what it keeps for requests of another one: whom it tells, and what becomes of a ring of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use std::collections::BTreeSet;

use rm_core::id::{PoolId, RequestId};
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Effect, LeaseOrder, Pool, PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::{at, config, demand, id_of, lease_order, pool, queue, request, started, started_ids, units, used};

/// A pool of ten tokens, called "home", that keeps eight for a request of "elsewhere", which is of higher rank than the one
/// that waits here for five.
fn held_back() -> (Pool, RequestId) {
    let mut pool = pool(config(10, 0));
    let mut all = request(0, "holder", Tier::Basic, Urgency::Normal, at(0));
    all.demands[0].amount = units(10);
    queue(&mut pool, all, at(0));
    let (holder, grant) = started(&mut pool, at(0)).remove(0);
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let order = LeaseOrder { amount: units(8), ..lease_order(&id, "high", Tier::Enterprise, Urgency::Fast) };
    assert!(!pool.acquire_lease(order, at(0)).is_granted());
    let mut waits = request(1, "here", Tier::Basic, Urgency::Normal, at(0));
    waits.demands[0].amount = units(5);
    let waits = queue(&mut pool, waits, at(0));
    pool.report(&holder, grant, used(0), at(0));
    assert!(started(&mut pool, at(0)).is_empty(), "the tokens are there, and kept");
    (pool, waits)
}

fn names(of: &[&str]) -> BTreeSet<PoolId> {
    of.iter().map(|name| id_of(name)).collect()
}

/// What is told by the pool's own alarms until then: when, whom, and who waits.
fn told(pool: &mut Pool, from: Instant, until: Instant) -> Vec<(i64, PoolId, BTreeSet<PoolId>)> {
    let mut now = from;
    let mut told = Vec::new();
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= until) {
        now = next.max(now.plus(1));
        pool.on_wakeup(now);
        told.extend(pool.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::TellHeldBack { pool, waiting } => Some((now.since(at(0)), pool, waiting)),
            _ => None,
        }));
    }
    told
}

#[test]
fn it_says_so_after_a_second_and_again_until_it_is_held_back_no_more() {
    let (mut pool, waits) = held_back();
    let elsewhere = || id_of("elsewhere");
    let own = || names(&["home"]);
    assert_eq!(
        told(&mut pool, at(0), at(5_500)),
        [(1_000, elsewhere(), own()), (3_000, elsewhere(), own()), (5_000, elsewhere(), own())]
    );
    pool.cancel(&waits, true, at(6_000));
    let free = Effect::TellHeldBack { pool: elsewhere(), waiting: BTreeSet::new() };
    assert!(pool.take_effects().contains(&free));
    assert!(told(&mut pool, at(6_000), at(20_000)).is_empty());
}

#[test]
fn it_says_nothing_if_the_other_one_comes_in_time() {
    let (mut pool, waits) = held_back();
    pool.cancel(&waits, true, at(900));
    assert!(told(&mut pool, at(900), at(20_000)).is_empty());
}

#[test]
fn in_a_ring_nothing_is_kept_any_more_for_those_that_hold_it_back() {
    let (mut pool, waits) = held_back();
    // It is not held back for long enough to be sure.
    pool.held_back_told(&id_of("elsewhere"), names(&["home"]), at(500));
    assert!(started(&mut pool, at(500)).is_empty());
    told(&mut pool, at(500), at(1_500));
    pool.held_back_told(&id_of("elsewhere"), names(&["x"]), at(1_500));
    assert!(started(&mut pool, at(1_500)).is_empty(), "that is no ring");
    pool.held_back_told(&id_of("elsewhere"), names(&["home", "x"]), at(1_600));
    assert_eq!(started_ids(&mut pool, at(1_600)), [waits]);
}

#[test]
fn what_it_hears_of_those_with_a_greater_name_it_passes_on() {
    let (mut pool, _) = held_back();
    pool.held_back_told(&id_of("x"), names(&["a", "x", "y"]), at(100));
    assert_eq!(told(&mut pool, at(100), at(1_500)), [(1_000, id_of("elsewhere"), names(&["home", "x", "y"]))]);
    // What changes is told at once, and what is not said again for long is forgotten.
    pool.held_back_told(&id_of("x"), names(&["x"]), at(1_600));
    let change = Effect::TellHeldBack { pool: id_of("elsewhere"), waiting: names(&["home", "x"]) };
    assert!(pool.take_effects().contains(&change));
    let (_, _, last) = told(&mut pool, at(1_600), at(8_000)).pop().unwrap();
    assert_eq!(last, names(&["home"]));
}

#[test]
fn an_order_whose_lent_share_has_its_tokens_is_about_to_come() {
    let share =
        Partition { name: "gold".into(), member: Member::Client("gold".parse().unwrap()), percent: 50, lends: true };
    let mut pool = pool(PoolConfig { partitions: vec![share], ..config(100, 0) });
    let large = |n, client: &str, amount| Submission {
        demands: vec![demand("home", amount)],
        ..request(n, client, Tier::Basic, Urgency::Normal, at(0))
    };
    queue(&mut pool, large(0, "holder", 100), at(0));
    let (holder, grant) = started(&mut pool, at(0)).remove(0);
    let asks = |home: &str, client, tier, amount| {
        let id = RequestId::new(at(0), [1; 10], &id_of(home));
        LeaseOrder { amount: units(amount), ..lease_order(&id, client, tier, Urgency::Fast) }
    };
    assert!(!pool.acquire_lease(asks("first", "vip", Tier::Enterprise, 70), at(0)).is_granted());
    assert!(!pool.acquire_lease(asks("second", "gold", Tier::Premium, 40), at(0)).is_granted());
    queue(&mut pool, large(1, "waits", 10), at(0));
    pool.report(&holder, grant, used(0), at(0));
    assert!(started(&mut pool, at(0)).is_empty());
    // The first one's seventy are there, but for what is claimed for the second, whose share has its forty.
    assert_eq!(told(&mut pool, at(0), at(1_500)), [(1_000, id_of("second"), names(&["home"]))]);
}
