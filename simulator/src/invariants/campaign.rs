//! Many seeds, on as many threads as wanted, up to the first that fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::checks::Checks;
use super::history;
use super::shrink::{Shrunk, shrink};

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many steps each history has.
    pub steps: u64,
    /// On how many threads.
    pub threads: usize,
    /// What is checked.
    pub checks: Checks,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Histories that were run to their end.
    pub seeds: u64,
    /// Steps taken in them.
    pub steps: u64,
    /// Messages that arrived in them.
    pub messages: u64,
    /// How often something was checked.
    pub checked: u64,
    /// What happened, and how often.
    pub events: BTreeMap<&'static str, u64>,
    /// The lowest seed that failed, shrunk.
    pub failed: Option<Shrunk>,
}

impl Campaign {
    /// Runs it. `progress` is told after each history how many are done.
    pub fn run(self, progress: impl Fn(u64) + Sync) -> Summary {
        let end = self.from.saturating_add(self.seeds);
        let next = AtomicU64::new(self.from);
        // Seeds below the lowest that failed are still run, so that which one is reported does not depend on threads.
        let lowest_failed = AtomicU64::new(end);
        let done = AtomicU64::new(0);
        let work = || {
            let steps: Vec<u64> = (0..self.steps).collect();
            let mut own = Summary::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= lowest_failed.load(Ordering::Relaxed) {
                    return own;
                }
                let outcome = history::run(seed, &steps, self.checks);
                if outcome.failure.is_some() {
                    lowest_failed.fetch_min(seed, Ordering::Relaxed);
                    continue;
                }
                own.add(self.steps, &outcome);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        };
        let mut summary = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(work)).collect();
            let parts = threads.into_iter().map(|thread| thread.join().expect("a history's panics are caught"));
            parts.fold(Summary::default(), Summary::merge)
        });
        let failed = lowest_failed.load(Ordering::Relaxed);
        if failed < end {
            let steps: Vec<u64> = (0..self.steps).collect();
            summary.failed = Some(shrink(failed, &steps, self.checks).expect("what failed once fails again"));
        }
        summary
    }
}

impl Summary {
    fn add(&mut self, steps: u64, outcome: &history::Outcome) {
        self.seeds += 1;
        self.steps += steps;
        self.messages += outcome.messages;
        self.checked += outcome.checked;
        for (event, count) in &outcome.events {
            *self.events.entry(event).or_default() += count;
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.messages += other.messages;
        self.checked += other.checked;
        for (event, count) in other.events {
            *self.events.entry(event).or_default() += count;
        }
        self
    }
}
