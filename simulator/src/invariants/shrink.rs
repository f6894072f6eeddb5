//! Delta debugging (Zeller and Hildebrandt 2002): of the steps of a history that fails, those without which it does not.

use std::fmt;

use super::checks::Checks;
use super::history::{self, Failure};

/// So many shorter histories are tried at most.
const TRIES_MAX: usize = 5_000;

/// A history that fails, as short as it was found.
#[derive(Debug)]
pub struct Shrunk {
    /// Whose history.
    pub seed: u64,
    /// How many steps it had.
    pub steps_before: usize,
    /// The numbers of those that are left.
    pub steps: Vec<u64>,
    /// How many shorter ones were tried.
    pub tries: usize,
    /// How it fails.
    pub failure: Failure,
    /// What happens in it.
    pub trace: Vec<String>,
}

/// Shrinks a history that fails; `None` if it does not fail.
#[must_use]
pub fn shrink(seed: u64, steps: &[u64], checks: Checks) -> Option<Shrunk> {
    let place = history::run(seed, steps, checks).failure?.caught.place;
    // Another failure is another bug: a history that ends in one is not the same history made shorter.
    let fails = |steps: &[u64]| {
        let failure = history::run(seed, steps, checks).failure.filter(|failure| failure.caught.place == place)?;
        Some(failure.steps.unwrap_or(steps.len()))
    };
    let mut tries = 0;
    let kept = minimal(steps.to_vec(), TRIES_MAX, &mut tries, fails);
    let told = history::tell(seed, &kept, checks);
    Some(Shrunk { seed, steps_before: steps.len(), steps: kept, tries, failure: told.failure?, trace: told.log })
}

/// The items without any one of which `fails` says no, or what was reached in so many tries. `fails` tells how many of
/// the items it needed to fail; those after them are dropped.
pub fn minimal<T: Clone>(
    mut items: Vec<T>,
    tries_max: usize,
    tries: &mut usize,
    fails: impl Fn(&[T]) -> Option<usize>,
) -> Vec<T> {
    if let Some(needed) = fails(&items) {
        items.truncate(needed);
    }
    let mut chunk = items.len().div_ceil(2).max(1);
    loop {
        let mut removed_any = false;
        let mut start = 0;
        while start < items.len() && *tries < tries_max {
            let end = (start + chunk).min(items.len());
            let rest = [&items[..start], &items[end..]].concat();
            *tries += 1;
            match fails(&rest) {
                Some(needed) => {
                    items = rest;
                    items.truncate(needed);
                    removed_any = true;
                }
                None => start = end,
            }
        }
        if *tries >= tries_max || (chunk == 1 && !removed_any) {
            return items;
        }
        // At single steps it goes round until none can be removed: one may have been needed only for another.
        chunk = if chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps_before, steps, tries, failure, trace } = self;
        let check = failure.check.unwrap_or("an assertion on the way");
        writeln!(f, "seed {seed} fails: {check}")?;
        writeln!(
            f,
            "{} of its {steps_before} steps are enough for that ({tries} shorter histories tried):\n",
            steps.len()
        )?;
        for line in trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\n{}: {}", if failure.steps.is_some() { "then" } else { "in the end" }, failure.caught)
    }
}

#[cfg(test)]
mod tests {
    use super::minimal;

    fn needs(wanted: &[u64]) -> impl Fn(&[u64]) -> Option<usize> {
        move |items| {
            let places: Option<Vec<usize>> =
                wanted.iter().map(|item| items.iter().position(|other| other == item)).collect();
            places?.into_iter().max().map(|last| last + 1)
        }
    }

    #[test]
    fn what_is_not_needed_goes() {
        for wanted in [&[0_u64][..], &[249], &[3, 77, 200], &[10, 11, 12, 13]] {
            let mut tries = 0;
            assert_eq!(minimal((0..250).collect(), 1_000, &mut tries, needs(wanted)), wanted);
            assert!(tries < 300, "{tries} tries for {wanted:?}");
        }
    }

    #[test]
    fn tries_are_bounded() {
        let mut tries = 0;
        let kept = minimal((0..250).collect(), 5, &mut tries, needs(&[1, 200]));
        assert!(kept.contains(&1) && kept.contains(&200));
        assert_eq!(tries, 5);
    }

    #[test]
    fn a_step_that_only_another_needed_goes_with_it() {
        // 5 without 9 does not fail, and neither does 9 with 8 and without 7.
        let fails = |items: &[u64]| {
            let has = |item| items.contains(&item);
            (has(5) && (!has(8) || has(7))).then_some(items.len())
        };
        assert_eq!(minimal((0..16).collect(), 1_000, &mut 0, fails), [5]);
    }
}
