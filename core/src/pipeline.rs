//! Pipelines: requests of several steps, which run one after the other.
//!
//! A step is what a request without steps is as a whole: a worker, what it needs, how often it may be tried. Its tokens
//! are taken when it is due, not before. The cost of all steps is held once, when the request is admitted; each step that
//! succeeded is charged, whatever becomes of those after it.

use serde::{Deserialize, Serialize};

use crate::id::WorkerBinding;
use crate::request::{Demand, Line, Request, Status};
use crate::units::{Instant, NanoUsd};

/// The most steps of a pipeline.
pub const STEPS_MAX: usize = 16;

/// A step that is not due yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The worker.
    pub worker: Option<WorkerBinding>,
    /// The home pool first, be it that the step needs nothing of it; then the others by name.
    pub demands: Vec<Demand>,
    /// How often it may be tried.
    pub max_attempts: u32,
    /// One attempt's limit.
    pub timeout_ms: i64,
}

/// A step that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastStep {
    /// How it ended.
    pub status: Status,
    /// How often it was started.
    pub attempts: u32,
    /// When it was first started.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Instant,
    /// What it is charged for.
    pub lines: Vec<Line>,
}

impl Request {
    /// Whether it has steps.
    #[must_use]
    pub fn is_pipeline(&self) -> bool {
        !self.later.is_empty() || !self.past.is_empty()
    }

    /// Which step it is at, from 0.
    #[must_use]
    pub fn step(&self) -> usize {
        self.past.len()
    }

    /// How often anything of it was started.
    #[must_use]
    pub fn attempts_in_all(&self) -> u32 {
        self.past.iter().fold(self.attempts, |sum, step| sum.saturating_add(step.attempts))
    }

    /// What it needs in all: what is over and what is to come, a demand for each pool and price.
    #[must_use]
    pub fn lines_in_all(&self) -> Vec<Line> {
        let later = self.later.iter().flat_map(|step| &step.demands);
        let expected = self.demands.iter().chain(later).filter(|demand| !demand.amount.is_zero());
        let past = self.past.iter().flat_map(|step| step.lines.iter().cloned());
        merged(past.chain(expected.map(|demand| Line::of(demand, None, false))))
    }

    /// What must be held for it at least: what its past steps have cost, what a reservation says it used, and what the
    /// rest is expected to cost. It is more than was held at first once something took more than was expected.
    #[must_use]
    pub fn least_hold(&self) -> NanoUsd {
        let expected = |demand: &Demand| demand.estimated_cost().unwrap_or(NanoUsd::ZERO);
        let used = |demand: &Demand| self.used.iter().find(|usage| usage.pool == demand.pool);
        let past = self.past.iter().map(|step| total(&step.lines));
        let now = self.demands.iter().map(|demand| {
            let so_far = used(demand).map(|usage| Line::of(demand, Some(usage), false).cost);
            so_far.map_or(expected(demand), |cost| cost.max(expected(demand)))
        });
        let later = self.later.iter().flat_map(|step| &step.demands).map(expected);
        past.chain(now).chain(later).fold(NanoUsd::ZERO, NanoUsd::saturating_add)
    }

    /// Notes how the current step ended.
    pub(crate) fn close_step(&mut self, status: Status, lines: Vec<Line>, now: Instant) {
        self.past.push(PastStep {
            status,
            attempts: self.attempts,
            started_at: self.step_started_at.take(),
            finished_at: now,
            lines,
        });
        self.attempts = 0;
    }

    /// Notes how the step ended that the whole ends with: nothing is needed any more.
    pub(crate) fn close_last_step(&mut self, status: Status, lines: Vec<Line>, now: Instant) {
        self.close_step(status, lines, now);
        self.demands.clear();
    }

    /// Goes on to the next step; `false` if there is none.
    pub(crate) fn next_step(&mut self) -> bool {
        if self.later.is_empty() {
            return false;
        }
        let Step { worker, demands, max_attempts, timeout_ms } = self.later.remove(0);
        self.worker = worker;
        self.demands = demands;
        self.max_attempts = max_attempts;
        self.timeout_ms = timeout_ms;
        // What still comes of an earlier step is nobody's any more.
        self.started_grant = 0;
        true
    }
}

/// Lines of several steps as one bill: those of one pool at one price are one line.
#[must_use]
pub fn merged(lines: impl IntoIterator<Item = Line>) -> Vec<Line> {
    let mut bill: Vec<Line> = Vec::new();
    for line in lines {
        match bill.iter_mut().find(|other| other.is_like(&line)) {
            Some(sum) => add(sum, &line),
            None => bill.push(line),
        }
    }
    bill
}

impl Line {
    /// Whether it is for the same pool at the same price.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.pool == other.pool
            && self.unit_price == other.unit_price
            && self.apart == other.apart
            && self.discount_percent == other.discount_percent
            && self.price_version == other.price_version
    }
}

fn add(sum: &mut Line, line: &Line) {
    sum.estimated = sum.estimated.saturating_add(line.estimated);
    sum.actual = sum.actual.saturating_add(line.actual);
    sum.cost = sum.cost.saturating_add(line.cost);
    sum.parts.cached_input = sum.parts.cached_input.saturating_add(line.parts.cached_input);
    sum.parts.output = sum.parts.output.saturating_add(line.parts.output);
    sum.formula = match (sum.formula, line.formula) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        // What one of them did not estimate teaches nothing about the sum.
        _ => None,
    };
    sum.reported = sum.reported && line.reported;
    sum.saved = sum.saved.and(line.saved);
}

/// The sum of lines.
#[must_use]
pub fn total(lines: &[Line]) -> NanoUsd {
    lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.cost))
}
