//! A worker that keeps failing is left alone by every pool that knows of it: also by requests with another home, which ask
//! for a lease to run it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::breaker::{FAILURES_MAX, OPEN_FIRST_MS, Sign};
use rm_core::id::RequestId;
use rm_core::pool::{
    Blocked, Effect, LeaseAnswer, LeaseEnd, LeaseOrder, Pool, PoolConfig, Report, Retry, Signal, Submission,
};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::{Instant, Tokens};
use support::{at, config, demand, failure, id_of, lease_order, normal, pool, queue, started, units, used};

fn failing() -> Report {
    Report::Failed { failure: failure(), retry: Retry::Failing }
}

fn runs(n: u64, worker: &str, now: Instant) -> Submission {
    Submission { worker: Some(worker.parse().unwrap()), max_attempts: 3, ..normal(n, 1, now) }
}

/// The same, of a pool and another one.
fn runs_by_both(n: u64, worker: &str, now: Instant) -> Submission {
    Submission { demands: vec![demand("home", 1), demand("other", 1)], has_slot: true, ..runs(n, worker, now) }
}

fn other() -> Pool {
    pool(PoolConfig { pool: id_of("other"), ..config(1_000, 0) })
}

/// Its requests have just failed so often that it leaves `BAD` alone.
fn that_leaves_it_alone() -> Pool {
    let mut pool = other();
    for n in 0..u64::from(FAILURES_MAX) {
        queue(&mut pool, Submission { demands: vec![demand("other", 1)], ..runs(n, "BAD", at(0)) }, at(0));
    }
    for (id, grant) in started(&mut pool, at(0)) {
        pool.report(&id, grant, failing(), at(0));
    }
    // None of its own tries the worker again.
    for id in pool.requests().map(|request| request.id.clone()).collect::<Vec<_>>() {
        pool.cancel(&id, false, at(0));
    }
    pool.take_effects();
    pool
}

/// An order for a lease with which a worker is run.
fn order(n: u64, worker: &str) -> LeaseOrder {
    let lease = lease_order(&normal(n, 1, at(0)).id, "client", Tier::Standard, Urgency::Normal);
    LeaseOrder { worker: Some(worker.parse().unwrap()), ..lease }
}

fn said(sign: Sign) -> Signal {
    Signal { sign, ..Signal::default() }
}

fn circuit(pool: &Pool, now: Instant) -> String {
    pool.view(now)
        .breakers
        .first()
        .filter(|breaker| breaker.state != "closed")
        .map_or("closed".into(), |breaker| breaker.state.clone())
}

/// Carries what the home asks of the other pool there and back, until nothing more is asked; tells what starts.
fn carry(home: &mut Pool, other: &mut Pool, now: Instant) -> Vec<(RequestId, u32)> {
    let mut order = Vec::new();
    loop {
        let effects = home.take_effects();
        if effects.is_empty() {
            return order;
        }
        for effect in effects {
            match effect {
                Effect::AcquireLease { id, grant, pool, order } => {
                    let answer = other.acquire_lease(order, now);
                    home.lease_answered(&id, grant, &pool, answer, now);
                }
                Effect::SettleLease { key, used, end, signal, .. } => other.settle_lease(&key, used, end, &signal, now),
                Effect::AcquireSlot { id, grant, .. } => {
                    home.slot_answered(&id, grant, Some(SlotAnswer::Granted), now);
                }
                Effect::Start { id, grant, .. } => order.push((id, grant)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_request_waits_while_another_pool_that_it_needs_leaves_its_worker_alone() {
    let (mut home, mut other) = (pool(config(10, 0)), that_leaves_it_alone());
    let id = queue(&mut home, runs_by_both(20, "BAD", at(1)), at(1));
    assert!(carry(&mut home, &mut other, at(1)).is_empty(), "it keeps its attempts");
    let position = home.position(&id, at(1)).unwrap();
    assert_eq!((position.blocked_by, position.ahead), (Some(Blocked::WorkerUnavailable), 0));
    assert_eq!(home.view(at(1)).available, units(10), "it holds nothing meanwhile");
    let client = home.request(&id).unwrap().client.clone();
    let next = queue(&mut home, Submission { client, has_slot: false, ..runs_by_both(22, "BAD", at(1)) }, at(1));
    assert!(carry(&mut home, &mut other, at(1)).is_empty());
    assert_eq!(home.position(&next, at(1)).unwrap().blocked_by, Some(Blocked::WorkerUnavailable));
    home.cancel(&next, true, at(1));
    carry(&mut home, &mut other, at(1));
    let well = queue(&mut home, runs_by_both(21, "GOOD", at(1)), at(1));
    assert_eq!(carry(&mut home, &mut other, at(1)).len(), 1, "of another worker");
    assert!(home.request(&well).unwrap().started_grant > 0);

    let mut now = at(1);
    let started = loop {
        now = home.next_wakeup(now).unwrap();
        home.on_wakeup(now);
        let started = carry(&mut home, &mut other, now);
        if !started.is_empty() {
            break started;
        }
    };
    assert_eq!((now, &started[0].0), (at(OPEN_FIRST_MS), &id), "when the worker may be tried");
    assert_eq!(home.position(&id, now).unwrap().blocked_by, None);
    home.report(&id, started[0].1, used(1), now.plus(5));
    carry(&mut home, &mut other, now.plus(5));
    assert_eq!(circuit(&other, now.plus(5)), "closed", "that pool is told that it is well");
}

#[test]
fn those_of_another_worker_are_woken_past_those_whose_worker_is_left_alone() {
    let (mut home, mut other) = (pool(config(1_000, 0)), that_leaves_it_alone());
    other.acquire_lease(LeaseOrder { amount: units(995), ..order(90, "GOOD") }, at(1));
    let of_one_client =
        |submission: Submission| Submission { client: "client".parse().unwrap(), slots: Some(4), ..submission };
    for n in 20..60 {
        queue(&mut home, of_one_client(runs_by_both(n, "BAD", at(1))), at(1));
    }
    let needs_it =
        Submission { demands: vec![demand("home", 1), demand("other", 100)], ..runs_by_both(70, "GOOD", at(2)) };
    let well = queue(&mut home, of_one_client(needs_it), at(2));
    assert!(carry(&mut home, &mut other, at(2)).is_empty());
    other.settle_lease(&order(90, "GOOD").key, Tokens::ZERO, LeaseEnd::Ran, &Signal::default(), at(3));
    let told = other.take_effects();
    assert!(told.iter().any(|effect| matches!(effect, Effect::LeaseFree { .. })), "{told:?}");
    let others = |home: &Pool| -> Vec<(RequestId, u32)> {
        let others = home.requests().filter(|request| request.id != well);
        others.map(|request| (request.id.clone(), request.grants)).collect()
    };
    let before = others(&home);
    home.lease_free(&id_of("other"), false, other.view(at(3)).available, at(3));
    let started = carry(&mut home, &mut other, at(3));
    assert_eq!(started.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&well]);
    assert_eq!(others(&home), before, "for the others it is no news");
}

#[test]
fn one_that_has_a_lease_tries_the_worker_alone() {
    let mut pool = that_leaves_it_alone();
    let until = at(OPEN_FIRST_MS);
    assert_eq!(pool.acquire_lease(order(20, "BAD"), at(1)), LeaseAnswer::LeftAlone { until: Some(until) });
    let inquiry = LeaseOrder { inquires: true, ..order(20, "BAD") };
    assert_eq!(pool.acquire_lease(inquiry.clone(), until.plus(-1)), LeaseAnswer::LeftAlone { until: Some(until) });
    assert_eq!(pool.acquire_lease(inquiry, until), LeaseAnswer::Ready);
    assert!(pool.acquire_lease(order(20, "BAD"), until).is_granted());
    assert!(pool.acquire_lease(order(20, "BAD"), until).is_granted(), "the same question");
    assert_eq!(pool.acquire_lease(order(21, "BAD"), until), LeaseAnswer::LeftAlone { until: None });
    queue(&mut pool, Submission { demands: vec![demand("other", 1)], ..runs(30, "BAD", until) }, until);
    assert!(started(&mut pool, until).is_empty(), "nor does one of its own");

    let key = order(20, "BAD").key;
    let mut failed = pool.clone();
    failed.settle_lease(&key, units(0), LeaseEnd::Ran, &said(Sign::Failed), until.plus(1));
    assert_eq!(circuit(&failed, until.plus(1)), "open");
    assert!(started(&mut failed, until.plus(1)).is_empty());
    let mut well = pool.clone();
    well.settle_lease(&key, units(1), LeaseEnd::Ran, &said(Sign::Alive), until.plus(1));
    assert_eq!((circuit(&well, until.plus(1)).as_str(), started(&mut well, until.plus(1)).len()), ("closed", 1));
    let mut given_back = pool.clone();
    given_back.settle_lease(&key, units(0), LeaseEnd::Over, &Signal::default(), until.plus(1));
    assert_eq!(
        (circuit(&given_back, until.plus(1)).as_str(), started(&mut given_back, until.plus(1)).len()),
        ("halfOpen", 1)
    );
    let mut over = pool.clone();
    over.orders_over(std::slice::from_ref(&key), until.plus(1));
    assert_eq!(started(&mut over, until.plus(1)).len(), 1);
    // Nobody says what became of it.
    pool.on_wakeup(until.plus(60_000));
    assert_eq!(started(&mut pool, until.plus(60_000)).len(), 1);
}

#[test]
fn failures_of_those_that_have_leases_count_once_each() {
    let mut pool = other();
    for n in 0..u64::from(FAILURES_MAX) - 1 {
        assert!(pool.acquire_lease(order(n, "BAD"), at(0)).is_granted());
        for _ in 0..2 {
            pool.settle_lease(&order(n, "BAD").key, units(0), LeaseEnd::Ran, &said(Sign::Failed), at(1));
        }
    }
    assert!(pool.acquire_lease(order(20, "BAD"), at(2)).is_granted());
    pool.settle_lease(&order(20, "BAD").key, units(0), LeaseEnd::Ran, &said(Sign::Failed), at(3));
    assert_eq!(circuit(&pool, at(3)), "open");
}

#[test]
fn each_pool_that_leased_its_tokens_is_told_how_the_worker_is() {
    let signs = |pool: &mut Pool| -> Vec<Sign> {
        let sign = |effect| match effect {
            Effect::SettleLease { signal, .. } => Some(signal.sign),
            _ => None,
        };
        pool.take_effects().into_iter().filter_map(sign).collect()
    };
    let run = |end: &dyn Fn(&mut Pool, &RequestId, u32)| {
        let mut pool = pool(config(10, 0));
        let id = queue(&mut pool, Submission { timeout_ms: 1_000, ..runs_by_both(0, "W", at(0)) }, at(0));
        let (_, grant) = started(&mut pool, at(0))[0];
        end(&mut pool, &id, grant);
        signs(&mut pool)
    };
    let refused = |retry| Report::Failed { failure: failure(), retry };
    assert_eq!(run(&|pool, id, grant| _ = pool.report(id, grant, used(1), at(1))), [Sign::Alive]);
    assert_eq!(run(&|pool, id, grant| _ = pool.report(id, grant, refused(Retry::No), at(1))), [Sign::Alive]);
    assert_eq!(run(&|pool, id, grant| _ = pool.report(id, grant, failing(), at(1))), [Sign::Failed]);
    assert_eq!(run(&|pool, id, grant| _ = pool.report(id, grant, Report::TimedOut, at(1))), [Sign::Failed]);
    assert_eq!(run(&|pool, id, grant| _ = pool.report(id, grant, refused(Retry::Backoff), at(1))), [Sign::Neither]);
    assert_eq!(run(&|pool, id, _| _ = pool.cancel(id, false, at(1))), [Sign::Neither]);
    assert_eq!(run(&|pool, _, _| pool.on_wakeup(at(6_000))), [Sign::Failed], "nobody reports");
}

#[test]
fn the_other_pools_keep_nothing_for_one_whose_worker_is_left_alone() {
    let asked = |pool: &mut Pool, now| {
        for _ in 0..2 {
            for effect in pool.take_effects() {
                match effect {
                    Effect::AcquireLease { id, grant, pool, .. } => return (id, grant, pool),
                    Effect::AcquireSlot { id, grant, .. } => {
                        pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now)
                    }
                    _ => {}
                }
            }
        }
        panic!("it asks for a lease");
    };
    let is_told = |pool: &mut Pool| {
        let over = |effect: &Effect| matches!(effect, Effect::OrdersOver { pool, .. } if *pool == id_of("other"));
        pool.take_effects().iter().any(over)
    };
    let left_alone = LeaseAnswer::LeftAlone { until: None };
    let mut home = pool(config(10, 0));
    let demands = vec![demand("home", 1), demand("another", 1), demand("other", 1)];
    queue(&mut home, Submission { demands, ..runs_by_both(1, "BAD", at(0)) }, at(0));
    let (id, grant, another) = asked(&mut home, at(0));
    home.lease_answered(&id, grant, &another, LeaseAnswer::Granted { regain_ms: 0 }, at(1));
    let (id, grant, other) = asked(&mut home, at(1));
    assert_eq!(other, id_of("other"));
    home.lease_answered(&id, grant, &other, LeaseAnswer::NotNow { retry_at: None, ready_at: None }, at(2));
    home.take_effects();
    home.lease_free(&other, false, units(1), at(3));
    let (id, grant, another) = asked(&mut home, at(3));
    home.lease_answered(&id, grant, &another, left_alone, at(4));
    assert!(is_told(&mut home), "what it keeps is of no use");
    // An inquiry is told so once.
    home.on_wakeup(at(6_000));
    let (id, grant, another) = asked(&mut home, at(6_000));
    home.lease_answered(&id, grant, &another, left_alone, at(6_001));
    assert!(!is_told(&mut home), "it knows");
}
