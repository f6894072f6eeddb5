//! Requests that are combined, where their pool is short of tokens: who waits for whose tokens, and how long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::off_peak::Window;
use rm_core::pool::{BatchTerms, Blocked, Effect, LeaseAnswer, PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::Phase;
use support::batches::{calls, item};
use support::{at, config, demand, id_of, pool, queue};

#[test]
fn those_that_are_ready_wait_for_the_others_tokens_as_long_as_for_others_to_come() {
    let sizes = |refill: u64, until: i64, of: &dyn Fn(Submission) -> Submission| {
        let mut pool = pool(config(8, refill));
        for n in 1..=3 {
            let terms = BatchTerms { key: "all".into(), max_size: 3, window_ms: 2_000 };
            queue(&mut pool, of(Submission { batch: Some(terms), ..item(n, 0) }), at(0));
        }
        let mut sizes: Vec<_> = calls(&mut pool, at(0)).iter().map(|call| (0, call.len())).collect();
        let mut now = at(0);
        while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= at(until)) {
            now = next;
            pool.on_wakeup(now);
            sizes.extend(calls(&mut pool, now).iter().map(|call| (now.since(at(0)), call.len())));
        }
        sizes
    };
    let any = |submission| submission;
    assert_eq!(sizes(4, 10_000, &any), [(1_000, 3)], "the tokens for the third are there in a second");
    assert_eq!(sizes(1, 10_000, &any), [(0, 2), (4_000, 1)], "they would wait for longer than for others to come");
    let hurried = |submission| Submission { deadline: Some(at(601_000)), ..submission };
    assert_eq!(sizes(4, 10_000, &hurried), [(0, 2), (1_000, 1)], "in half of what is left before it must start");
}

#[test]
fn those_that_are_ready_do_not_wait_for_one_that_has_no_tokens_or_no_slot_in_time() {
    let start = |third: Submission, more: &[Submission]| {
        let mut pool = pool(PoolConfig { scheduler_running: false, ..config(8, 4) });
        let window = BatchTerms { key: "all".into(), max_size: 3, window_ms: 2_000 };
        for submission in [item(1, 0), item(2, 0), third] {
            let batch = submission.batch.as_ref().map(|_| window.clone());
            queue(&mut pool, Submission { batch, ..submission }, at(0));
        }
        pool.configure(PoolConfig { scheduler_running: true, revision: 2, ..pool.config().clone() }, at(1));
        let before: Vec<usize> = calls(&mut pool, at(1)).iter().map(Vec::len).collect();
        for submission in more {
            queue(&mut pool, submission.clone(), at(2));
        }
        (before, calls(&mut pool, at(2)).iter().map(Vec::len).collect::<Vec<_>>())
    };
    assert_eq!(start(item(3, 0), &[]), (vec![], vec![]), "its tokens are there in a second");
    let high = |n| Submission { batch: None, urgency: Urgency::Fast, tier: Tier::Enterprise, ..item(n, 2) };
    let many: Vec<Submission> = (10..14).map(high).collect();
    assert_eq!(start(item(3, 0), &many), (vec![], vec![2]), "four of higher rank have theirs first");
    let same_client = Submission { client: "client-1".parse().unwrap(), ..item(3, 0) };
    assert_eq!(start(same_client, &[]), (vec![2], vec![]), "its client's only slot is taken by one that waits for it");
}

#[test]
fn one_that_waits_for_the_others_tokens_goes_when_nobody_is_left_to_wait_for() {
    let mut pool = pool(config(8, 4));
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, item(n, 0), at(0))).collect();
    assert!(calls(&mut pool, at(0)).is_empty());
    let place = pool.position(&ids[0], at(1)).unwrap();
    assert_eq!((place.blocked_by, place.estimated_start_at), (Some(Blocked::Batching), Some(at(1_000))));
    pool.cancel(&ids[2], true, at(10));
    assert_eq!(calls(&mut pool, at(10)).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
}

#[test]
fn none_is_started_with_leases_that_may_have_run_out_while_it_waited() {
    let mut pool = pool(config(8, 4));
    let of_two = |n| Submission { demands: vec![demand("home", 4), demand("other", 1)], ..item(n, 0) };
    let ids: Vec<_> = (1..=3).map(|n| queue(&mut pool, of_two(n), at(0))).collect();
    for id in &ids[..2] {
        pool.slot_answered(id, 1, Some(SlotAnswer::Granted), at(1));
        pool.lease_answered(id, 1, &id_of("other"), LeaseAnswer::Granted { regain_ms: 0 }, at(2));
    }
    assert!(ids[..2].iter().all(|id| matches!(pool.request(id).unwrap().phase, Phase::Acquiring { .. })));
    pool.take_effects();
    // The alarm that would have started them in a second is lost.
    pool.on_wakeup(at(40_000));
    let effects = pool.take_effects();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Start { .. } | Effect::StartBatch { .. })));
    for id in &ids[..2] {
        let key = format!("{id}#1");
        assert!(effects.iter().any(|effect| matches!(effect, Effect::SettleLease { key: of, .. } if *of == key)));
        assert_eq!(pool.request(id).unwrap().grants, 2, "it is granted anew");
    }
}

#[test]
fn those_that_are_ready_do_not_miss_their_deadline_for_an_answer() {
    let mut pool = pool(config(100, 4));
    let hurried = Submission { deadline: Some(at(9_000)), timeout_ms: 2_000, ..item(1, 0) };
    let ids = [hurried, item(2, 0)].map(|submission| queue(&mut pool, submission, at(0)));
    let mut now = at(0);
    let mut started = Vec::new();
    while now <= at(9_000) {
        for effect in pool.take_effects() {
            match effect {
                Effect::AcquireSlot { id, grant, .. } if id == ids[0] => {
                    pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now);
                }
                Effect::Start { id, .. } => started.push((now.since(at(0)), id)),
                _ => {}
            }
        }
        now = pool.next_wakeup(now).unwrap();
        pool.on_wakeup(now);
    }
    let [hurried, _] = ids;
    assert_eq!(started, [(4_000, hurried)], "its account never answers: half of what is left before it must start");
}

#[test]
fn those_whose_window_closes_go_while_it_is_open() {
    let day = 86_400_000;
    let sizes = |windows: &[(i64, i64)]| {
        let windows = windows.iter().map(|(start, end)| Window { start: at(*start), end: at(*end) });
        let mut pool = pool(PoolConfig { off_peak: Some(windows.collect()), ..config(100, 0) });
        for n in 1..=2 {
            queue(&mut pool, Submission { urgency: Urgency::Deferred, ..item(n, 0) }, at(0));
        }
        let mut now = at(0);
        loop {
            let sizes: Vec<_> = calls(&mut pool, now).iter().map(Vec::len).collect();
            if !sizes.is_empty() {
                return (now.since(at(0)), sizes);
            }
            now = pool.next_wakeup(now).unwrap();
            pool.on_wakeup(now);
        }
    };
    let next_day = (day, day + 400);
    assert_eq!(sizes(&[(0, 400), next_day]), (200, vec![2]), "in half of what is left of it");
    assert_eq!(sizes(&[(600, 800), next_day]), (700, vec![2]), "it opens and closes while they wait for others");
    assert_eq!(sizes(&[(0, 400), (400, 5_000)]), (1_000, vec![2]), "it goes on");
    assert_eq!(sizes(&[next_day]), (day, vec![2]), "until then they have waited for others for long enough");
}
