//! What is not finished by its deadline has expired, be it by a millisecond.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::pool::{Ended, Pool, ReportOutcome, Submission, Submitted};
use rm_core::request::{Phase, Status};
use support::{at, config, normal, pool, queue, started, used};

fn due(n: u64, deadline: Option<i64>) -> Submission {
    Submission {
        deadline: deadline.map(at),
        twin: Some("same".into()),
        client: "client".parse().unwrap(),
        slots: Some(10),
        ..normal(n, 5, at(0))
    }
}

fn ends(pool: &mut Pool) -> Vec<Ended> {
    pool.take_changes().ended
}

#[test]
fn an_answer_after_the_deadline_is_charged_and_is_no_success() {
    for (reported_at, status) in [(1_000, Status::Succeeded), (1_001, Status::Expired)] {
        let mut pool = pool(config(10, 0));
        let id = queue(&mut pool, due(1, Some(1_000)), at(0));
        let (_, grant) = started(&mut pool, at(0))[0];
        assert_eq!(pool.report(&id, grant, used(3), at(reported_at)), ReportOutcome::Ended);
        let end = ends(&mut pool).remove(0).end;
        assert_eq!((end.status, end.cost, end.uncertain), (status, support::cost(3), false));
        let code = end.failure.map(|failure| failure.code);
        assert_eq!(code.as_deref(), (status == Status::Expired).then_some("expired"));
        assert_eq!(pool.view(at(reported_at)).available, support::units(7));
    }
}

#[test]
fn those_that_wait_for_the_same_have_an_answer_that_came_too_late_for_another() {
    let mut pool = pool(config(10, 0));
    let leader = queue(&mut pool, Submission { timeout_ms: 2_000, ..due(1, Some(1_000)) }, at(0));
    let follower = queue(&mut pool, Submission { timeout_ms: 2_000, ..due(2, Some(5_000)) }, at(0));
    assert_eq!(pool.request(&follower).unwrap().phase, Phase::Following { leader: leader.clone() });
    let (_, grant) = started(&mut pool, at(0))[0];
    pool.report(&leader, grant, used(5), at(1_004));
    let ends: Vec<_> = ends(&mut pool).into_iter().map(|ended| (ended.request.id, ended.end.status)).collect();
    assert_eq!(ends, [(leader, Status::Expired), (follower, Status::Succeeded)]);
}

#[test]
fn a_kept_result_that_comes_after_the_deadline_is_no_success() {
    for (served_at, status) in [(1_000, Status::Succeeded), (1_001, Status::Expired)] {
        let mut pool = pool(config(10, 0));
        assert_eq!(pool.serve(due(1, Some(1_000)), &[], "kept".into(), at(served_at)), Submitted::Accepted);
        let end = ends(&mut pool).remove(0).end;
        assert_eq!((end.status, end.cost.is_none()), (status, true));
    }
}
