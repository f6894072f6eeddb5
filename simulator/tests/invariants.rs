//! The invariants of the core under random histories: see [`rm_simulator::invariants`]. A failing seed is printed:
//! `SIMULATION_SEED=n cargo test -p resource-manager-simulator` runs it alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::print_stdout
)]

use rm_simulator::invariants::checks;
use rm_simulator::invariants::world::World;
use rm_simulator::rng::Rng;

/// How many histories, unless SIMULATION_SEEDS says otherwise, and how long.
const SEEDS: u64 = 400;
const STEPS: usize = 250;

fn run(seed: u64) {
    let mut world = World::new(Rng::new(seed));
    for _ in 0..STEPS {
        world.step();
        checks::always(&mut world);
    }
    world.run_out();
    checks::at_the_end(&world);
}

#[test]
fn the_invariants_hold_in_every_history() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        run(seed.parse().expect("SIMULATION_SEED is a number"));
        return;
    }
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            println!("failing seed: {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    let trace = |seed| {
        let mut world = World::new(Rng::new(seed));
        (0..STEPS).for_each(|_| world.step());
        format!("{:?}", world.log)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

/// A simulation in which something never happens proves nothing about it.
#[test]
fn everything_happens_in_some_history() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut world = World::new(Rng::new(seed));
        for _ in 0..STEPS {
            world.step();
        }
        world.run_out();
        seen.extend(world.seen.iter().copied());
    }
    for event in [
        "succeeded",
        "failed",
        "timed_out",
        "cancelled",
        "expired",
        "retried",
        "late charge",
        "refused now",
        "refused budget",
        "slot refused",
        "lease refused",
        "lease granted",
        "pool crashed",
        "account crashed",
        "orphan given up",
        "lost slot found",
        "lost",
        "doubled",
        "paused",
        "overused",
        "cancelled while running",
    ] {
        assert!(seen.contains(event), "{event} never happened");
    }
}
