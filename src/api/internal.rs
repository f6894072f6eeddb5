//! `/internal`: workers that take tokens themselves, and say what they used.

use rm_core::id::RequestId;
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Demand, Kind, Usage};
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde_json::value::RawValue;

use crate::api::Call;
use crate::api::admission::new_id;
use crate::api::body::read_json;
use crate::api::demands::{check_amounts, check_reach, cost_of, home_first, of_amounts};
use crate::api::executions::{hold_refused, idempotency, refused, unavailable, used_before};
use crate::api::reply::Reply;
use crate::dispatch::usage_of;
use crate::host::clock;
use crate::host::object::call;
use crate::store::catalog::{self, Catalog};
use crate::wire::account::{AbandonCall, HoldAnswer, HoldCall, Idempotency};
use crate::wire::api::{
    ConsumeBody, ConsumedView, PoolAmount, ReleaseBody, ReleasedView, ReserveBody, ReservedView, UsedParts,
};
use crate::wire::execution::Spec;
use crate::wire::payload::Payload;
use crate::wire::pool::{ConsumeAnswer, ConsumeCall, SubmitAnswer, SubmitCall, SubmitRefusal};
use crate::wire::problem::{Code, Problem};

const TTL_DEFAULT_SECONDS: i64 = 60;
const TTL_MAX_SECONDS: i64 = 3_600;

/// A reservation whose cost is held, or was before.
struct Admitted {
    id: RequestId,
    at: Instant,
    tier: Tier,
    replayed: bool,
    /// It is not to be taken in as new.
    known: bool,
    demands: Vec<Demand>,
    cost: NanoUsd,
}

async fn admit(
    call: &Call,
    catalog: &Catalog,
    body: &ReserveBody,
    key: Option<Idempotency>,
) -> Result<Admitted, Problem> {
    let now = clock::now();
    let planned = of_amounts(catalog, &body.resources, None, now).and_then(|demands| Ok((cost_of(&demands)?, demands)));
    let (cost, demands) = match planned {
        Ok((cost, demands)) => (cost, home_first(catalog, demands)),
        Err(problem) => {
            // What was reserved before may not be possible by now: its answer is still the same.
            let (id, _) = used_before(call, &body.client_id, key, problem).await?;
            let (demands, cost) = (Vec::new(), NanoUsd::ZERO);
            return Ok(Admitted { id, at: now, tier: Tier::Basic, replayed: true, known: true, demands, cost });
        }
    };
    let id = new_id(demands.first().map(|demand| &demand.pool), now)?;
    let hold = HoldCall {
        id: id.clone(),
        amount: cost,
        kind: Kind::Reservation,
        or: Vec::new(),
        instead_of: None,
        kept_at: None,
        idempotency: key,
    };
    match self::call(&call.env, body.client_id.as_str(), &hold).await.map_err(unavailable)? {
        HoldAnswer::Held { at, tier, .. } => {
            if let Err(problem) = check_reach(catalog, (&body.client_id, tier), demands.iter()) {
                give_up(call, body, id).await;
                return Err(problem);
            }
            Ok(Admitted { id, at, tier, replayed: false, known: false, demands, cost })
        }
        HoldAnswer::Replayed { id, at, open, tier, .. } => {
            Ok(Admitted { id, at, tier, replayed: true, known: !open, demands, cost })
        }
        other => Err(hold_refused(other, now)),
    }
}

/// Gives back what was held. If this fails, the account finds out by itself.
async fn give_up(call: &Call, body: &ReserveBody, id: RequestId) {
    let _later = self::call(&call.env, body.client_id.as_str(), &AbandonCall { id }).await;
}

/// `POST /internal/reserve`: all the pools or none.
pub async fn reserve(mut call: Call) -> Result<Reply, Problem> {
    let body = read_json::<ReserveBody>(&mut call.request).await?;
    let (text, body) = (body.text, body.value);
    call.may_touch(&body.client_id)?;
    let key = idempotency(&call, "reserve", &text)?;
    let ttl = body.ttl_seconds.unwrap_or(TTL_DEFAULT_SECONDS);
    if !(1..=TTL_MAX_SECONDS).contains(&ttl) {
        return Err(Problem::field("/ttlSeconds", format!("must be from 1 to {TTL_MAX_SECONDS}")));
    }
    if body.request_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 128) {
        return Err(Problem::field("/requestId", "must have 1 to 128 characters"));
    }
    let catalog = catalog::current(&call.env).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let Admitted { id, at, tier, replayed, known, demands, cost } = admit(&call, &catalog, &body, key).await?;
    let empty = || RawValue::from_string("{}".into()).map_err(|error| Problem::unavailable(error.to_string()));
    let submit = SubmitCall {
        id: id.clone(),
        tier,
        kind: Kind::Reservation,
        urgency: Urgency::Normal,
        held_at: at,
        deadline: None,
        demands,
        max_attempts: 1,
        timeout_ms: ttl.saturating_mul(1_000),
        later: Vec::new(),
        has_slot: false,
        slots: None,
        applied: Vec::new(),
        twin: None,
        batch: None,
        waits_for: None,
        kept: None,
        provided: None,
        only_known: known,
        spec: Spec {
            client_id: body.client_id.clone(),
            template_id: None,
            worker: None,
            model: None,
            steps: Vec::new(),
            parameters: empty()?,
            traceparent: None,
            estimated: cost,
            baseline: cost,
            created_at: at,
            compress: false,
            same: None,
            keep: None,
            tried: Vec::new(),
        },
        input: Payload::Inline(empty()?),
        run_here: false,
        wait_ms: 0,
    };
    let home = id.home().ok_or_else(|| Problem::unavailable("a reservation without a pool"))?;
    let refusal = match call.pool(&home, &submit, 0).await.map_err(unavailable)? {
        SubmitAnswer::Reserved { expires_at } => {
            let view = ReservedView { reservation_id: id, expires_at, resources: body.resources };
            let reply = Reply::json(200, &view)?;
            return Ok(if replayed { reply.with("idempotency-replayed", "true") } else { reply });
        }
        SubmitAnswer::Refused { refusal } => refusal,
        SubmitAnswer::RunHere { .. } | SubmitAnswer::Here { .. } => SubmitRefusal::Stale,
    };
    // One whose hold is open has not come to its pool, and may never do so: its key is free once that goes back.
    if replayed && known && refusal == SubmitRefusal::Stale {
        return Err(Problem::new(Code::Conflict, "the reservation of that key has ended, and is not kept any more"));
    }
    if !replayed {
        give_up(&call, &body, id).await;
    }
    Err(refused(refusal, clock::now()))
}

/// `POST /internal/consume`.
pub async fn consume(mut call: Call) -> Result<Reply, Problem> {
    let body = read_json::<ConsumeBody>(&mut call.request).await?;
    let key = idempotency(&call, "consume", &body.text)?;
    let body = body.value;
    let amounts: Vec<_> = body.usage.iter().map(|used| (&used.pool, used.amount)).collect();
    check_amounts(&amounts, "/usage", 0)?;
    let mut usage = Vec::with_capacity(body.usage.len());
    for (index, used) in body.usage.iter().enumerate() {
        let parts = UsedParts { amount: used.amount, cached_input: used.cached_input, output: used.output };
        let use_of_pool = usage_of(used.pool.clone(), parts)
            .ok_or_else(|| Problem::field(format!("/usage/{index}"), "cachedInput and output are parts of amount"))?;
        usage.push(use_of_pool);
    }
    let last = body.r#final.unwrap_or(true);
    let answer = settle(&call, body.reservation_id, usage, last, false, key).await?;
    let (answer, replayed) = match answer {
        ConsumeAnswer::Replayed { answer } => (*answer, true),
        other => (other, false),
    };
    match answer {
        ConsumeAnswer::Consumed { lines, cost, closed } => {
            let reply = Reply::json(200, &consumed(&lines, cost, closed))?;
            Ok(if replayed { reply.with("idempotency-replayed", "true") } else { reply })
        }
        ConsumeAnswer::NotReserved { pool } => {
            let index = body.usage.iter().position(|amount| amount.pool == pool).unwrap_or(0);
            Err(Problem::field(format!("/usage/{index}/pool"), format!("the reservation does not hold `{pool}`")))
        }
        other => Err(closed(&other)),
    }
}

/// `POST /internal/release`.
pub async fn release(mut call: Call) -> Result<Reply, Problem> {
    let body = read_json::<ReleaseBody>(&mut call.request).await?.value;
    match settle(&call, body.reservation_id, Vec::new(), true, true, None).await? {
        ConsumeAnswer::Released | ConsumeAnswer::Consumed { .. } => Reply::json(200, &ReleasedView { released: true }),
        // There is nothing left to give back.
        ConsumeAnswer::Expired | ConsumeAnswer::Closed => Reply::json(200, &ReleasedView { released: false }),
        other => Err(closed(&other)),
    }
}

async fn settle(
    call: &Call,
    id: RequestId,
    usage: Vec<Usage>,
    last: bool,
    release: bool,
    key: Option<Idempotency>,
) -> Result<ConsumeAnswer, Problem> {
    let home = call.home_of(&id).await.ok_or_else(|| Problem::not_found("reservation"))?;
    let consume = ConsumeCall { id, usage, last, release, key, client: call.only_client.clone() };
    call.pool(&home, &consume, 0).await.map_err(unavailable)
}

fn consumed(lines: &[rm_core::request::Line], cost_usd: NanoUsd, closed: bool) -> ConsumedView {
    let charged = lines.iter().map(|line| PoolAmount { pool: line.pool.clone(), amount: line.actual });
    let unused = |line: &rm_core::request::Line| {
        if closed { line.estimated.saturating_sub(line.actual) } else { Tokens::ZERO }
    };
    let refunded = lines.iter().map(|line| PoolAmount { pool: line.pool.clone(), amount: unused(line) });
    ConsumedView { charged: charged.collect(), refunded: refunded.collect(), cost_usd }
}

fn closed(answer: &ConsumeAnswer) -> Problem {
    let conflict = |detail: &str| Problem::new(Code::Conflict, detail);
    match answer {
        ConsumeAnswer::Released => conflict("the reservation was released"),
        ConsumeAnswer::Expired => conflict("the reservation expired, and its tokens went back"),
        ConsumeAnswer::Closed => conflict("the reservation was consumed with other amounts"),
        ConsumeAnswer::Mismatch => {
            Problem::new(Code::IdempotencyMismatch, "the Idempotency-Key was used before with another body")
        }
        ConsumeAnswer::Forbidden => Problem::new(Code::Forbidden, "the reservation is another client's"),
        ConsumeAnswer::Unknown => Problem::not_found("reservation"),
        ConsumeAnswer::Consumed { .. } | ConsumeAnswer::Replayed { .. } | ConsumeAnswer::NotReserved { .. } => {
            conflict("the reservation is closed")
        }
    }
}
