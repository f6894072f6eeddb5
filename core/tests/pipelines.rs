//! Pipelines: each step has its own tokens, slot and worker; the bill is that of all that were done.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::pipeline::Step;
use rm_core::pool::{CancelOutcome, Effect, Mode, Pool, Refusal, Report, ReportOutcome, Retry, Submission, Submitted};
use rm_core::priority::Urgency;
use rm_core::request::{End, Phase, Status};
use rm_core::units::{NanoUsd, Tokens};
use support::{PRICE, at, config, demand, failure, id_of, normal, pool, queue, started, units, used};

fn step(amount: u64, attempts: u32) -> Step {
    Step { worker: None, demands: vec![demand("home", amount)], max_attempts: attempts, timeout_ms: 1_000 }
}

/// A pipeline whose first step needs `first`, and whose later ones need the rest.
fn pipeline(n: u64, first: u64, later: &[u64]) -> Submission {
    Submission { later: later.iter().map(|amount| step(*amount, 2)).collect(), ..normal(n, first, at(0)) }
}

fn one(pool: &mut Pool, ms: i64) -> (RequestId, u32) {
    let mut started = started(pool, at(ms));
    assert_eq!(started.len(), 1, "{started:?}");
    started.remove(0)
}

fn the_end(pool: &mut Pool) -> End {
    let mut ended = pool.take_changes().ended;
    assert_eq!(ended.len(), 1);
    ended.remove(0).end
}

fn cost(amount: i64) -> NanoUsd {
    NanoUsd::from_nanos(amount * PRICE).unwrap()
}

#[test]
fn each_step_takes_its_tokens_when_it_is_due_and_gives_back_what_it_did_not_use() {
    let mut pool = pool(config(10, 0));
    queue(&mut pool, pipeline(1, 2, &[7, 3]), at(0));
    let (id, first) = one(&mut pool, 0);
    assert_eq!((pool.view(at(0)).available, pool.view(at(0)).reserved), (units(8), units(2)));
    assert_eq!(pool.report(&id, first, used(1), at(1)), ReportOutcome::StepEnded { step: 0 });
    let (_, second) = one(&mut pool, 1);
    assert_eq!((pool.view(at(1)).available, pool.view(at(1)).reserved), (units(2), units(7)));
    assert_eq!(pool.report(&id, second, used(5), at(2)), ReportOutcome::StepEnded { step: 1 });
    let (_, third) = one(&mut pool, 2);
    assert!(pool.take_changes().settlements.is_empty(), "it is charged at its end");
    assert_eq!(pool.report(&id, third, used(3), at(3)), ReportOutcome::Ended);
    assert_eq!((pool.view(at(3)).available, pool.view(at(3)).reserved), (units(1), Tokens::ZERO));
    let changes = pool.take_changes();
    let (ended, settlement) = (&changes.ended[0], &changes.settlements[0]);
    assert_eq!((ended.end.status, ended.end.cost, settlement.cost), (Status::Succeeded, cost(9), cost(9)));
    let lines: Vec<_> = settlement.lines.iter().map(|line| (line.actual, line.cost)).collect();
    assert_eq!(lines, [(units(9), cost(9))], "one line for one pool and price");
    assert_eq!((ended.request.past.len(), ended.request.attempts_in_all()), (3, 3));
}

#[test]
fn a_step_that_says_nothing_of_its_use_has_used_what_was_reserved() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, pipeline(1, 2, &[3]), at(0));
    let (_, first) = one(&mut pool, 0);
    let silent = || Report::Succeeded { usage: vec![], remaining: vec![] };
    pool.report(&id, first, silent(), at(1));
    assert_eq!(pool.view(at(1)).available, units(5), "two are used, and three reserved for the second");
    assert_eq!(pool.request(&id).unwrap().past[0].lines[0].actual, units(2));
    let (_, second) = one(&mut pool, 1);
    pool.report(&id, second, silent(), at(2));
    assert_eq!((pool.view(at(2)).available, the_end(&mut pool).cost), (units(5), cost(5)));
}

#[test]
fn a_step_gives_its_slot_back() {
    let mut pool = pool(config(10, 0));
    let mut submission = pipeline(1, 2, &[20]);
    submission.later[0].demands = vec![demand("home", 10)];
    let id = queue(&mut pool, submission, at(0));
    let (_, grant) = one(&mut pool, 0);
    pool.report(&id, grant, used(2), at(1));
    let released =
        |effect: &Effect| matches!(effect, Effect::ReleaseSlot { grant: of, ended: false, .. } if *of == grant);
    assert_eq!(pool.take_effects().iter().filter(|effect| released(effect)).count(), 1);
    assert_eq!(pool.request(&id).unwrap().phase, Phase::Waiting, "the next step's tokens are not there");
}

#[test]
fn a_step_that_took_more_than_was_held_for_it_raises_the_hold_before_the_next_one_runs() {
    let mut pool = pool(config(10, 10));
    let id = queue(&mut pool, pipeline(1, 2, &[3, 4]), at(0));
    let (_, first) = one(&mut pool, 0);
    pool.report(&id, first, used(6), at(1));
    let effects = pool.take_effects();
    let raised = |effect: &Effect| match effect {
        Effect::RaiseHold { least_hold, .. } => Some(*least_hold),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(raised).collect::<Vec<_>>(), [cost(6 + 3 + 4)]);
    let asked = |effect: &Effect| match effect {
        Effect::AcquireSlot { least_hold, .. } => Some(*least_hold),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(asked).collect::<Vec<_>>(), [cost(13)], "if that gets lost");
    let mut pool = self::pool(config(10, 0));
    let id = queue(&mut pool, pipeline(1, 2, &[3, 4]), at(0));
    let (_, first) = one(&mut pool, 0);
    pool.report(&id, first, used(1), at(1));
    assert_eq!(pool.take_effects().iter().filter_map(raised).count(), 0, "less is no news");
}

#[test]
fn a_report_that_comes_twice_is_not_that_of_the_next_step() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, pipeline(1, 1, &[10, 1]), at(0));
    let (_, first) = one(&mut pool, 0);
    assert_eq!(pool.report(&id, first, used(1), at(1)), ReportOutcome::StepEnded { step: 0 });
    assert_eq!(pool.report(&id, first, used(1), at(2)), ReportOutcome::Ignored);
    assert_eq!(pool.request(&id).unwrap().step(), 1);
}

#[test]
fn what_was_done_is_charged_though_a_later_step_fails() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, pipeline(1, 2, &[3, 4]), at(0));
    let (_, first) = one(&mut pool, 0);
    pool.report(&id, first, used(2), at(1));
    let (_, second) = one(&mut pool, 1);
    let refused = Report::Failed { failure: failure(), retry: Retry::No };
    assert_eq!(pool.report(&id, second, refused, at(2)), ReportOutcome::Ended);
    let end = the_end(&mut pool);
    assert_eq!((end.status, end.cost), (Status::Failed, cost(2)));
    assert_eq!(pool.view(at(2)).available, units(8));
}

#[test]
fn what_was_done_is_charged_though_a_later_step_is_cancelled() {
    for reports in [true, false] {
        let mut pool = pool(config(10, 0));
        let id = queue(&mut pool, pipeline(1, 2, &[3, 4]), at(0));
        let (_, first) = one(&mut pool, 0);
        pool.report(&id, first, used(2), at(1));
        let (_, second) = one(&mut pool, 1);
        assert_eq!(pool.cancel(&id, false, at(2)), CancelOutcome::Cancelled);
        assert_eq!(the_end(&mut pool).cost, cost(2));
        assert_eq!(pool.view(at(2)).available, units(8), "its tokens go back at once");
        if reports {
            assert_eq!(pool.report(&id, second, used(1), at(3)), ReportOutcome::ChargedLate);
        } else {
            pool.on_wakeup(at(60_000));
        }
        let settlements = pool.take_changes().settlements;
        let costs: Vec<NanoUsd> = settlements.iter().map(|settlement| settlement.cost).collect();
        assert_eq!(costs, [if reports { cost(3) } else { cost(2) }]);
    }
}

#[test]
fn a_pipeline_that_is_cancelled_between_two_steps_is_charged_for_the_first() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, pipeline(1, 2, &[10]), at(0));
    let (_, first) = one(&mut pool, 0);
    pool.report(&id, first, used(2), at(1));
    assert_eq!(pool.cancel(&id, false, at(2)), CancelOutcome::Cancelled);
    let end = the_end(&mut pool);
    assert_eq!((end.status, end.cost), (Status::Cancelled, cost(2)));
}

#[test]
fn each_step_has_its_own_attempts() {
    let again = || Report::Failed { failure: failure(), retry: Retry::Backoff };
    let mut pool = pool(config(10, 10));
    let id = queue(&mut pool, Submission { max_attempts: 2, ..pipeline(1, 1, &[1]) }, at(0));
    let (_, first) = one(&mut pool, 0);
    assert_eq!(pool.report(&id, first, again(), at(1)), ReportOutcome::Retrying);
    pool.on_wakeup(at(1_000));
    let (_, second) = one(&mut pool, 1_000);
    assert_eq!(pool.report(&id, second, used(1), at(1_001)), ReportOutcome::StepEnded { step: 0 });
    let (_, third) = one(&mut pool, 1_001);
    assert_eq!(pool.report(&id, third, again(), at(1_002)), ReportOutcome::Retrying, "it was the first of two");
    pool.on_wakeup(at(3_000));
    let (_, fourth) = one(&mut pool, 3_000);
    assert_eq!(pool.report(&id, fourth, again(), at(3_001)), ReportOutcome::Ended);
}

#[test]
fn a_step_that_needs_nothing_of_its_home_waits_for_none_of_its_tokens() {
    let mut pool = pool(config(10, 0));
    let mut submission = pipeline(1, 10, &[]);
    submission.later = vec![Step { demands: vec![demand("home", 0), demand("other", 2)], ..step(0, 1) }];
    let id = queue(&mut pool, submission, at(0));
    let (_, first) = one(&mut pool, 0);
    queue(&mut pool, normal(2, 10, at(0)), at(0));
    pool.report(&id, first, used(10), at(1));
    assert_eq!(one(&mut pool, 1).0, id, "the pool is empty, and somebody waits for it");
    let other = pool.request(&id).unwrap().others()[0].pool.clone();
    assert_eq!(other, id_of("other"));
}

#[test]
fn a_pipeline_with_a_step_that_can_never_run_is_refused() {
    let mut pool = pool(config(10, 10));
    let refused = pool.submit(pipeline(1, 1, &[11]), Mode::Queue, at(0));
    assert_eq!(refused, Submitted::Refused(Refusal::Never));
}

#[test]
fn steps_at_different_prices_have_lines_of_their_own() {
    let mut pool = pool(config(10, 0));
    let mut submission = pipeline(1, 2, &[2]);
    submission.later[0].demands[0].unit_price = cost(10);
    let id = queue(&mut pool, submission, at(0));
    for ms in 0..2 {
        let (_, grant) = one(&mut pool, ms);
        pool.report(&id, grant, used(1), at(ms + 1));
    }
    let end = the_end(&mut pool);
    let lines: Vec<NanoUsd> = end.lines.iter().map(|line| line.cost).collect();
    assert_eq!((lines, end.cost), (vec![cost(1), cost(10)], cost(11)));
}

#[test]
fn a_cancelled_run_that_failed_is_charged_nothing() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(1, 2, at(0)), at(0));
    let (_, grant) = one(&mut pool, 0);
    pool.cancel(&id, false, at(1));
    pool.report(&id, grant, Report::Failed { failure: failure(), retry: Retry::Backoff }, at(2));
    let settlements = pool.take_changes().settlements;
    assert_eq!((settlements.len(), settlements[0].cost), (1, NanoUsd::ZERO));
    assert_eq!(pool.view(at(2)).available, units(10));
}

#[test]
fn a_step_that_waits_for_as_long_as_any_may_is_not_said_to_have_waited_longer_than_its_lane_allows() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, Submission { urgency: Urgency::Immediate, ..pipeline(1, 2, &[9]) }, at(0));
    let (_, first) = one(&mut pool, 0);
    assert_eq!(pool.report(&id, first, used(2), at(1)), ReportOutcome::StepEnded { step: 0 });
    pool.on_wakeup(at(24 * 3_600_000));
    let failure = the_end(&mut pool).failure.unwrap();
    assert_eq!(failure.message, "it waited for longer than any request may");
}
