//! Requests that their pool has let go of, from the record. Their results are gone.

use rm_core::optimizer::Strategy;
use rm_core::request::{Kind, Line};
use rm_core::units::NanoUsd;

use crate::store::record::{Recorded, UsageEvent};
use crate::views::bill::{bill_lines, price_version};
use crate::views::execution::status_of;
use crate::wire::execution::{BillView, CostView, ExecutionView, ResourceView};

/// The execution; `None` for a reservation, which is none.
pub fn recorded_execution(recorded: &Recorded) -> Option<ExecutionView> {
    let end = &recorded.end;
    if end.kind != Kind::Execution {
        return None;
    }
    let resources = all_lines(recorded).into_iter().map(|line| ResourceView {
        pool: line.pool,
        estimated: line.estimated,
        actual: Some(line.actual),
    });
    let started_at = end.started_at;
    Some(ExecutionView {
        request_id: end.request_id.clone(),
        client_id: end.client_id.clone(),
        template_id: end.template_id.as_deref().and_then(|template| template.parse().ok()),
        status: status_of(end.status),
        urgency: end.urgency,
        attempts: end.attempts,
        created_at: end.created_at,
        started_at,
        finished_at: Some(end.at),
        wait_ms: started_at.unwrap_or(end.at).since(end.created_at),
        run_ms: started_at.map_or(0, |started_at| end.at.since(started_at)),
        cached: end.optimizations.iter().any(|applied| applied.strategy == Strategy::Cache),
        result: None,
        stored_result: None,
        result_expired: true,
        result_lost: false,
        error: end.failure.clone(),
        resources: resources.collect(),
        // How it came about is not recorded, only what it cost.
        steps: Vec::new(),
        cost: CostView {
            estimated_usd: end.estimated,
            actual_usd: Some(cost(recorded)),
            baseline_usd: baseline(recorded),
            saved_usd: baseline(recorded).saturating_sub(cost(recorded)),
        },
        optimizations: end.optimizations.clone(),
    })
}

/// The bill.
pub fn recorded_bill(recorded: &Recorded) -> BillView {
    let end = &recorded.end;
    let lines = all_lines(recorded);
    BillView {
        request_id: end.request_id.clone(),
        estimated_usd: end.estimated,
        actual_usd: Some(cost(recorded)),
        baseline_usd: baseline(recorded),
        saved_usd: baseline(recorded).saturating_sub(cost(recorded)),
        price_version: price_version(lines.iter().map(|line| line.price_version.as_str())),
        lines: bill_lines(&lines, end.model.as_deref()),
        settled: true,
    }
}

/// What was charged in the end. Before a cancelled run's cost stayed held, its use was a charge of its own, with all the use
/// that there was: such rows may still be there.
fn all_lines(recorded: &Recorded) -> Vec<Line> {
    recorded.late.as_ref().unwrap_or(&recorded.end).lines.clone()
}

fn sum(recorded: &Recorded, of: impl Fn(&UsageEvent) -> NanoUsd) -> NanoUsd {
    of(&recorded.end).saturating_add(recorded.late.as_ref().map_or(NanoUsd::ZERO, of))
}

fn cost(recorded: &Recorded) -> NanoUsd {
    sum(recorded, |event| event.cost)
}

fn baseline(recorded: &Recorded) -> NanoUsd {
    sum(recorded, |event| event.baseline)
}
