//! What could be cheaper: of one request, and of those that a client has made.

use std::collections::BTreeMap;

use rm_core::id::ClientId;
use rm_core::off_peak::WaitsFor;
use rm_core::optimizer::{Level, Past, Strategy, WouldHave, would_have_saved};
use rm_core::pricing::Discount;
use rm_core::priority::Urgency;
use rm_core::request::Line;
use rm_core::units::{Instant, NanoUsd, Tokens};

use crate::api::Call;
use crate::api::admission::Plan;
use crate::api::downgrade::{ByModel, cheapest, cost_by_cheaper, keep_to_floor};
use crate::api::kept::{self, CacheControl};
use crate::api::usage::day;
use crate::api::{batching, patience, submission};
use crate::store::catalog::Catalog;
use crate::store::payloads::INLINE_MAX_BYTES;
use crate::store::record::{self, UsageEvent};
use crate::store::results::KeptResult;
use crate::wire::problem::Problem;
use crate::wire::usage::{Analysis, Opportunity, Recommendation};

/// The most requests of a client that are looked at, from the last on.
const REQUESTS_MAX: u32 = 2_000;
/// How long a result is taken to hold where a template does not say.
const TTL_MS: i64 = 3_600_000;

const fn not(strategy: Strategy, reason: String) -> Opportunity {
    Opportunity { strategy, applicable: false, reason, saved_usd: NanoUsd::ZERO, change: None }
}

/// What could be done for one request, as it would be executed now: what has a kept result is not run, and costs nothing.
pub fn of_request(
    catalog: &Catalog,
    plan: &Plan,
    (control, kept): (CacheControl, Option<&KeptResult>),
    now: Instant,
) -> Analysis {
    let is_kept = kept.is_some();
    let (downgrade, by_model) = downgrade(catalog, plan, is_kept);
    let not_run = |strategy| not(strategy, "its result is kept: it is not run".into());
    let off_peak = if is_kept { not_run(Strategy::OffPeak) } else { off_peak(catalog, plan, now) };
    let batching = if is_kept { not_run(Strategy::RequestBatching) } else { combined(catalog, plan) };
    let mut optimized = plan.cost.saturating_sub(off_peak.saved_usd);
    if let Some(by_model) = by_model {
        // A cheaper model's pool has windows of its own, or none.
        let steps = std::slice::from_ref(&by_model.step);
        let percent_off = patience::percent_off(catalog, plan, steps, now).unwrap_or(0);
        let percent_off = if plan.allowed.off_peak { percent_off } else { 0 };
        let discounted = Discount { percent_off, waited_for: true }.applied_to(by_model.cost);
        optimized = optimized.min(discounted);
    }
    if is_kept {
        optimized = NanoUsd::ZERO;
    }
    let kept = kept_result(catalog, plan, control, kept);
    Analysis {
        opportunities: vec![downgrade, batching, kept, compression(plan), off_peak],
        baseline_usd: plan.baseline,
        optimized_usd: optimized,
    }
}

fn off_peak(catalog: &Catalog, plan: &Plan, now: Instant) -> Opportunity {
    let strategy = Strategy::OffPeak;
    let percent_off = match patience::percent_off(catalog, plan, &plan.steps, now) {
        Ok(percent_off) if plan.allowed.off_peak => percent_off,
        Ok(_) => return not(strategy, "its caller does not allow it".into()),
        Err(reason) => return not(strategy, reason),
    };
    let discounted = Discount { percent_off, waited_for: true }.applied_to(plan.cost);
    let waits = submission::waits_for(catalog, plan, now) != WaitsFor::Nothing;
    let change = if waits { "none: it waits for the window" } else { "urgency deferred lets it wait for the window" };
    Opportunity {
        strategy,
        applicable: true,
        reason: format!("in the window it costs {percent_off} % less"),
        saved_usd: plan.cost.saturating_sub(discounted),
        change: Some(change.to_owned()),
    }
}

/// A cheaper model, and what the request would be by it.
fn downgrade(catalog: &Catalog, plan: &Plan, is_kept: bool) -> (Opportunity, Option<ByModel>) {
    let strategy = Strategy::ModelDowngrade;
    if let Some(applied) = plan.applied.iter().find(|applied| applied.strategy == strategy) {
        let saved_usd = plan.baseline.saturating_sub(plan.cost);
        let change = Some(format!("none: {} is what it gets", applied.detail));
        let reason = match plan.allowed.downgrade {
            Some(Level::Aggressive) => "its level is aggressive".to_owned(),
            _ => "the other one would keep it waiting, or does not fit in its budget".to_owned(),
        };
        return (Opportunity { strategy, applicable: true, reason, saved_usd, change }, None);
    }
    if is_kept {
        return (not(strategy, "its result is kept: it is free by the model that it has".into()), None);
    }
    let template = plan.template.as_ref().and_then(|id| catalog.templates.get(id));
    if plan.allowed.downgrade.is_none() {
        return (not(strategy, "its caller does not allow it".into()), None);
    }
    let mut others = plan.others.clone();
    if let Some(template) = template {
        keep_to_floor(&mut others, template);
    }
    let Some(other) = cheapest(&others, plan.cost).cloned() else {
        return (not(strategy, "no model of its template's chain costs less at all times".into()), None);
    };
    let saved_usd = other.baseline.saturating_sub(other.cost);
    let detail = other.applied().map(|applied| applied.detail).unwrap_or_default();
    let change = Some(format!("optimization.level aggressive takes {detail}"));
    let reason = "a model of its template's chain costs less in every part".to_owned();
    (Opportunity { strategy, applicable: true, reason, saved_usd, change }, Some(other))
}

fn combined(catalog: &Catalog, plan: &Plan) -> Opportunity {
    let strategy = Strategy::RequestBatching;
    let template = plan.template.as_ref().and_then(|id| catalog.templates.get(id));
    match template.and_then(|template| template.batch.as_ref()).filter(|_| !plan.is_pipeline) {
        None => not(strategy, "its template's requests are not combined".into()),
        Some(_) if !plan.allowed.batch => not(strategy, "its caller does not allow it".into()),
        Some(rule) if batching::most(rule, plan) < 2 => {
            not(strategy, "no other one fits into a call with it, by its length".into())
        }
        Some(rule) => {
            let others = batching::most(rule, plan).saturating_sub(1);
            let in_lane = matches!(plan.urgency, Urgency::Batch | Urgency::Deferred) || plan.allowed.batch_in_any_lane;
            let change = match in_lane {
                true => format!("none: it waits up to {} ms for {others} others", rule.window_ms),
                false => "urgency batch, or optimization.batch true, lets it wait for others".to_owned(),
            };
            let reason = "what a common call saves is known when it has been made".to_owned();
            Opportunity { strategy, applicable: true, reason, saved_usd: NanoUsd::ZERO, change: Some(change) }
        }
    }
}

fn kept_result(catalog: &Catalog, plan: &Plan, control: CacheControl, kept: Option<&KeptResult>) -> Opportunity {
    let strategy = Strategy::Cache;
    let template = plan.template.as_ref().and_then(|id| catalog.templates.get(id));
    let keeps = template.is_some_and(|template| template.cache_ttl_seconds.is_some_and(|ttl| ttl > 0));
    if kept::same(catalog, plan, control).keep.is_none() || control.no_cache {
        let reason = match (plan.allowed.cache && !control.no_cache, keeps) {
            (false, _) => "its caller does not allow it",
            (true, false) => "its template keeps no results",
            (true, true) => "its input is too long to be compared, or can be read in two ways",
        };
        return not(strategy, reason.into());
    }
    match kept {
        Some(found) => {
            let saved_usd = plan.cost;
            let change = Some("none: it has that result at once".to_owned());
            Opportunity { strategy, applicable: true, reason: found.detail(), saved_usd, change }
        }
        None => not(strategy, "no result of the same request is kept now; its own will be".into()),
    }
}

fn compression(plan: &Plan) -> Opportunity {
    let strategy = Strategy::Compression;
    let bytes = plan.input.get().len();
    if !plan.allowed.compress {
        return not(strategy, "its caller does not allow it".into());
    }
    if bytes <= INLINE_MAX_BYTES {
        return not(
            strategy,
            format!("its input has {bytes} bytes; those of more than {INLINE_MAX_BYTES} are gzipped"),
        );
    }
    let reason = format!("its input has {bytes} bytes; it saves bytes, and no money");
    let change = Some("none: it is stored and forwarded gzipped".to_owned());
    Opportunity { strategy, applicable: true, reason, saved_usd: NanoUsd::ZERO, change }
}

/// What would have been saved on what a client has made.
pub async fn of_history(
    call: &Call,
    catalog: &Catalog,
    client: &ClientId,
    span: (Instant, Instant),
) -> Result<Analysis, Problem> {
    let (events, all) = looked_at(call, catalog, client, span).await?;
    let baseline = events.iter().fold(NanoUsd::ZERO, |sum, event| sum.saturating_add(event.baseline));
    let cost = events.iter().fold(NanoUsd::ZERO, |sum, event| sum.saturating_add(event.cost));
    let nothing = WouldHave::default();
    let opportunity = |strategy: Strategy| {
        let would = all.get(&strategy).unwrap_or(&nothing);
        if would.requests == 0 {
            let looked_at = events.len();
            return not(strategy, format!("nothing would have come of it for the last {looked_at} requests"));
        }
        Opportunity {
            strategy,
            applicable: true,
            reason: evidence(would),
            saved_usd: would.saved,
            change: Some(change(strategy).to_owned()),
        }
    };
    let saved = all.values().fold(NanoUsd::ZERO, |sum, would| sum.saturating_add(would.saved));
    Ok(Analysis {
        opportunities: Strategy::ALL.into_iter().map(opportunity).collect(),
        baseline_usd: baseline,
        optimized_usd: cost.saturating_sub(saved).or_zero(),
    })
}

/// What would have paid, with its evidence; what saves most first.
pub async fn recommendations(
    call: &Call,
    catalog: &Catalog,
    client: &ClientId,
    span: (Instant, Instant),
) -> Result<Vec<Recommendation>, Problem> {
    let (_, all) = looked_at(call, catalog, client, span).await?;
    let mut all: Vec<_> = all.into_iter().filter(|(_, would)| would.saved > NanoUsd::ZERO).collect();
    all.sort_by_key(|(_, would)| std::cmp::Reverse(would.saved));
    let recommendation = |(strategy, would): (Strategy, WouldHave)| Recommendation {
        strategy,
        reason: change(strategy).to_owned(),
        // What it would have been in the last 30 days, and no more: nothing is extrapolated.
        estimated_monthly_saving_usd: would.saved,
        evidence: evidence(&would),
    };
    Ok(all.into_iter().map(recommendation).collect())
}

const fn change(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::ModelDowngrade => {
            "optimization.level aggressive takes the cheapest model that the quality floor allows"
        }
        Strategy::RequestBatching => "optimization.batch true, or urgency batch, lets them be run by common calls",
        Strategy::Cache => {
            "if its results may be used again: cacheTtlSeconds of the template, and optimization.cache not false"
        }
        Strategy::Compression => "optimization.compress not false",
        Strategy::OffPeak => "urgency deferred, or batch with optimization.offPeak true, waits for the cheaper window",
    }
}

fn evidence(would: &WouldHave) -> String {
    let of_template = |(template, n): (&String, &u64)| match template.as_str() {
        "" => format!("{n} without a template"),
        template => format!("{n} of `{template}`"),
    };
    let templates: Vec<String> = would.templates.iter().map(of_template).collect();
    let (first, last) = would.span.map_or_else(Default::default, |(first, last)| (day(first), day(last)));
    let saved = rm_core::decimal::format(would.saved.nanos(), 9);
    format!(
        "{} requests from {first} to {last} would have cost ${saved} less: {}",
        would.requests,
        templates.join(", ")
    )
}

async fn looked_at(
    call: &Call,
    catalog: &Catalog,
    client: &ClientId,
    span: (Instant, Instant),
) -> Result<(Vec<UsageEvent>, BTreeMap<Strategy, WouldHave>), Problem> {
    let events = record::last_of_client(&call.env, client, span, REQUESTS_MAX).await;
    let events = events.map_err(|error| Problem::unavailable(error.to_string()))?;
    let past: Vec<Past> = events.iter().map(|event| past(catalog, event)).collect();
    let all = would_have_saved(&past);
    Ok((events, all))
}

fn past(catalog: &Catalog, event: &UsageEvent) -> Past {
    let name = event.template_id.clone().unwrap_or_default();
    let id = name.parse().ok();
    let template = id.as_ref().and_then(|id| Some((id, catalog.templates.get(id)?)));
    let saved_by = |strategy| {
        let applied = event.optimizations.iter().find(|applied| applied.strategy == strategy);
        applied.map(|applied| applied.saved_usd)
    };
    let by_cheaper_model = template
        .and_then(|template| cost_by_cheaper(catalog, template, event.model.as_deref()?, &event.lines, event.at));
    let template = template.map(|(_, template)| template);
    let formula = |line: &Line| line.formula.unwrap_or(Tokens::ZERO);
    let is_run = event.attempts > 0;
    let ttl_ms = template.and_then(|template| template.cache_ttl_seconds).filter(|ttl| *ttl > 0);
    let ttl_ms = ttl_ms.map_or(TTL_MS, |seconds| i64::from(seconds).saturating_mul(1_000));
    Past {
        at: event.created_at,
        result_at: Some(event.at),
        model: event.model.clone().unwrap_or_default(),
        cost: event.cost,
        tried: event.tried.clone(),
        by_cheaper_model,
        run: is_run.then(|| event.baseline.saturating_sub(saved_by(Strategy::ModelDowngrade).unwrap_or(NanoUsd::ZERO))),
        expected: event.lines.iter().fold(Tokens::ZERO, |sum, line| sum.saturating_add(formula(line))),
        same: event.same.clone().filter(|_| event.cost > NanoUsd::ZERO).map(|same| (same, ttl_ms)),
        percent_off: patience::would_have_been_off(catalog, event),
        batch_window_ms: template.and_then(|template| template.batch.as_ref()).map(|rule| rule.window_ms.into()),
        saved_by_batching: saved_by(Strategy::RequestBatching),
        template: name,
    }
}
