//! Single histories of a pool, step by step: what a grant takes and gives back, and whose word counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use rm_core::account::SlotAnswer;
use rm_core::fair_share::FairShare;
use rm_core::id::{PoolId, RequestId};
use rm_core::lane::Lanes;
use rm_core::pool::{
    CancelOutcome, Effect, LeaseAnswer, LeaseEnd, Mode, Pool, PoolConfig, Refusal, Report, ReportOutcome, Retry,
    Signal, Stored, Submission, Submitted,
};
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::request::{Demand, Failure, Kind, Status, Usage};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, NanoUsd, Tokens};

fn at(ms: i64) -> Instant {
    Instant::from_millis(1_800_000_000_000 + ms)
}

fn units(n: u64) -> Tokens {
    Tokens::from_units(n).unwrap()
}

fn id_of(name: &str) -> PoolId {
    name.parse().unwrap()
}

fn pool(capacity: u64, refill: u64) -> Pool {
    let config = PoolConfig {
        pool: id_of("home"),
        unit: "u".into(),
        limits: BucketLimits { capacity: units(capacity), refill_per_second: units(refill), window_cap: false },
        low_water_percent: 10,
        queue_cap: 100,
        weights: Weights::default(),
        lanes: Lanes::default(),
        partitions: Vec::new(),
        off_peak: None,
        template_windows: std::collections::BTreeMap::new(),
        scheduler_running: true,
        revision: 1,
    };
    let stored = Stored {
        config,
        state: None,
        fairness: FairShare::default(),
        requests: vec![],
        leases: vec![],
        unsettled: vec![],
    };
    Pool::restore(stored, at(0))
}

fn request(n: u8, kind: Kind, amounts: &[(&str, u64)]) -> Submission {
    Submission {
        id: RequestId::new(at(0), [n; 10], &id_of("home")),
        client: format!("client-{n}").parse().unwrap(),
        tier: Tier::Standard,
        kind,
        urgency: Urgency::Normal,
        held_at: at(0),
        deadline: None,
        demands: amounts
            .iter()
            .map(|(name, amount)| Demand::flat(id_of(name), units(*amount), NanoUsd::from_nanos(1_000).unwrap()))
            .collect(),
        max_attempts: 3,
        timeout_ms: 1_000,
        slots: None,
        applied: Vec::new(),
        twin: None,
        batch: None,
        waits_for: None,
        work: None,
        has_slot: true,
        worker: None,
        later: Vec::new(),
    }
}

fn failed() -> Report {
    Report::Failed { failure: Failure { code: "x".into(), message: "x".into() }, retry: Retry::Backoff }
}

fn used(n: u64) -> Report {
    Report::Succeeded {
        usage: vec![Usage { pool: id_of("home"), amount: units(n), parts: None, is_share: false }],
        remaining: vec![],
    }
}

/// Starts a request that needs the home pool alone, and tells its grant.
fn started(pool: &mut Pool, submission: Submission, now: Instant) -> (RequestId, u32) {
    let id = submission.id.clone();
    assert_eq!(pool.submit(submission, Mode::Queue, now), Submitted::Accepted);
    let effects = pool.take_effects();
    let [Effect::Start { grant, .. }] = effects.as_slice() else { panic!("it did not start: {effects:?}") };
    (id, *grant)
}

/// The grant of a retry, once its backoff is over and its slot is given.
fn restarted(pool: &mut Pool, id: &RequestId, now: Instant) -> u32 {
    pool.on_wakeup(now);
    let acquired = pool.take_effects().into_iter().find_map(|effect| match effect {
        Effect::AcquireSlot { grant, .. } => Some(grant),
        _ => None,
    });
    let grant = acquired.expect("it asks for a slot");
    pool.slot_answered(id, grant, Some(SlotAnswer::Granted), now);
    let effects = pool.take_effects();
    assert!(matches!(effects.as_slice(), [Effect::Start { grant: of, .. }] if *of == grant), "{effects:?}");
    grant
}

#[test]
fn a_refused_pool_gives_back_all_that_was_taken_before_it() {
    let mut pool = pool(10, 0);
    let id = request(1, Kind::Execution, &[]).id;
    pool.submit(request(1, Kind::Execution, &[("home", 4), ("b", 1), ("a", 2)]), Mode::Queue, at(0));
    let effects = pool.take_effects();
    assert!(
        matches!(effects.as_slice(), [Effect::AcquireLease { pool, grant: 1, .. }] if *pool == id_of("a")),
        "the other pools are asked in the order of their names: {effects:?}"
    );
    assert_eq!(pool.view(at(0)).available, units(6));
    pool.lease_answered(&id, 1, &id_of("a"), LeaseAnswer::Granted { regain_ms: 0 }, at(1));
    assert!(matches!(pool.take_effects().as_slice(), [Effect::AcquireLease { pool, .. }] if *pool == id_of("b")));
    pool.lease_answered(
        &id,
        1,
        &id_of("b"),
        LeaseAnswer::NotNow { retry_at: Some(at(500)), ready_at: Some(at(500)) },
        at(2),
    );
    let effects = pool.take_effects();
    let key = format!("{id}#1");
    assert!(
        effects.contains(&Effect::SettleLease {
            pool: id_of("a"),
            key,
            used: Tokens::ZERO,
            end: LeaseEnd::Returns { needed_at: Some(at(500)) },
            signal: Signal::default()
        }),
        "{effects:?}"
    );
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ReleaseSlot { grant: 1, .. })), "{effects:?}");
    assert_eq!(effects.len(), 2, "nobody else is told: {effects:?}");
    assert_eq!((pool.view(at(2)).available, pool.view(at(2)).reserved), (units(10), Tokens::ZERO));
    assert_eq!(pool.next_wakeup(at(2)), Some(at(500)));
}

#[test]
fn a_report_for_an_earlier_grant_changes_nothing() {
    let mut pool = pool(10, 0);
    let (id, first) = started(&mut pool, request(1, Kind::Execution, &[("home", 4)]), at(0));
    assert_eq!(pool.report(&id, first, failed(), at(10)), ReportOutcome::Retrying);
    pool.take_effects();
    let second = restarted(&mut pool, &id, at(1_000));
    assert_ne!(first, second);
    assert_eq!(pool.report(&id, first, failed(), at(1_010)), ReportOutcome::Ignored);
    assert_eq!(pool.report(&id, first, used(9), at(1_010)), ReportOutcome::Ignored);
    assert_eq!(pool.view(at(1_010)).reserved, units(4));
    assert_eq!(pool.report(&id, second, used(3), at(1_020)), ReportOutcome::Ended);
    assert_eq!(pool.report(&id, second, used(3), at(1_030)), ReportOutcome::Ignored);
    let ended = pool.take_changes().ended;
    assert_eq!((ended.len(), ended[0].end.cost.nanos(), ended[0].request.attempts), (1, 3_000, 2));
    assert_eq!(pool.view(at(1_030)).available, units(7));
}

#[test]
fn an_attempt_that_was_given_up_and_succeeds_spares_the_next() {
    let mut pool = pool(10, 0);
    let (id, grant) = started(&mut pool, request(1, Kind::Execution, &[("home", 4)]), at(0));
    pool.on_wakeup(at(20_000));
    assert_eq!(pool.view(at(20_000)).available, units(10), "a lost attempt holds nothing");
    assert_eq!(pool.report(&id, grant, used(5), at(20_001)), ReportOutcome::Ended);
    let ended = pool.take_changes().ended;
    assert_eq!((ended[0].end.status, ended[0].end.cost.nanos()), (Status::Succeeded, 5_000));
    assert_eq!(pool.view(at(20_001)).available, units(5), "what was used is taken after all");
}

#[test]
fn a_cancelled_run_is_charged_for_what_it_reports_once() {
    let mut pool = pool(10, 0);
    let (id, grant) = started(&mut pool, request(1, Kind::Execution, &[("home", 4)]), at(0));
    assert_eq!(pool.cancel(&id, true, at(5)), CancelOutcome::Running);
    assert_eq!(pool.cancel(&id, false, at(5)), CancelOutcome::Cancelled);
    assert_eq!(pool.cancel(&id, false, at(6)), CancelOutcome::Cancelled);
    assert_eq!((pool.view(at(6)).available, pool.view(at(6)).reserved), (units(10), Tokens::ZERO));
    assert_eq!(pool.report(&id, grant, used(3), at(7)), ReportOutcome::ChargedLate);
    assert_eq!(pool.report(&id, grant, used(3), at(8)), ReportOutcome::Ignored);
    let changes = pool.take_changes();
    assert!(changes.settlements.len() == 1, "its cost stays held until its worker has reported");
    let charges: Vec<_> = changes.settlements.iter().map(|s| (s.event.clone(), s.cost.nanos())).collect();
    assert_eq!(charges, [(id.to_string(), 3_000)]);
    assert_eq!((changes.ended.len(), changes.ended[0].end.status), (1, Status::Cancelled));
    assert_eq!(pool.view(at(8)).available, units(7));
}

#[test]
fn a_request_that_nothing_is_held_for_ends() {
    let mut pool = pool(10, 0);
    let mut submission = request(1, Kind::Execution, &[("home", 4)]);
    submission.has_slot = false;
    let id = submission.id.clone();
    pool.submit(submission, Mode::Queue, at(0));
    pool.slot_answered(&id, 1, Some(SlotAnswer::NoHold), at(1));
    let ended = pool.take_changes().ended;
    assert_eq!((ended[0].end.status, ended[0].end.cost), (Status::Failed, NanoUsd::ZERO));
    assert_eq!(pool.view(at(1)).available, units(10));
}

#[test]
fn a_refused_reservation_leaves_everything_as_it_was_and_lets_the_next_go() {
    let mut pool = pool(10, 0);
    let mut large = request(1, Kind::Reservation, &[("home", 10)]);
    large.tier = Tier::Enterprise;
    let (id, grant) = started(&mut pool, request(2, Kind::Execution, &[("home", 5)]), at(0));
    let before = format!("{:?}", pool.view(at(1)));
    let refused = pool.submit(large, Mode::NowOrNever, at(1));
    assert!(matches!(refused, Submitted::Refused(Refusal::NotNow { .. })));
    assert_eq!(format!("{:?}", pool.view(at(1))), before);
    assert!(pool.take_changes().ended.is_empty() && pool.take_effects().is_empty());
    started(&mut pool, request(3, Kind::Execution, &[("home", 5)]), at(2));
    assert_eq!(pool.report(&id, grant, used(5), at(3)), ReportOutcome::Ended);
}

#[test]
fn tokens_that_come_back_by_themselves_are_granted_in_the_same_event() {
    let mut pool = pool(10, 0);
    let (first, _) = started(&mut pool, request(1, Kind::Execution, &[("home", 10)]), at(0));
    pool.submit(request(2, Kind::Execution, &[("home", 10)]), Mode::Queue, at(0));
    pool.take_effects();
    // The lease of the first run is over by now; the event itself is about nothing.
    assert_eq!(pool.cancel(&request(9, Kind::Execution, &[]).id, false, at(60_000)), CancelOutcome::Unknown);
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { id, .. } if *id != first);
    assert!(pool.take_effects().iter().any(asks));
}
