//! Events that come late, too many at once, or after a crash: a pool that comes back from its store makes up for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::optimizer::{Applied, Strategy};
use rm_core::pool::{Effect, MAX_GRANTS_PER_EVENT, Pool, PoolConfig, Report, ReportOutcome, Retry, Stored, Submission};
use rm_core::pricing::Parts;
use rm_core::request::{Phase, Status, Usage};
use support::{at, config, failure, normal, pool, queue, run_until, started, stored, units, used};

/// The pool as its store has it.
fn crashed(before: &Pool, unsettled: Vec<String>, ms: i64) -> Pool {
    let mut after = Pool::restore(
        Stored {
            state: Some(before.state().clone()),
            requests: before.requests().cloned().collect(),
            unsettled,
            ..stored(before.config().clone())
        },
        at(ms),
    );
    after.on_wakeup(at(ms));
    after
}

#[test]
fn a_grant_that_was_half_made_is_given_back_and_made_again() {
    let mut before = pool(config(10, 0));
    let id = queue(&mut before, normal(1, 10, at(0)), at(0));
    before.take_effects();
    let mut after = crashed(&before, vec![], 1_000);
    let again = run_until(&mut after, at(1_000), at(2_000));
    assert_eq!((again.len(), &again[0].1), (1, &id));
    assert_eq!((after.request(&id).unwrap().grants, after.view(at(2_000)).reserved), (2, units(10)));
    // The slot that the first grant asked for comes after all, and goes back by that grant's number.
    after.slot_answered(&id, 1, Some(SlotAnswer::Granted), at(2_000));
    assert!(matches!(after.take_effects().as_slice(), [Effect::ReleaseSlot { grant: 1, .. }]));
}

#[test]
fn a_settlement_that_was_not_confirmed_is_sent_again_until_it_is() {
    let mut before = pool(config(10, 0));
    let id = queue(&mut before, normal(1, 10, at(0)), at(0));
    let (_, grant) = started(&mut before, at(0)).remove(0);
    before.report(&id, grant, used(10), at(1));
    let event = id.as_str().to_owned();
    let sent = Effect::Settle { event: event.clone() };
    assert!(before.take_effects().contains(&sent));
    let mut after = crashed(&before, vec![event.clone()], 500);
    assert_eq!(after.take_effects(), std::slice::from_ref(&sent));
    after.on_wakeup(at(5_000));
    assert_eq!(after.take_effects(), [sent]);
    after.settlement_confirmed(&event, at(5_001));
    assert_eq!((after.next_wakeup(at(5_001)), after.work_held()), (None, (0, 0)));
}

#[test]
fn a_slot_that_comes_too_late_goes_back() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(1, 1, at(0)), at(0));
    pool.take_effects();
    pool.cancel(&id, false, at(1));
    pool.take_effects();
    pool.slot_answered(&id, 1, Some(SlotAnswer::Granted), at(2));
    assert!(pool.take_effects().is_empty(), "its settlement frees the slot");
    let other = queue(&mut pool, normal(2, 1, at(0)), at(2));
    pool.take_effects();
    pool.slot_answered(&other, 1, None, at(3));
    pool.take_effects();
    pool.slot_answered(&other, 1, Some(SlotAnswer::Granted), at(4));
    let released = |effect: &Effect| matches!(effect, Effect::ReleaseSlot { grant: 1, ended: false, .. });
    assert!(pool.take_effects().iter().any(released), "it waits, and has no use for it");
}

#[test]
fn the_slot_of_a_hold_goes_back_while_the_request_waits() {
    let mut pool = pool(config(1, 0));
    queue(&mut pool, normal(1, 1, at(0)), at(0));
    started(&mut pool, at(0));
    queue(&mut pool, Submission { has_slot: true, ..normal(2, 1, at(0)) }, at(0));
    let effects = pool.take_effects();
    assert!(matches!(effects.as_slice(), [Effect::ReleaseSlot { grant: 0, ended: false, .. }]), "{effects:?}");
}

#[test]
fn an_older_configuration_changes_nothing() {
    let mut pool = pool(PoolConfig { revision: 5, ..config(10, 0) });
    pool.configure(PoolConfig { revision: 4, queue_cap: 1, ..config(10, 0) }, at(0));
    assert_eq!(pool.config().queue_cap, config(10, 0).queue_cap);
}

#[test]
fn an_attempt_has_no_more_time_than_its_deadline_leaves() {
    let mut pool = pool(config(10, 0));
    queue(&mut pool, Submission { deadline: Some(at(7_000)), has_slot: true, ..normal(1, 1, at(0)) }, at(1_000));
    assert!(matches!(pool.take_effects().as_slice(), [Effect::Start { limit_ms: 6_000, .. }]));
}

#[test]
fn what_one_event_may_not_grant_the_next_one_does() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(50, 0) });
    for n in 0..50 {
        queue(&mut pool, normal(n, 1, at(0)), at(0));
    }
    pool.configure(PoolConfig { revision: 2, ..config(50, 0) }, at(0));
    let asked = pool.take_effects().len();
    assert_eq!(asked, MAX_GRANTS_PER_EVENT);
    let mut now = at(0);
    let mut all = asked;
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= at(1_000)) {
        now = next;
        pool.on_wakeup(now);
        all += pool.take_effects().len();
    }
    assert_eq!(all, 50);
}

#[test]
fn what_was_done_for_a_request_besides_adds_up_and_is_stored() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(1, 1, at(0)), at(0));
    pool.take_changes();
    for (saved_bytes, sum) in [(10, 10), (5, 15)] {
        pool.note_applied(&id, Applied { strategy: Strategy::Compression, detail: "gzip".into(), saved_bytes });
        assert!(pool.take_changes().requests.contains(&id));
        let applied = &pool.request(&id).unwrap().applied;
        assert_eq!((applied.len(), applied[0].saved_bytes), (1, sum));
    }
}

#[test]
fn nobody_can_report_of_a_grant_that_never_started() {
    let mut pool = pool(PoolConfig { scheduler_running: false, ..config(10, 0) });
    let id = queue(&mut pool, normal(1, 1, at(0)), at(0));
    assert_eq!(pool.report(&id, 0, used(1), at(1)), ReportOutcome::Ignored);
}

#[test]
fn what_a_worker_that_did_not_answer_has_done_is_uncertain() {
    let end = |submission: Submission, now, report| {
        let mut pool = pool(config(10, 0));
        let id = queue(&mut pool, submission, at(0));
        let (_, grant) = started(&mut pool, at(0)).remove(0);
        pool.report(&id, grant, report, at(now));
        let end = pool.take_changes().ended.remove(0).end;
        (end.status, end.uncertain)
    };
    let failed = || Report::Failed { failure: failure(), retry: Retry::Backoff };
    let only = || Submission { max_attempts: 1, ..normal(1, 1, at(0)) };
    let hurried = || Submission { deadline: Some(at(50)), ..normal(1, 1, at(0)) };
    assert_eq!(end(only(), 10, Report::TimedOut), (Status::TimedOut, true));
    assert_eq!(end(only(), 10, failed()), (Status::Failed, false));
    assert_eq!(end(hurried(), 50, Report::TimedOut), (Status::Expired, true));
}

#[test]
fn a_busy_worker_is_asked_again_when_it_said_and_not_before() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(1, 1, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let busy = Report::Failed { failure: failure(), retry: Retry::Busy { pause_ms: Some(50_000) } };
    pool.report(&id, grant, busy, at(10));
    let due = |phase: &Phase| matches!(phase, Phase::Parked { until, .. } if *until >= at(50_010));
    assert!(due(&pool.request(&id).unwrap().phase));
}

#[test]
fn parts_that_are_more_than_the_use_do_not_count() {
    let mut pool = pool(config(10, 0));
    let id = queue(&mut pool, normal(1, 5, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let parts = Some(Parts { cached_input: units(9), output: units(2) });
    let usage = vec![Usage { pool: support::id_of("home"), amount: units(3), parts, is_share: false }];
    pool.report(&id, grant, Report::Succeeded { usage, remaining: vec![] }, at(1));
    let line = pool.take_changes().ended.remove(0).end.lines.remove(0);
    assert_eq!(line.parts, Parts { cached_input: units(1), output: units(2) });
}

#[test]
fn after_a_crash_too_settlements_are_sent_a_few_at_a_time() {
    let before = pool(config(10, 0));
    let mut after = crashed(&before, (0..100).map(|n| format!("event-{n}")).collect(), 5);
    let mut sent = 0;
    let mut now = at(5);
    while sent < 100 {
        let effects = after.take_effects();
        let part = effects.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count();
        assert!(part <= 16, "{part} at once");
        for effect in effects {
            if let Effect::Settle { event } = effect {
                after.settlement_confirmed(&event, now);
                sent += 1;
            }
        }
        now = after.next_wakeup(now).unwrap_or(now);
        assert!(now < at(5_000), "{sent} are sent");
        after.on_wakeup(now);
    }
}
