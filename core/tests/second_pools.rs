//! Requests that need several pools: what is not there in one of them holds back nobody, and is given back everywhere.

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
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Effect, LeaseAnswer, LeaseEnd, LeaseOrder, Pool, PoolConfig, Report, Signal, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Phase, Usage};
use rm_core::units::{Instant, Tokens};
use support::{
    at, config, demand, id_of, lease_order, normal, pool, queue, request, run_until, started, started_ids, units, used,
};

fn of_two_pools(n: u64, held_at: Instant) -> Submission {
    Submission { demands: vec![demand("home", 1), demand("other", 3)], has_slot: true, ..normal(n, 1, held_at) }
}

/// The lease that a grant asks for.
fn asked(pool: &mut Pool) -> (RequestId, u32, LeaseOrder) {
    let asks = |effect| match effect {
        Effect::AcquireLease { id, grant, order, .. } => Some((id, grant, order)),
        _ => None,
    };
    pool.take_effects().into_iter().find_map(asks).expect("it asks for a lease")
}

fn gives_back(pool: &mut Pool, order: &LeaseOrder) -> bool {
    is_given_back(&pool.take_effects(), order)
}

fn is_given_back(effects: &[Effect], order: &LeaseOrder) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, Effect::SettleLease { pool, key, used, end: LeaseEnd::Returns { .. }, .. }
            if *pool == id_of("other") && *key == order.key && used.is_zero())
    })
}

#[test]
fn a_request_whose_second_pool_is_not_there_holds_back_nobody_and_keeps_its_place() {
    let mut pool = pool(config(1, 1));
    let old = queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (id, grant, _) = asked(&mut pool);
    let younger: Vec<RequestId> = (1..6).map(|n| queue(&mut pool, normal(n, 1, at(n as i64)), at(10))).collect();
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(2_500)), ready_at: Some(at(2_500)) };
    pool.lease_answered(&id, grant, &id_of("other"), not_now, at(20));
    assert_eq!(started_ids(&mut pool, at(20)), younger[..1], "the token is the next one's, at once");
    let order: Vec<RequestId> = run_until(&mut pool, at(20), at(3_020)).into_iter().map(|(_, id)| id).collect();
    assert_eq!(order, [younger[1].clone(), old, younger[2].clone()], "by its age it is before those that came later");
}

#[test]
fn a_refusal_that_crossed_the_news_of_tokens_is_out_of_date() {
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(5_000)), ready_at: None };
    let mut pool = pool(config(1, 0));
    queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (id, grant, _) = asked(&mut pool);
    pool.lease_free(&id_of("other"), false, units(3), at(10));
    pool.lease_answered(&id, grant, &id_of("other"), not_now, at(11));
    pool.slot_answered(&id, grant + 1, Some(SlotAnswer::Granted), at(12));
    let (id, grant, _) = asked(&mut pool);
    pool.lease_answered(&id, grant, &id_of("other"), not_now, at(13));
    assert!(matches!(pool.request(&id).unwrap().phase, Phase::Parked { .. }), "it asks once more, and not without end");
}

#[test]
fn very_many_that_expire_at_once_tell_the_other_pools_together() {
    let mut pool = pool(config(1_000, 0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(9_000)), ready_at: None };
    for n in 0..300 {
        queue(&mut pool, Submission { deadline: Some(at(1_000)), ..of_two_pools(n, at(0)) }, at(0));
        let (id, grant, _) = asked(&mut pool);
        pool.lease_answered(&id, grant, &id_of("other"), not_now, at(0));
    }
    pool.take_effects();
    pool.on_wakeup(at(1_000));
    let told = |effect: &Effect| match effect {
        Effect::OrdersOver { keys, .. } => Some(keys.len()),
        _ => None,
    };
    let told: Vec<usize> = pool.take_effects().iter().filter_map(told).collect();
    assert_eq!(told, [256, 44], "an event has few calls");
    assert!(pool.requests().next().is_none(), "all of them have ended");
}

#[test]
fn of_very_many_that_wait_for_another_pool_a_few_inquire_in_one_event() {
    let mut pool = pool(config(100, 0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(2_000)), ready_at: None };
    for n in 0..40 {
        queue(&mut pool, of_two_pools(n, at(0)), at(0));
        let (id, grant, _) = asked(&mut pool);
        pool.lease_answered(&id, grant, &id_of("other"), not_now, at(0));
    }
    pool.take_effects();
    let inquires = |effect: &Effect| matches!(effect, Effect::AcquireLease { order, .. } if order.inquires);
    for (now, count) in [(2_000, 16), (2_100, 16), (2_200, 8)] {
        pool.on_wakeup(at(now));
        assert_eq!(pool.take_effects().iter().filter(|effect| inquires(effect)).count(), count, "at {now}");
    }
}

#[test]
fn when_it_starts_is_foretold_by_the_pool_that_it_waits_for() {
    let mut pool = pool(config(10, 1));
    queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (id, grant, _) = asked(&mut pool);
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(40_000)), ready_at: Some(at(40_000)) };
    pool.lease_answered(&id, grant, &id_of("other"), not_now, at(20));
    assert_eq!(pool.next_wakeup(at(20)), Some(at(5_020)), "it is asked again before");
    assert_eq!(pool.position(&id, at(20)).unwrap().estimated_start_at, Some(at(40_000)));
    pool.on_wakeup(at(5_020));
    let (_, grant, order) = asked(&mut pool);
    assert!(order.inquires, "it takes nothing before its tokens are there");
    assert_eq!(pool.position(&id, at(5_020)).unwrap().estimated_start_at, Some(at(40_000)));
    assert_eq!(pool.view(at(5_020)).available, units(10));
    pool.lease_answered(&id, grant, &id_of("other"), LeaseAnswer::Unreachable, at(5_030));
    assert_eq!(pool.position(&id, at(5_030)).unwrap().estimated_start_at, None, "what it said is not known any more");
}

#[test]
fn a_lease_that_was_asked_for_and_not_answered_is_given_back() {
    let mut pool = pool(config(1, 1));
    queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (id, grant, order) = asked(&mut pool);
    pool.lease_answered(&id, grant, &id_of("other"), LeaseAnswer::Unreachable, at(5_000));
    assert!(gives_back(&mut pool, &order), "it may have been granted");
}

#[test]
fn a_grant_that_nobody_answers_is_given_up_and_made_again() {
    let mut pool = pool(config(1, 1));
    queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (id, grant, order) = asked(&mut pool);
    let later = pool.next_wakeup(at(0)).expect("it is not waited for for ever");
    assert!(later <= at(10_000));
    pool.on_wakeup(later);
    assert!(gives_back(&mut pool, &order));
    // The answer comes after all, and belongs to nobody.
    pool.lease_answered(&id, grant, &id_of("other"), LeaseAnswer::Granted { regain_ms: 0 }, later.plus(1));
    let effects = pool.take_effects();
    assert!(is_given_back(&effects, &order));
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { grant: again, .. } if *again == grant + 1);
    assert!(effects.iter().any(asks), "it does answer: {effects:?}");
    pool.slot_answered(&id, grant + 1, Some(SlotAnswer::Granted), later.plus(2));
    let again = run_until(&mut pool, later.plus(2), later.plus(5_000));
    assert_eq!(again.len(), 1);
    assert!(pool.request(&id).unwrap().started_grant > grant);
}

fn lease(client: &str, tier: Tier, amount: u64, enqueued_at: Instant) -> LeaseOrder {
    let id = RequestId::new(at(0), [9; 10], &id_of("elsewhere"));
    LeaseOrder { enqueued_at, amount: units(amount), ..lease_order(&id, client, tier, Urgency::Normal) }
}

/// A pool with five tokens, and a premium request that waits for ten.
fn waited_for(partitions: Vec<Partition>) -> Pool {
    let mut pool = pool(PoolConfig { partitions, ..config(10, 1) });
    queue(&mut pool, normal(0, 5, at(0)), at(0));
    started(&mut pool, at(0));
    let mut premium = request(1, "premium", Tier::Premium, Urgency::Normal, at(0));
    premium.demands = vec![demand("home", 10)];
    queue(&mut pool, premium, at(0));
    pool
}

#[test]
fn a_lease_is_not_granted_before_a_request_of_higher_rank_that_waits() {
    let mut pool = waited_for(Vec::new());
    let lower = pool.acquire_lease(lease("basic", Tier::Basic, 1, at(0)), at(0));
    assert!(matches!(lower, LeaseAnswer::NotNow { retry_at: Some(_), .. }), "{lower:?}");
    assert!(pool.acquire_lease(lease("first", Tier::Enterprise, 1, at(0)), at(0)).is_granted());
}

#[test]
fn a_lease_is_granted_of_its_clients_own_share_whoever_waits() {
    let share = Partition { name: "basic".into(), member: Member::Tier(Tier::Basic), percent: 30, lends: true };
    let mut pool = waited_for(vec![share]);
    assert!(pool.acquire_lease(lease("basic", Tier::Basic, 3, at(0)), at(0)).is_granted());
}

/// A pool with five tokens, all kept for an enterprise request of another pool, and a share of three for Basic.
fn kept_for_another() -> Pool {
    let share = Partition { name: "basic".into(), member: Member::Tier(Tier::Basic), percent: 30, lends: true };
    let mut pool = pool(PoolConfig { partitions: vec![share], ..config(10, 1) });
    queue(&mut pool, normal(0, 5, at(0)), at(0));
    started(&mut pool, at(0));
    let first = pool.acquire_lease(lease("first", Tier::Enterprise, 8, at(0)), at(0));
    assert!(matches!(first, LeaseAnswer::NotNow { .. }), "{first:?}");
    assert_eq!(pool.view(at(0)).kept, units(8));
    pool
}

#[test]
fn what_is_kept_for_another_pools_request_is_not_of_a_members_share() {
    let mut pool = kept_for_another();
    let mut member = request(2, "basic", Tier::Basic, Urgency::Normal, at(0));
    member.demands = vec![demand("home", 3)];
    let member = queue(&mut pool, member, at(0));
    assert_eq!(started_ids(&mut pool, at(0)), [member]);
    let other = RequestId::new(at(0), [8; 10], &id_of("elsewhere"));
    let leased = LeaseOrder { key: format!("{other}#1"), ..lease("basic", Tier::Basic, 3, at(0)) };
    assert!(kept_for_another().acquire_lease(leased, at(0)).is_granted());
}

#[test]
fn old_leases_out_of_a_dedicated_share_are_not_the_turn_of_the_promoted_ones() {
    let share = Partition { name: "basic".into(), member: Member::Tier(Tier::Basic), percent: 50, lends: false };
    let mut pool = pool(PoolConfig { partitions: vec![share], ..config(10, 1) });
    queue(&mut pool, normal(0, 5, at(0)), at(0));
    let (first, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&first, grant, used(5), at(0));
    let mut old = request(1, "old", Tier::Standard, Urgency::Deferred, at(0));
    old.demands = vec![demand("home", 1)];
    let old = queue(&mut pool, old, at(0));
    for second in 1..700_u64 {
        let now = at(i64::try_from(second).unwrap() * 1_000);
        // Work of higher rank takes what is shared, and old work of Basic what is dedicated to it.
        let mut above = request(10 + second, &format!("above-{second}"), Tier::Enterprise, Urgency::Fast, now);
        above.demands = vec![demand("home", 1)];
        queue(&mut pool, above, now);
        pool.on_wakeup(now);
        let runs = started(&mut pool, now);
        if runs.iter().any(|(id, _)| *id == old) {
            assert!(second < 620, "at {second} s");
            return;
        }
        for (id, grant) in runs {
            pool.report(&id, grant, used(1), now);
        }
        if second % 2 == 0 {
            let id = RequestId::new(now, [8; 10], &id_of("elsewhere"));
            let order = LeaseOrder { key: format!("{id}#1"), ..lease("member", Tier::Basic, 1, at(-700_000)) };
            let key = order.key.clone();
            if pool.acquire_lease(order, now).is_granted() {
                pool.settle_lease(&key, units(1), LeaseEnd::Ran, &Signal::default(), now);
            }
        }
    }
    panic!("it never starts");
}

/// On a promoted one's turn what is lent does not come back before it, and it is one that its own home asks for.
#[test]
fn members_of_a_share_that_is_lent_do_not_pass_over_a_promoted_request_of_another_pool_without_end() {
    let share = Partition { name: "basic".into(), member: Member::Tier(Tier::Basic), percent: 100, lends: true };
    for members_lease in [false, true] {
        let mut pool = pool(PoolConfig { partitions: vec![share.clone()], ..config(10, 1) });
        queue(&mut pool, normal(0, 10, at(0)), at(0));
        let (first, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&first, grant, used(10), at(0));
        let mut granted_at = None;
        for second in 1..1_500_i64 {
            let now = at(second * 1_000);
            pool.on_wakeup(now);
            let n = u64::try_from(second).unwrap();
            if members_lease {
                let id = RequestId::new(now, [8; 10], &id_of("elsewhere"));
                let order = LeaseOrder { key: format!("{id}#1"), ..lease("member", Tier::Basic, 1, now) };
                let key = order.key.clone();
                if pool.acquire_lease(order, now).is_granted() {
                    pool.settle_lease(&key, units(1), LeaseEnd::Ran, &Signal::default(), now);
                }
            } else {
                let member = request(n, &format!("member-{n}"), Tier::Basic, Urgency::Normal, now);
                queue(&mut pool, Submission { demands: vec![demand("home", 1)], ..member }, now);
            }
            for (id, grant) in started(&mut pool, now) {
                pool.report(&id, grant, used(1), now);
            }
            let old = lease("old", Tier::Enterprise, 5, at(0));
            if second % 5 == 0 && pool.acquire_lease(old, now.plus(500)).is_granted() {
                granted_at = Some(second);
                break;
            }
        }
        // It is promoted after ten minutes, has the next of four turns, and its five tokens are refilled in five seconds.
        assert!(granted_at.is_some_and(|second| second <= 625), "leases {members_lease}: {granted_at:?}");
    }
}

#[test]
fn a_lease_that_was_not_used_is_as_if_it_had_never_been() {
    let mut pool = pool(config(10, 1));
    let order = lease("one", Tier::Basic, 4, at(0));
    let before = (pool.view(at(0)).available, pool.fairness().millipoints(&order.client));
    assert!(pool.acquire_lease(order.clone(), at(0)).is_granted());
    assert_eq!(pool.acquire_lease(order.clone(), at(0)), LeaseAnswer::Granted { regain_ms: 8_000 }, "the same lease");
    assert_eq!(pool.view(at(0)).available, units(6));
    pool.settle_lease(&order.key, Tokens::ZERO, LeaseEnd::Ran, &Signal::default(), at(0));
    let after = (pool.view(at(0)).available, pool.fairness().millipoints(&order.client));
    assert_eq!(before, after);
}

#[test]
fn a_lease_that_nobody_settles_runs_out() {
    let mut pool = pool(config(10, 0));
    pool.acquire_lease(lease("one", Tier::Basic, 10, at(0)), at(0));
    queue(&mut pool, normal(0, 10, at(0)), at(0));
    assert_eq!(run_until(&mut pool, at(0), at(61_000)).len(), 1);
    assert_eq!(pool.ledger().expired, units(10).micros());
}

#[test]
fn no_lease_is_granted_in_a_pause() {
    let mut pool = pool(config(10, 1));
    let pause = Signal { pause_ms: Some(1_000), ..Signal::default() };
    pool.settle_lease("", Tokens::ZERO, LeaseEnd::Ran, &pause, at(0));
    let answer = pool.acquire_lease(lease("one", Tier::Basic, 1, at(0)), at(0));
    assert_eq!(answer, LeaseAnswer::NotNow { retry_at: Some(at(1_000)), ready_at: Some(at(1_000)) });
    assert!(pool.acquire_lease(lease("one", Tier::Basic, 1, at(0)), at(1_000)).is_granted());
}

#[test]
fn a_second_pool_is_told_what_was_used_of_it_and_charges_it_even_when_its_lease_is_gone() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let usage = vec![Usage { pool: id_of("other"), amount: units(2), parts: None, is_share: false }];
    pool.report(&id, grant, Report::Succeeded { usage, remaining: vec![] }, at(1));
    let told = pool.take_effects().into_iter().find_map(|effect| match effect {
        Effect::SettleLease { key, used, .. } => Some((key, used)),
        _ => None,
    });
    let (key, used) = told.expect("it is told");
    assert_eq!(used, units(2));
    let mut other = support::pool(config(10, 0));
    other.settle_lease(&key, used, LeaseEnd::Ran, &Signal::default(), at(2));
    assert_eq!((other.view(at(2)).available, other.ledger().overused), (units(8), units(2).micros()));
}

#[test]
fn what_a_run_did_not_use_is_news_to_those_of_other_pools_that_wait_for_it() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(0, 10, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    assert!(matches!(pool.acquire_lease(lease("one", Tier::Basic, 4, at(0)), at(1)), LeaseAnswer::NotNow { .. }));
    pool.take_effects();
    pool.report(&id, grant, used(6), at(2));
    assert!(pool.take_effects().contains(&Effect::LeaseFree {
        home: id_of("elsewhere"),
        came_to_nothing: false,
        available: units(4)
    }));
}

#[test]
fn what_a_lost_attempt_used_of_another_pool_is_told_though_its_lease_was_given_back() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, of_two_pools(0, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, Report::TimedOut, at(1));
    pool.take_effects();
    let usage = vec![Usage { pool: id_of("other"), amount: units(2), parts: None, is_share: false }];
    pool.report(&id, grant, Report::Succeeded { usage, remaining: vec![] }, at(2));
    let told = |effect: &Effect| matches!(effect, Effect::SettleLease { used, .. } if *used == units(2));
    assert!(pool.take_effects().iter().any(told));
}

#[test]
fn what_is_leased_counts_as_its_clients_use() {
    let mut pool = pool(config(10, 0));
    let order = lease("one", Tier::Basic, 4, at(0));
    pool.acquire_lease(order.clone(), at(0));
    assert_eq!(pool.fairness().millipoints(&order.client), 0);
}

#[test]
fn a_pool_that_puts_it_off_is_not_believed_and_another_one_is() {
    let mut pool = pool(config(1, 0));
    let demands = vec![demand("home", 1), demand("b", 1), demand("c", 1), demand("d", 1)];
    queue(&mut pool, Submission { demands, has_slot: true, ..normal(0, 1, at(0)) }, at(0));
    let mut grant = 0;
    // What `b` is told when these pools refuse with these words, after those before them have granted.
    let mut told = |refused: &str, ready_at: i64, now: i64| {
        pool.on_wakeup(at(now));
        let id = normal(0, 1, at(0)).id;
        grant += 1;
        pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(now));
        for name in ["b", "c", "d"].iter().take_while(|name| **name != refused) {
            pool.lease_answered(&id, grant, &id_of(name), LeaseAnswer::Granted { regain_ms: 0 }, at(now));
        }
        let ready_at = Some(at(ready_at));
        pool.lease_answered(&id, grant, &id_of(refused), LeaseAnswer::NotNow { retry_at: ready_at, ready_at }, at(now));
        pool.take_effects().into_iter().find_map(|effect| match effect {
            Effect::SettleLease { pool, end: LeaseEnd::Returns { needed_at }, .. } if pool == id_of("b") => {
                Some(needed_at)
            }
            _ => None,
        })
    };
    assert_eq!(told("c", 4_000, 0), Some(Some(at(4_000))));
    assert_eq!(told("c", 5_500, 4_000), Some(Some(at(5_500))), "a moment later");
    assert_eq!(told("d", 9_000, 5_500), Some(Some(at(9_000))), "that is another one");
    assert_eq!(told("d", 12_000, 9_000), Some(None), "it has put it off");
    assert_eq!(told("d", 15_000, 12_000), Some(Some(at(15_000))), "it is believed anew");
}
