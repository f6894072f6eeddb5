//! What pools say to each other of leases: it may come twice, and there may be very many of those that wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::pool::{Effect, LeaseAnswer, LeaseEnd, LeaseOrder, Pool, Signal, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::{at, config, demand, id_of, lease_order, normal, pool, queue, request, run_until, started, units, used};

#[test]
fn what_is_said_twice_of_a_lease_is_used_once() {
    let mut pool = pool(config(100, 0));
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let order = LeaseOrder { amount: units(40), ..lease_order(&id, "a", Tier::Basic, Urgency::Normal) };
    assert!(pool.acquire_lease(order.clone(), at(0)).is_granted());
    for ms in [1, 10_000, 20_000] {
        pool.settle_lease(&order.key, units(45), LeaseEnd::Ran, &Signal::default(), at(ms));
        assert_eq!((pool.view(at(ms)).available, pool.ledger().overused), (units(55), units(5).micros()));
    }
    pool.settle_lease(&order.key, units(50), LeaseEnd::Ran, &Signal::default(), at(20_001));
    assert_eq!(pool.view(at(20_001)).available, units(50), "more than was said before is more use");
}

/// Answers all questions: slots are given, the other pool has nothing for an hour. How many orders it got.
fn refuse(pool: &mut Pool, now: Instant) -> usize {
    let mut orders = 0;
    loop {
        let effects = pool.take_effects();
        if effects.is_empty() {
            return orders;
        }
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now),
                Effect::AcquireLease { id, grant, pool: other, .. } => {
                    orders += 1;
                    let later = LeaseAnswer::NotNow { retry_at: None, ready_at: Some(at(3_600_000)) };
                    pool.lease_answered(&id, grant, &other, later, now);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn very_many_that_wait_for_another_pool_are_looked_at_together() {
    let mut pool = pool(config(1_000_000, 1_000));
    for n in 0..400_u32 {
        let demands = vec![demand("home", 1), demand("other", 5)];
        let now = at(3 * i64::from(n));
        queue(
            &mut pool,
            Submission { demands, slots: Some(10), ..request(u64::from(n), "a", Tier::Basic, Urgency::Normal, now) },
            now,
        );
        refuse(&mut pool, now);
    }
    let mut now = at(10_000);
    let (mut alarms, mut orders) = (0, 0);
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= at(30_000)) {
        now = next.max(now.plus(1));
        pool.on_wakeup(now);
        alarms += 1;
        orders += refuse(&mut pool, now);
    }
    assert!(orders > 0, "the first ones ask");
    assert!(alarms <= 60, "{alarms} alarms in twenty seconds, and {orders} orders");
}

#[test]
fn a_lease_that_runs_out_when_a_request_comes_is_news_to_those_that_wait() {
    let mut pool = pool(config(10, 0));
    let of = |n: u8| {
        let id = RequestId::new(at(0), [n; 10], &id_of("elsewhere"));
        LeaseOrder {
            amount: units(10),
            returns: true,
            ttl_ms: 1_000,
            ..lease_order(&id, "a", Tier::Standard, Urgency::Normal)
        }
    };
    assert!(pool.acquire_lease(of(1), at(0)).is_granted());
    assert!(!pool.acquire_lease(of(2), at(1)).is_granted());
    pool.take_effects();
    let much = request(1, "b", Tier::Basic, Urgency::Deferred, at(1_000));
    queue(&mut pool, Submission { demands: vec![demand("home", 10)], ..much }, at(1_000));
    let told = |effect: &Effect| matches!(effect, Effect::LeaseFree { home, .. } if *home == id_of("elsewhere"));
    assert!(pool.take_effects().iter().any(told), "not only by the next event");
}

/// The word that a promoted order is over got lost: its pool keeps tokens for it as long as its home needs to gain its own,
/// and no longer for what is given back meanwhile.
#[test]
fn what_is_given_back_does_not_renew_what_is_kept_for_one_that_does_not_ask() {
    let mut pool = pool(config(10, 1));
    let runs = Submission { demands: vec![demand("home", 10)], ..normal(1, 10, at(0)) };
    let runs = queue(&mut pool, runs, at(0));
    let grant = started(&mut pool, at(0))[0].1;
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let order = lease_order(&id, "a", Tier::Basic, Urgency::Deferred);
    let order = LeaseOrder { amount: units(10), regain_ms: 600_000, enqueued_at: at(-700_000), ..order };
    assert!(!pool.acquire_lease(order, at(0)).is_granted());
    for n in 2..6 {
        queue(&mut pool, request(n, &format!("client-{n}"), Tier::Enterprise, Urgency::Fast, at(0)), at(0));
    }
    let start = run_until(&mut pool, at(0), at(590_000));
    assert_eq!(start.len(), 2, "then it is the turn of the promoted ones");
    pool.report(&runs, grant, used(0), at(590_000));
    let start = run_until(&mut pool, at(590_000), at(613_000));
    assert!(start.len() >= 2, "the others: {start:?}");
}

/// Two of the same tier and lane: who goes first is told by what is known last of their clients' fairness, be it said while
/// the one was granted.
#[test]
fn what_is_said_of_a_client_holds_for_its_order_whose_grant_comes_to_nothing() {
    for (told, waits) in [(None, true), (Some(0), false)] {
        let mut pool = pool(config(10, 1));
        let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
        let order = lease_order(&id, "a", Tier::Basic, Urgency::Normal);
        let order = LeaseOrder { amount: units(10), standing: Some(10_000), stood_at: Some(at(0)), ..order };
        let key = order.key.clone();
        assert!(pool.acquire_lease(order, at(0)).is_granted());
        if let Some(standing) = told {
            let standings = [("a".parse().unwrap(), standing)].into();
            pool.standings_told(&id_of("elsewhere"), &standings, at(1), at(1));
        }
        let end = LeaseEnd::Returns { needed_at: Some(at(100)) };
        pool.settle_lease(&key, units(0), end, &Signal::default(), at(2));
        let younger =
            Submission { demands: vec![demand("home", 10)], ..request(2, "b", Tier::Basic, Urgency::Normal, at(3)) };
        queue(&mut pool, younger, at(3));
        assert_eq!(started(&mut pool, at(3)).is_empty(), waits, "told {told:?}");
    }
}

#[test]
fn a_lease_whose_order_came_after_its_end_ends_with_the_next_word_of_its_request() {
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let order = |grant: u32| {
        let order = lease_order(&id, "a", Tier::Basic, Urgency::Normal);
        LeaseOrder { amount: units(10), key: format!("{id}#{grant}"), ttl_ms: 620_000, ..order }
    };
    let late = || {
        let mut pool = pool(config(10, 0));
        let end = LeaseEnd::Returns { needed_at: None };
        pool.settle_lease(&order(9).key, units(0), end, &Signal::default(), at(0));
        assert!(pool.acquire_lease(order(9), at(1)).is_granted(), "nobody wants it any more");
        pool
    };
    let mut pool = late();
    assert!(pool.acquire_lease(order(10), at(2)).is_granted(), "that is its next grant");
    assert!(pool.lease(&order(9).key).is_none());
    let mut pool = late();
    let inquiry = LeaseOrder { inquires: true, ..order(9) };
    assert_eq!(pool.acquire_lease(inquiry, at(2)), LeaseAnswer::Ready, "it waits, so that grant came to nothing");
    let mut pool = late();
    pool.orders_over(&[order(10).key], at(2));
    assert_eq!(pool.view(at(2)).available, units(10));
    let mut pool = late();
    pool.orders_over(&[order(8).key], at(2));
    assert!(!pool.acquire_lease(order(8), at(3)).is_granted(), "what is older says nothing of it");
    assert!(pool.lease(&order(9).key).is_some());
}
