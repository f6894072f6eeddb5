//! The call to a downstream worker.

use rm_core::pool::Retry;
use serde_json::value::RawValue;
use worker::{Env, Headers, Method, Request, RequestInit, Response, ResponseBody, Result};

use crate::dispatch::outcome::{failed, outcome_of};
use crate::dispatch::worker_binding;
use crate::host::stream::read_limited;
use crate::host::time_limit::within;
use crate::host::{clock, random};
use crate::wire::downstream::{WorkOrder, WorkStep};
use crate::wire::pool::{Order, RunOutcome};

/// The longest answer that is read: as long as a request's body may be, and something for what is around the result.
pub const ANSWER_MAX_BYTES: usize = 11 * 1_048_576;

/// What became of a call.
pub enum Exchange {
    /// It was answered; the body is `None` if it was too long.
    Answered { status: u16, retry_after: Option<String>, body: Option<Vec<u8>> },
    /// It was not: this is the outcome.
    Failed(RunOutcome),
}

/// Runs one attempt. Whatever the worker does, this has an outcome.
pub async fn run(env: &Env, order: &Order, input: &RawValue) -> RunOutcome {
    let (worker, _) = order.spec.worker_of(order.run.step);
    let name = worker.map(|name| name.as_str().to_owned()).unwrap_or_default();
    match exchange(env, &name, request(order, input, &name), order.run.limit_ms).await {
        Exchange::Answered { status, retry_after, body } => {
            outcome_of(&name, status, retry_after.as_deref(), body.as_deref(), clock::now())
        }
        Exchange::Failed(outcome) => outcome,
    }
}

/// Calls a worker within a limit.
pub async fn exchange(env: &Env, name: &str, request: Result<Request>, limit_ms: i64) -> Exchange {
    let Some(worker) = worker_binding(env, name) else {
        let message = format!("the service binding `{name}` is not set");
        return Exchange::Failed(failed("not_configured", message, Retry::No));
    };
    let request = match request {
        Ok(request) => request,
        Err(error) => return Exchange::Failed(failed("invalid_request", error.to_string(), Retry::No)),
    };
    let exchange = async {
        let response = worker.fetch_request(request).await?;
        let status = response.status_code();
        let retry_after = response.headers().get("retry-after")?;
        let body = read(response).await?;
        Ok::<_, worker::Error>(Exchange::Answered { status, retry_after, body })
    };
    match within(limit_ms, exchange).await {
        Err(_) => Exchange::Failed(RunOutcome::TimedOut),
        Ok(Err(error)) => {
            let message = format!("`{name}` could not be called: {error}");
            Exchange::Failed(failed("worker_unreachable", message, Retry::Failing))
        }
        Ok(Ok(exchange)) => exchange,
    }
}

fn request(order: &Order, input: &RawValue, name: &str) -> Result<Request> {
    let run = &order.run;
    let body = WorkOrder {
        request_id: &run.id,
        attempt: run.attempt,
        client_id: &order.spec.client_id,
        template_id: order.spec.template_id.as_ref(),
        model: order.spec.worker_of(run.step).1,
        step: order.spec.steps.get(run.step).map(|step| WorkStep {
            index: run.step,
            name: &step.name,
            of: order.spec.steps.len(),
        }),
        input,
        parameters: &order.spec.parameters,
        deadline: run.deadline,
    };
    // The same for every attempt; each step is work of its own.
    let key = match order.spec.steps.is_empty() {
        true => run.id.to_string(),
        false => format!("{}/{}", run.id, run.step),
    };
    post(name, order, &key, serde_json::to_string(&body)?)
}

/// A request to a worker: `order` is what it is for, or the first of several.
pub fn post(name: &str, order: &Order, key: &str, body: String) -> Result<Request> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    headers.set("x-request-id", order.run.id.as_str())?;
    headers.set("idempotency-key", key)?;
    if let Some(traceparent) = traceparent(order.spec.traceparent.as_deref()) {
        headers.set("traceparent", &traceparent)?;
    }
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body.into()));
    Request::new_with_init(&format!("https://{}/execute", name.to_ascii_lowercase().replace('_', "-")), &init)
}

/// Continues a W3C trace with a span of our own, or begins one.
fn traceparent(incoming: Option<&str>) -> Option<String> {
    let span = random::hex::<8>()?;
    let continued = incoming.and_then(|incoming| {
        let mut parts = incoming.split('-');
        let (version, trace, _parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{version}-{trace}-{span}-{flags}"))
    });
    continued.or_else(|| Some(format!("00-{}-{span}-01", random::hex::<16>()?)))
}

/// The body, or `None` if it is too long.
async fn read(mut response: Response) -> Result<Option<Vec<u8>>> {
    let announced = response.headers().get("content-length")?.and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > ANSWER_MAX_BYTES) {
        return Ok(None);
    }
    match response.body() {
        ResponseBody::Empty => Ok(Some(Vec::new())),
        _ => read_limited(response.stream()?, announced.unwrap_or(0), ANSWER_MAX_BYTES).await,
    }
}
