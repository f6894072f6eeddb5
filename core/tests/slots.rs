//! Slots: who is refused one is told when one is free, and a lost slot is found.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use rm_core::account::{Account, AccountConfig, AccountEffect, AtHome, ClientStatus, ORPHAN_AFTER_MS, SlotAnswer};
use rm_core::id::{PoolId, RequestId};
use rm_core::period::Period;
use rm_core::priority::Tier;
use rm_core::request::Kind;
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
    assert_eq!(account.acquire_slot(&second, 1, &pool, NOW), SlotAnswer::Full);
    assert!(account.take_effects().is_empty());
    account.release_slot(&first, 0);
    assert_eq!(account.take_effects(), [AccountEffect::WakePool { pool: pool.clone() }]);
    assert_eq!(account.acquire_slot(&second, 2, &pool, NOW), SlotAnswer::Granted);
    account.release_slot(&second, 1);
    assert_eq!(account.acquire_slot(&first, 1, &pool, NOW), SlotAnswer::Full, "a release for an earlier grant");
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
