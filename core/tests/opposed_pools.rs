//! Pools whose requests need each other: that none waits in vain for what another one keeps, nor keeps it for too long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::id::RequestId;
use rm_core::pool::{PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::{Instant, Tokens};
use support::network::Network;
use support::{at, config, id_of, request};

fn of(client: &str, tier: Tier, urgency: Urgency, now: Instant) -> Submission {
    request(0, client, tier, urgency, now)
}

/// Sends some of the lowest rank to a pool, so that so many wait there.
fn keep_busy(network: &mut Network, name: &str, depth: u64, now: Instant) -> Vec<RequestId> {
    let mut sent = Vec::new();
    while network.pools[&id_of(name)].queue_view(now).depth < depth {
        sent.push(network.send(&[(name, 1)], of("low", Tier::Basic, Urgency::Deferred, now), now));
    }
    sent
}

/// How long the last of sixty takes to start that have waited for ten minutes, half of them of each of two homes and in need
/// of the other, and how long the pools take to gain what they need.
fn promoted_and_opposed(round: u64) -> (i64, i64) {
    let names = ["a", "b"];
    let stopped = |name: &&str| PoolConfig { pool: id_of(name), scheduler_running: false, ..config(30, 2) };
    let mut network = Network::of(names.iter().map(stopped));
    let tiers = [Tier::Enterprise, Tier::Premium, Tier::Standard, Tier::Basic];
    let mut needed = [0; 2];
    let mut random = round;
    let mut below = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let mut send = |network: &mut Network| {
        let home = below(2) as usize;
        let (first, second, client) = (1 + below(20), 1 + below(20), below(4));
        needed[home] += first;
        needed[1 - home] += second;
        let submission = of(&format!("client-{client}"), tiers[client as usize], Urgency::Normal, at(0));
        network.send(&[(names[home], first), (names[1 - home], second)], submission, at(0))
    };
    let ids: Vec<RequestId> = (0..60).map(|_| send(&mut network)).collect();
    let go = 610_000;
    network.run(at(go));
    for name in names {
        let pool = network.pools.get_mut(&id_of(name)).unwrap();
        let config = PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() };
        pool.configure(config, at(go));
        network.send(&[(name, 1)], of("wakes", Tier::Basic, Urgency::Normal, at(go)), at(go));
    }
    let last = ids.iter().map(|id| network.started_at(id, at(3_600_000)).expect("it starts")).max().unwrap();
    (last - go / 1_000, needed.iter().map(|needed| (needed - 30) as i64 / 2).max().unwrap())
}

#[test]
fn promoted_ones_of_opposed_homes_are_served_at_the_rate_of_their_pools() {
    let all: Vec<_> = (0..8).map(promoted_and_opposed).collect();
    let (last, ideal) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(last * 4 <= ideal * 5, "{last} s, and {ideal} s is what the pools need: {all:?}");
    assert!(all.iter().all(|(last, ideal)| last * 2 <= ideal * 3), "{all:?}");
}

#[test]
fn a_crowd_whose_home_is_flooded_by_others_holds_back_nobody_in_the_pool_that_it_waits_for() {
    let mut network = Network::of(
        [("a", 100), ("b", 50)].map(|(name, most)| PoolConfig { pool: id_of(name), ..config(most, 5) }).into_iter(),
    );
    network.send(&[("b", 50)], of("holder", Tier::Standard, Urgency::Normal, at(0)), at(0));
    network.run(at(500));
    for n in 0..100 {
        let submission = of(&format!("client-{n}"), Tier::Standard, Urgency::Normal, at(500));
        network.send(&[("a", 5), ("b", 5)], submission, at(500));
    }
    network.run(at(700));
    network.send(&[("a", 100)], of("first", Tier::Enterprise, Urgency::Fast, at(700)), at(700));
    let mut local = Vec::new();
    for second in 1..=60 {
        let now = at(second * 1_000);
        network.run(now);
        let depth = |network: &Network, name| network.pools[&id_of(name)].queue_view(now).depth;
        while depth(&network, "a") < 140 {
            network.send(&[("a", 5)], of("high", Tier::Enterprise, Urgency::Fast, now), now);
        }
        local.extend(keep_busy(&mut network, "b", 40, now));
    }
    let started = local.iter().filter(|id| network.starts.contains_key(id)).count();
    assert!(started >= 265, "{started} of the 300 that the pool has tokens for");
}

#[test]
fn one_whose_home_gains_slowly_has_its_other_pools_tokens_when_it_has_its_own() {
    let slow = |name: &str, capacity, micros| {
        let mut config = PoolConfig { pool: id_of(name), ..config(capacity, 0) };
        config.limits.refill_per_second = Tokens::from_micros(micros).unwrap();
        config
    };
    let mut network = Network::of([slow("a", 100, 500_000), slow("b", 20, 1_000_000)].into_iter());
    let mut sent = None;
    for second in 0..500 {
        let now = at(second * 1_000);
        network.run(now);
        keep_busy(&mut network, "a", 60, now);
        keep_busy(&mut network, "b", 60, now);
        if second == 150 {
            sent = Some(network.send(&[("a", 50), ("b", 20)], of("high", Tier::Enterprise, Urgency::Fast, now), now));
        }
    }
    let started = sent.and_then(|id| network.starts.get(&id)).map(|started| started.since(at(150_000)) / 1_000);
    // Its home gains its tokens twice: others had them meanwhile.
    assert!(started.is_some_and(|second| second <= 205), "{started:?}");
}

/// How long one of high rank takes to start that needs one of its home and `big` of another pool, from where others of lower
/// rank come that need as much of its home, beside many of the lowest rank in both.
fn gathers_beside_opposed(big: u64, names: (&str, &str)) -> Option<i64> {
    let (home, other) = names;
    let mut network =
        Network::of([home, other].map(|name| PoolConfig { pool: id_of(name), ..config(100, 1) }).into_iter());
    let (mut high, mut opposed) = (None, Vec::new());
    for second in 0..400 {
        let now = at(second * 1_000);
        network.run(now);
        keep_busy(&mut network, home, 40, now);
        keep_busy(&mut network, other, 40, now);
        if second == 150 {
            let submission = of("high", Tier::Enterprise, Urgency::Fast, now);
            high = Some(network.send(&[(home, 1), (other, big)], submission, now));
        }
        opposed.retain(|id| !network.starts.contains_key(id));
        if second >= 150 && opposed.len() < 3 {
            let submission = of(&format!("other-{}", second % 7), Tier::Standard, Urgency::Normal, now);
            opposed.push(network.send(&[(other, 1), (home, big)], submission, now));
        }
    }
    network.starts.get(&high?).map(|started| started.since(at(150_000)) / 1_000)
}

#[test]
fn what_two_pools_gather_for_each_others_requests_is_no_ring() {
    for (big, names) in [(10, ("a", "b")), (10, ("b", "a")), (80, ("a", "b")), (80, ("b", "a"))] {
        let started = gathers_beside_opposed(big, names);
        assert!(started.is_some_and(|second| second <= big as i64 + 2), "{big}, {names:?}: {started:?}");
    }
}

#[test]
fn one_whose_turn_comes_when_another_pool_has_its_tokens_waits_for_both_at_once() {
    let mut network =
        Network::of(["a", "b"].map(|name| PoolConfig { pool: id_of(name), ..config(200, 1) }).into_iter());
    network.send(&[("a", 190)], of("first", Tier::Basic, Urgency::Normal, at(0)), at(0));
    network.send(&[("b", 200)], of("first", Tier::Basic, Urgency::Normal, at(0)), at(0));
    network.run(at(500));
    let waits = network.send(&[("a", 5), ("b", 100)], of("one", Tier::Premium, Urgency::Fast, at(500)), at(500));
    network.run(at(900));
    for _ in 0..100 {
        network.send(&[("a", 1)], of("high", Tier::Enterprise, Urgency::Immediate, at(900)), at(900));
    }
    for second in 1..300 {
        network.run(at(second * 1_000));
        keep_busy(&mut network, "b", 40, at(second * 1_000));
    }
    let started = network.started_at(&waits, at(300_000));
    assert!(started.is_some_and(|second| second <= 105), "{started:?}: both need about a hundred seconds");
}
