//! Executions, as their pool keeps them.

use rm_core::pool::Ended;
use rm_core::request::{Phase, Request, Status};
use rm_core::units::{Instant, NanoUsd};
use worker::{Error, Result};

use crate::store::pool_store::StoredExecution;
use crate::wire::execution::{CostView, ExecutionStatus, ExecutionView, ResourceView};
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
    let resources = request.demands.iter().map(|demand| ResourceView {
        pool: demand.pool.clone(),
        estimated: demand.amount,
        actual: end.and_then(|end| end.lines.iter().find(|line| line.pool == demand.pool)).map(|line| line.actual),
    });
    Ok(ExecutionView {
        request_id: request.id.clone(),
        client_id: spec.client_id,
        template_id: spec.template_id,
        status,
        urgency: request.urgency,
        attempts: request.attempts,
        created_at: spec.created_at,
        started_at,
        finished_at,
        wait_ms: started_at.unwrap_or(until).since(spec.created_at),
        run_ms: started_at.map_or(0, |started_at| until.since(started_at)),
        cached: false,
        result,
        stored_result,
        result_expired: false,
        error: end.and_then(|end| end.failure.clone()),
        resources: resources.collect(),
        cost: CostView {
            estimated_usd: spec.estimated,
            actual_usd: end.map(|end| end.cost),
            // Nothing makes a request cheaper yet: what it would have cost is what it cost.
            baseline_usd: end.map_or(spec.baseline, |end| end.cost),
            saved_usd: NanoUsd::ZERO,
        },
        optimizations: Vec::new(),
    })
}
