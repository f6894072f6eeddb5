//! When something will start: who is refused for it, and who must not be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::lane::Lanes;
use rm_core::off_peak::{WaitsFor, Window};
use rm_core::partition::{Member, Partition};
use rm_core::pool::{
    Blocked, Effect, LeaseAnswer, LeaseEnd, Mode, Pool, PoolConfig, Refusal, Report, Retry, Signal, Submission,
    Submitted,
};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::Kind;
use rm_core::units::Instant;
use support::{at, config, demand, failure, pool, queue, request, run_until, started, stored, units, used};

/// A pool whose immediate lane waits for half a minute at most.
fn hurried(capacity: u64, refill: u64) -> Pool {
    pool(PoolConfig { lanes: Lanes::default(), ..config(capacity, refill) })
}

fn order(n: u64, urgency: Urgency, has_slot: bool, now: Instant) -> Submission {
    Submission { has_slot, ..request(n, "client", Tier::Standard, urgency, now) }
}

#[test]
fn slots_that_other_pools_have_may_come_free_at_any_time() {
    let mut pool = hurried(100, 10);
    queue(&mut pool, order(1, Urgency::Normal, true, at(0)), at(0));
    started(&mut pool, at(0));
    let ten = Submission { slots: Some(10), ..order(2, Urgency::Immediate, false, at(1)) };
    assert_eq!(pool.submit(ten, Mode::Queue, at(1)), Submitted::Accepted, "nine are elsewhere");
    let unknown = Submission { slots: None, ..order(3, Urgency::Immediate, false, at(1)) };
    assert_eq!(pool.submit(unknown, Mode::Queue, at(1)), Submitted::Accepted);
    let one = Submission { slots: Some(1), ..order(4, Urgency::Immediate, false, at(1)) };
    assert!(matches!(pool.submit(one, Mode::Queue, at(1)), Submitted::Refused(Refusal::NotNow { .. })));
}

#[test]
fn who_brings_a_slot_does_not_wait_for_one() {
    let mut pool = hurried(100, 10);
    queue(&mut pool, order(1, Urgency::Normal, true, at(0)), at(0));
    started(&mut pool, at(0));
    let second = queue(&mut pool, order(2, Urgency::Normal, false, at(10)), at(10));
    let grant = pool.request(&second).unwrap().grants;
    pool.slot_answered(&second, grant, Some(SlotAnswer::Full), at(11));
    // A run elsewhere has ended, and the news of it is still on its way.
    let third = order(3, Urgency::Immediate, true, at(20));
    assert_eq!(pool.submit(third, Mode::Queue, at(20)), Submitted::Accepted);
}

#[test]
fn those_that_cannot_take_a_slot_are_not_before_one_that_can() {
    let mut pool = hurried(1_000, 10);
    let at_worker = |name: &str, submission| Submission {
        worker: Some(name.parse().unwrap()),
        timeout_ms: 10_000,
        max_attempts: 1,
        ..submission
    };
    let mut now = 0;
    while pool.view(at(now)).breakers.is_empty() || pool.view(at(now)).breakers[0].state != "open" {
        now += 1;
        let other = request(100 + u64::try_from(now).unwrap(), "other", Tier::Standard, Urgency::Normal, at(now));
        queue(&mut pool, at_worker("BAD", other), at(now));
        for (id, grant) in started(&mut pool, at(now)) {
            let failing = Report::Failed { failure: failure(), retry: Retry::Failing };
            pool.report(&id, grant, failing, at(now));
        }
    }
    for n in 0..10 {
        let waits = Submission { slots: None, ..order(200 + n, Urgency::Immediate, false, at(now)) };
        queue(&mut pool, at_worker("BAD", waits), at(now));
    }
    pool.take_effects();
    queue(&mut pool, at_worker("GOOD", order(300, Urgency::Normal, true, at(now))), at(now));
    assert_eq!(started(&mut pool, at(now)).len(), 1);
    let next = at_worker("GOOD", order(301, Urgency::Immediate, false, at(now)));
    assert_eq!(pool.submit(next, Mode::Queue, at(now)), Submitted::Accepted, "that run ends in five seconds");
}

#[test]
fn tokens_that_a_request_has_are_not_foretold_again() {
    let mut pool = pool(config(10, 1));
    let all = Submission { demands: vec![demand("home", 10)], ..order(1, Urgency::Normal, false, at(0)) };
    queue(&mut pool, all, at(0));
    assert_eq!(started(&mut pool, at(5)).len(), 1);
    assert!(pool.starts_foretold().error_ms <= 5, "{:?}", pool.starts_foretold());
}

#[test]
fn a_reservation_is_granted_at_once_or_not_at_all_and_foretold_never() {
    let mut pool = pool(config(10, 1));
    let both = vec![demand("home", 10), demand("other", 1)];
    let reservation = Submission { kind: Kind::Reservation, demands: both, ..order(1, Urgency::Normal, false, at(0)) };
    assert_eq!(pool.submit(reservation, Mode::NowOrNever, at(0)), Submitted::Accepted);
    started(&mut pool, at(5));
    assert_eq!(pool.starts_foretold().count, 0);
}

#[test]
fn what_a_pool_owes_does_not_come_back() {
    let mut pool = hurried(10, 0);
    let five = |n, urgency| Submission { demands: vec![demand("home", 5)], ..order(n, urgency, true, at(0)) };
    let first = queue(&mut pool, five(1, Urgency::Normal), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    queue(&mut pool, five(2, Urgency::Normal), at(0));
    started(&mut pool, at(0));
    pool.report(&first, grant, used(12), at(1));
    let third = pool.submit(five(3, Urgency::Immediate), Mode::Queue, at(2));
    assert!(matches!(third, Submitted::Refused(Refusal::NotNow { .. })), "7 are owed and 5 are out: {third:?}");
}

#[test]
fn a_raised_hold_is_told_again_after_a_crash_and_when_it_is_said_again() {
    let mut pool = pool(config(20, 0));
    let reservation = Submission {
        kind: Kind::Reservation,
        demands: vec![demand("home", 5)],
        ..order(1, Urgency::Normal, false, at(0))
    };
    let id = reservation.id.clone();
    assert_eq!(pool.submit(reservation, Mode::NowOrNever, at(0)), Submitted::Accepted);
    let use_of = |n| {
        vec![rm_core::request::Usage {
            pool: support::id_of("home"),
            amount: support::units(n),
            parts: None,
            is_share: false,
        }]
    };
    let is_raise = |effect: &Effect| matches!(effect, Effect::RaiseHold { .. });
    pool.take_effects();
    for _ in 0..2 {
        pool.consume(&id, use_of(18), false, at(1));
        assert!(pool.take_effects().iter().any(is_raise));
    }
    let mut stored = stored(pool.config().clone());
    stored.state = Some(pool.state().clone());
    stored.requests = pool.requests().cloned().collect();
    let mut pool = Pool::restore(stored, at(2));
    assert!(pool.take_effects().iter().any(is_raise));
}

#[test]
fn deferred_work_is_forced_out_by_how_long_its_own_kind_of_work_takes() {
    let mut pool = pool(PoolConfig { off_peak: Some(vec![]), ..config(1_000, 10) });
    let of = |n, work: &str, urgency| Submission {
        worker: Some("WORKER".parse().unwrap()),
        work: Some(work.into()),
        ..order(n, urgency, true, at(0))
    };
    let mut run = |n, work, took| {
        queue(&mut pool, of(n, work, Urgency::Normal), at(0));
        let (id, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, used(1), at(took));
    };
    run(1, "slow", 75_000);
    (2..40).for_each(|n| run(n, "quick", 100));
    let forced_at = |work, n| {
        let deferred = Submission { deadline: Some(at(3_600_000)), ..of(n, work, Urgency::Deferred) };
        let mut pool = pool.clone();
        let id = queue(&mut pool, deferred, at(0));
        at(3_600_000).since(pool.request(&id).unwrap().force_at().unwrap())
    };
    assert_eq!(forced_at("slow", 50), 60_000 + 225_000, "one run of 75 s may take three times as long");
    assert!(forced_at("quick", 51) < 62_000);
    assert!(
        (60_000..285_000).contains(&forced_at("unheard of", 52)),
        "it is taken to be like the others of its worker"
    );
}

#[test]
fn what_would_start_too_late_for_its_lane_is_foretold_so() {
    let mut pool = hurried(100, 1);
    queue(
        &mut pool,
        Submission { demands: vec![demand("home", 100)], ..order(1, Urgency::Normal, true, at(0)) },
        at(0),
    );
    let sixty = |urgency| Submission { demands: vec![demand("home", 60)], ..order(2, urgency, false, at(0)) };
    assert_eq!(pool.foretell(sixty(Urgency::Immediate), at(0)), Err(Refusal::NotNow { retry_at: at(30_000) }));
    assert_eq!(pool.foretell(sixty(Urgency::Normal), at(0)), Ok(Some(at(60_000))));
}

#[test]
fn a_client_without_slots_is_told_that_it_would_wait_in_vain() {
    let mut pool = hurried(100, 10);
    let none = |n, urgency| Submission { slots: Some(0), ..order(n, urgency, false, at(0)) };
    let refused = Submitted::Refused(Refusal::NotNow { retry_at: at(30_000) });
    assert_eq!(pool.submit(none(1, Urgency::Immediate), Mode::Queue, at(0)), refused);
    let id = queue(&mut pool, none(2, Urgency::Normal), at(0));
    assert_eq!(pool.position(&id, at(0)).unwrap().estimated_start_at, None);
}

#[test]
fn when_slots_come_free_is_not_told_where_it_is_not_known() {
    let mut pool = hurried(100, 10);
    let waits = queue(&mut pool, Submission { slots: Some(2), ..order(1, Urgency::Normal, false, at(0)) }, at(0));
    pool.slot_answered(&waits, 1, Some(SlotAnswer::Full), at(1));
    let position = pool.position(&waits, at(2)).unwrap();
    assert_eq!((position.blocked_by, position.estimated_start_at), (Some(Blocked::Concurrency), None));
    // It is no reason for another model either: its slots are the same there.
    assert_eq!(pool.foretell(order(2, Urgency::Normal, false, at(2)), at(2)), Ok(Some(at(2))));
}

#[test]
fn those_that_wait_for_the_same_slot_are_before_each_other() {
    let mut pool = hurried(100, 10);
    let first = queue(&mut pool, order(1, Urgency::Normal, false, at(0)), at(0));
    pool.slot_answered(&first, 1, Some(SlotAnswer::Full), at(1));
    let second = queue(&mut pool, order(2, Urgency::Normal, false, at(2)), at(2));
    let urgent = queue(&mut pool, order(3, Urgency::Fast, false, at(3)), at(3));
    let ahead = |id| pool.position(id, at(4)).map(|position| position.ahead);
    assert_eq!([&urgent, &first, &second].map(ahead), [Some(0), Some(1), Some(2)]);
    // The account says that one is free, so that all three ask.
    pool.client_woken(&"client".parse().unwrap(), at(5));
    assert_eq!(pool.view(at(5)).reserved, units(3));
    let ahead = |id| pool.position(id, at(5)).map(|position| position.ahead);
    assert_eq!([&urgent, &first, &second].map(ahead), [Some(0), Some(1), Some(2)]);
}

#[test]
fn those_that_wait_for_the_same_other_pool_are_before_each_other_and_are_measured() {
    let mut pool = hurried(100, 10);
    let of = |n, urgency, other: &str| Submission {
        demands: vec![demand("home", 1), demand(other, 1)],
        ..request(n, &format!("client-{n}"), Tier::Standard, urgency, at(0))
    };
    let mut ids = Vec::new();
    for (n, urgency, other) in [(1, Urgency::Normal, "one"), (2, Urgency::Fast, "one"), (3, Urgency::Fast, "other")] {
        let id = queue(&mut pool, of(n, urgency, other), at(0));
        pool.slot_answered(&id, 1, Some(SlotAnswer::Granted), at(0));
        assert_eq!(pool.position(&id, at(0)).unwrap().estimated_start_at, None, "it is not known yet");
        let answer = LeaseAnswer::NotNow { retry_at: Some(at(1_000)), ready_at: Some(at(3_000)) };
        pool.lease_answered(&id, 1, &other.parse().unwrap(), answer, at(1));
        ids.push(id);
    }
    let told = |id| pool.position(id, at(2)).map(|position| (position.ahead, position.estimated_start_at.unwrap()));
    assert_eq!([0, 1, 2].map(|n| told(&ids[n])), [Some((1, at(3_000))), Some((0, at(3_000))), Some((0, at(3_000)))]);
    pool.on_wakeup(at(1_000));
    started(&mut pool, at(1_000));
    assert_eq!((pool.starts_foretold().count, pool.starts_foretold().error_ms), (3, 6_000));
}

#[test]
fn those_that_wait_for_the_same_worker_or_window_are_before_each_other_and_before_nobody_else() {
    let mut pool = pool(config(1_000, 10));
    let of = |n: u64, worker: &str| Submission {
        worker: Some(worker.parse().unwrap()),
        max_attempts: 1,
        ..request(n, &format!("client-{n}"), Tier::Standard, Urgency::Normal, at(0))
    };
    (0..5).for_each(|n| drop(queue(&mut pool, of(n, "BAD"), at(0))));
    for (id, grant) in started(&mut pool, at(0)) {
        pool.report(&id, grant, Report::Failed { failure: failure(), retry: Retry::Failing }, at(0));
    }
    let ahead = |pool: &Pool, id: &RequestId| {
        let position = pool.position(id, at(1)).unwrap();
        (position.blocked_by.unwrap(), position.ahead)
    };
    let waiting: Vec<RequestId> = (10..13).map(|n| queue(&mut pool, of(n, "BAD"), at(0))).collect();
    for (n, id) in (0..).zip(&waiting) {
        assert_eq!(ahead(&pool, id), (Blocked::WorkerUnavailable, n));
    }
    let taken = queue(&mut pool, Submission { demands: vec![demand("home", 990)], ..of(20, "GOOD") }, at(0));
    assert_eq!(started(&mut pool, at(1)).len(), 1);
    assert!(pool.request(&taken).is_some());
    let next = queue(&mut pool, Submission { demands: vec![demand("home", 900)], ..of(21, "GOOD") }, at(1));
    assert_eq!(ahead(&pool, &next), (Blocked::Tokens, 0), "those of the other worker hold it up in nothing");
    assert_eq!(ahead(&pool, &waiting[2]).1, 2);

    let mut pool = support::pool(PoolConfig { off_peak: Some(vec![window()]), ..config(1_000, 10) });
    let deferred = |n: u64| Submission { waits_for: Some(WaitsFor::Pool), urgency: Urgency::Deferred, ..of(n, "GOOD") };
    let waiting: Vec<RequestId> = (10..13).map(|n| queue(&mut pool, deferred(n), at(0))).collect();
    for (n, id) in (0..).zip(&waiting) {
        assert_eq!(ahead(&pool, id), (Blocked::OffPeak, n));
    }
}

fn window() -> Window {
    Window { start: at(3_600_000), end: at(7_200_000) }
}

#[test]
fn the_times_of_what_is_not_run_any_more_are_forgotten() {
    let mut pool = hurried(1_000, 10);
    for n in 0..40 {
        let now = at(i64::try_from(n).unwrap() * 1_000);
        let submission = Submission {
            work: Some(format!("template-{n}")),
            worker: Some("WORKER".parse().unwrap()),
            ..order(n, Urgency::Normal, true, now)
        };
        queue(&mut pool, submission, now);
        let (id, grant) = started(&mut pool, now).remove(0);
        pool.report(&id, grant, used(1), now.plus(10));
    }
    let state = serde_json::to_value(pool.state()).unwrap();
    let known = state["workTimes"].as_object().unwrap();
    assert_eq!((known.len(), known.contains_key("WORKER template-7")), (32, false));
    assert_eq!(
        known["WORKER template-39"],
        serde_json::json!({"meanBy8": 80, "deviationBy4": 20, "at": at(39_010).millis()})
    );
}

#[test]
fn a_slot_that_may_come_at_any_time_does_not_make_tokens_late_that_come_in_time() {
    let mut pool = hurried(100, 10);
    let all =
        Submission { demands: vec![demand("home", 100)], ..request(1, "other", Tier::Basic, Urgency::Normal, at(0)) };
    queue(&mut pool, all, at(0));
    let (all, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&all, grant, used(100), at(0));
    let five = |n, urgency, now| Submission {
        slots: Some(10),
        demands: vec![demand("home", 5)],
        ..order(n, urgency, false, now)
    };
    let blocked = queue(&mut pool, five(2, Urgency::Normal, at(0)), at(0));
    pool.on_wakeup(at(500));
    pool.slot_answered(&blocked, 1, Some(SlotAnswer::Full), at(500));
    assert_eq!(pool.position(&blocked, at(500)).unwrap().blocked_by, Some(Blocked::Concurrency));
    let many = Submission { demands: vec![demand("home", 60)], ..five(3, Urgency::Immediate, at(501)) };
    assert_eq!(pool.submit(many, Mode::Queue, at(501)), Submitted::Accepted, "they are there in six seconds");
}

#[test]
fn a_share_that_is_lent_is_not_there_at_once() {
    let share = Partition { name: "gold".into(), member: Member::Tier(Tier::Enterprise), percent: 50, lends: true };
    let mut pool = pool(PoolConfig { partitions: vec![share], lanes: Lanes::default(), ..config(100, 1) });
    let mut all = request(1, "other", Tier::Premium, Urgency::Normal, at(0));
    all.demands = vec![demand("home", 100)];
    queue(&mut pool, all, at(0));
    started(&mut pool, at(0));
    let member = |n, amount, urgency| Submission {
        demands: vec![demand("home", amount)],
        ..request(n, "member", Tier::Enterprise, urgency, at(0))
    };
    let refused = pool.submit(member(2, 45, Urgency::Immediate), Mode::Queue, at(0));
    assert_eq!(
        refused,
        Submitted::Refused(Refusal::NotNow { retry_at: at(15_000) }),
        "its lane waits for thirty seconds"
    );
    let normal = queue(&mut pool, member(3, 45, Urgency::Normal), at(0));
    assert_eq!(pool.position(&normal, at(0)).unwrap().estimated_start_at, Some(at(45_000)));
}

#[test]
fn what_those_before_it_need_is_what_counts_and_not_what_those_behind_it_do() {
    let mut pool = hurried(100, 10);
    let of = |n, client: &str, tier, urgency, amount| Submission {
        demands: vec![demand("home", amount)],
        ..request(n, client, tier, urgency, at(0))
    };
    queue(&mut pool, of(1, "first", Tier::Standard, Urgency::Normal, 100), at(0));
    started(&mut pool, at(0));
    queue(&mut pool, of(2, "small", Tier::Standard, Urgency::Normal, 10), at(0));
    for n in 3..=9 {
        queue(&mut pool, of(n, "large", Tier::Basic, Urgency::Deferred, 100), at(0));
    }
    let high = of(10, "high", Tier::Enterprise, Urgency::Immediate, 20);
    assert_eq!(pool.submit(high, Mode::Queue, at(0)), Submitted::Accepted);
    let next = of(12, "next", Tier::Standard, Urgency::Fast, 10);
    assert_eq!(pool.foretell(next, at(0)), Ok(Some(at(3_000))), "twenty before it, and ten of its own");
    let last = of(13, "next", Tier::Standard, Urgency::Batch, 10);
    assert_eq!(pool.foretell(last, at(0)), Ok(Some(at(4_000))), "and ten more");
}

#[test]
fn a_window_cap_is_foretold() {
    let mut settings = config(60, 2);
    settings.limits.window_cap = true;
    let mut pool = pool(PoolConfig { lanes: Lanes::default(), ..settings });
    let of =
        |n, amount, urgency| Submission { demands: vec![demand("home", amount)], ..order(n, urgency, true, at(1_000)) };
    queue(&mut pool, of(1, 60, Urgency::Normal), at(1_000));
    assert_eq!(started(&mut pool, at(1_000)).len(), 1);
    let ids = [2, 3, 4].map(|n| queue(&mut pool, of(n, 30, Urgency::Normal), at(1_000)));
    let foretold = ids.map(|id| pool.position(&id, at(1_000)).unwrap().estimated_start_at.unwrap());
    assert_eq!(foretold, [at(62_000), at(62_000), at(122_000)], "sixty a minute, and at most a second later");
    let hurried = pool.submit(of(5, 10, Urgency::Immediate), Mode::Queue, at(1_000));
    assert_eq!(hurried, Submitted::Refused(Refusal::NotNow { retry_at: at(32_000) }), "half a minute before that");
    let starts: Vec<Instant> = run_until(&mut pool, at(1_000), at(130_000)).into_iter().map(|(at, _)| at).collect();
    assert_eq!(starts[..3], [at(62_000), at(62_000), at(123_000)]);
}

#[test]
fn those_before_it_count_with_what_each_of_them_needs() {
    for amounts in [&[5, 1][..], &[5, 3], &[2, 7, 3], &[1, 10]] {
        let mut pool = pool(PoolConfig { lanes: Lanes::default(), ..config(10, 1) });
        queue(&mut pool, Submission { slots: Some(100), ..sized(0, 10) }, at(0));
        started(&mut pool, at(0));
        let ids: Vec<RequestId> =
            (1..).zip(amounts).map(|(n, amount)| queue(&mut pool, sized(n, *amount), at(1))).collect();
        let foretold: Vec<Instant> =
            ids.iter().map(|id| pool.position(id, at(1)).unwrap().estimated_start_at.unwrap()).collect();
        let starts: Vec<Instant> =
            run_until(&mut pool, at(1), at(60_000)).into_iter().map(|(start, _)| start).collect();
        let error = foretold.iter().zip(&starts).map(|(foretold, start)| start.since(*foretold).abs()).max();
        assert!(error.unwrap() <= 1 && starts.len() == ids.len(), "{amounts:?}: {foretold:?} {starts:?}");
    }
}

/// One of a client's that needs so much, in the immediate lane.
fn sized(n: u64, amount: u64) -> Submission {
    Submission { demands: vec![demand("home", amount)], slots: Some(100), ..order(n, Urgency::Immediate, true, at(0)) }
}

#[test]
fn that_a_slowed_pool_finds_its_way_back_is_foretold() {
    let half = |name: &str, client: &str, lends| Partition {
        name: name.into(),
        member: Member::Client(client.parse().unwrap()),
        percent: 50,
        lends,
    };
    for partitions in [vec![], vec![half("own", "client", true)], vec![half("others", "other", false)]] {
        let mut pool = pool(PoolConfig { partitions: partitions.clone(), ..config(20, 2) });
        let all = if partitions.iter().any(|share| !share.lends) { 10 } else { 20 };
        queue(&mut pool, sized(0, all), at(0));
        assert_eq!(started(&mut pool, at(0)).len(), 1);
        let busy = || Signal { busy: true, ..Signal::default() };
        (0..5).for_each(|n| pool.settle_lease("", units(0), LeaseEnd::Ran, &busy(), at(n * 1_000)));
        let ids: Vec<RequestId> = (1..=4)
            .map(|n| queue(&mut pool, Submission { urgency: Urgency::Normal, ..sized(n, 5) }, at(4_000)))
            .collect();
        let foretold: Vec<Instant> =
            ids.iter().map(|id| pool.position(id, at(4_000)).unwrap().estimated_start_at.unwrap()).collect();
        let starts: Vec<Instant> =
            run_until(&mut pool, at(4_000), at(120_000)).into_iter().map(|(start, _)| start).collect();
        let errors = foretold.iter().zip(&starts).map(|(one, start)| start.since(*one).max(one.since(*start)));
        assert!(errors.max().unwrap() <= 5 && starts.len() == 4, "{partitions:?}: {foretold:?} {starts:?}");
    }
}
