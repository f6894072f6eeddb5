//! Of many that wait for another pool a few ask: when these are told yes, the next ones ask at once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::collections::BTreeMap;

use rm_core::id::RequestId;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Effect, LeaseAnswer, LeaseOrder, Pool, PoolConfig, Report, Retry, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::network::Network;
use support::{at, config, demand, failure, id_of, lease_order, pool, queue, request, started, units};

/// A home with plenty, and a pool named `other` that is full.
fn network(other: (u64, u64)) -> Network {
    let of = |name: &str, (capacity, refill)| PoolConfig { pool: id_of(name), ..config(capacity, refill) };
    let mut net = Network::of([of("home", (1_000_000, 10_000)), of("other", other)].into_iter());
    net.run_ms = 100;
    net
}

/// Somebody of another pool has all tokens of `other`, for hours.
fn take_all(net: &mut Network, amount: u64) {
    let id = RequestId::new(at(0), [77; 10], &id_of("nowhere"));
    let order = lease_order(&id, "x", Tier::Enterprise, Urgency::Immediate);
    let order = LeaseOrder { amount: units(amount), ttl_ms: 36_000_000, ..order };
    assert!(net.pools.get_mut(&id_of("other")).unwrap().acquire_lease(order, at(0)).is_granted());
}

/// One that needs one token of both pools.
fn send(net: &mut Network, client: &str, now: Instant) -> RequestId {
    net.run(now);
    net.send(&[("home", 1), ("other", 1)], request(0, client, Tier::Basic, Urgency::Batch, now), now)
}

#[test]
fn very_many_that_wait_for_a_pool_start_soon_after_it_has_tokens_again() {
    let mut net = network((10_000, 0));
    take_all(&mut net, 10_000);
    for i in 0..1_000 {
        send(&mut net, "many", at(i * 2));
    }
    net.run(at(30_000));
    assert!(net.starts.is_empty());
    let other = net.pools.get_mut(&id_of("other")).unwrap();
    let mut refilled = PoolConfig { revision: 2, ..other.config().clone() };
    refilled.limits.refill_per_second = units(10_000);
    other.configure(refilled, at(30_000));
    // They ask once in five seconds, and the first ones are told yes.
    net.run(at(36_000));
    assert_eq!(net.starts.len(), 1_000);
    assert!(net.most_orders <= 16, "an event has few calls: {}", net.most_orders);
}

#[test]
fn those_who_wait_start_soon_after_the_one_before_them_is_cancelled() {
    let mut net = network((1_000, 10));
    let of_other = |n| request(n, "first", Tier::Enterprise, Urgency::Immediate, at(0));
    net.send(&[("other", 1_000)], of_other(1), at(0));
    let before = net.send(&[("other", 1_000)], of_other(2), at(0));
    for i in 0..500 {
        send(&mut net, "many", at(10 + i * 2));
    }
    net.run(at(90_000));
    assert_eq!(net.starts.len(), 1);
    net.cancel(&before, at(90_000));
    net.run(at(96_000));
    assert_eq!(net.starts.len(), 501);
}

#[test]
fn a_second_pool_that_is_the_bottleneck_is_used_as_a_home_would_be() {
    let mut net = network((100, 100));
    for i in 0..2_000 {
        send(&mut net, "one", at(i / 10));
    }
    let mut started = 0;
    for i in 0..4_000 {
        send(&mut net, "one", at(1_000 + i * 10));
        if i == 1_000 {
            started = net.starts.len();
        }
    }
    let started = net.starts.len() - started;
    assert!((2_990..=3_010).contains(&started), "in thirty seconds, with 100 tokens a second: {started}");
}

/// Twelve of one client that `other` has refused, which have asked again in vain until 12 s; then one of them is told yes.
fn one_is_told_yes(slots: u32) -> (Pool, usize) {
    let mut pool = pool(config(100, 0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(60_000)), ready_at: None };
    let asks = |pool: &mut Pool| -> Vec<(RequestId, u32)> {
        let asks = |effect| match effect {
            Effect::AcquireLease { id, grant, .. } => Some((id, grant)),
            _ => None,
        };
        pool.take_effects().into_iter().filter_map(asks).collect()
    };
    for n in 0..40 {
        let demands = vec![demand("home", 1), demand("other", 1)];
        let submission = Submission {
            demands,
            has_slot: true,
            slots: Some(slots),
            ..request(n, "one", Tier::Basic, Urgency::Normal, at(0))
        };
        queue(&mut pool, submission, at(0));
        for (id, grant) in asks(&mut pool) {
            pool.lease_answered(&id, grant, &id_of("other"), not_now, at(0));
        }
    }
    let mut last = Vec::new();
    let mut now = at(0);
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= at(12_000)) {
        now = next.max(now.plus(1));
        pool.on_wakeup(now);
        for (id, grant) in asks(&mut pool) {
            pool.lease_answered(&id, grant, &id_of("other"), not_now, now);
            last.push((id, grant));
        }
    }
    let (id, grant) = last[0].clone();
    pool.lease_answered(&id, grant, &id_of("other"), LeaseAnswer::Ready, at(14_000));
    let inquires = |effect: &&Effect| matches!(effect, Effect::AcquireLease { order, .. } if order.inquires);
    let count = pool.take_effects().iter().filter(inquires).count();
    (pool, count)
}

#[test]
fn no_more_are_told_to_ask_than_their_client_has_slots_for() {
    assert_eq!(one_is_told_yes(40).1, 2, "two for each one that is told yes");
    assert_eq!(one_is_told_yes(2).1, 1, "one comes back, and another one may");
    assert_eq!(one_is_told_yes(1).1, 0, "the one that comes back has its only slot");
}

#[test]
fn a_pool_that_cannot_say_when_is_asked_by_a_few() {
    let other = PoolConfig { pool: id_of("other"), scheduler_running: false, ..config(10_000, 1) };
    let mut net = Network::of([config(1_000_000, 10_000), other].into_iter());
    for i in 0..100 {
        send(&mut net, "many", at(i * 2));
    }
    net.run(at(5_000));
    let before = net.orders;
    net.run(at(15_000));
    assert!(net.orders - before <= 160, "{} orders in ten seconds", net.orders - before);
}

/// The promoted one's turn keeps a lent share from its members, though it is there.
#[test]
fn a_refusal_that_nobody_can_foretell_the_end_of_takes_nothing_of_the_home() {
    let share = Partition { name: "gold".into(), member: Member::Tier(Tier::Enterprise), percent: 30, lends: true };
    let other = PoolConfig { pool: id_of("other"), partitions: vec![share], ..config(1_000, 0) };
    let mut net = Network::of([config(1_000_000, 10_000), other].into_iter());
    for i in 0..4 {
        let before = request(i, &format!("before-{i}"), Tier::Standard, Urgency::Normal, at(0));
        net.send(&[("other", 1)], before, at(0));
    }
    net.run(at(1_000));
    take_all(&mut net, 500);
    net.send(&[("other", 1_000)], request(50, "old", Tier::Basic, Urgency::Deferred, at(2_000)), at(2_000));
    net.run(at(700_000));
    for i in 0..100 {
        let gold = request(100 + i, "gold", Tier::Enterprise, Urgency::Fast, at(700_000));
        net.send(&[("home", 1), ("other", 1)], gold, at(700_000));
    }
    net.run(at(710_000));
    (net.orders, net.rows) = (0, 0);
    net.run(at(720_000));
    assert!(net.orders <= 160 && net.rows == 0, "{} orders, {} stored", net.orders, net.rows);
}

#[test]
fn those_whose_worker_is_left_alone_do_not_keep_others_of_their_lane_from_asking() {
    let mut net = network((1_000, 10));
    let for_worker = |worker: &str, now| {
        let worker = Some(worker.parse().unwrap());
        Submission { worker, max_attempts: 1, ..request(0, "many", Tier::Standard, Urgency::Batch, now) }
    };
    let of_other = |n| request(n, "first", Tier::Enterprise, Urgency::Immediate, at(0));
    let before: Vec<_> = (1..=3).map(|n| net.send(&[("other", 1_000)], of_other(n), at(0))).collect();
    let both = [("home", 1), ("other", 1)];
    for i in 0..20 {
        let now = at(10 + i * 2);
        net.run(now);
        net.send(&both, for_worker("FAILS", now), now);
    }
    net.run(at(100));
    let last = net.send(&both, for_worker("WELL", at(100)), at(100));
    let failed_at = at(19_000);
    net.run(failed_at);
    let home = net.pools.get_mut(&id_of("home")).unwrap();
    for n in 0..5 {
        let id = queue(
            home,
            Submission {
                worker: Some("FAILS".parse().unwrap()),
                max_attempts: 1,
                has_slot: true,
                ..request(5_000 + n, "one", Tier::Basic, Urgency::Fast, failed_at)
            },
            failed_at,
        );
        let (_, grant) = started(home, failed_at).into_iter().find(|(of, _)| *of == id).unwrap();
        home.report(&id, grant, Report::Failed { failure: failure(), retry: Retry::Failing }, failed_at);
    }
    net.run(at(20_000));
    before.iter().skip(1).for_each(|before| net.cancel(before, at(20_000)));
    net.run(at(25_100));
    assert_eq!(net.starts.len(), 2, "the worker of the others is left alone");
    assert!(net.starts.contains_key(&last));
}

#[test]
fn those_that_an_event_puts_off_come_back_a_few_at_a_time() {
    let mut pool = pool(config(1_000, 0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(60_000)), ready_at: None };
    for n in 0..100 {
        let demands = vec![demand("home", 1), demand("other", 1)];
        let submission = request(n, &format!("client-{n}"), Tier::Basic, Urgency::Normal, at(0));
        let id = queue(&mut pool, Submission { demands, has_slot: true, ..submission }, at(0));
        pool.lease_answered(&id, 1, &id_of("other"), not_now, at(0));
    }
    pool.take_effects();
    let due = pool.requests().next().unwrap().parked_until().unwrap();
    pool.on_wakeup(due);
    let mut back = BTreeMap::new();
    for request in pool.requests() {
        *back.entry(request.parked_until().unwrap()).or_insert(0) += 1;
    }
    assert!(back.len() > 1 && back.values().all(|count| *count <= 16), "{back:?}");
}

#[test]
fn one_that_needs_less_than_those_before_it_asks_for_itself() {
    for (amount, asks) in [(10, true), (60, false)] {
        let mut home = pool(config(1_000, 1));
        let mut ids = Vec::new();
        for (n, amount) in [(1, 60), (2, amount)] {
            let one = request(n, "client", Tier::Standard, Urgency::Normal, at(0));
            let demands = vec![demand("home", 1), demand("other", amount)];
            let id = queue(&mut home, Submission { demands, has_slot: true, ..one }, at(0));
            let not_now = LeaseAnswer::NotNow { retry_at: None, ready_at: None };
            home.lease_answered(&id, 1, &id_of("other"), not_now, at(1));
            ids.push(id);
        }
        home.take_effects();
        let mut now = at(1);
        while let Some(next) = home.next_wakeup(now).filter(|next| *next <= at(2_000)) {
            now = next.max(now.plus(1));
            home.on_wakeup(now);
        }
        let inquiry = |effect| match effect {
            Effect::AcquireLease { id, order, .. } if order.inquires => Some(id),
            _ => None,
        };
        let asking: Vec<_> = home.take_effects().into_iter().filter_map(inquiry).collect();
        assert_eq!(asking, ids[..if asks { 2 } else { 1 }], "its client has one slot");
    }
}
