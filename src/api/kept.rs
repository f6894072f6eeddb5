//! Results that are there already: kept ones, and those of the same request in flight.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, TemplateId};
use rm_core::optimizer::{Applied, canonical};
use rm_core::request;
use rm_core::units::{Instant, NanoUsd};

use crate::api::Call;
use crate::api::admission::{Plan, new_id};
use crate::api::executions::{hold_refused, unavailable};
use crate::api::reply::Reply;
use crate::api::submission::{Held, give_up, submission};
use crate::host::object::call;
use crate::host::{clock, log};
use crate::store::catalog::{self, Catalog};
use crate::store::payloads;
use crate::store::results::{self, KeptResult};
use crate::wire::account::{HoldAnswer, HoldCall, Idempotency, PurgeCall, PurgedAtCall, ViewCall};
use crate::wire::execution::Keep;
use crate::wire::payload::{Payload, StoredPayload};
use crate::wire::pool::{Kept, SubmitAnswer};
use crate::wire::problem::Problem;

/// Results of longer inputs are not kept: their canonical text is work.
const INPUT_MAX_BYTES: usize = 1_048_576;

/// Whether longer inputs are repeated is not recorded, where their results are not kept.
const RECORDED_INPUT_MAX_BYTES: usize = 16_384;

/// What a caller says of kept results: `Cache-Control` (RFC 9111).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheControl {
    /// None is to be used.
    pub no_cache: bool,
    /// None is to be made.
    pub no_store: bool,
}

impl CacheControl {
    pub fn of(call: &Call) -> Self {
        let header = call.header("cache-control").unwrap_or_default();
        let says = |wanted: &str| header.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted));
        let no_store = says("no-store");
        Self { no_cache: no_store || says("no-cache"), no_store }
    }
}

/// What may be done with the results of requests that are the same as this one.
pub struct Same {
    /// What they have in common.
    pub key: Option<String>,
    /// How results are kept.
    pub keep: Option<Keep>,
    /// One in flight may be waited for.
    pub twin: Option<String>,
}

/// What a plan's template and its caller allow.
pub fn same(catalog: &Catalog, plan: &Plan, control: CacheControl) -> Same {
    let nothing = Same { key: None, keep: None, twin: None };
    let Some((id, template)) = plan.template.as_ref().and_then(|id| catalog.templates.get_key_value(id)) else {
        return nothing;
    };
    let ttl_seconds = template.cache_ttl_seconds.filter(|ttl| *ttl > 0 && plan.allowed.cache);
    let is_reusable = template.cache_ttl_seconds.is_some_and(|ttl| ttl > 0) || template.batch.is_some();
    let dedupes = template.dedupe.unwrap_or(is_reusable) && plan.allowed.batch && !control.no_cache;
    // Who wants no kept result would not have had one, whatever the template said: that is nothing to record.
    if control.no_cache && ttl_seconds.is_none() {
        return nothing;
    }
    // For the record alone it is worth less work.
    let most = if ttl_seconds.is_some() || dedupes { INPUT_MAX_BYTES } else { RECORDED_INPUT_MAX_BYTES };
    if plan.input.get().len() > most {
        return nothing;
    }
    let runs: Vec<_> = plan.steps.iter().map(|step| (step.worker.as_str(), step.model.as_deref())).collect();
    // Who names other amounts would pay for those: what they are for is not the same.
    let amounts: Option<BTreeMap<&str, u64>> =
        plan.resources.as_ref().map(|all| all.iter().map(|one| (one.pool.as_str(), one.amount)).collect());
    let text = || {
        let (parameters, input) = (canonical(plan.parameters.get())?, canonical(plan.input.get())?);
        serde_json::to_string(&(plan.client.as_str(), id.as_str(), runs, amounts, parameters, input)).ok()
    };
    let Some(key) = text().as_deref().map(results::key) else { return nothing };
    // What is in flight since before a purge is not waited for.
    let twin = || match catalog.purged.get(id) {
        Some(purged_at) => format!("{key} {}", purged_at.millis()),
        None => key.clone(),
    };
    Same {
        key: Some(key.clone()),
        twin: dedupes.then(twin),
        keep: ttl_seconds.map(|ttl_seconds| Keep { key, ttl_seconds }),
    }
}

/// The result that was kept for a plan, if there is one that may be used.
pub async fn find(call: &Call, catalog: &Catalog, plan: &Plan, keep: &Keep, now: Instant) -> Option<KeptResult> {
    let found = results::find(&call.env, keep, now).await.unwrap_or_else(|error| {
        log::warn("kept_result_not_read", plan.client.as_str(), &error.to_string());
        None
    });
    let purged_at = plan.template.as_ref().and_then(|template| catalog.purged.get(template));
    found.filter(|kept| purged_at.is_none_or(|purged_at| kept.at > *purged_at))
}

/// Lets a request end with a kept result; `None` if that was purged meanwhile, or the key was used for a run.
pub async fn serve(
    call: &Call,
    plan: &Plan,
    keep: &Keep,
    kept: KeptResult,
    key: Option<Idempotency>,
    wait: i64,
    now: Instant,
) -> Result<Option<(SubmitAnswer, Held)>, Problem> {
    let id = new_id(plan.home(), now)?;
    let hold = HoldCall {
        id: id.clone(),
        amount: NanoUsd::ZERO,
        kind: request::Kind::Execution,
        or: Vec::new(),
        instead_of: None,
        kept_at: Some(kept.at),
        idempotency: key,
    };
    let answer = self::call(&call.env, plan.client.as_str(), &hold).await.map_err(unavailable)?;
    let nothing =
        |id, at, tier, replayed, open| Held { id, at, slot: false, slots: None, tier, replayed, open, purged_at: None };
    let held = match answer {
        HoldAnswer::Held { at, tier, .. } => nothing(id, at, tier, false, true),
        // Nothing is held: it was to be served then, and may have been lost on its way.
        HoldAnswer::Replayed { id, at, tier, open: true, amount: Some(NanoUsd::ZERO) } => {
            nothing(id, at, tier, true, true)
        }
        HoldAnswer::Replayed { .. } | HoldAnswer::Purged => return Ok(None),
        other => return Err(hold_refused(other, now)),
    };
    match submit(call, plan, keep, kept, &held, wait).await {
        Ok(answer) => Ok(Some((answer, held))),
        Err(problem) => {
            give_up(&call.env, &plan.client, &held).await;
            Err(problem)
        }
    }
}

async fn submit(
    call: &Call,
    plan: &Plan,
    keep: &Keep,
    kept: KeptResult,
    held: &Held,
    wait: i64,
) -> Result<SubmitAnswer, Problem> {
    let home = held.id.home().ok_or_else(|| Problem::unavailable("a request without a pool"))?;
    let mut submit = submission(call, plan, held, wait)?;
    submit.spec.estimated = NanoUsd::ZERO;
    submit.spec.same = Some(keep.key.clone());
    submit.run_here = false;
    submit.provided = None;
    if held.replayed {
        // Its result may be there: it is not to be written again.
        submit.only_known = true;
        let known = call.pool(&home, &submit, wait).await.map_err(unavailable)?;
        if !matches!(known, SubmitAnswer::Refused { .. }) {
            return Ok(known);
        }
        submit.only_known = false;
    }
    // A large result is stored for this request too: that of the other one may be deleted before.
    let key = payloads::result_key(&held.id, 0);
    let stored = payloads::store(&call.env, key, &kept.result, plan.allowed.compress).await;
    let stored = stored.map_err(|error| Problem::unavailable(format!("the result could not be stored: {error}")))?;
    submit.applied.extend(Applied::compression(stored.as_ref().map_or(0, StoredPayload::saved_bytes)));
    submit.kept = Some(Kept {
        detail: kept.detail(),
        usage: kept.usage,
        result: stored.map_or(Payload::Inline(kept.result), Payload::Stored),
    });
    call.pool(&home, &submit, wait).await.map_err(unavailable)
}

/// `DELETE /admin/cache/clients/{clientId}`.
pub async fn purge_client(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let view = self::call(&call.env, client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    view.ok_or_else(|| Problem::not_found("client"))?;
    self::call(&call.env, client.as_str(), &PurgeCall {}).await.map_err(unavailable)?;
    Ok(Reply::empty(204))
}

/// `DELETE /admin/cache/templates/{templateId}`.
pub async fn purge_template(call: &Call, template: &TemplateId) -> Result<Reply, Problem> {
    let d1 = |error: worker::Error| Problem::unavailable(error.to_string());
    let known = catalog::load(&call.env).await.map_err(d1)?;
    known.templates.get(template).ok_or_else(|| Problem::not_found("template"))?;
    catalog::purge_template(&call.env, template, clock::now()).await.map_err(d1)?;
    Ok(Reply::empty(204))
}

/// The result that a plan would have if it were sent now. The account, which knows whether its client's were purged, is
/// asked only if there is one.
pub async fn usable(
    call: &Call,
    catalog: &Catalog,
    plan: &Plan,
    control: CacheControl,
    now: Instant,
) -> Option<KeptResult> {
    let keep = same(catalog, plan, control).keep.filter(|_| !control.no_cache)?;
    let found = find(call, catalog, plan, &keep, now).await?;
    let purged_at = self::call(&call.env, plan.client.as_str(), &PurgedAtCall {}).await.ok()?;
    Some(found).filter(|kept| purged_at.is_none_or(|purged_at| kept.at > purged_at))
}
