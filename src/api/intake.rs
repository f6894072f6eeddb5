//! A plan is taken in: its cost is held, and its pool is told. If that keeps it waiting for longer than was foretold, as where
//! many come at the same moment, it goes on with another model.

use rm_core::id::RequestId;
use rm_core::optimizer::Applied;
use rm_core::units::Instant;

use crate::api::Call;
use crate::api::admission::Plan;
use crate::api::demands::check_reach;
use crate::api::executions::{Kind, from_record, kept_reply, not_queued, of_execution, run_here, unavailable};
use crate::api::kept::{self, CacheControl};
use crate::api::reply::Reply;
use crate::api::submission::{Held, give_up, hold, stored_input, submission, waits_for};
use crate::api::{batching, choosing, foretelling, rate_limit};
use crate::host::clock;
use crate::store::catalog::Catalog;
use crate::store::payloads;
use crate::wire::account::Idempotency;
use crate::wire::payload::Payload;
use crate::wire::pool::{Order, SubmitAnswer, SubmitRefusal};
use crate::wire::problem::{Code, Problem};

/// So often a request goes on beyond each of its models.
const AFTER_OTHERS: usize = 4;

/// How a request was sent.
pub struct Sent {
    pub control: CacheControl,
    pub key: Option<Idempotency>,
    pub kind: Kind,
    /// How long its caller waits, in milliseconds.
    pub wait: i64,
}

/// What became of a plan at one pool.
enum Attempt {
    Answered(Reply),
    /// Its cost is still held.
    Refused(SubmitRefusal, Held),
}

/// Takes a plan in, by its model or by one of the others.
pub async fn take_in(
    call: &Call,
    catalog: &Catalog,
    mut plan: Plan,
    sent: &Sent,
    now: Instant,
) -> Result<Reply, Problem> {
    // Each model once, then one of them for any wait; and where others with its key have gone on meanwhile, after them.
    let mut more = plan.others.len().saturating_add(AFTER_OTHERS);
    let mut before = None;
    loop {
        let (refusal, held) = match attempt(call, catalog, &mut plan, before.take(), sent, now).await? {
            Attempt::Answered(reply) => return Ok(reply),
            Attempt::Refused(refusal, held) => (refusal, held),
        };
        let now = clock::now();
        if more == 0 || !choosing::go_on(call, &mut plan, refusal, now).await {
            give_up(&call.env, &plan.client, &held).await;
            return Err(not_queued(refusal, now));
        }
        more = more.saturating_sub(1);
        if let Some(problem) = foretelling::kept_too_long(call, catalog, &plan, now).await {
            give_up(&call.env, &plan.client, &held).await;
            return Err(problem);
        }
        if plan.instead_of.is_some() && kept::usable(call, catalog, &plan, sent.control, now).await.is_some() {
            give_up(&call.env, &plan.client, &held).await;
            if let Some(reply) = kept_reply(call, catalog, &plan, sent).await? {
                return Ok(reply);
            }
        }
        before = Some(held.id);
    }
}

async fn attempt(
    call: &Call,
    catalog: &Catalog,
    plan: &mut Plan,
    before: Option<RequestId>,
    sent: &Sent,
    now: Instant,
) -> Result<Attempt, Problem> {
    let Sent { control, key, kind, wait } = sent;
    let (control, kind, wait) = (*control, *kind, *wait);
    let is_downgraded = !plan.applied.is_empty();
    let mut held = match hold(call, plan, before, key.clone(), now).await {
        Ok(held) => held,
        Err(problem) => {
            // What cannot be run may be there already.
            for other in plan.others.clone().iter().filter(|_| problem.code == Code::BudgetExceeded) {
                plan.take(other);
                if let Some(reply) = kept_reply(call, catalog, plan, sent).await? {
                    return Ok(Attempt::Answered(reply));
                }
            }
            rate_limit::note(call, plan.demands()).await;
            return Err(problem);
        }
    };
    if !held.replayed
        && !is_downgraded
        && !plan.applied.is_empty()
        && kept::usable(call, catalog, plan, control, now).await.is_some()
    {
        // By the model that the budget has for it there is a result: it need not be run.
        give_up(&call.env, &plan.client, &held).await;
        if let Some(reply) = kept_reply(call, catalog, plan, sent).await? {
            return Ok(Attempt::Answered(reply));
        }
        return Err(Problem::unavailable("its kept result was purged a moment ago: send it again"));
    }
    if let Err(problem) = check_reach(catalog, (&plan.client, held.tier), plan.demands()) {
        if !held.replayed {
            give_up(&call.env, &plan.client, &held).await;
            return Err(problem);
        }
        // What was taken in before goes on; it is not taken in anew.
        held.open = false;
    }
    let mut submit = submission(call, plan, &held, wait)?;
    let same = kept::same(catalog, plan, control);
    let may_keep = same.keep.is_some();
    submit.spec.keep = same.keep.filter(|_| !control.no_store);
    submit.spec.same = same.key;
    // When the last purge was is not told again with a hold that was made before.
    submit.twin = same.twin.filter(|_| !held.replayed).map(|twin| match held.purged_at {
        Some(purged_at) => format!("{twin} {}", purged_at.millis()),
        None => twin,
    });
    submit.waits_for = Some(waits_for(catalog, plan, now));
    submit.batch = batching::terms(catalog, plan, held.tier);
    submit.spec.tried = plan.tried(may_keep, submit.batch.is_some());
    submit.input = stored_input(call, plan, &held).await?;
    if let Payload::Stored(stored) = &submit.input {
        submit.applied.extend(Applied::compression(stored.saved_bytes()));
    }
    let home = held.id.home().ok_or_else(|| Problem::unavailable("a request without a pool"))?;
    let answer = call.pool(&home, &submit, wait).await.map_err(unavailable)?;
    let reply = match answer {
        SubmitAnswer::RunHere { run } => {
            let input = Payload::Inline(std::mem::take(&mut plan.input));
            run_here(call, Order { run, spec: submit.spec, input, reserved: Vec::new() }, wait).await?
        }
        SubmitAnswer::Here { execution, position } => {
            of_execution(call, *execution, position.as_ref(), (kind, wait)).await?
        }
        SubmitAnswer::Reserved { .. } => return Err(Problem::unavailable("an execution was taken for a reservation")),
        // Its pool has let go of it: it is too old to be taken as new.
        SubmitAnswer::Refused { refusal: SubmitRefusal::Stale } if held.replayed => {
            let recorded = from_record(call, &held.id).await.map_err(|problem| match problem.code {
                // It has not come to its pool and may never do so, or its end has not come to the record yet.
                Code::NotFound => not_queued(SubmitRefusal::Stale, clock::now()),
                _ => problem,
            })?;
            of_execution(call, recorded, None, (kind, wait)).await?
        }
        SubmitAnswer::Refused { refusal } => {
            if let Payload::Stored(stored) = submit.input
                && !held.replayed
            {
                // If this fails, it is found by its age.
                let _later = payloads::delete(&call.env, vec![stored.key]).await;
            }
            return Ok(Attempt::Refused(refusal, held));
        }
    };
    let reply = if held.replayed { reply.with("idempotency-replayed", "true") } else { reply };
    Ok(Attempt::Answered(reply))
}
