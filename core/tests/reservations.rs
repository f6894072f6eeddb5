//! Reservations: what their owner says it used is charged once, whatever becomes of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::pool::{Effect, Mode, Pool, Refusal, ReportOutcome, Submission, Submitted};
use rm_core::request::{Kind, Status, Usage};
use rm_core::units::NanoUsd;
use support::{PRICE, at, config, id_of, normal, pool, units};

fn use_of(n: u64) -> Vec<Usage> {
    vec![Usage { pool: id_of("home"), amount: units(n), parts: None, is_share: false }]
}

/// A reservation of six of ten units, for ten seconds.
fn reserved() -> (Pool, RequestId) {
    let mut pool = pool(config(10, 0));
    let submission = Submission { kind: Kind::Reservation, timeout_ms: 10_000, ..normal(1, 6, at(0)) };
    let id = submission.id.clone();
    assert_eq!(pool.submit(submission, Mode::NowOrNever, at(0)), Submitted::Accepted);
    assert_eq!(pool.take_effects(), [Effect::Reserved { id: id.clone(), expires_at: at(10_000) }]);
    (pool, id)
}

/// How it ended, and the units that it was charged for.
fn ended(pool: &mut Pool) -> (Status, i64) {
    let changes = pool.take_changes();
    assert_eq!((changes.ended.len(), changes.settlements.len()), (1, 1));
    (changes.ended[0].end.status, changes.settlements[0].cost.nanos() / PRICE)
}

#[test]
fn what_it_used_in_all_is_charged_and_the_rest_goes_back() {
    let (mut pool, id) = reserved();
    assert_eq!(pool.consume(&id, use_of(2), false, at(1)), ReportOutcome::Retrying);
    assert_eq!(pool.consume(&id, use_of(4), false, at(2)), ReportOutcome::Retrying);
    // An earlier message that comes later: what is used stays used.
    assert_eq!(pool.consume(&id, use_of(2), true, at(3)), ReportOutcome::Ended);
    assert_eq!(pool.consume(&id, use_of(5), true, at(4)), ReportOutcome::Ignored);
    assert_eq!(ended(&mut pool), (Status::Succeeded, 4));
    assert_eq!(pool.view(at(4)).available, units(6));
}

#[test]
fn one_that_runs_out_is_charged_for_what_was_said() {
    let (mut pool, id) = reserved();
    pool.consume(&id, use_of(2), false, at(1));
    pool.on_wakeup(at(10_000));
    assert_eq!(ended(&mut pool), (Status::Expired, 2));
    assert_eq!((pool.view(at(10_000)).available, pool.ledger().expired), (units(8), units(4).micros()));
}

#[test]
fn one_that_is_released_is_charged_for_what_was_said() {
    let (mut pool, id) = reserved();
    pool.consume(&id, use_of(3), false, at(1));
    assert_eq!(pool.release(&id, at(2)), ReportOutcome::Ended);
    assert_eq!(pool.release(&id, at(3)), ReportOutcome::Ignored);
    assert_eq!(ended(&mut pool), (Status::Succeeded, 3));
}

#[test]
fn what_it_used_beyond_is_held_as_soon_as_it_is_said() {
    let (mut pool, id) = reserved();
    pool.consume(&id, use_of(6), false, at(1));
    assert_eq!(pool.take_effects(), [], "as was held");
    pool.consume(&id, use_of(9), false, at(2));
    let client = pool.request(&id).unwrap().client.clone();
    let least_hold = NanoUsd::from_nanos(9 * PRICE).unwrap();
    assert_eq!(pool.take_effects(), [Effect::RaiseHold { id, client, least_hold }]);
}

#[test]
fn one_that_is_refused_is_told_to_come_after_those_that_wait() {
    let mut pool = pool(config(20, 1));
    let of = |n, amount| Submission { kind: Kind::Reservation, ..normal(n, amount, at(0)) };
    assert_eq!(pool.submit(of(1, 20), Mode::NowOrNever, at(0)), Submitted::Accepted);
    support::queue(&mut pool, normal(2, 15, at(0)), at(0));
    let refused = |pool: &mut Pool, amount| match pool.submit(of(3, amount), Mode::NowOrNever, at(1)) {
        Submitted::Refused(Refusal::NotNow { retry_at }) => retry_at,
        other => panic!("{other:?}"),
    };
    assert_eq!((refused(&mut pool, 1), refused(&mut pool, 15)), (at(16_000), at(30_000)));
}
