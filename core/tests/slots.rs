//! Slots: who is refused one is told when one is free, and a lost slot is found.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use rm_core::account::{
    Account, AccountConfig, AccountEffect, AtHome, ClientStatus, HoldRefusal, ORPHAN_AFTER_MS, SlotAnswer,
};
use rm_core::id::{PoolId, RequestId};
use rm_core::period::Period;
use rm_core::priority::Tier;
use rm_core::request::{Kind, Settlement, Status};
use rm_core::units::{Instant, NanoUsd};

const NOW: Instant = Instant::from_millis(1_800_000_000_000);

fn account() -> Account {
    let config = AccountConfig {
        time_zone: "UTC".into(),
        client: "client".parse().unwrap(),
        tier: Tier::Basic,
        budget: NanoUsd::MAX,
        max_concurrent: 1,
        status: ClientStatus::Active,
        revision: 1,
    };
    Account::restore(config, BTreeMap::new(), Vec::new())
}

fn held(account: &mut Account, n: u8) -> RequestId {
    let home: PoolId = "home".parse().unwrap();
    let id = RequestId::new(NOW, [n; 10], &home);
    account.hold(&id, NanoUsd::ZERO, Kind::Execution, Period::month_of(NOW), NOW).unwrap();
    id
}

#[test]
fn who_is_refused_a_slot_is_told_when_one_is_free() {
    let mut account = account();
    let (first, second) = (held(&mut account, 1), held(&mut account, 2));
    let pool: PoolId = "other".parse().unwrap();
    assert_eq!(account.acquire_slot(&second, 1, &pool, NOW, NOW), SlotAnswer::Full);
    assert!(account.take_effects().is_empty());
    account.release_slot(&first, 0);
    assert_eq!(account.take_effects(), [AccountEffect::WakePool { pool: pool.clone() }]);
    assert_eq!(account.acquire_slot(&second, 2, &pool, NOW, NOW), SlotAnswer::Granted);
    account.release_slot(&second, 1);
    assert_eq!(account.acquire_slot(&first, 1, &pool, NOW, NOW), SlotAnswer::Full, "a release for an earlier grant");
}

#[test]
fn the_pool_whose_request_goes_first_among_the_clients_is_told_first() {
    let mut account = account();
    let first = held(&mut account, 1);
    let pools: [PoolId; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
    // Of `b` one asks that is older than the one before it.
    for (n, (pool, ms)) in (2..).zip([(0, 3), (1, 9), (2, 2), (1, 1)]) {
        let id = held(&mut account, n);
        assert_eq!(account.acquire_slot(&id, 1, &pools[pool], NOW.plus(ms), NOW), SlotAnswer::Full);
    }
    account.release_slot(&first, 0);
    for pool in [1, 2] {
        assert_eq!(account.take_effects(), [AccountEffect::WakePool { pool: pools[pool].clone() }], "one at a time");
        account.wake_next();
    }
    account.take_effects();
    account.acquire_slot(&first, 1, &pools[1], NOW, NOW);
    account.wake_next();
    assert_eq!(account.take_effects(), [], "the slot is taken");
}

#[test]
fn one_that_comes_while_others_wait_for_a_slot_asks_like_them() {
    let mut account = account();
    let (first, second) = (held(&mut account, 1), held(&mut account, 2));
    let pool: PoolId = "other".parse().unwrap();
    for waiting in ["other", "more"] {
        account.acquire_slot(&second, 1, &waiting.parse().unwrap(), NOW, NOW);
    }
    account.release_slot(&first, 0);
    let id = RequestId::new(NOW, [3; 10], &pool);
    let mut hold = || account.hold(&id, NanoUsd::ZERO, Kind::Execution, Period::month_of(NOW), NOW).unwrap();
    assert!(!hold().slot);
}

#[test]
fn a_slot_whose_release_was_lost_is_found() {
    let mut account = account();
    let id = held(&mut account, 1);
    let due = NOW.plus(ORPHAN_AFTER_MS);
    assert_eq!(account.next_wakeup(), Some(due));
    account.on_wakeup(due, 16);
    assert_eq!(account.take_effects(), [AccountEffect::AskHome { id: id.clone(), slot: Some(0) }]);
    account.home_answered(&id, Some(0), AtHome::Busy, due);
    assert_eq!(account.view(Period::month_of(NOW)).running, 1, "it runs");
    account.home_answered(&id, Some(0), AtHome::Waiting, due);
    assert_eq!(account.view(Period::month_of(NOW)).running, 0, "it had no use for its slot");
    assert_eq!(account.next_wakeup(), None, "it is known at home, and has no slot");
    account.home_answered(&id, None, AtHome::Unknown, due);
    assert!(account.held_for(&id).is_none(), "its pool never heard of it");
}

#[test]
fn who_waits_for_a_slot_is_told_when_a_run_is_settled_or_more_are_allowed() {
    let mut account = account();
    let (first, second) = (held(&mut account, 1), held(&mut account, 2));
    let pool: PoolId = "other".parse().unwrap();
    let wake = [AccountEffect::WakePool { pool: pool.clone() }];
    assert_eq!(account.acquire_slot(&second, 1, &pool, NOW, NOW), SlotAnswer::Full);
    account.configure(AccountConfig { max_concurrent: 2, revision: 2, ..account.config().clone() });
    assert_eq!(account.take_effects(), wake);
    account.configure(AccountConfig { max_concurrent: 1, revision: 3, ..account.config().clone() });
    assert_eq!(account.acquire_slot(&second, 2, &pool, NOW, NOW), SlotAnswer::Full);
    let settlement = Settlement {
        event: first.as_str().into(),
        request: first,
        client: "client".parse().unwrap(),
        status: Status::Succeeded,
        kind: Kind::Execution,
        at: NOW,
        lines: Vec::new(),
        cost: NanoUsd::ZERO,
        uncertain: false,
    };
    account.settle(&settlement, Period::month_of(NOW));
    assert_eq!(account.take_effects(), wake);
    assert_eq!(account.acquire_slot(&second, 3, &pool, NOW, NOW), SlotAnswer::Granted);
}

#[test]
fn a_reservation_takes_no_slot() {
    let mut account = account();
    let id = RequestId::new(NOW, [7; 10], &"home".parse().unwrap());
    let hold = account.hold(&id, NanoUsd::ZERO, Kind::Reservation, Period::month_of(NOW), NOW).unwrap();
    assert_eq!((hold.slot, account.view(Period::month_of(NOW)).running), (false, 0));
}

#[test]
fn a_hold_that_is_asked_for_twice_is_one_hold() {
    let mut account = account();
    let id = RequestId::new(NOW, [7; 10], &"home".parse().unwrap());
    let amount = NanoUsd::from_nanos(70).unwrap();
    let month = Period::month_of(NOW);
    let first = account.hold(&id, amount, Kind::Execution, month, NOW).unwrap();
    let again = account.hold(&id, amount, Kind::Execution, month, NOW.plus(5)).unwrap();
    assert_eq!(first, again);
    assert_eq!((account.view(month).held, account.view(month).running), (amount, 1));
    account.abandon(&id);
    assert_eq!((account.view(month).held, account.view(month).running), (NanoUsd::ZERO, 0));
}

#[test]
fn a_slot_is_asked_after_again_while_it_is_held() {
    let mut account = account();
    let id = held(&mut account, 1);
    let due = NOW.plus(ORPHAN_AFTER_MS);
    account.on_wakeup(due, 16);
    account.home_answered(&id, Some(0), AtHome::Busy, due);
    assert_eq!(account.next_wakeup(), Some(due.plus(ORPHAN_AFTER_MS)), "its release may be lost yet");
}

#[test]
fn a_suspended_client_begins_nothing() {
    let mut account = account();
    account.configure(AccountConfig { status: ClientStatus::Suspended, revision: 2, ..account.config().clone() });
    let id = RequestId::new(NOW, [7; 10], &"home".parse().unwrap());
    let refused = account.hold(&id, NanoUsd::ZERO, Kind::Execution, Period::month_of(NOW), NOW);
    assert_eq!(refused, Err(HoldRefusal::Suspended));
    assert!(account.held_for(&id).is_none());
}

#[test]
fn a_run_that_is_cancelled_frees_its_slot_waits_for_nothing_and_keeps_its_hold() {
    let mut account = account();
    let id = RequestId::new(NOW, [7; 10], &"home".parse().unwrap());
    let (amount, month) = (NanoUsd::from_nanos(70).unwrap(), Period::month_of(NOW));
    account.hold(&id, amount, Kind::Execution, month, NOW).unwrap();
    account.cancelled(&id, 1);
    let view = account.view(month);
    assert_eq!((view.running, view.queued, view.held), (0, 0, amount));
}

#[test]
fn a_hold_is_raised_and_never_lowered_before_its_end() {
    let mut account = account();
    let id = held(&mut account, 1);
    let period = Period::month_of(NOW);
    let nanos = |n| NanoUsd::from_nanos(n).unwrap();
    for (least, held) in [(5, 5), (3, 5), (7, 7)] {
        account.raise_hold(&id, nanos(least));
        assert_eq!(account.totals(period.month).held, nanos(held));
        assert_eq!(account.held_for(&id).unwrap().amount, nanos(held));
    }
    account.raise_hold(&RequestId::new(NOW, [9; 10], &"home".parse().unwrap()), nanos(9));
    assert_eq!(account.totals(period.month).held, nanos(7), "what has ended is held for no more");
    account.abandon(&id);
    assert_eq!(account.totals(period.month).held, NanoUsd::ZERO);
}
