//! The call to a downstream worker.

use std::cell::RefCell;
use std::collections::BTreeMap;

use js_sys::Uint8Array;
use rm_core::pool::Retry;
use rm_core::units::Instant;
use serde_json::value::RawValue;
use wasm_bindgen::JsValue;
use worker::{Env, Headers, Method, Request, RequestInit, Response, ResponseBody, Result};

use crate::dispatch::outcome::{failed, outcome_of};
use crate::dispatch::worker_binding;
use crate::host::stream::read_limited;
use crate::host::time_limit::within;
use crate::host::{clock, gzip, random};
use crate::wire::downstream::{WorkOrder, WorkStep};
use crate::wire::pool::{Order, RunOutcome};

/// The longest answer that is read: as long as a request's body may be, and something for what is around the result.
pub const ANSWER_MAX_BYTES: usize = 11 * 1_048_576;

/// Longer bodies are gzipped.
const COMPRESS_OVER_BYTES: usize = 65_536;
/// For how long a worker that did not take gzip is not asked again.
const PLAIN_ONLY_MS: i64 = 600_000;

/// What became of a call.
pub enum Exchange {
    /// It was answered; the body is `None` if it was too long.
    Answered {
        status: u16,
        retry_after: Option<String>,
        body: Option<Vec<u8>>,
        /// How many bytes compression has saved on the way.
        saved_bytes: u64,
    },
    /// It was not: this is the outcome.
    Failed(RunOutcome),
}

/// Runs one attempt. Whatever the worker does, this has an outcome; with how many bytes compression has saved.
pub async fn run(env: &Env, order: &Order, input: &RawValue) -> (RunOutcome, u64) {
    let (worker, _) = order.spec.worker_of(order.run.step);
    let name = worker.map(|name| name.as_str().to_owned()).unwrap_or_default();
    match exchange(env, &name, order_for(order, input), order.run.limit_ms).await {
        Exchange::Answered { status, retry_after, body, saved_bytes } => {
            (outcome_of(&name, status, retry_after.as_deref(), body.as_deref(), clock::now()), saved_bytes)
        }
        Exchange::Failed(outcome) => (outcome, 0),
    }
}

/// What is sent to a worker.
pub struct Outgoing {
    pub request_id: String,
    /// The same for every attempt at the same work.
    pub idempotency_key: String,
    pub traceparent: Option<String>,
    pub body: String,
    /// A long body may be gzipped.
    pub compress: bool,
    /// A longer answer is not read.
    pub answer_max_bytes: usize,
}

/// Calls a worker within a limit. One that does not take gzip says so by a `415` (RFC 9110, 15.5.16), and gets it plain.
pub async fn exchange(env: &Env, name: &str, outgoing: serde_json::Result<Outgoing>, limit_ms: i64) -> Exchange {
    let Some(worker) = worker_binding(env, name) else {
        let message = format!("the service binding `{name}` is not set");
        return Exchange::Failed(failed("not_configured", message, Retry::No));
    };
    let outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(error) => return Exchange::Failed(failed("invalid_request", error.to_string(), Retry::No)),
    };
    let is_long = outgoing.compress && outgoing.body.len() > COMPRESS_OVER_BYTES;
    let packed = (is_long && !takes_plain_only(name)).then(|| gzip::pack(outgoing.body.as_bytes())).flatten();
    let exchange = async {
        let saved = packed.as_ref().map_or(0, |packed| outgoing.body.len().saturating_sub(packed.len()));
        let was_packed = packed.is_some();
        let mut response = worker.fetch_request(post(name, &outgoing, packed)?).await?;
        let mut saved_bytes = u64::try_from(saved).unwrap_or(0);
        if was_packed && response.status_code() == 415 {
            response = worker.fetch_request(post(name, &outgoing, None)?).await?;
            // If that is no better, gzip was not what it did not take.
            if response.status_code() != 415 {
                PLAIN_ONLY.with_borrow_mut(|names| names.insert(name.to_owned(), clock::now()));
            }
            saved_bytes = 0;
        }
        let status = response.status_code();
        let retry_after = response.headers().get("retry-after")?;
        let body = read(response, outgoing.answer_max_bytes).await?;
        Ok::<_, worker::Error>(Exchange::Answered { status, retry_after, body, saved_bytes })
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

thread_local! {
    /// Workers that did not take gzip, and when they said so: this Worker's memory of it.
    static PLAIN_ONLY: RefCell<BTreeMap<String, Instant>> = const { RefCell::new(BTreeMap::new()) };
}

fn takes_plain_only(name: &str) -> bool {
    let now = clock::now();
    PLAIN_ONLY.with_borrow(|names| names.get(name).is_some_and(|said| now.since(*said) < PLAIN_ONLY_MS))
}

fn order_for(order: &Order, input: &RawValue) -> serde_json::Result<Outgoing> {
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
    // Each step is work of its own.
    let idempotency_key = match order.spec.steps.is_empty() {
        true => run.id.to_string(),
        false => format!("{}/{}", run.id, run.step),
    };
    Ok(Outgoing {
        request_id: run.id.to_string(),
        idempotency_key,
        traceparent: order.spec.traceparent.clone(),
        body: serde_json::to_string(&body)?,
        compress: order.spec.compress,
        answer_max_bytes: ANSWER_MAX_BYTES,
    })
}

fn post(name: &str, outgoing: &Outgoing, packed: Option<Vec<u8>>) -> Result<Request> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    headers.set("x-request-id", &outgoing.request_id)?;
    headers.set("idempotency-key", &outgoing.idempotency_key)?;
    if let Some(traceparent) = traceparent(outgoing.traceparent.as_deref()) {
        headers.set("traceparent", &traceparent)?;
    }
    let body: JsValue = match packed {
        Some(packed) => {
            headers.set("content-encoding", "gzip")?;
            Uint8Array::from(packed.as_slice()).into()
        }
        None => outgoing.body.as_str().into(),
    };
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body));
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
async fn read(mut response: Response, max_bytes: usize) -> Result<Option<Vec<u8>>> {
    let announced = response.headers().get("content-length")?.and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max_bytes) {
        return Ok(None);
    }
    match response.body() {
        ResponseBody::Empty => Ok(Some(Vec::new())),
        _ => read_limited(response.stream()?, announced.unwrap_or(0), max_bytes).await,
    }
}
