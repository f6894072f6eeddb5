//! What has waited for long: it has its turn, and no more than its turn, also across pools, partitions and windows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::off_peak::Window;
use rm_core::partition::{Member, Partition};
use rm_core::pipeline::Step;
use rm_core::pool::{
    Effect, LeaseAnswer, LeaseEnd, LeaseOrder, Mode, Pool, Remaining, Report, Retry, Signal, Submission, Submitted,
};
use rm_core::priority::{STARVATION_BOUND_MS, Tier, Urgency};
use rm_core::request::{Phase, Status};
use rm_core::units::{Instant, Tokens};
use support::{at, config, demand, failure, id_of, lease_order, pool, queue, request, started_ids, units, used};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;

/// A stream that never ends: two enterprise requests a second, for one token each.
fn stream(pool: &mut Pool, second: i64) {
    for n in 0..2 {
        let number = 1_000 + second * 2 + n;
        let client = format!("stream-{}", number % 50);
        queue(
            pool,
            request(number as u64, &client, Tier::Enterprise, Urgency::Fast, at(second * SECOND)),
            at(second * SECOND),
        );
    }
}

fn needs(submission: Submission, amount: u64) -> Submission {
    Submission { demands: vec![demand("home", amount)], ..submission }
}

/// What starts; slots are given, and the second pool says `lease`. What starts succeeds at once.
fn pump(pool: &mut Pool, now: Instant, lease: LeaseAnswer) -> Vec<RequestId> {
    let mut order = Vec::new();
    loop {
        let effects = pool.take_effects();
        pool.take_changes();
        if effects.is_empty() {
            return order;
        }
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now),
                Effect::AcquireLease { id, grant, pool: other, .. } => {
                    pool.lease_answered(&id, grant, &other, lease, now)
                }
                Effect::Start { id, grant, .. } => {
                    order.push(id.clone());
                    pool.report(&id, grant, Report::Succeeded { usage: vec![], remaining: vec![] }, now);
                }
                Effect::Settle { event } => pool.settlement_confirmed(&event, now),
                _ => {}
            }
        }
    }
}

fn partition(name: &str, member: Member, percent: u8, lends: bool) -> Partition {
    Partition { name: name.into(), member, percent, lends }
}

#[test]
fn one_that_never_gets_its_second_pool_does_not_use_up_the_turns_of_the_promoted() {
    let mut pool = pool(config(1, 1));
    let not_now = LeaseAnswer::NotNow { retry_at: None, ready_at: None };
    queue(&mut pool, request(3, "first", Tier::Enterprise, Urgency::Normal, at(0)), at(0));
    assert_eq!(pump(&mut pool, at(0), not_now).len(), 1, "it has the one token");
    let mut blocked = request(1, "blocked", Tier::Basic, Urgency::Deferred, at(0));
    blocked.demands.push(demand("other", 1));
    queue(&mut pool, blocked, at(0));
    let victim = queue(&mut pool, request(2, "victim", Tier::Basic, Urgency::Deferred, at(1)), at(1));
    let mut since_promotion = 0;
    for second in 1..2_000 {
        let now = at(second * SECOND);
        pool.on_wakeup(now);
        stream(&mut pool, second);
        let started = pump(&mut pool, now, not_now);
        if started.contains(&victim) {
            assert!(second >= 600, "it is the last by its score");
            assert!(since_promotion <= 8, "one older promoted request is before it: {since_promotion} starts");
            return;
        }
        since_promotion += if now.since(at(1)) >= STARVATION_BOUND_MS { started.len() } else { 0 };
    }
    panic!("it never starts: {since_promotion} starts since its promotion");
}

#[test]
fn an_order_of_another_home_has_its_turn_too() {
    let mut pool = pool(config(1, 1));
    let id = RequestId::new(at(0), [9; 10], &id_of("elsewhere"));
    let order = |number: i64| LeaseOrder {
        key: format!("{id}#{number}"),
        ttl_ms: SECOND,
        ..lease_order(&id, "old", Tier::Basic, Urgency::Deferred)
    };
    for second in 0..1_000 {
        let now = at(second * SECOND);
        pool.on_wakeup(now);
        stream(&mut pool, second);
        pump(&mut pool, now, LeaseAnswer::Never);
        // It asks every five seconds, whenever its home does.
        if second % 5 == 0 && pool.acquire_lease(order(second), now.plus(500)).is_granted() {
            assert!((600..630).contains(&second), "at {second} s");
            return;
        }
    }
    panic!("it never has a turn");
}

#[test]
fn leases_do_not_pass_a_promoted_request_without_end() {
    let mut pool = pool(config(10, 1));
    let first = queue(&mut pool, needs(request(1, "first", Tier::Enterprise, Urgency::Normal, at(0)), 10), at(0));
    let all = pump(&mut pool, at(0), LeaseAnswer::Never);
    assert_eq!(all, [first]);
    let old = queue(&mut pool, needs(request(2, "old", Tier::Basic, Urgency::Deferred, at(0)), 2), at(0));
    let mut leases = 0;
    for second in 1..1_500_i64 {
        let now = at(second * SECOND);
        pool.on_wakeup(now);
        if started_ids(&mut pool, now).contains(&old) {
            assert!(leases <= 4, "{leases} leases since its promotion");
            return;
        }
        let id = RequestId::new(now, [7; 10], &id_of("elsewhere"));
        let order = LeaseOrder { enqueued_at: now, ..lease_order(&id, "other", Tier::Enterprise, Urgency::Immediate) };
        let key = order.key.clone();
        if pool.acquire_lease(order, now).is_granted() {
            pool.settle_lease(&key, units(1), LeaseEnd::Ran, &Signal::default(), now);
            leases += i64::from(second >= 600);
        }
    }
    panic!("it never starts: {leases} leases");
}

#[test]
fn a_large_request_does_not_starve_behind_a_small_partition_that_is_always_wanted() {
    let mut settings = config(100, 10);
    settings.partitions = vec![partition("b", Member::Tier(Tier::Basic), 30, true)];
    let mut pool = pool(settings);
    let mut number = 10;
    let mut basic = |pool: &mut Pool, now| {
        number += 1;
        queue(pool, needs(request(number, "basic", Tier::Basic, Urgency::Normal, now), 30), now)
    };
    let big: Vec<_> = (0..2)
        .map(|n| queue(&mut pool, needs(request(n, "big", Tier::Enterprise, Urgency::Normal, at(0)), 95), at(0)))
        .collect();
    let small = queue(&mut pool, request(5, "small", Tier::Standard, Urgency::Normal, at(0)), at(0));
    let mut waiting: Vec<_> = (0..3).map(|_| basic(&mut pool, at(0))).collect();
    let mut left = vec![big[0].clone(), big[1].clone(), small];
    for tenth in 0..9_000 {
        let now = at(tenth * 100);
        pool.on_wakeup(now);
        for id in pump(&mut pool, now, LeaseAnswer::Never) {
            left.retain(|other| *other != id);
            if waiting.contains(&id) {
                waiting.push(basic(&mut pool, now));
            }
        }
    }
    assert!(left.is_empty(), "{} of three never started in a quarter of an hour", left.len());
}

#[test]
fn a_window_that_opens_late_does_not_turn_the_score_upside_down() {
    let mut settings = config(1, 1);
    settings.off_peak = Some(vec![Window { start: at(8 * HOUR), end: at(16 * HOUR) }]);
    let mut pool = pool(settings);
    for n in 0..200 {
        queue(&mut pool, request(n, "basic", Tier::Basic, Urgency::Deferred, at(0)), at(0));
    }
    let opens = at(8 * HOUR);
    pool.on_wakeup(opens);
    assert_eq!(pump(&mut pool, opens, LeaseAnswer::Never).len(), 1);
    let now = opens.plus(10);
    let fast = queue(&mut pool, request(1_000, "urgent", Tier::Enterprise, Urgency::Fast, now), now);
    assert_eq!(pool.position(&fast, now).unwrap().ahead, 0, "its score is the highest by far");
    let mut started = Vec::new();
    for second in 1..10 {
        let now = opens.plus(second * SECOND);
        pool.on_wakeup(now);
        started.extend(pump(&mut pool, now, LeaseAnswer::Never));
    }
    assert!(started.iter().position(|id| *id == fast).is_some_and(|place| place <= 1), "it starts on the next turn");
}

#[test]
fn a_members_estimate_is_that_of_its_own_share() {
    let mut settings = config(100, 10);
    settings.lanes = rm_core::lane::Lanes::default();
    settings.partitions = vec![partition("acme", Member::Client("acme".parse().unwrap()), 50, false)];
    let mut pool = pool(settings);
    for n in 0..100 {
        queue(&mut pool, needs(request(n, "crowd", Tier::Enterprise, Urgency::Fast, at(0)), 50), at(0));
    }
    queue(&mut pool, needs(request(500, "acme", Tier::Basic, Urgency::Normal, at(0)), 50), at(0));
    pump(&mut pool, at(0), LeaseAnswer::Never);
    let now = at(100);
    pool.on_wakeup(now);
    let urgent = request(501, "acme", Tier::Basic, Urgency::Immediate, now);
    let id = urgent.id.clone();
    assert_eq!(pool.submit(urgent, Mode::Queue, now), Submitted::Accepted, "its share has that in a moment");
    let start = pool.position(&id, now).unwrap().estimated_start_at.unwrap();
    assert!(start.since(now) <= 200, "{} ms", start.since(now));
}

#[test]
fn a_step_that_needs_nothing_of_a_paused_home_is_woken_when_its_worker_may_be_tried() {
    let mut pool = pool(config(100, 10));
    let worker = "B".parse::<rm_core::id::WorkerBinding>().unwrap();
    let give_slots = |pool: &mut Pool| {
        for effect in pool.take_effects() {
            if let Effect::AcquireSlot { id, grant, .. } = effect {
                pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(0));
            }
        }
        pool.take_effects();
    };
    for n in 10..15 {
        let mut failing = request(n, "d", Tier::Basic, Urgency::Normal, at(0));
        (failing.worker, failing.max_attempts) = (Some(worker.clone()), 1);
        let id = queue(&mut pool, failing, at(0));
        give_slots(&mut pool);
        pool.report(&id, 1, Report::Failed { failure: failure(), retry: Retry::Failing }, at(0));
        let event = id.as_str().to_owned();
        pool.settlement_confirmed(&event, at(0));
    }
    let mut pipeline = request(1, "c", Tier::Basic, Urgency::Normal, at(0));
    pipeline.worker = Some("A".parse().unwrap());
    pipeline.later = vec![Step {
        worker: Some(worker),
        demands: vec![demand("home", 0), demand("other", 1)],
        max_attempts: 3,
        timeout_ms: 30 * SECOND,
    }];
    let id = queue(&mut pool, pipeline, at(0));
    give_slots(&mut pool);
    let remaining = vec![Remaining { pool: id_of("home"), left: Tokens::ZERO, resets_in_ms: Some(300 * SECOND) }];
    pool.report(&id, 1, Report::Succeeded { usage: vec![], remaining }, at(0));
    assert_eq!(pool.next_wakeup(at(0)), Some(at(10 * SECOND)));
    assert_eq!(pool.position(&id, at(0)).unwrap().estimated_start_at, Some(at(10 * SECOND)));
    pool.on_wakeup(at(10 * SECOND));
    assert!(matches!(pool.request(&id).unwrap().phase, Phase::Acquiring { .. }));
}

#[test]
fn dedicated_shares_do_not_keep_each_other_waiting_for_what_is_not_there() {
    let mut settings = config(100, 1);
    settings.partitions =
        ["a", "b"].iter().map(|name| partition(name, Member::Client(name.parse().unwrap()), 50, false)).collect();
    let mut pool = pool(settings);
    pool.settle_lease(
        "",
        Tokens::ZERO,
        LeaseEnd::Ran,
        &Signal { remaining: Some(units(20)), ..Signal::default() },
        at(0),
    );
    let wanted = ["a", "b"].map(|client| {
        let number = u64::from(client.as_bytes()[0]);
        queue(&mut pool, needs(request(number, client, Tier::Basic, Urgency::Normal, at(0)), 5), at(0))
    });
    assert_eq!(started_ids(&mut pool, at(0)), wanted, "twenty are there, ten for each");
}

#[test]
fn a_dedicated_share_survives_a_change_of_limits() {
    let mut settings = config(100, 0);
    settings.partitions = vec![partition("own", Member::Tier(Tier::Basic), 20, false)];
    let mut pool = pool(settings.clone());
    let rest = queue(&mut pool, needs(request(1, "e", Tier::Enterprise, Urgency::Normal, at(0)), 80), at(0));
    assert_eq!(started_ids(&mut pool, at(0)), [rest]);
    settings.limits.refill_per_second = Tokens::from_micros(1).unwrap();
    settings.revision = 2;
    pool.configure(settings, at(1));
    queue(&mut pool, request(2, "e", Tier::Enterprise, Urgency::Normal, at(1)), at(1));
    assert!(started_ids(&mut pool, at(1)).is_empty(), "all that is left is the member's");
    let own = queue(&mut pool, needs(request(3, "m", Tier::Basic, Urgency::Normal, at(1)), 20), at(1));
    assert_eq!(started_ids(&mut pool, at(1)), [own]);
}

#[test]
fn deferred_work_waits_for_a_window_that_is_days_away() {
    let mut settings = config(10, 1);
    settings.off_peak = Some(vec![Window { start: at(72 * HOUR), end: at(73 * HOUR) }]);
    let mut pool = pool(settings);
    let id = queue(&mut pool, request(1, "a", Tier::Basic, Urgency::Deferred, at(0)), at(0));
    pool.on_wakeup(at(24 * HOUR));
    assert!(pool.take_changes().ended.is_empty());
    pool.on_wakeup(at(72 * HOUR));
    assert_eq!(started_ids(&mut pool, at(72 * HOUR)), std::slice::from_ref(&id));
    pool.report(&id, 1, used(1), at(72 * HOUR));
    assert_eq!(pool.take_changes().ended[0].end.status, Status::Succeeded);
}

#[test]
fn an_order_of_another_home_is_not_passed_over_by_those_of_lower_rank() {
    let mut pool = pool(config(10, 1));
    queue(&mut pool, needs(request(1, "first", Tier::Basic, Urgency::Normal, at(0)), 10), at(0));
    assert_eq!(pump(&mut pool, at(0), LeaseAnswer::Never).len(), 1);
    let id = RequestId::new(at(0), [9; 10], &id_of("elsewhere"));
    let order = |number: i64| LeaseOrder {
        key: format!("{id}#{number}"),
        amount: units(8),
        ttl_ms: SECOND,
        ..lease_order(&id, "high", Tier::Enterprise, Urgency::Normal)
    };
    for second in 0..60 {
        let now = at(second * SECOND);
        pool.on_wakeup(now);
        let number = 100 + second as u64;
        queue(&mut pool, request(number, &format!("low-{number}"), Tier::Basic, Urgency::Normal, now), now);
        pump(&mut pool, now, LeaseAnswer::Never);
        if second % 5 == 0 && pool.acquire_lease(order(second), now).is_granted() {
            assert!(second <= 10, "eight are refilled in eight seconds: at {second} s");
            return;
        }
    }
    panic!("it is passed over without end");
}

#[test]
fn one_that_wants_more_than_the_share_does_not_keep_the_share_from_the_others_of_its_tier() {
    for lends in [true, false] {
        let mut settings = config(100, 1);
        settings.partitions = vec![partition("basics", Member::Tier(Tier::Basic), 30, lends)];
        let mut pool = pool(settings);
        queue(&mut pool, needs(request(1, "first", Tier::Enterprise, Urgency::Fast, at(0)), 70), at(0));
        assert_eq!(started_ids(&mut pool, at(0)).len(), 1);
        // It is next, and waits for more than there is.
        queue(&mut pool, needs(request(2, "high", Tier::Enterprise, Urgency::Fast, at(1)), 60), at(1));
        queue(&mut pool, needs(request(3, "large", Tier::Basic, Urgency::Normal, at(2)), 40), at(2));
        let small = queue(&mut pool, needs(request(4, "small", Tier::Basic, Urgency::Normal, at(3)), 5), at(3));
        assert_eq!(started_ids(&mut pool, at(3)), [small], "lends: {lends}");
    }
}

#[test]
fn what_a_step_says_of_a_pool_that_it_does_not_need_is_neither_billed_nor_taken() {
    let mut pool = pool(config(100, 0));
    let mut pipeline = request(1, "c", Tier::Basic, Urgency::Normal, at(0));
    pipeline.demands = vec![demand("home", 0), demand("other", 1)];
    pipeline.later = vec![Step { worker: None, demands: vec![demand("home", 5)], max_attempts: 1, timeout_ms: SECOND }];
    let id = queue(&mut pool, pipeline, at(0));
    assert_eq!(started_ids(&mut pool, at(0)), std::slice::from_ref(&id));
    pool.report(&id, 1, used(40), at(1));
    assert_eq!(pool.request(&id).unwrap().past[0].lines.len(), 1);
    assert_eq!(pool.view(at(1)).available, units(95), "only the second step has taken any");
}

#[test]
fn leases_out_of_a_share_that_is_lent_stand_back_on_a_promoted_ones_turn() {
    let mut settings = config(10, 1);
    settings.partitions = vec![partition("members", Member::Tier(Tier::Standard), 100, true)];
    let mut pool = pool(settings);
    let first = queue(&mut pool, needs(request(1, "first", Tier::Enterprise, Urgency::Normal, at(0)), 10), at(0));
    assert_eq!(pump(&mut pool, at(0), LeaseAnswer::Never), [first]);
    let old = queue(&mut pool, needs(request(2, "old", Tier::Basic, Urgency::Deferred, at(0)), 10), at(0));
    for second in 1..1_500_i64 {
        let now = at(second * SECOND);
        pool.on_wakeup(now);
        if started_ids(&mut pool, now).contains(&old) {
            return;
        }
        let id = RequestId::new(now, [7; 10], &id_of("elsewhere"));
        let order = LeaseOrder {
            enqueued_at: now,
            returns: false,
            ..lease_order(&id, "member", Tier::Standard, Urgency::Normal)
        };
        let key = order.key.clone();
        if pool.acquire_lease(order, now).is_granted() {
            pool.settle_lease(&key, units(1), LeaseEnd::Ran, &Signal::default(), now);
        }
    }
    panic!("it never starts");
}
