//! One history: a seed, and the numbers of the steps that are taken.

use std::collections::BTreeMap;

use super::caught::{Caught, catch};
use super::checks::{Check, Checks};
use super::world::World;

/// How a history failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What did not hold, if it was a check that found it; the core and the shell have assertions of their own.
    pub check: Option<&'static str>,
    /// What was said, and where.
    pub caught: Caught,
    /// How many steps were taken; `None` if it failed only after all of them, when everything had run out.
    pub steps: Option<usize>,
}

/// What became of a history.
#[derive(Debug)]
pub struct Outcome {
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// What happened, and how often.
    pub events: BTreeMap<&'static str, u64>,
    /// How many messages arrived.
    pub messages: u64,
    /// How often something was checked.
    pub checked: u64,
    /// What happened, in words, if it was to be kept.
    pub log: Vec<String>,
}

/// Runs a history without keeping its log.
#[must_use]
pub fn run(seed: u64, steps: &[u64], checks: Checks) -> Outcome {
    run_in(seed, World::new(seed), steps, checks)
}

/// Runs a history, and tells what happens.
#[must_use]
pub fn tell(seed: u64, steps: &[u64], checks: Checks) -> Outcome {
    run_in(seed, World::told(seed), steps, checks)
}

fn run_in(seed: u64, mut world: World, steps: &[u64], checks: Checks) -> Outcome {
    let mut taken = 0;
    let mut ran_out = false;
    let mut checked = 0;
    let mut under_check = None;
    let mut check_all = |world: &World, all: &[Check]| {
        for check in all {
            under_check = Some(check.name);
            (check.holds)(world);
            checked += 1;
        }
        under_check = None;
    };
    let caught = catch(seed, || {
        for number in steps {
            taken += 1;
            world.step(*number);
            check_all(&world, checks.always);
        }
        ran_out = true;
        world.run_out();
        check_all(&world, checks.at_the_end);
    });
    let failure = caught.map(|caught| Failure { check: under_check, caught, steps: (!ran_out).then_some(taken) });
    Outcome { failure, messages: world.delivered, checked, log: world.log.lines(), events: world.seen }
}
