//! What was done to make a request cheaper, and what that has saved.

use rm_core::optimizer::{Applied, Savings, Strategy};
use rm_core::request::{Line, Request};
use rm_core::units::NanoUsd;

use crate::wire::execution::OptimizationView;

/// What the lines of a bill would have cost without any strategy.
pub fn baseline_of(lines: &[Line]) -> NanoUsd {
    lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.baseline()))
}

/// What was applied, each strategy once, with what it saved of these lines.
pub fn optimizations(request: &Request, lines: &[Line]) -> Vec<OptimizationView> {
    let saved = lines.iter().fold(Savings::default(), |sum, line| sum.and(line.saved));
    let view = |strategy: Strategy| {
        let applied: Vec<_> = request.applied.iter().filter(|applied| applied.strategy == strategy).collect();
        let saved_usd = saved.by(strategy);
        if applied.is_empty() && saved_usd.is_none() {
            return None;
        }
        let details: Vec<&str> = applied.iter().map(|applied| applied.detail.as_str()).collect();
        let saved_bytes = applied.iter().fold(0_u64, |sum, applied| sum.saturating_add(applied.saved_bytes));
        Some(OptimizationView { strategy, detail: details.join("; "), saved_usd, saved_bytes })
    };
    Strategy::ALL.into_iter().filter_map(view).collect()
}

/// What was applied so far, while nothing is used yet: only what another model saves is known by then.
pub fn expected_optimizations(applied: &[Applied], by_model: NanoUsd) -> Vec<OptimizationView> {
    let view = |applied: &Applied| OptimizationView {
        strategy: applied.strategy,
        detail: applied.detail.clone(),
        saved_usd: if applied.strategy == Strategy::ModelDowngrade { by_model } else { NanoUsd::ZERO },
        saved_bytes: applied.saved_bytes,
    };
    applied.iter().map(view).collect()
}
