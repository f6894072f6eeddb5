//! The invariants of the core under random histories: see [`rm_simulator::invariants`]. What fails is printed with its
//! seed: `SIMULATION_SEED=n cargo test -p resource-manager-simulator` runs that one alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use rm_simulator::invariants::campaign::Campaign;
use rm_simulator::invariants::checks::{ALL, Check, Checks};
use rm_simulator::invariants::history;
use rm_simulator::invariants::shrink::shrink;
use rm_simulator::rng::Rng;

/// How many histories, unless SIMULATION_SEEDS says otherwise, and how long.
const SEEDS: u64 = 2_000;
const STEPS: u64 = 250;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn all_steps() -> Vec<u64> {
    (0..STEPS).collect()
}

#[test]
fn the_invariants_hold_in_every_history() {
    let (from, seeds) = match number_from("SIMULATION_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number_from("SIMULATION_SEEDS").unwrap_or(SEEDS)),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = Campaign { from, seeds, steps: STEPS, threads, checks: ALL }.run(|_| {});
    if let Some(failed) = summary.failed {
        panic!("{failed}");
    }
    assert_eq!(summary.seeds, seeds);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let told = |seed| history::tell(seed, &all_steps(), ALL).log.join("\n");
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}

/// A simulation in which something never happens proves nothing about it.
#[test]
fn everything_happens_in_some_history() {
    let mut seen = BTreeMap::new();
    for seed in 0..60 {
        seen.extend(history::run(seed, &all_steps(), ALL).events);
    }
    for event in [
        "account changed",
        "ages in a lane compared",
        "alarm lost",
        "step ended",
        "batch started",
        "served",
        "saved by a cheaper model",
        "saved by a common run",
        "saved by a kept result",
        "saved by a window",
        "worker out of order",
        "account crashed",
        "caller gone after the hold",
        "cancelled",
        "cancelled while running",
        "charged late",
        "execution sent",
        "expired",
        "failed",
        "lease free",
        "lease free of nothing",
        "lease granted",
        "lease ready",
        "lease refused",
        "lost slot found",
        "message doubled",
        "message lost",
        "orders over",
        "orphan given up",
        "pool changed",
        "pool crashed",
        "pool overused",
        "pool paused",
        "ranks compared",
        "refused by budget",
        "refused by pool",
        "reservation released",
        "reservation sent",
        "reservation used",
        "retried",
        "sent again",
        "slot refused",
        "succeeded",
        "timed_out",
    ] {
        assert!(seen.contains_key(event), "{event}: never happened");
    }
}

/// What shrinking relies on: any of a history's steps can be left out.
#[test]
fn the_invariants_hold_whatever_steps_are_left_out() {
    for seed in 0..100 {
        let mut rng = Rng::of(seed, 1);
        let keep = 1 + rng.below(99);
        let steps: Vec<u64> = all_steps().into_iter().filter(|_| rng.chance(keep)).collect();
        assert_eq!(history::run(seed, &steps, ALL).failure, None, "seed {seed}, steps {steps:?}");
    }
}

#[test]
fn a_history_that_fails_is_told_without_what_does_not_matter() {
    const NO_RETRY_AFTER_A_CRASH: Checks = Checks {
        always: &[Check {
            name: "nothing is retried once a pool has crashed",
            holds: |world| {
                let seen = |event| world.seen.contains_key(event);
                assert!(!(seen("pool crashed") && seen("retried")), "both happened");
            },
        }],
        at_the_end: &[],
    };
    let failing = Campaign { from: 4, seeds: 50, steps: STEPS, threads: 2, checks: NO_RETRY_AFTER_A_CRASH };
    let failed = failing.run(|_| {}).failed.expect("it fails");
    assert!(failed.steps.len() <= 8, "{failed}");
    assert_eq!(failed.failure.check, Some("nothing is retried once a pool has crashed"));
    let text = failed.to_string();
    assert!(text.contains("crashes, and comes back from its store"), "{text}");
    assert_eq!(text.matches("both happened").count(), 1, "{text}");

    let again = shrink(failed.seed, &all_steps(), NO_RETRY_AFTER_A_CRASH).expect("it fails again");
    assert_eq!(text, again.to_string());
    let fewer = failed.steps.len() - 1;
    for left_out in 0..=fewer {
        let mut steps = failed.steps.clone();
        steps.remove(left_out);
        assert_eq!(
            history::run(failed.seed, &steps, NO_RETRY_AFTER_A_CRASH).failure,
            None,
            "{left_out} was not needed"
        );
    }
}
