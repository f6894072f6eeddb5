//! How many slots of a client are asked for at once, and that its turn is kept meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::pool::{
    BatchTerms, Effect, LeaseAnswer, LeaseOrder, MAX_GRANTS_PER_EVENT, Mode, Pool, PoolConfig, Submission, Submitted,
};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Kind, Phase};
use support::{at, config, demand, lease_order, normal, pool, queue, request, started, used};

/// The slots that are asked for.
fn asked(pool: &mut Pool) -> Vec<(RequestId, u32)> {
    let slot = |effect| match effect {
        Effect::AcquireSlot { id, grant, .. } => Some((id, grant)),
        _ => None,
    };
    pool.take_effects().into_iter().filter_map(slot).collect()
}

fn let_run(pool: &mut Pool, running: bool, ms: i64) {
    let config = pool.config().clone();
    let revision = config.revision + 1;
    pool.configure(PoolConfig { scheduler_running: running, revision, ..config }, at(ms));
}

/// Ten tokens that come free at once, for thirty requests of high rank and one of low rank.
fn released_at_once() -> (Pool, Vec<RequestId>, RequestId) {
    let mut pool = pool(config(10, 0));
    let all = queue(&mut pool, normal(0, 10, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let of = |n, client: &str, tier, urgency| Submission {
        demands: vec![demand("home", 1)],
        has_slot: false,
        ..request(n, client, tier, urgency, at(1))
    };
    let high = (1..=30).map(|n| queue(&mut pool, of(n, "high", Tier::Enterprise, Urgency::Fast), at(1))).collect();
    let low = queue(&mut pool, of(31, "low", Tier::Basic, Urgency::Deferred), at(1));
    pool.report(&all, grant, used(0), at(2));
    (pool, high, low)
}

#[test]
fn one_of_lower_rank_is_not_let_past_while_slots_are_asked_for() {
    let (mut pool, high, low) = released_at_once();
    let mut runs = Vec::new();
    // Each slot is given two milliseconds after it was asked for.
    for ms in [4, 6, 8, 10] {
        for effect in pool.take_effects() {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => {
                    pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(ms));
                }
                Effect::Start { id, .. } => runs.push(id),
                _ => {}
            }
        }
    }
    assert_eq!(runs, high[..10]);
    assert_eq!(pool.request(&low).unwrap().phase, Phase::Waiting);
}

#[test]
fn but_an_account_that_does_not_answer_holds_back_nobody_for_long() {
    let (mut pool, _, low) = released_at_once();
    assert_eq!(pool.next_wakeup(at(2)), Some(at(1_002)));
    pool.on_wakeup(at(1_002));
    assert!(matches!(pool.request(&low).unwrap().phase, Phase::Acquiring { .. }));
}

#[test]
fn nor_is_anybody_held_back_where_there_is_enough_for_all() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(100, 0) });
    let of = |n, client: &str, tier| Submission { has_slot: false, ..request(n, client, tier, Urgency::Normal, at(0)) };
    (1..=30).for_each(|n| drop(queue(&mut pool, of(n, "high", Tier::Enterprise), at(0))));
    let low = queue(&mut pool, of(31, "low", Tier::Basic), at(0));
    pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(1));
    assert!(matches!(pool.request(&low).unwrap().phase, Phase::Acquiring { .. }));
}

#[test]
fn each_slot_that_is_given_allows_another_question_and_one_that_is_refused_a_few_again() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(200, 0) });
    let of = |n| Submission {
        has_slot: false,
        demands: vec![demand("home", 1)],
        ..request(n, "one", Tier::Enterprise, Urgency::Normal, at(0))
    };
    (1..=400).for_each(|n| drop(queue(&mut pool, of(n), at(0))));
    pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(1));
    let mut rounds = Vec::new();
    let mut ms = 1;
    for _ in 0..5 {
        let questions = asked(&mut pool);
        rounds.push(questions.len());
        ms += 10;
        for (id, grant) in questions {
            pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(ms));
        }
    }
    assert_eq!(rounds, [4, 8, 16, 32, 64]);
    let questions = asked(&mut pool);
    let (refused, grant) = &questions[0];
    pool.slot_answered(refused, *grant, Some(SlotAnswer::Full), at(ms + 1));
    for (id, grant) in &questions[1..] {
        pool.slot_answered(id, *grant, Some(SlotAnswer::Full), at(ms + 1));
    }
    asked(&mut pool);
    pool.client_woken(&"one".parse().unwrap(), at(ms + 2));
    assert_eq!(asked(&mut pool).len(), 4);
}

#[test]
fn a_turn_is_kept_for_a_second_however_many_the_client_has_queued() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(1_000, 0) });
    let of = |n, client: &str, tier| Submission {
        has_slot: false,
        demands: vec![demand("home", 1)],
        ..request(n, client, tier, Urgency::Normal, at(0))
    };
    (1..=2_000).for_each(|n| drop(queue(&mut pool, of(n, "high", Tier::Enterprise), at(0))));
    let low = queue(&mut pool, of(3_000, "low", Tier::Basic), at(0));
    pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(1));
    // Each question is answered after a fifth of a second.
    let mut answers = std::collections::VecDeque::new();
    let waits = |pool: &Pool| pool.request(&low).is_some_and(|request| request.phase == Phase::Waiting);
    let mut now = at(1);
    for _ in 0..20_000 {
        if !waits(&pool) {
            break;
        }
        for effect in pool.take_effects() {
            if let Effect::AcquireSlot { id, grant, .. } = effect {
                answers.push_back((now.plus(200), id, grant));
            }
        }
        let wakeup = pool.next_wakeup(now);
        match answers.pop_front() {
            Some((at, id, grant)) if wakeup.is_none_or(|wakeup| wakeup >= at) => {
                now = at.max(now);
                pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now);
            }
            other => {
                answers.extend(other);
                answers.make_contiguous().sort();
                now = wakeup.unwrap_or(now).max(now);
                pool.on_wakeup(now);
            }
        }
    }
    assert!(!waits(&pool) && now == at(1_001), "it is let past at {now:?}");
}

#[test]
fn reservations_that_wait_for_another_pool_keep_no_turn() {
    let mut pool = pool(config(10, 1));
    for n in 1..=4 {
        let reservation = Submission {
            kind: Kind::Reservation,
            demands: vec![demand("home", 1), demand("other", 1)],
            ..request(n, "high", Tier::Enterprise, Urgency::Normal, at(0))
        };
        pool.submit(reservation, Mode::NowOrNever, at(0));
    }
    pool.take_effects();
    // Six are left, which are not enough for both.
    let of = |n, client: &str, tier| Submission {
        demands: vec![demand("home", 4)],
        ..request(n, client, tier, Urgency::Normal, at(1))
    };
    let high = queue(&mut pool, of(10, "high", Tier::Enterprise), at(1));
    queue(&mut pool, of(11, "low", Tier::Basic), at(1));
    assert_eq!(asked(&mut pool), [(high, 1)]);
}

#[test]
fn what_is_not_used_does_not_grow() {
    let mut pool = pool(config(1_000, 0));
    let of = |n, now| Submission { slots: Some(200), ..request(n, "one", Tier::Standard, Urgency::Normal, now) };
    for n in 1..=100_u64 {
        let now = at(i64::try_from(n).unwrap() * 10_000);
        let id = queue(&mut pool, of(n, now), now);
        let (_, grant) = started(&mut pool, now).remove(0);
        pool.report(&id, grant, used(1), now);
    }
    pool.take_effects();
    let_run(&mut pool, false, 2_000_000);
    (200..=400).for_each(|n| drop(queue(&mut pool, of(n, at(2_000_000)), at(2_000_000))));
    let_run(&mut pool, true, 2_000_000);
    assert_eq!(asked(&mut pool).len(), 4, "never were two out");
}

#[test]
fn an_account_that_cannot_be_reached_is_left_alone_for_a_second_and_asked_again() {
    let mut pool = pool(config(10, 0));
    let of = |n, client: &str, tier| request(n, client, tier, Urgency::Normal, at(0));
    let high: Vec<RequestId> = (1..=20).map(|n| queue(&mut pool, of(n, "high", Tier::Enterprise), at(0))).collect();
    let low = queue(&mut pool, of(30, "low", Tier::Basic), at(0));
    let first = asked(&mut pool);
    assert_eq!(first.len(), 4);
    for (id, grant) in &first {
        pool.slot_answered(id, *grant, None, at(10));
    }
    assert_eq!(asked(&mut pool), [(low, 1)], "it is one that holds back nobody");
    pool.on_wakeup(at(1_010));
    let again = asked(&mut pool);
    assert!(again.iter().all(|(id, _)| high.contains(id)) && again.len() == 4, "{again:?}");
}

#[test]
fn one_event_grants_no_more_than_its_share_when_a_common_call_starts_with_it() {
    let mut pool = pool(config(60, 0));
    let item = |n: u64| Submission {
        batch: Some(BatchTerms { key: "all".into(), max_size: 2, window_ms: 1_000 }),
        ..request(n, &format!("item-{n}"), Tier::Standard, Urgency::Batch, at(0))
    };
    let most =
        Submission { demands: vec![demand("home", 58)], ..request(9, "most", Tier::Standard, Urgency::Normal, at(0)) };
    let most = queue(&mut pool, most, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let items = [queue(&mut pool, item(1), at(0)), queue(&mut pool, item(2), at(0))];
    pool.slot_answered(&items[0], 1, Some(SlotAnswer::Granted), at(1));
    for n in 100..=200 {
        queue(&mut pool, request(n, &format!("other-{n}"), Tier::Standard, Urgency::Normal, at(1)), at(1));
    }
    pool.take_effects();
    pool.report(&most, grant, used(0), at(2));
    assert_eq!(asked(&mut pool).len(), MAX_GRANTS_PER_EVENT);
    pool.slot_answered(&items[1], 1, Some(SlotAnswer::Granted), at(2));
    assert_eq!(asked(&mut pool).len(), MAX_GRANTS_PER_EVENT);
}

#[test]
fn nor_does_it_grow_while_one_of_them_is_not_answered() {
    let mut pool = pool(config(1_000, 0));
    let of = |n| Submission { slots: Some(200), ..request(n, "one", Tier::Standard, Urgency::Normal, at(0)) };
    queue(&mut pool, of(500), at(0));
    assert_eq!(asked(&mut pool).len(), 1);
    for n in 1..=100 {
        let id = queue(&mut pool, of(n), at(1));
        let (_, grant) = started(&mut pool, at(1)).remove(0);
        pool.report(&id, grant, used(1), at(1));
    }
    pool.take_effects();
    let_run(&mut pool, false, 2);
    (200..=400).for_each(|n| drop(queue(&mut pool, of(n), at(2))));
    let_run(&mut pool, true, 2);
    assert_eq!(asked(&mut pool).len(), 3, "two of four were out at most");
}

#[test]
fn a_turn_is_kept_for_those_alone_that_wait_for_slots() {
    let mut pool = pool(config(10, 1));
    for n in 1..=4 {
        let demands = vec![demand("home", 1), demand("other", 1)];
        let two = Submission { demands, ..request(n, "high", Tier::Enterprise, Urgency::Normal, at(0)) };
        let id = queue(&mut pool, two, at(0));
        if n == 1 {
            pool.slot_answered(&id, 1, Some(SlotAnswer::Granted), at(0));
        }
    }
    pool.take_effects();
    // Six are left, which are not enough for both.
    let of = |n, client: &str, tier| Submission {
        demands: vec![demand("home", 4)],
        ..request(n, client, tier, Urgency::Normal, at(1))
    };
    queue(&mut pool, of(10, "high", Tier::Enterprise), at(1));
    let low = queue(&mut pool, of(11, "low", Tier::Basic), at(1));
    assert_eq!(asked(&mut pool), [(low, 1)], "the other has as many out as it may");
}

#[test]
fn a_client_that_has_none_out_begins_anew() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(1_000, 0) });
    let of = |n| Submission { slots: Some(200), ..request(n, "one", Tier::Standard, Urgency::Normal, at(0)) };
    (1..=60).for_each(|n| drop(queue(&mut pool, of(n), at(0))));
    let_run(&mut pool, true, 1);
    let mut most = 0;
    for ms in 2..20 {
        let questions = asked(&mut pool);
        most = most.max(questions.len());
        for (id, grant) in questions {
            pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), at(ms));
        }
    }
    assert!(most > 8, "they have grown: {most}");
    let_run(&mut pool, false, 20);
    (100..=200).for_each(|n| drop(queue(&mut pool, of(n), at(20))));
    let_run(&mut pool, true, 20);
    assert_eq!(asked(&mut pool).len(), 4);
}

#[test]
fn a_turn_is_kept_for_a_second_again_after_fewer_were_out() {
    let mut pool = pool(config(10, 0));
    let of = |n, client: &str, tier| Submission { slots: Some(9), ..request(n, client, tier, Urgency::Normal, at(0)) };
    (1..=4).for_each(|n| drop(queue(&mut pool, of(n, "high", Tier::Enterprise), at(0))));
    for (id, grant) in &asked(&mut pool)[..3] {
        pool.slot_answered(id, *grant, Some(SlotAnswer::Granted), at(10));
    }
    (10..=40).for_each(|n| drop(queue(&mut pool, of(n, "high", Tier::Enterprise), at(1_500))));
    let low = queue(&mut pool, of(50, "low", Tier::Basic), at(1_500));
    assert_eq!(pool.request(&low).unwrap().phase, Phase::Waiting);
    assert!(asked(&mut pool).len() >= 4);
}

#[test]
fn there_is_enough_for_all_only_if_there_is_for_those_of_other_pools_too() {
    let mut pool = pool(config(80, 0));
    let of = |n, client: &str, tier| request(n, client, tier, Urgency::Normal, at(0));
    let half = Submission { demands: vec![demand("home", 40)], ..of(99, "holder", Tier::Basic) };
    let half = queue(&mut pool, half, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let id = RequestId::new(at(0), [9; 10], &"elsewhere".parse().unwrap());
    let order =
        LeaseOrder { amount: support::units(70), ..lease_order(&id, "between", Tier::Standard, Urgency::Normal) };
    assert!(matches!(pool.acquire_lease(order, at(1)), LeaseAnswer::NotNow { .. }));
    pool.report(&half, grant, used(0), at(2));
    (1..=15).for_each(|n| drop(queue(&mut pool, of(n, "high", Tier::Enterprise), at(3))));
    assert_eq!(asked(&mut pool).len(), 4);
    queue(&mut pool, of(30, "low", Tier::Basic), at(4));
    assert_eq!(asked(&mut pool), [], "with what it took there would be too little for the one between");
}

#[test]
fn a_submission_that_is_refused_grants_no_more_than_any_event() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(100, 0) });
    for n in 1..=60 {
        queue(&mut pool, request(n, &format!("client-{n}"), Tier::Standard, Urgency::Normal, at(0)), at(0));
    }
    let_run(&mut pool, true, 1);
    assert_eq!(asked(&mut pool).len(), MAX_GRANTS_PER_EVENT);
    let most = Submission {
        kind: Kind::Reservation,
        demands: vec![demand("home", 90)],
        ..request(99, "most", Tier::Basic, Urgency::Normal, at(2))
    };
    assert!(matches!(pool.submit(most, Mode::NowOrNever, at(2)), Submitted::Refused(_)));
    assert_eq!(asked(&mut pool).len(), MAX_GRANTS_PER_EVENT);
}
