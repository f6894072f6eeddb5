//! What waiting is worth: what would be off the price of a request in the window that it would wait for.

use rm_core::id::PoolId;
use rm_core::off_peak::{Window, is_open};
use rm_core::priority::Urgency;
use rm_core::request::{FORCE_SLACK_MS, Line};
use rm_core::units::{Instant, NanoUsd};

use crate::api::admission::{Plan, PlannedStep};
use crate::store::catalog::{Catalog, windows};
use crate::store::record::UsageEvent;
use crate::wire::admin::TemplateBody;

/// Windows are known from here on before a moment, to tell the one that the moment is in.
const LOOK_BACK_MS: i64 = 86_400_000;

/// The windows that patient work waits for: those of its template or, without any, of its home.
fn waited_for(
    catalog: &Catalog,
    template: Option<&TemplateBody>,
    home: Option<&PoolId>,
    at: Instant,
) -> Option<Vec<Window>> {
    let of_pool = || windows(catalog.pools.get(home?)?.body.off_peak.as_ref()?, at);
    template.and_then(|template| catalog.template_windows(template, at)).or_else(of_pool)
}

/// What would be off the price of all these steps if the request waited for its window, in per cent; else why nothing would.
pub fn percent_off(catalog: &Catalog, plan: &Plan, steps: &[PlannedStep], now: Instant) -> Result<u8, String> {
    let template = plan.template.as_ref().and_then(|id| catalog.templates.get(id));
    let home = steps.first().and_then(|step| step.demands.first()).map(|demand| &demand.pool);
    let starts_at = match waited_for(catalog, template, home, now).map(|windows| is_open(&windows, now)) {
        Some(Err(Some(at))) => at,
        Some(Err(None)) => return Err("no window is to come".into()),
        Some(Ok(())) => return Err("its window is open now: it waits for none".into()),
        None => return Err("there is no window that it could wait for".into()),
    };
    let limits = steps.iter().fold(0_i64, |sum, step| sum.saturating_add(step.timeout_ms));
    let needed = limits.saturating_add(FORCE_SLACK_MS);
    if plan.deadline.is_some_and(|deadline| starts_at.plus(needed) > deadline) {
        return Err("its deadline does not let it wait for the next window".into());
    }
    let mut percent_off = 100_u8;
    let demands = steps.iter().flat_map(|step| step.demands.iter().map(|demand| (demand, step.model.as_deref())));
    for (demand, model) in demands.filter(|(demand, _)| !demand.amount.is_zero()) {
        let off_peak = catalog.pools.get(&demand.pool).and_then(|pool| catalog.off_peak_price(pool, model, now));
        let off_peak = off_peak.ok_or_else(|| format!("`{}` costs the same at any time", demand.pool))?;
        if off_peak.percent_at(now) > 0 {
            return Err(format!("`{}` is in a window now: it costs less as it is", demand.pool));
        }
        percent_off = percent_off.min(off_peak.percent_at(starts_at));
    }
    match percent_off {
        0 => Err("its window is not one in which it costs less".into()),
        percent_off => Ok(percent_off),
    }
}

/// What is off the price of each pool of a request in a window that is open now, unless it waits for another one.
pub fn off_now(catalog: &Catalog, plan: &Plan, waits: bool, now: Instant) -> Vec<(PoolId, u8)> {
    let template = plan.template.as_ref().and_then(|id| catalog.templates.get(id));
    let windows = waited_for(catalog, template, plan.home(), now).filter(|_| waits);
    if windows.is_some_and(|windows| is_open(&windows, now).is_err()) {
        return Vec::new();
    }
    let demands = plan.steps.iter().flat_map(|step| step.demands.iter().map(|demand| (demand, step.model.as_deref())));
    let mut off: Vec<(PoolId, u8)> = Vec::new();
    for (demand, model) in demands.filter(|(demand, _)| !demand.amount.is_zero()) {
        let off_peak = catalog.pools.get(&demand.pool).and_then(|pool| catalog.off_peak_price(pool, model, now));
        let percent = off_peak.map_or(0, |off_peak| off_peak.percent_at(now));
        if percent > 0 && !off.iter().any(|known| *known == (demand.pool.clone(), percent)) {
            off.push((demand.pool.clone(), percent));
        }
    }
    off
}

/// What would have been off the price of work of the lane `batch`, which did not wait for a window, if it had; by the rules
/// as they are now. Deferred work waits as it is.
pub fn would_have_been_off(catalog: &Catalog, event: &UsageEvent) -> Option<u8> {
    let started_at = event.started_at.filter(|_| event.urgency == Urgency::Batch)?;
    let template = event.template_id.as_ref().and_then(|id| catalog.templates.get(&id.parse().ok()?));
    let home = event.request_id.home();
    let since = event.created_at.plus(-LOOK_BACK_MS);
    let opens_at = match is_open(&waited_for(catalog, template, home.as_ref(), since)?, event.created_at) {
        Err(at) => at?,
        Ok(()) => return None,
    };
    // It would have been forced out in time for its run, which may take thrice as long as one did.
    let needed = event.at.since(started_at).saturating_mul(3).saturating_add(FORCE_SLACK_MS);
    if event.deadline.is_some_and(|deadline| opens_at.plus(needed) > deadline) {
        return None;
    }
    let charged = event.lines.iter().filter(|line| line.cost > NanoUsd::ZERO);
    let of_line = |line: &Line| {
        let off_peak = catalog.off_peak_price(catalog.pools.get(&line.pool)?, event.model.as_deref(), since)?;
        (off_peak.percent_at(started_at) == 0).then(|| off_peak.percent_at(opens_at)).filter(|percent| *percent > 0)
    };
    charged.map(of_line).collect::<Option<Vec<u8>>>()?.into_iter().min()
}
