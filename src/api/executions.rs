//! `/api/execute`, `/api/queue/enqueue`, `/api/execution/…` and their cancellation.

use std::rc::Rc;

use futures_channel::oneshot;
use rm_core::id::{ClientId, RequestId};
use rm_core::pool::PositionView;
use rm_core::units::Instant;

use crate::api::Call;
use crate::api::admission::{Plan, fingerprint, plan};
use crate::api::body::read_json;
use crate::api::choosing;
use crate::api::foretelling;
use crate::api::intake::{Sent, take_in};
use crate::api::kept::{self, CacheControl};
use crate::api::reply::Reply;
use crate::dispatch;
use crate::host::object::{CallError, call};
use crate::host::time_limit::within;
use crate::host::{clock, log};
use crate::store::catalog::Catalog;
use crate::store::payloads::{self, Found};
use crate::store::{catalog, record};
use crate::views::recorded_execution;
use crate::wire::account::{FindKeyCall, HoldAnswer, Idempotency};
use crate::wire::api::{AcceptedView, ExecuteBody};
use crate::wire::execution::{ExecutionStatus, ExecutionView};
use crate::wire::pool::{CancelAnswer, CancelCall, ExecutionCall, Order, SubmitAnswer, SubmitRefusal};
use crate::wire::problem::{Code, Problem};

/// The longest wait that `Prefer: wait` may ask for.
const WAIT_MAX_MS: i64 = 60_000;
const KEY_MAX_CHARS: usize = 255;
/// When to try again, if nothing better is known.
const RETRY_HINT_MS: i64 = 1_000;

/// Which of the two routes was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Execute,
    Enqueue,
}

/// Calls that fail are a `503`.
pub fn unavailable(error: CallError) -> Problem {
    Problem::unavailable(error.to_string())
}

/// The key of `Idempotency-Key`, with the operation that it belongs to.
pub fn idempotency(call: &Call, operation: &str, text: &str) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = call.header("idempotency-key") else { return Ok(None) };
    let valid = (1..=KEY_MAX_CHARS).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !valid {
        return Err(Problem::field(
            "Idempotency-Key",
            format!("must be 1 to {KEY_MAX_CHARS} printable ASCII characters"),
        ));
    }
    Ok(Some(Idempotency { key: format!("{operation}:{key}"), fingerprint: fingerprint(text) }))
}

/// `Prefer: wait=N` (RFC 7240). What is not understood is ignored, as that standard says.
fn wait_ms(call: &Call) -> i64 {
    let header = call.header("prefer").unwrap_or_default();
    let wait = header.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse::<u32>().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then_some(seconds)
    });
    i64::from(wait.unwrap_or(0)).saturating_mul(1_000).min(WAIT_MAX_MS)
}

/// Takes a request, and waits for it if that is wanted.
pub async fn execute(mut call: Call, kind: Kind) -> Result<Reply, Problem> {
    let body = read_json::<ExecuteBody>(&mut call.request).await?;
    call.may_touch(&body.value.client_id)?;
    let key = idempotency(&call, "execute", &body.text)?;
    let wait = if kind == Kind::Execute { wait_ms(&call) } else { 0 };
    let now = clock::now();
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let client = body.value.client_id.clone();
    let mut plan = match plan(&call.env, &catalog, body.value, now) {
        Ok(plan) => plan,
        Err(problem) => return replayed(&call, &client, key, problem, (kind, wait)).await,
    };
    let sent = Sent { control: CacheControl::of(&call), key, kind, wait };
    if let Some(reply) = kept_reply(&call, &catalog, &plan, &sent).await? {
        return Ok(reply);
    }
    // What is free by its own model need not be run by a cheaper one.
    if choosing::take_cheapest(&mut plan)
        && let Some(reply) = kept_reply(&call, &catalog, &plan, &sent).await?
    {
        return Ok(reply);
    }
    if choosing::reconsider(&call, &mut plan, now).await
        && let Some(reply) = kept_reply(&call, &catalog, &plan, &sent).await?
    {
        return Ok(reply);
    }
    if let Some(problem) = foretelling::kept_too_long(&call, &catalog, &plan, now).await {
        return replayed(&call, &client, sent.key, problem, (kind, wait)).await;
    }
    take_in(&call, &catalog, plan, &sent, now).await
}

/// The answer by a kept result, if there is one that may be used.
pub async fn kept_reply(call: &Call, catalog: &Catalog, plan: &Plan, sent: &Sent) -> Result<Option<Reply>, Problem> {
    let Sent { control, key, kind, wait } = sent;
    let now = clock::now();
    let Some(keep) = kept::same(catalog, plan, *control).keep.filter(|_| !control.no_cache) else { return Ok(None) };
    let Some(found) = kept::find(call, catalog, plan, &keep, now).await else { return Ok(None) };
    match kept::serve(call, plan, &keep, found, key.clone(), *wait, now).await? {
        Some((answer, held)) => served(call, answer, held.replayed, (*kind, *wait)).await.map(Some),
        None => Ok(None),
    }
}

/// The answer for a request that ended with a kept result.
async fn served(call: &Call, answer: SubmitAnswer, replayed: bool, as_asked: (Kind, i64)) -> Result<Reply, Problem> {
    let reply = match answer {
        SubmitAnswer::Here { execution, position } => {
            of_execution(call, *execution, position.as_ref(), as_asked).await?
        }
        SubmitAnswer::Refused { refusal } => return Err(not_queued(refusal, clock::now())),
        SubmitAnswer::RunHere { .. } | SubmitAnswer::Reserved { .. } => {
            return Err(Problem::unavailable("a request that is served was taken for another"));
        }
    };
    Ok(if replayed { reply.with("idempotency-replayed", "true") } else { reply })
}

/// The request that a key was used for, with whether it is still open, if it was used for the same body; else the
/// refusal that the body has earned now.
pub async fn used_before(
    call: &Call,
    client: &ClientId,
    key: Option<Idempotency>,
    problem: Problem,
) -> Result<(RequestId, bool), Problem> {
    let Some(idempotency) = key else { return Err(problem) };
    match self::call(&call.env, client.as_str(), &FindKeyCall { idempotency }).await {
        Ok(Some(HoldAnswer::Replayed { id, open, .. })) => Ok((id, open)),
        Ok(Some(other)) => Err(hold_refused(other, clock::now())),
        Ok(None) => Err(problem),
        Err(error) => Err(unavailable(error)),
    }
}

/// What was taken in before may be out of date by now, or have no chance any more: its answer is still the same.
async fn replayed(
    call: &Call,
    client: &ClientId,
    key: Option<Idempotency>,
    problem: Problem,
    as_asked: (Kind, i64),
) -> Result<Reply, Problem> {
    let (id, _) = used_before(call, client, key, problem).await?;
    let reply = of_execution(call, find(call, &id).await?, None, as_asked).await?;
    Ok(reply.with("idempotency-replayed", "true"))
}

/// Why nothing is held, as a problem.
pub fn hold_refused(answer: HoldAnswer, now: Instant) -> Problem {
    match answer {
        HoldAnswer::BudgetExceeded { remaining, next_period } => {
            let left = rm_core::decimal::format(remaining.nanos(), 9);
            let detail = format!("it does not fit in the ${left} that are left of the client's budget in this period");
            Problem::new(Code::BudgetExceeded, detail).retry_at(next_period, now)
        }
        HoldAnswer::Mismatch => {
            Problem::new(Code::IdempotencyMismatch, "the Idempotency-Key was used before with another body")
        }
        HoldAnswer::Suspended => Problem::new(Code::Forbidden, "the client is suspended"),
        HoldAnswer::UnknownClient => Problem::not_found("client"),
        HoldAnswer::Held { .. } | HoldAnswer::Replayed { .. } | HoldAnswer::Purged => {
            Problem::unavailable("the hold was taken for a refusal")
        }
    }
}

/// Runs it in this Worker. The run goes on if the caller goes away, or the wait is over.
pub async fn run_here(call: &Call, order: Order, wait: i64) -> Result<Reply, Problem> {
    let id = order.run.id.clone();
    let (sender, receiver) = oneshot::channel();
    let env = call.env.clone();
    let context = Rc::clone(&call.context);
    context.wait_until(async move {
        let (outcome, to_keep) = match dispatch::run_and_report(&env, order, wait).await {
            Ok(dispatch::Done { execution, to_keep }) => (Ok(execution), to_keep),
            Err(error) => (Err(error), None),
        };
        // A caller that is gone need not be told.
        let _gone = sender.send(outcome);
        dispatch::keep(&env, to_keep).await;
    });
    match within(wait, receiver).await {
        Ok(Ok(Ok(Some(execution)))) => of_execution(call, execution, None, (Kind::Execute, wait)).await,
        Ok(Ok(Err(error))) => Err(unavailable(error)),
        _ => of_execution(call, find(call, &id).await?, None, (Kind::Execute, wait)).await,
    }
}

/// Why a pool did not take in an execution, as a problem.
pub fn not_queued(refusal: SubmitRefusal, now: Instant) -> Problem {
    match refusal {
        SubmitRefusal::NotNow { retry_at } => {
            let detail = "it would start later than its lane allows: its tokens or its client's slots are taken, or its worker is left alone";
            Problem::new(Code::InsufficientResources, detail).retry_at(retry_at, now)
        }
        other => refused(other, now),
    }
}

/// Why a pool refused, as a problem.
pub fn refused(refusal: SubmitRefusal, now: Instant) -> Problem {
    match refusal {
        SubmitRefusal::Never => Problem::new(Code::Unsatisfiable, "it needs more than the pool can ever hold"),
        SubmitRefusal::UnknownPool => Problem::new(Code::Unsatisfiable, "there is no such pool, so no price for it"),
        SubmitRefusal::NotNow { retry_at } => {
            Problem::new(Code::InsufficientResources, "the tokens are not there now").retry_at(retry_at, now)
        }
        SubmitRefusal::QueueFull { retry_at } => {
            Problem::new(Code::QueueFull, "the pool's queue is at its cap").retry_at(retry_at, now)
        }
        SubmitRefusal::TooLong { wait_ms } => {
            let retry_at = now.plus(wait_ms.unwrap_or(RETRY_HINT_MS));
            Problem::new(Code::InsufficientResources, "the tokens are not there now").retry_at(retry_at, now)
        }
        SubmitRefusal::Stale => Problem::unavailable("the request took too long on its way; send it again"),
    }
}

/// The whole execution, if it has ended and that is waited for, or it had a kept result and is not only to be queued; else
/// where it stands.
pub async fn of_execution(
    call: &Call,
    execution: ExecutionView,
    position: Option<&PositionView>,
    (kind, wait): (Kind, i64),
) -> Result<Reply, Problem> {
    if execution.cached && kind == Kind::Execute {
        return whole(call, execution).await;
    }
    if wait > 0 && execution.status.is_end() {
        let waited = format!("wait={}", wait.saturating_div(1_000));
        return Ok(whole(call, execution).await?.with("preference-applied", waited));
    }
    let now = clock::now();
    let estimated_wait_ms = match execution.status {
        ExecutionStatus::Queued => position.and_then(|p| p.estimated_start_at).map(|at| at.since(now)),
        _ => Some(0),
    };
    let accepted = AcceptedView {
        request_id: execution.request_id.clone(),
        status: execution.status,
        urgency: execution.urgency,
        priority: position.map(|position| position.priority),
        score: position.map(|position| position.score),
        position: position.map_or(0, |position| position.position),
        estimated_wait_ms,
        estimated_cost_usd: execution.cost.estimated_usd,
        optimizations: execution.optimizations.clone(),
    };
    Ok(Reply::json(202, &accepted)?.with("location", format!("/api/execution/{}", execution.request_id)))
}

/// The whole execution, with its result in its place.
async fn whole(call: &Call, mut execution: ExecutionView) -> Result<Reply, Problem> {
    if let Some(stored) = execution.stored_result.take()
        && execution.result.is_none()
    {
        let found = payloads::load_stored(&call.env, &stored).await;
        match found.map_err(|error| Problem::unavailable(format!("the result cannot be read: {error}")))? {
            Found::Whole(result) => execution.result = Some(result),
            Found::Gone => execution.result_expired = true,
            Found::Damaged => {
                log::error("result_damaged", execution.request_id.as_str(), &stored.key);
                execution.result_lost = true;
            }
        }
    }
    Reply::json(200, &execution)
}

/// `GET /api/execution/{requestId}`.
pub async fn get(call: &Call, id: &RequestId) -> Result<Reply, Problem> {
    whole(call, find(call, id).await?).await
}

/// An execution: from its pool, or from the record once that has let go of it.
async fn find(call: &Call, id: &RequestId) -> Result<ExecutionView, Problem> {
    let live = match call.home_of(id).await {
        Some(home) => call.pool(&home, &ExecutionCall { id: id.clone() }, 0).await.map_err(unavailable)?,
        None => None,
    };
    let execution = match live {
        Some(execution) => execution,
        None => from_record(call, id).await?,
    };
    call.may_touch(&execution.client_id)?;
    Ok(execution)
}

pub async fn from_record(call: &Call, id: &RequestId) -> Result<ExecutionView, Problem> {
    let recorded = record::find(&call.env, id).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    recorded.as_ref().and_then(recorded_execution).ok_or_else(|| Problem::not_found("request"))
}

/// `POST /api/execution/{requestId}/cancel`, and `DELETE /api/queue/{requestId}`, which takes waiting ones only.
pub async fn cancel(call: &Call, id: &RequestId, only_waiting: bool) -> Result<Reply, Problem> {
    let cancel = CancelCall { id: id.clone(), only_waiting, client: call.only_client.clone() };
    let answer = match call.home_of(id).await {
        Some(home) => call.pool(&home, &cancel, 0).await.map_err(unavailable)?,
        None => CancelAnswer::Unknown,
    };
    match answer {
        CancelAnswer::Cancelled { execution } => Reply::json(200, &*execution),
        CancelAnswer::Conflict { status } => Err(conflict(status)),
        CancelAnswer::Forbidden => Err(Problem::new(Code::Forbidden, "the request is another client's")),
        CancelAnswer::Unknown => {
            let execution = from_record(call, id).await?;
            call.may_touch(&execution.client_id)?;
            match execution.status {
                ExecutionStatus::Cancelled => Reply::json(200, &execution),
                status => Err(conflict(status)),
            }
        }
    }
}

fn conflict(status: ExecutionStatus) -> Problem {
    let status = serde_json::to_string(&status).unwrap_or_default();
    Problem::new(Code::Conflict, format!("the request is {}", status.trim_matches('"')))
}
