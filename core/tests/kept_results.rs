//! Requests whose result is kept: they end with it at once, and what they would have cost is saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::optimizer::Strategy;
use rm_core::pipeline::Step;
use rm_core::pool::{Effect, Refusal, Submission, Submitted};
use rm_core::priority::Urgency;
use rm_core::request::{Status, Usage};
use rm_core::units::NanoUsd;
use support::{at, config, cost, demand, ends, halved, id_of, pool, queue, twin, units};

#[test]
fn a_kept_result_ends_a_request_at_once_without_tokens_or_slot() {
    let mut settings = config(10, 0);
    settings.scheduler_running = false;
    let mut pool = pool(settings);
    let usage = [Usage { pool: id_of("home"), amount: units(3), parts: None, is_share: false }];
    pool.serve(twin(1, Urgency::Normal), &usage, "kept".into(), at(0));
    let ended = ends(&mut pool);
    assert_eq!(
        (ended[0].end.status, ended[0].end.cost, ended[0].end.lines[0].baseline()),
        (Status::Succeeded, NanoUsd::ZERO, cost(3))
    );
    assert_eq!(ended[0].end.lines[0].saved.by(Strategy::Cache), cost(3));
    assert_eq!((pool.view(at(0)).available, pool.requests().count()), (units(10), 0));
    let effects = pool.take_effects();
    assert!(
        effects.iter().all(|effect| matches!(effect, Effect::Settle { .. } | Effect::Finished { .. })),
        "{effects:?}"
    );
}

#[test]
fn a_kept_result_ends_a_request_once() {
    let mut pool = pool(config(10, 0));
    let usage = [Usage { pool: id_of("home"), amount: units(3), parts: None, is_share: false }];
    assert_eq!(pool.serve(twin(1, Urgency::Normal), &usage, "kept".into(), at(30_000)), Submitted::Accepted);
    assert_eq!(ends(&mut pool).len(), 1);
    queue(&mut pool, twin(2, Urgency::Normal), at(0));
    assert_eq!(pool.serve(twin(2, Urgency::Normal), &usage, "kept".into(), at(0)), Submitted::Existing);
    assert!(ends(&mut pool).is_empty(), "it runs");
}

#[test]
fn a_kept_result_says_nothing_of_a_pool_that_a_request_does_not_need() {
    let mut pool = pool(config(10, 0));
    let usage = [Usage { pool: id_of("other"), amount: units(3), parts: None, is_share: false }];
    let other = Submission { demands: vec![demand("home", 0), demand("other", 3)], ..twin(1, Urgency::Normal) };
    pool.serve(other, &usage, "kept".into(), at(0));
    let pools: Vec<_> = ends(&mut pool)[0].end.lines.iter().map(|line| line.pool.clone()).collect();
    assert_eq!(pools, [id_of("other")]);
}

#[test]
fn a_kept_use_of_several_steps_counts_once_and_an_old_submission_not_at_all() {
    let step = Step { worker: None, demands: vec![demand("home", 5)], max_attempts: 1, timeout_ms: 1_000 };
    let mut pool = pool(config(10, 0));
    let usage = [Usage { pool: id_of("home"), amount: units(6), parts: None, is_share: false }];
    let two = |n| Submission { later: vec![step.clone()], ..twin(n, Urgency::Normal) };
    pool.serve(two(1), &usage, "kept".into(), at(0));
    let saved =
        ends(&mut pool)[0].end.lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.baseline()));
    assert_eq!(saved, cost(6));
    let late = pool.serve(two(2), &usage, "kept".into(), at(40_000));
    assert_eq!(late, Submitted::Refused(Refusal::Stale));
}

#[test]
fn a_kept_result_in_a_window_saves_the_lower_price() {
    let mut pool = pool(config(10, 0));
    let usage = [Usage { pool: id_of("home"), amount: units(4), parts: None, is_share: false }];
    for (n, now, saved) in [(1, 40, 4), (2, 60, 2)] {
        let submission = Submission { held_at: at(now), ..halved(twin(n, Urgency::Normal)) };
        pool.serve(submission, &usage, "kept".into(), at(now));
        let mut ended = ends(&mut pool).remove(0);
        let line = ended.end.lines.remove(0);
        assert_eq!((line.saved.by(Strategy::Cache), line.baseline()), (cost(saved), cost(saved)));
        assert!(ended.request.lines_in_all()[0].is_like(&line), "what it used is told beside what it needed");
    }
}
