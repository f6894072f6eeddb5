//! One run: what is needed is claimed, the downstream worker is called within its limit, the outcome is reported.

mod batch;
mod downstream;
mod outcome;

pub use outcome::usage_of;

use futures_util::future::join_all;
use rm_core::id::RequestId;
use rm_core::pool::Retry;
use rm_core::request::Usage;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use worker::{Env, Error, Fetcher, Headers, Method, Request, RequestInit, Result};

use crate::host::log;
use crate::host::object::{CallError, Operation, call, call_waiting};
use crate::host::time_limit::within;
use crate::store::payloads;
use crate::store::results::{self, KeptResult};
use crate::wire::execution::{ExecutionStatus, ExecutionView, Keep, ResourceView};
use crate::wire::payload::{Payload, StoredPayload};
use crate::wire::pool::{ClaimCall, Order, ReportBatchCall, ReportCall, RunOutcome};

/// The binding by which the service calls itself.
const SELF_BINDING: &str = "SELF";
/// The path of a hand-over. Anybody may call it; only who has the run's secret makes anything happen.
pub const RUN_PATH: &str = "/run";
/// How long a hand-over may take beyond the run's own limit.
const HAND_OVER_GRACE_MS: i64 = 60_000;
/// The failure of a run whose input is gone.
const INPUT_LOST: (&str, &str) = ("input_lost", "the input is not there any more");
/// How often a report is tried. If all fail, the run's lease ends by itself and the request is tried again.
const REPORT_TRIES: u32 = 4;

/// What is handed over: the name of a run and the proof that it may be claimed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    id: RequestId,
    grant: u32,
    secret: String,
}

/// A downstream worker's binding; none for the service itself and for what is not bound.
pub fn worker_binding(env: &Env, name: &str) -> Option<Fetcher> {
    if name == SELF_BINDING { None } else { env.service(name).ok() }
}

/// Has a Worker of its own run an attempt. Returns when it is reported.
pub async fn hand_over(env: &Env, id: &RequestId, grant: u32, secret: &str, limit_ms: i64) -> Result<()> {
    let body = serde_json::to_string(&HandOver { id: id.clone(), grant, secret: secret.into() })?;
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body.into()));
    let request = Request::new_with_init(&format!("https://self{RUN_PATH}"), &init)?;
    let service = env.service(SELF_BINDING)?;
    let response = within(limit_ms.saturating_add(HAND_OVER_GRACE_MS), service.fetch_request(request))
        .await
        .map_err(|_| Error::RustError("the run was not reported in time".into()))??;
    match response.status_code() {
        200..=299 => Ok(()),
        status => Err(Error::RustError(format!("the hand-over was answered by {status}"))),
    }
}

/// Takes a hand-over; `false` if it is none, or not for whoever calls.
pub async fn take_over(env: &Env, body: &str) -> std::result::Result<bool, CallError> {
    let Ok(hand_over) = serde_json::from_str::<HandOver>(body) else { return Ok(false) };
    let Some(home) = hand_over.id.home() else { return Ok(false) };
    let claim = ClaimCall { id: hand_over.id, grant: hand_over.grant, secret: hand_over.secret };
    let mut orders = call(env, home.as_str(), &claim).await?;
    match orders.len() {
        0 => return Ok(false),
        1 => {
            if let Some(order) = orders.pop() {
                let done = run_and_report(env, order, 0).await?;
                keep(env, done.to_keep).await;
            }
        }
        _ => run_batch_and_report(env, orders).await?,
    }
    Ok(true)
}

/// A run that was reported.
pub struct Done {
    /// The execution as it stands.
    pub execution: Option<ExecutionView>,
    /// Its result, if it is to be kept.
    pub to_keep: Option<ToKeep>,
}

/// A result that is to be kept.
pub struct ToKeep {
    keep: Keep,
    kept: KeptResult,
    compress: bool,
}

/// Keeps a result for the same request. If that fails, it is run again.
pub async fn keep(env: &Env, to_keep: Option<ToKeep>) {
    if let Some(ToKeep { keep, kept, compress }) = to_keep
        && let Err(error) = results::put(env, &keep, &kept, compress).await
    {
        log::warn("result_not_kept", kept.request.as_str(), &error.to_string());
    }
}

/// Runs an attempt and reports it; then waits for the request's end, if it is tried again, at most `wait_ms`.
pub async fn run_and_report(env: &Env, mut order: Order, wait_ms: i64) -> std::result::Result<Done, CallError> {
    let input = std::mem::replace(&mut order.input, Payload::Inline(Box::default()));
    let (run, saved_bytes) = match payloads::load(env, input).await {
        Ok(Some(input)) => downstream::run(env, &order, &input).await,
        Ok(None) => (outcome::failed(INPUT_LOST.0, INPUT_LOST.1, Retry::No), 0),
        Err(error) => (input_unreachable(&error), 0),
    };
    let usage = usage_of_run(&run);
    let (run, result) = put_away(env, &order, run).await;
    let saved_bytes = saved_bytes.saturating_add(result.as_ref().map_or(0, |(stored, _)| stored.saved_bytes()));
    let mut execution = report(env, &order, run, saved_bytes, wait_ms).await?;
    if let Some(execution) = &mut execution {
        put_back(execution, result);
    }
    let to_keep = execution.as_ref().and_then(|execution| kept_of(&order, execution, usage?));
    Ok(Done { execution, to_keep })
}

/// Runs several requests by one call, and reports each.
async fn run_batch_and_report(env: &Env, orders: Vec<Order>) -> std::result::Result<(), CallError> {
    let Some(home) = orders.first().and_then(|order| order.run.id.home()) else { return Ok(()) };
    let mut reports = Vec::with_capacity(orders.len());
    let mut items = Vec::with_capacity(orders.len());
    let loaded = join_all(orders.into_iter().map(|mut order| async {
        let input = std::mem::replace(&mut order.input, Payload::Inline(Box::default()));
        (order, payloads::load(env, input).await)
    }));
    for (order, input) in loaded.await {
        match input {
            Ok(Some(input)) => items.push((order, input)),
            Ok(None) => reports.push(report_of(&order, outcome::failed(INPUT_LOST.0, INPUT_LOST.1, Retry::No), 0)),
            Err(error) => reports.push(report_of(&order, input_unreachable(&error), 0)),
        }
    }
    let (outcomes, saved_bytes) = batch::run(env, &items).await;
    // The inputs are needed no more, and there may be long results by now.
    let orders: Vec<Order> = items.into_iter().map(|(order, _)| order).collect();
    // What the common call saved is told with the first of them.
    let mut saved_bytes = Some(saved_bytes);
    let mut to_keep = Vec::new();
    let put_away = orders.iter().zip(outcomes).map(|(order, outcome)| async move {
        let usage = usage_of_run(&outcome);
        let (outcome, result) = put_away(env, order, outcome).await;
        (order, outcome, usage, result)
    });
    for (order, outcome, usage, result) in join_all(put_away).await {
        let of_result = result.as_ref().map_or(0, |(stored, _)| stored.saved_bytes());
        to_keep.push((order, usage, result));
        reports.push(report_of(order, outcome, saved_bytes.take().unwrap_or(0).saturating_add(of_result)));
    }
    let executions = deliver(env, home.as_str(), &ReportBatchCall { items: reports }, 0).await?;
    for (order, usage, result) in to_keep {
        let execution = executions.iter().flatten().find(|execution| execution.request_id == order.run.id);
        if let (Some(execution), Some(usage)) = (execution, usage) {
            let mut execution = execution.clone();
            put_back(&mut execution, result);
            keep(env, kept_of(order, &execution, usage)).await;
        }
    }
    Ok(())
}

fn report_of(order: &Order, run: RunOutcome, saved_bytes: u64) -> ReportCall {
    ReportCall { id: order.run.id.clone(), grant: order.run.grant, saved_bytes, run, wait_ms: 0 }
}

fn input_unreachable(error: &Error) -> RunOutcome {
    outcome::failed("input_unreachable", format!("the input cannot be read: {error}"), Retry::Backoff)
}

fn usage_of_run(outcome: &RunOutcome) -> Option<Vec<Usage>> {
    match outcome {
        RunOutcome::Succeeded { usage, .. } => Some(usage.clone()),
        _ => None,
    }
}

/// Puts a large result in its place, that need not be fetched: it has just been here.
fn put_back(execution: &mut ExecutionView, result: Option<(StoredPayload, Box<RawValue>)>) {
    if let Some((stored, result)) = result
        && execution.stored_result.as_ref() == Some(&stored)
    {
        execution.result = Some(result);
    }
}

/// What is kept of an execution that ended well by this run.
fn kept_of(order: &Order, execution: &ExecutionView, said: Vec<Usage>) -> Option<ToKeep> {
    let keep = order.spec.keep.clone()?;
    let result = execution.result.clone().filter(|_| execution.status == ExecutionStatus::Succeeded)?;
    let of = |resource: &ResourceView| {
        let said = said.iter().find(|usage| usage.pool == resource.pool && execution.steps.is_empty());
        let amount = resource.actual?;
        let is_share = said.is_some_and(|usage| usage.is_share);
        Some(Usage { pool: resource.pool.clone(), amount, parts: said.and_then(|usage| usage.parts), is_share })
    };
    let usage = execution.resources.iter().filter_map(of).collect();
    let request = order.run.id.clone();
    let kept = KeptResult { at: execution.started_at?, request, usage, result };
    Some(ToKeep { keep, kept, compress: order.spec.compress })
}

/// Stores a result that is too large to be reported; gives it back too.
async fn put_away(
    env: &Env,
    order: &Order,
    outcome: RunOutcome,
) -> (RunOutcome, Option<(StoredPayload, Box<RawValue>)>) {
    let run = &order.run;
    let RunOutcome::Succeeded { result: Payload::Inline(result), usage, remaining } = outcome else {
        return (outcome, None);
    };
    match payloads::store(env, payloads::result_key(&run.id, run.grant), &result, order.spec.compress).await {
        Ok(None) => (RunOutcome::Succeeded { result: Payload::Inline(result), usage, remaining }, None),
        Ok(Some(stored)) => {
            let outcome = RunOutcome::Succeeded { result: Payload::Stored(stored.clone()), usage, remaining };
            (outcome, Some((stored, result)))
        }
        Err(error) => {
            log::error("result_not_stored", run.id.as_str(), &error.to_string());
            (outcome::failed("result_not_stored", "the result could not be stored", Retry::Backoff), None)
        }
    }
}

async fn report(
    env: &Env,
    order: &Order,
    run: RunOutcome,
    saved_bytes: u64,
    wait_ms: i64,
) -> std::result::Result<Option<ExecutionView>, CallError> {
    let home = order.run.id.home().map(|home| home.as_str().to_owned()).unwrap_or_default();
    let report = ReportCall { wait_ms, ..report_of(order, run, saved_bytes) };
    deliver(env, &home, &report, wait_ms).await
}

/// Delivers a report: tries again for a while.
async fn deliver<O: Operation>(
    env: &Env,
    home: &str,
    report: &O,
    wait_ms: i64,
) -> std::result::Result<O::Answer, CallError> {
    let mut tries = 1;
    loop {
        match call_waiting(env, home, report, wait_ms).await {
            Err(error) if tries < REPORT_TRIES => {
                tries = tries.saturating_add(1);
                log::warn("report_not_delivered", home, &error.to_string());
            }
            other => return other,
        }
    }
}
