//! Requests that need several pools which others need too: that they start, and how soon.

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
use rm_core::pool::{PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::{Instant, Tokens};
use support::network::Network;
use support::{at, config, id_of, request, units};

fn of(client: &str, tier: Tier, urgency: Urgency, now: Instant) -> Submission {
    request(0, client, tier, urgency, now)
}

/// Sends one of the highest rank at ten seconds, while others of the lowest keep these pools busy; when it starts.
fn beside_others(needs: &[(&str, u64)], busy: &[&str]) -> Option<i64> {
    let mut network = Network::new(&["a", "b", "c"], 20, 1);
    let mut sent = None;
    for second in 0..600 {
        let now = at(second * 1_000);
        network.run(now);
        if second == 10 {
            sent = Some(network.send(needs, of("high", Tier::Enterprise, Urgency::Fast, now), now));
        }
        if let Some(started) = sent.as_ref().and_then(|id| network.starts.get(id)) {
            return Some(started.since(at(10_000)) / 1_000);
        }
        for name in busy {
            while network.pools[&id_of(name)].queue_view(now).depth < 40 {
                network.send(&[(name, 1)], of("low", Tier::Basic, Urgency::Deferred, now), now);
            }
        }
    }
    None
}

#[test]
fn one_of_high_rank_starts_about_when_each_of_its_pools_has_gained_what_it_needs() {
    for (first, second) in [(8, 8), (12, 12), (20, 5), (20, 20)] {
        let started = beside_others(&[("b", first), ("c", second)], &["b", "c"]);
        let at_most = 2 * first.max(second) as i64 + 1;
        assert!(started.is_some_and(|second| second <= at_most), "{first} {second}: {started:?}");
    }
}

#[test]
fn so_does_one_that_needs_two_busy_pools_besides_its_own() {
    for (first, second) in [(5, 5), (5, 20), (12, 12), (20, 20)] {
        let started = beside_others(&[("a", 20), ("b", first), ("c", second)], &["b", "c"]);
        let at_most = first as i64 + second as i64 + 1;
        assert!(started.is_some_and(|second| second <= at_most), "{first} {second}: {started:?}");
    }
}

/// Two whose homes are each other's second pool; when the last of them starts, and how often the pools were asked.
fn opposed(used_before: bool) -> (Option<i64>, usize) {
    let mut network = Network::new(&["a", "b"], 10, 1);
    let standard = |client| of(client, Tier::Standard, Urgency::Normal, at(0));
    if used_before {
        // Each has used up the fairness of its home, and none of the other.
        network.send(&[("a", 10)], standard("x"), at(0));
        network.send(&[("b", 10)], standard("y"), at(0));
    }
    network.run(at(30_000));
    let ids = [
        network.send(&[("a", 10), ("b", 9)], standard("x"), at(30_000)),
        network.send(&[("b", 10), ("a", 9)], standard("y"), at(30_000)),
    ];
    let last = ids.iter().map(|id| network.started_at(id, at(3_600_000))).max().unwrap();
    (last.map(|second| second - 30), network.orders)
}

#[test]
fn two_that_need_each_others_homes_do_not_keep_each_other_from_starting() {
    for used_before in [false, true] {
        let (started, orders) = opposed(used_before);
        assert!(started.is_some_and(|second| second <= 11), "{used_before}: {started:?}");
        assert!(orders <= 12, "{orders}");
    }
}

/// What requests in a ring have of each pool.
#[derive(Debug, Clone, Copy)]
enum Have {
    /// Ten, all of it.
    All,
    /// A share of so much of ten, which is lent or not.
    Share(u8, bool),
    /// A dedicated ten of twenty; others use the rest, and more of them wait for it.
    ShareBesideOthers,
}

/// Pools of these names, and what is in them.
fn with_shares(names: &[&str], have: Have, refill: u64, round: u64) -> Network {
    let (capacity, share) = match have {
        Have::All => (10, None),
        Have::Share(percent, lends) => (10, Some((percent, lends))),
        Have::ShareBesideOthers => (20, Some((50, false))),
    };
    let member = Member::Tier(Tier::Standard);
    let partitions = share.map(|(percent, lends)| Partition { name: "share".into(), member, percent, lends });
    let slow = |name: &&str| {
        let partitions = partitions.iter().cloned().collect();
        let mut config = PoolConfig { pool: id_of(name), partitions, ..config(capacity, 0) };
        config.limits.refill_per_second = Tokens::from_micros(refill as i64 * 200_000).unwrap();
        config
    };
    let mut network = Network::of(names.iter().map(slow));
    network.sent_before(round * 1_000);
    if matches!(have, Have::ShareBesideOthers) {
        for name in names.iter().chain(names) {
            network.send(&[(name, 10)], of("other", Tier::Enterprise, Urgency::Normal, at(0)), at(0));
        }
        network.run(at(1_000));
    }
    network.unused = names.iter().map(|name| id_of(name)).collect();
    network
}

/// Sends two requests of each of these pools' clients, that need the next pool too and use nothing of what they reserve; how
/// long each takes to start. No two rounds are alike.
fn in_a_ring(names: &[&str], have: Have, refill: u64, round: u64) -> Vec<Option<i64>> {
    let mut network = with_shares(names, have, refill, round);
    let place = |n: usize| if round.is_multiple_of(2) { n % names.len() } else { n / 2 };
    let send = |n: usize| {
        let (own, next) = (names[place(n)], names[(place(n) + 1) % names.len()]);
        let now = at(1_020 + n as i64 * (round as i64 % 4));
        network.run(now);
        // They are not as old as the order in which they come.
        let queued = at(1_000 + (round as i64 * 7 + n as i64 * 5) % 11);
        let submission = Submission { has_slot: true, ..of(own, Tier::Standard, Urgency::Normal, queued) };
        network.send(&[(own, 7), (next, 6)], submission, now)
    };
    let ids: Vec<RequestId> = (0..2 * names.len()).map(send).collect();
    ids.iter().map(|id| network.started_at(id, at(60_000)).map(|second| second - 1)).collect()
}

#[test]
fn those_that_need_each_others_homes_never_wait_beside_tokens_that_are_there() {
    let shares = [Have::All, Have::Share(100, false), Have::Share(100, true), Have::Share(80, true)];
    for have in shares.into_iter().chain([Have::ShareBesideOthers]) {
        for (round, refill) in (0..400).flat_map(|round| [(round, 0), (round, 1)]) {
            for names in [["a", "b"].as_slice(), &["a", "b", "c"], &["a", "b", "c", "d"]] {
                let starts = in_a_ring(names, have, refill, round);
                let soon = starts.iter().all(|start| start.is_some_and(|second| second <= 1));
                assert!(soon, "{names:?}, {have:?}, {round}, {refill}: no refill is waited for: {starts:?}");
            }
        }
    }
}

#[test]
fn a_crowd_over_three_pools_is_served_at_the_rate_of_the_scarcest() {
    let names = ["a", "b", "c"];
    let mut network = Network::new(&names, 20, 10);
    let tiers = [Tier::Enterprise, Tier::Premium, Tier::Standard, Tier::Basic];
    let mut needed = [0; 3];
    let ids: Vec<RequestId> = (0_usize..200)
        .map(|n| {
            let (home, other) = (n % 3, (n + 1 + n / 3 % 2) % 3);
            let (first, second) = (4 + n as u64 * 7 % 5, 1 + n as u64 * 5 % 4);
            needed[home] += first;
            needed[other] += second;
            let client = format!("client-{}", n % 4);
            let submission = of(&client, tiers[n % 4], Urgency::Normal, at(0));
            network.send(&[(names[home], first), (names[other], second)], submission, at(0))
        })
        .collect();
    let ideal = needed.iter().map(|needed| (needed - 20) as i64 / 10).max().unwrap();
    let last = ids.iter().map(|id| network.started_at(id, at(3_600_000)).expect("it starts")).max().unwrap();
    assert!(last * 4 <= ideal * 5, "{last} s, and {ideal} s is what the pools need");
    assert!(network.orders <= 200 * 12, "{} orders", network.orders);
}

/// What `b` keeps, once one was refused there that needs `a` first.
fn kept_for_one(network: &mut Network) -> (RequestId, Tokens) {
    let standard = |client| of(client, Tier::Standard, Urgency::Normal, at(0));
    network.send(&[("b", 10)], standard("holder"), at(0));
    let waits = network.send(&[("a", 1), ("b", 8)], standard("one"), at(0));
    network.run(at(1_000));
    (waits, network.pools[&id_of("b")].view(at(1_000)).kept)
}

#[test]
fn nothing_is_kept_for_one_that_is_cancelled_or_expires() {
    let mut network = Network::new(&["a", "b"], 10, 0);
    let (waits, kept) = kept_for_one(&mut network);
    assert_eq!(kept, units(8));
    network.cancel(&waits, at(1_000));
    network.run(at(1_020));
    assert_eq!(network.pools[&id_of("b")].view(at(1_020)).kept, Tokens::ZERO);

    let mut network = Network::new(&["a", "b"], 10, 0);
    let standard = |client| of(client, Tier::Standard, Urgency::Normal, at(0));
    network.send(&[("b", 10)], standard("holder"), at(0));
    let hurried = Submission { deadline: Some(at(1_500)), ..standard("one") };
    network.send(&[("a", 1), ("b", 8)], hurried, at(0));
    network.run(at(1_499));
    assert_eq!(network.pools[&id_of("b")].view(at(1_499)).kept, units(8));
    network.run(at(1_520));
    assert_eq!(network.pools[&id_of("b")].view(at(1_520)).kept, Tokens::ZERO);
}

#[test]
fn nothing_of_one_pool_is_kept_for_it_while_another_cannot_say_when_it_has_its_tokens() {
    let slow = |name: &str, refill| PoolConfig { pool: id_of(name), ..config(10, refill) };
    let mut network = Network::of([slow("a", 1), slow("b", 1), slow("c", 0)].into_iter());
    network.send(&[("c", 10)], of("holder", Tier::Standard, Urgency::Normal, at(0)), at(0));
    let waits =
        network.send(&[("a", 10), ("b", 10), ("c", 8)], of("one", Tier::Enterprise, Urgency::Fast, at(0)), at(0));
    network.run(at(30_000));
    // Of lower rank, in its home and in the pool that has all that it needs.
    for home in ["a", "b"] {
        let low = || of("low", Tier::Basic, Urgency::Deferred, at(30_000));
        let ids: Vec<RequestId> = (0..20).map(|_| network.send(&[(home, 1)], low(), at(30_000))).collect();
        network.run(at(41_000));
        let started = ids.iter().filter(|id| network.starts.contains_key(*id)).count();
        assert_eq!(started, 20, "{home}: ten were there, and ten are refilled in ten seconds");
    }
    assert!(!network.starts.contains_key(&waits));
    assert_eq!(network.pools[&id_of("c")].view(at(41_000)).kept, units(8), "it is next there");
}

#[test]
fn what_is_kept_of_one_pool_is_there_when_another_one_has_its_tokens() {
    let slow = |name: &str, micros| {
        let mut config = PoolConfig { pool: id_of(name), ..config(20, 0) };
        config.limits.refill_per_second = Tokens::from_micros(micros).unwrap();
        config
    };
    let configs = [slow("a", 1_000_000), slow("b", 1_000_000), slow("c", 200_000)];
    let mut network = Network::of(configs.into_iter());
    network.send(&[("c", 20)], of("holder", Tier::Standard, Urgency::Normal, at(0)), at(0));
    network.run(at(1_000));
    let high = of("high", Tier::Enterprise, Urgency::Fast, at(1_000));
    let high = network.send(&[("a", 5), ("b", 20), ("c", 20)], high, at(1_000));
    let mut low = Vec::new();
    for second in 1..200 {
        let now = at(second * 1_000);
        network.run(now);
        while ["a", "b"].iter().any(|name| network.pools[&id_of(name)].queue_view(now).depth < 30) {
            for name in ["a", "b"] {
                low.push(network.send(&[(name, 1)], of("low", Tier::Basic, Urgency::Deferred, now), now));
            }
        }
        if network.starts.contains_key(&high) {
            break;
        }
    }
    let started = network.starts.get(&high).map(|started| started.since(at(0)) / 1_000);
    // A hundred seconds takes `c`. In the last twenty of them `b` gains what it needs, and has twenty at first.
    assert!(started.is_some_and(|second| second <= 104), "{started:?}");
    let of_b = low.iter().filter(|id| id.home() == Some(id_of("b")) && network.starts.contains_key(*id)).count();
    assert!(of_b >= 90, "{of_b} of lower rank started in `b` meanwhile");
}

#[test]
fn one_that_needs_eight_busy_pools_starts_within_the_time_that_they_need_together() {
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (pools, amount) in [(4, 20), (5, 20), (8, 20), (5, 10), (8, 10), (8, 5)] {
        let names = &all[..pools];
        let mut network = Network::new(names, 20, 1);
        let mut sent = None;
        for second in 0..600 {
            let now = at(second * 1_000);
            network.run(now);
            for name in names {
                while network.pools[&id_of(name)].queue_view(now).depth < 30 {
                    network.send(&[(name, 1)], of("low", Tier::Basic, Urgency::Deferred, now), now);
                }
            }
            if second == 30 {
                let needs: Vec<(&str, u64)> = names.iter().map(|name| (*name, amount)).collect();
                sent = Some(network.send(&needs, of("high", Tier::Enterprise, Urgency::Fast, now), now));
            }
        }
        let started = sent.and_then(|id| network.starts.get(&id)).map(|started| started.since(at(30_000)) / 1_000);
        let at_most = pools as i64 * amount as i64 + 10;
        assert!(started.is_some_and(|second| second <= at_most), "{pools} pools, {amount} of each: {started:?}");
    }
}

/// When one of the lowest rank starts that needs these, while others of the highest come without end, in seconds.
fn promoted_beside_a_stream(needs: &[(&str, u64)]) -> Option<i64> {
    let slow = |name: &str, micros| {
        let mut config = PoolConfig { pool: id_of(name), ..config(10, 0) };
        config.limits.refill_per_second = Tokens::from_micros(micros).unwrap();
        config
    };
    let mut network = Network::of([slow("a", 1_000_000), slow("b", 1_200_000)].into_iter());
    let low = network.send(needs, of("low", Tier::Basic, Urgency::Deferred, at(0)), at(0));
    for tenth in 0..9_000 {
        let now = at(tenth * 100);
        network.run(now);
        for name in ["a", "b"] {
            while network.pools[&id_of(name)].queue_view(now).depth < 8 {
                network.send(&[(name, 2)], of("high", Tier::Enterprise, Urgency::Fast, now), now);
            }
        }
    }
    network.starts.get(&low).map(|started| started.since(at(0)) / 1_000)
}

#[test]
fn a_promoted_one_starts_soon_though_both_of_its_pools_are_busy_with_higher_ranks() {
    let all: [&[(&str, u64)]; 4] =
        [&[("b", 9), ("a", 6)], &[("a", 6), ("b", 9)], &[("b", 6), ("a", 6)], &[("b", 10), ("a", 10)]];
    for needs in all {
        // The one asked second gains what it needs, and three others of two each may go first in each.
        let started = promoted_beside_a_stream(needs);
        assert!(started.is_some_and(|second| second <= 640), "{needs:?}: {started:?}");
    }
}

#[test]
fn many_of_one_client_inquire_a_few_at_a_time() {
    let slow = |name: &str, refill| PoolConfig { pool: id_of(name), ..config(1_000, refill) };
    let mut network = Network::of([slow("a", 1), slow("b", 0)].into_iter());
    network.send(&[("b", 1_000)], of("holder", Tier::Standard, Urgency::Normal, at(0)), at(0));
    network.run(at(100));
    for n in 0..300 {
        let client = format!("client-{}", n % 3);
        network.send(&[("a", 1), ("b", 1)], of(&client, Tier::Standard, Urgency::Normal, at(100)), at(100));
    }
    network.run(at(10_000));
    let before = network.orders;
    network.run(at(70_000));
    let asked = network.orders - before;
    assert!(asked <= 3 * 16 * 60, "{asked} orders in a minute");
    assert!(network.most_orders <= 16, "{} orders in one event", network.most_orders);
}

#[test]
fn what_is_given_back_to_one_pool_is_kept_while_a_busy_one_gains_what_it_gave_before() {
    let slow = |name: &str, capacity, refill| PoolConfig { pool: id_of(name), ..config(capacity, refill) };
    let mut network = Network::of([slow("a", 1, 1), slow("b", 40, 1), slow("c", 10, 0)].into_iter());
    (network.unused, network.run_ms) = (vec![id_of("c")], 13_000);
    network.send(&[("c", 10)], of("holder", Tier::Standard, Urgency::Normal, at(0)), at(0));
    let high = of("high", Tier::Enterprise, Urgency::Fast, at(0));
    let high = network.send(&[("a", 1), ("b", 40), ("c", 10)], high, at(0));
    for second in 1..120 {
        let now = at(second * 1_000);
        network.run(now);
        for (name, amount) in [("b", 1), ("c", 10)] {
            while network.pools[&id_of(name)].queue_view(now).depth < 50 {
                let submission = of(&format!("low-{name}"), Tier::Basic, Urgency::Deferred, now);
                network.send(&[(name, amount)], submission, now);
            }
        }
    }
    let started = network.starts.get(&high).map(|started| started.since(at(0)) / 1_000);
    assert!(started.is_some_and(|second| second <= 60), "{started:?}");
}

/// How often the pools are asked in a minute, by twenty of each of these kinds, and how many start.
fn asked_by(pools: &[(&str, u64, u64)], used: &[(&str, u64)], kinds: &[&[(&str, u64)]]) -> (usize, usize) {
    let of_pool =
        |(name, capacity, refill): &(&str, u64, u64)| PoolConfig { pool: id_of(name), ..config(*capacity, *refill) };
    let mut network = Network::of(pools.iter().map(of_pool));
    for need in used {
        network.send(&[*need], of("before", Tier::Standard, Urgency::Normal, at(0)), at(0));
    }
    network.run(at(1_000));
    let before = network.starts.len();
    for _ in 0..20 {
        for needs in kinds {
            network.send(needs, of(needs[0].0, Tier::Standard, Urgency::Normal, at(1_000)), at(1_000));
        }
    }
    network.run(at(61_000));
    (network.orders, network.starts.len() - before)
}

#[test]
fn what_came_to_nothing_does_not_have_everybody_ask_again_and_again() {
    let (orders, started) = asked_by(
        &[("a", 100, 5), ("b", 100, 5)],
        &[("a", 50), ("b", 50)],
        &[&[("a", 5), ("b", 60)], &[("b", 5), ("a", 60)]],
    );
    assert!(started >= 10, "{started} started");
    assert!(orders <= 40 * 60, "{orders} orders: each asks once a second");

    let needs: &[(&str, u64)] = &[("a", 1), ("b", 2), ("c", 5)];
    let (orders, _) = asked_by(&[("a", 50, 5), ("b", 20, 5), ("c", 10, 0)], &[("c", 10)], &[needs]);
    assert!(orders <= 20 * 60, "{orders} orders");
}
