//! Months: a hold is settled in the month that it was made in, and what the operator changes resets nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use rm_core::account::{Account, AccountConfig, ClientStatus, HoldRefusal};
use rm_core::id::{PoolId, RequestId};
use rm_core::period::{Period, parse_rfc3339};
use rm_core::priority::Tier;
use rm_core::request::{Kind, Settlement, Status};
use rm_core::units::{Instant, NanoUsd};

fn at(text: &str) -> Instant {
    parse_rfc3339(text).unwrap()
}

fn usd(cents: i64) -> NanoUsd {
    NanoUsd::from_nanos(cents.saturating_mul(10_000_000)).unwrap()
}

fn config(budget: NanoUsd, revision: i64) -> AccountConfig {
    AccountConfig {
        client: "client".parse().unwrap(),
        tier: Tier::Standard,
        budget,
        max_concurrent: 10,
        time_zone: "UTC".into(),
        status: ClientStatus::Active,
        revision,
    }
}

fn id(n: u8) -> RequestId {
    RequestId::new(at("2026-11-30T00:00:00Z"), [n; 10], &"pool".parse::<PoolId>().unwrap())
}

fn settlement(request: &RequestId, cost: NanoUsd) -> Settlement {
    Settlement {
        event: request.as_str().into(),
        request: request.clone(),
        client: "client".parse().unwrap(),
        status: Status::Succeeded,
        kind: Kind::Execution,
        at: at("2026-12-01T00:00:05Z"),
        lines: Vec::new(),
        cost,
        uncertain: false,
    }
}

#[test]
fn a_hold_before_midnight_is_settled_in_its_own_month() {
    let mut account = Account::restore(config(usd(100), 1), BTreeMap::new(), Vec::new());
    let (november, december) =
        (Period::month_of(at("2026-11-30T23:59:59.999Z")), Period::month_of(at("2026-12-01T00:00:00Z")));
    account.hold(&id(1), usd(90), Kind::Execution, november, at("2026-11-30T23:59:59.999Z")).unwrap();
    // The new month has all of its budget.
    account.hold(&id(2), usd(100), Kind::Execution, december, at("2026-12-01T00:00:00Z")).unwrap();
    let refused = account.hold(&id(3), usd(1), Kind::Execution, december, at("2026-12-01T00:00:01Z"));
    assert!(
        matches!(refused, Err(HoldRefusal::Budget { remaining: NanoUsd::ZERO, next_period }) if next_period == december.end)
    );
    assert_eq!(account.settle(&settlement(&id(1), usd(70)), december), november.month);
    assert_eq!((account.view(november).spent, account.view(november).held), (usd(70), NanoUsd::ZERO));
    assert_eq!((account.view(december).spent, account.view(december).held), (NanoUsd::ZERO, usd(100)));
}

#[test]
fn a_time_zone_that_changes_in_mid_month_begins_no_other_period() {
    let mut account = Account::restore(config(usd(100), 1), BTreeMap::new(), Vec::new());
    let now = at("2026-11-15T12:00:00Z");
    let utc = Period::month_of(now);
    account.hold(&id(1), usd(40), Kind::Execution, utc, now).unwrap();
    account.settle(&settlement(&id(1), usd(40)), utc);
    let tokyo = Period::month_in(now, |_| 9 * 3_600_000);
    assert_ne!(tokyo.start, utc.start);
    assert_eq!(account.view(tokyo).spent, usd(40));
    assert!(account.hold(&id(2), usd(61), Kind::Execution, tokyo, now).is_err());
}

#[test]
fn a_smaller_budget_refuses_at_once_and_a_larger_one_admits_at_once() {
    let mut account = Account::restore(config(usd(100), 1), BTreeMap::new(), Vec::new());
    let now = at("2026-11-15T12:00:00Z");
    let month = Period::month_of(now);
    account.hold(&id(1), usd(60), Kind::Execution, month, now).unwrap();
    account.configure(config(usd(50), 2));
    assert_eq!((account.view(month).held, account.view(month).remaining), (usd(60), NanoUsd::ZERO));
    assert!(account.hold(&id(2), NanoUsd::from_nanos(1).unwrap(), Kind::Execution, month, now).is_err());
    account.configure(config(usd(70), 3));
    account.hold(&id(2), usd(10), Kind::Execution, month, now).unwrap();
    // An older copy of the configuration changes nothing.
    account.configure(config(usd(1_000), 2));
    assert_eq!(account.view(month).budget, usd(70));
}

#[test]
fn a_use_that_is_reported_after_the_hold_went_back_belongs_to_the_month_of_the_hold() {
    let mut account = Account::restore(config(usd(100), 1), BTreeMap::new(), Vec::new());
    let november = Period::month_of(at("2026-11-30T23:59:00Z"));
    account.hold(&id(1), usd(90), Kind::Execution, november, at("2026-11-30T23:59:00Z")).unwrap();
    account.settle(&settlement(&id(1), NanoUsd::ZERO), november);
    let late = Settlement { event: format!("{}~late", id(1)), ..settlement(&id(1), usd(30)) };
    assert_eq!(account.settle(&late, november), november.month);
    assert_eq!(account.totals(november.month).spent, usd(30));
    assert_eq!(account.totals(Period::month_of(at("2026-12-01T00:00:05Z")).month).spent, NanoUsd::ZERO);
}
