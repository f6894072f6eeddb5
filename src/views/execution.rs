//! Executions, as their pool keeps them.

use rm_core::optimizer::Strategy;
use rm_core::pool::Ended;
use rm_core::request::{Demand, End, Line, Phase, Request, Status};
use rm_core::units::Instant;
use worker::{Error, Result};

use crate::store::pool_store::StoredExecution;
use crate::views::{baseline_of, expected_optimizations, optimizations};
use crate::wire::execution::{
    CostView, ExecutionStatus, ExecutionView, ResourceView, Spec, StepSpec, StepStatus, StepView,
};
use crate::wire::payload::Payload;

pub fn status_of(status: Status) -> ExecutionStatus {
    match status {
        Status::Succeeded => ExecutionStatus::Succeeded,
        Status::Failed => ExecutionStatus::Failed,
        Status::TimedOut => ExecutionStatus::TimedOut,
        Status::Cancelled => ExecutionStatus::Cancelled,
        Status::Expired => ExecutionStatus::Expired,
    }
}

/// The execution, which is `live` or has ended.
pub fn execution_view(stored: StoredExecution, live: Option<&Request>, now: Instant) -> Result<ExecutionView> {
    let StoredExecution { spec, ended, result } = stored;
    let request = match (&ended, live) {
        (Some(Ended { request, .. }), _) | (None, Some(request)) => request,
        (None, None) => return Err(Error::RustError("an execution is neither live nor ended".into())),
    };
    let end = ended.as_ref().map(|ended| &ended.end);
    let status = match end {
        Some(end) => status_of(end.status),
        None if matches!(request.phase, Phase::Running { .. }) => ExecutionStatus::Running,
        // The same request runs for it.
        None if matches!(request.phase, Phase::Following { .. }) && request.first_started_at.is_some() => {
            ExecutionStatus::Running
        }
        None => ExecutionStatus::Queued,
    };
    let finished_at = end.map(|end| end.finished_at);
    let started_at = request.first_started_at;
    let until = finished_at.unwrap_or(now);
    let (result, stored_result) = match result {
        Some(Payload::Inline(json)) => (Some(json), None),
        Some(Payload::Stored(stored)) => (None, Some(stored)),
        None => (None, None),
    };
    // A cancelled run may still be at work: what it uses is known, and charged, when that is over.
    let settled = end.filter(|_| live.is_none());
    let resources = request.lines_in_all().into_iter().map(|line| ResourceView {
        actual: settled.and_then(|end| end.lines.iter().find(|used| used.is_like(&line))).map(|used| used.actual),
        pool: line.pool,
        estimated: line.estimated,
    });
    let baseline = settled.map_or(spec.baseline, |end| baseline_of(&end.lines));
    let optimizations = match settled {
        Some(end) => optimizations(request, &end.lines),
        None => expected_optimizations(&request.applied, spec.baseline.saturating_sub(spec.estimated)),
    };
    let steps = steps_of(&spec, request, end, settled);
    Ok(ExecutionView {
        request_id: request.id.clone(),
        client_id: spec.client_id,
        template_id: spec.template_id,
        status,
        urgency: request.urgency,
        attempts: request.attempts_in_all(),
        created_at: spec.created_at,
        started_at,
        finished_at,
        wait_ms: started_at.unwrap_or(until).since(spec.created_at),
        run_ms: started_at.map_or(0, |started_at| until.since(started_at)),
        cached: request.applied.iter().any(|applied| applied.strategy == Strategy::Cache),
        result,
        stored_result,
        result_expired: false,
        result_lost: false,
        error: end.and_then(|end| end.failure.clone()),
        resources: resources.collect(),
        steps,
        cost: CostView {
            estimated_usd: spec.estimated,
            actual_usd: settled.map(|end| end.cost),
            baseline_usd: baseline,
            saved_usd: baseline.saturating_sub(settled.map_or(spec.estimated, |end| end.cost)),
        },
        optimizations,
    })
}

/// The steps of a pipeline: those that are over, the one it is at, and those to come.
fn steps_of(spec: &Spec, request: &Request, end: Option<&End>, settled: Option<&End>) -> Vec<StepView> {
    let has_ended = end.is_some();
    let current = request.step();
    // The step that the whole ended with is one of the past, and nothing is needed for another one.
    let first_to_come = current.saturating_add(usize::from(!request.demands.is_empty()));
    let view = |(step, spec): (usize, &StepSpec)| {
        let empty = StepView {
            step,
            name: spec.name.clone(),
            worker: spec.worker.clone(),
            status: if has_ended { StepStatus::Skipped } else { StepStatus::Pending },
            attempts: 0,
            started_at: None,
            finished_at: None,
            resources: Vec::new(),
        };
        let expected = |demands: &[Demand]| {
            let needed = demands.iter().filter(|demand| !demand.amount.is_zero());
            let resource =
                |demand: &Demand| ResourceView { pool: demand.pool.clone(), estimated: demand.amount, actual: None };
            needed.map(resource).collect()
        };
        let is_current = step == current && !request.demands.is_empty();
        let past = request.past.get(step);
        let past = past.map(|past| (past.status, past.attempts, past.started_at, past.finished_at, &past.lines));
        // Where there is but one step it ends as the whole does; but if that had the result of another one it was not run.
        let was_run = |end: &&End| request.attempts > 0 || end.status != Status::Succeeded;
        let only = settled.filter(|_| is_current).filter(was_run);
        let only = only.map(|end| (end.status, request.attempts, request.step_started_at, end.finished_at, &end.lines));
        if let Some((status, attempts, started_at, finished_at, lines)) = past.or(only) {
            let resource = |line: &Line| ResourceView {
                pool: line.pool.clone(),
                estimated: line.estimated,
                actual: Some(line.actual),
            };
            return StepView {
                status: step_status(status),
                attempts,
                started_at,
                finished_at: Some(finished_at),
                resources: lines.iter().map(resource).collect(),
                ..empty
            };
        }
        if is_current {
            let status = match request.phase {
                Phase::Abandoned { .. } => StepStatus::Cancelled,
                Phase::Running { .. } => StepStatus::Running,
                // It had the result of another one.
                _ if has_ended => StepStatus::Skipped,
                _ => StepStatus::Queued,
            };
            return StepView {
                status,
                attempts: request.attempts,
                started_at: request.step_started_at,
                resources: expected(&request.demands),
                ..empty
            };
        }
        let ahead = step.checked_sub(first_to_come);
        let resources = ahead.and_then(|index| request.later.get(index)).map(|step| expected(&step.demands));
        StepView { resources: resources.unwrap_or_default(), ..empty }
    };
    spec.steps.iter().enumerate().map(view).collect()
}

const fn step_status(status: Status) -> StepStatus {
    match status {
        Status::Succeeded => StepStatus::Succeeded,
        Status::Failed => StepStatus::Failed,
        Status::TimedOut => StepStatus::TimedOut,
        Status::Cancelled => StepStatus::Cancelled,
        Status::Expired => StepStatus::Expired,
    }
}
