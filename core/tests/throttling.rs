//! Back-pressure: a busy downstream slows its pool, and what it says of its limit is heeded.

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
use rm_core::pipeline::Step;
use rm_core::pool::{Effect, LeaseEnd, Pool, PoolConfig, Remaining, Report, Retry, Signal, Submission};
use rm_core::request::Usage;
use rm_core::units::{Instant, Tokens};
use support::{at, config, demand, failure, id_of, normal, pool, queue, run_until, started, units};

fn busy(pause_ms: Option<i64>) -> Report {
    Report::Failed { failure: failure(), retry: Retry::Busy { pause_ms } }
}

fn said(left: u64, resets_in_ms: Option<i64>) -> Report {
    let remaining = vec![Remaining { pool: id_of("home"), left: units(left), resets_in_ms }];
    Report::Succeeded { usage: vec![], remaining }
}

/// A pool without tokens that one request runs in, and many wait for.
fn worn_out(capacity: u64, refill: u64) -> (Pool, RequestId, u32) {
    let mut pool = pool(config(capacity, refill));
    let mut first = normal(0, capacity, at(0));
    first.max_attempts = 1;
    queue(&mut pool, first, at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    for n in 1..1_000 {
        queue(&mut pool, normal(n, 1, at(0)), at(0));
    }
    (pool, id, grant)
}

fn rate(pool: &Pool, now: Instant) -> u64 {
    pool.view(now).effective_refill_per_second.unwrap().micros() as u64 / 1_000
}

#[test]
fn a_busy_downstream_gets_half_of_what_it_got_and_then_more_bit_by_bit() {
    let (mut pool, id, grant) = worn_out(20, 20);
    // It did nothing; its tokens come back and are granted to twenty others.
    pool.report(&id, grant, busy(None), at(0));
    assert_eq!(rate(&pool, at(0)), 10_000);
    let burst = run_until(&mut pool, at(0), at(0)).len();
    assert_eq!(burst + run_until(&mut pool, at(0), at(1)).len(), 20);
    // The pool's alarms alone: ten a second, and one more a second after each five.
    let mut from = at(1);
    for step in 0..10 {
        let until = at((step + 1) * 5_000);
        let granted = run_until(&mut pool, from, until).len() as i64;
        assert!((granted - 5 * (10 + step)).abs() <= 1, "{granted} grants in the {step}. step");
        from = until;
    }
    assert_eq!(rate(&pool, at(50_000)), 20_000);
    assert_eq!(run_until(&mut pool, from, at(55_000)).len(), 100, "all as before");
}

#[test]
fn what_waits_for_much_is_granted_as_soon_as_it_is_there_at_the_rate_that_rises() {
    let mut pool = pool(config(100, 20));
    queue(&mut pool, Submission { max_attempts: 1, ..normal(0, 100, at(0)) }, at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    queue(&mut pool, normal(1, 100, at(0)), at(0));
    pool.settle_lease("", units(100), LeaseEnd::Ran, &Signal { busy: true, ..Signal::default() }, at(0));
    pool.report(&id, grant, support::used(100), at(0));
    // So that no settlement is sent again, and the pool's alarm is that of the request that waits.
    pool.settlement_confirmed(id.as_str(), at(0));
    // A hundred of debt and a hundred for it: five seconds at each of 10, 11, 12 and 13 a second are 230.
    let order = run_until(&mut pool, at(0), at(20_000));
    let granted_at = 15_000 + (200 - 50 - 55 - 60) * 1_000 / 13;
    assert_eq!(order.len(), 1);
    assert!((0..=1).contains(&order[0].0.since(at(granted_at))), "{:?} instead of {granted_at}", order[0].0);
}

#[test]
fn a_pause_that_the_downstream_asks_for_is_kept() {
    let (mut pool, id, grant) = worn_out(5, 5);
    pool.report(&id, grant, busy(Some(3_000)), at(100));
    assert!(run_until(&mut pool, at(100), at(3_099)).is_empty());
    assert!(!run_until(&mut pool, at(3_099), at(3_100)).is_empty());
}

#[test]
fn what_the_downstream_says_is_left_lowers_the_level_and_never_raises_it() {
    let mut pool = pool(config(20, 0));
    for (n, left, level) in [(1, 6, 6), (2, 50, 5), (3, 5, 4), (4, 1, 1)] {
        queue(&mut pool, normal(n, 1, at(0)), at(0));
        let (id, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, said(left, None), at(0));
        assert_eq!(pool.view(at(0)).available, units(level), "after {left} were left");
    }
}

#[test]
fn what_is_left_until_a_reset_tells_a_rate_if_the_pool_had_more() {
    for (left, millis) in [(19, 20_000), (5, 1_500)] {
        let mut pool = pool(config(20, 20));
        queue(&mut pool, normal(1, 1, at(0)), at(0));
        let (id, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, said(left, Some(11_000)), at(0));
        assert_eq!(rate(&pool, at(0)), millis, "{left} of twenty are left for ten seconds");
    }
}

#[test]
fn a_limit_that_is_used_up_is_left_alone_until_it_is_reset() {
    let mut pool = pool(config(20, 20));
    queue(&mut pool, normal(1, 1, at(0)), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, said(0, Some(2_000)), at(0));
    queue(&mut pool, normal(2, 1, at(0)), at(0));
    assert!(run_until(&mut pool, at(0), at(1_999)).is_empty());
    assert_eq!(run_until(&mut pool, at(1_999), at(2_000)).len(), 1);
}

/// The home stands for the downstream's limit, unless it has no part in the step.
#[test]
fn a_busy_answer_is_told_to_the_pool_whose_limit_it_is() {
    let mut pool = pool(config(20, 20));
    let mut pipeline = normal(1, 1, at(0));
    let demands = vec![demand("home", 0), demand("other", 2)];
    pipeline.later = vec![Step { worker: None, demands, max_attempts: 3, timeout_ms: 1_000 }];
    queue(&mut pool, pipeline, at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, support::used(1), at(1));
    let (_, grant) = started(&mut pool, at(1)).remove(0);
    pool.report(&id, grant, busy(Some(500)), at(2));
    let signal = Signal { busy: true, pause_ms: Some(500), ..Signal::default() };
    let told = pool.take_effects().into_iter().any(|effect| {
        matches!(effect, Effect::SettleLease { pool, signal: said, .. } if pool == id_of("other") && said == signal)
    });
    assert!(told);
    assert_eq!(
        (rate(&pool, at(2)), pool.view(at(2)).paused_until),
        (20_000, None),
        "its home has nothing to do with it"
    );
}

#[test]
fn a_view_that_is_brought_up_to_date_is_at_the_rate_that_has_been_learnt_since() {
    let member = Member::Client("client-1".parse().unwrap());
    let part = Partition { name: "part".into(), member, percent: 50, lends: true };
    let mut pool = pool(PoolConfig { partitions: vec![part], ..config(1_000, 20) });
    let first = Submission { max_attempts: 1, ..normal(0, 1_000, at(0)) };
    queue(&mut pool, first, at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, busy(Some(3_000)), at(0));
    let seen = pool.view(at(0));
    assert_eq!(seen.clone().at(at(2_999)).paused_until, Some(at(3_000)));
    for ms in [3_000, 7_000, 12_000, 31_000, 200_000] {
        let asked = pool.view(at(ms));
        pool.on_wakeup(at(ms));
        assert_eq!(asked, pool.view(at(ms)), "{ms}: whether or not anything has happened there");
        let (now, then) = (pool.view(at(ms)), seen.clone().at(at(ms)));
        assert_eq!(then.effective_refill_per_second, now.effective_refill_per_second, "{ms}");
        assert_eq!(
            (then.paused_until, then.partitions[0].refill_per_second),
            (None, now.partitions[0].refill_per_second)
        );
    }
}

#[test]
fn what_was_refilled_at_rates_that_rose_meanwhile_is_in_it() {
    let mut pool = pool(config(1_000, 20));
    queue(&mut pool, Submission { max_attempts: 1, ..normal(0, 1_000, at(0)) }, at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    let used = vec![Usage { pool: id_of("home"), amount: units(1_000), parts: None, is_share: false }];
    pool.report(&id, grant, Report::Succeeded { usage: used, remaining: vec![] }, at(0));
    pool.settle_lease("nothing", Tokens::ZERO, LeaseEnd::Over, &Signal { busy: true, ..Signal::default() }, at(0));
    let seen = pool.view(at(0));
    for ms in [4_000, 6_000, 17_000, 40_000] {
        pool.on_wakeup(at(ms));
        let difference = pool.view(at(ms)).available.micros() - seen.clone().at(at(ms)).available.micros();
        assert!((0..10).contains(&difference), "{ms}: {difference}");
    }
}
