//! Cheaper models: what a request would need of them, and what they would cost.

use rm_core::estimate::Learnt;
use rm_core::id::{PoolId, TemplateId};
use rm_core::optimizer::{Applied, Strategy, allowed_by, is_never_dearer};
use rm_core::pricing::{self, BarePrice};
use rm_core::request::{Demand, Line};
use rm_core::units::{Instant, NanoUsd, Tokens};

use crate::api::admission::{Asked, PlannedStep};
use crate::api::demands::{baseline_of, cost_of, home_first};
use crate::store::catalog::Catalog;
use crate::wire::admin::{PoolRecord, StepRule, TemplateBody};

/// A request by one of the models that it may be done by.
#[derive(Clone)]
pub struct ByModel {
    /// The model that this is a cheaper one for; `None` for that one itself.
    pub instead_of: Option<String>,
    /// The home pool first.
    pub step: PlannedStep,
    pub cost: NanoUsd,
    /// What the same would cost by the template's model.
    pub baseline: NanoUsd,
    pub confidence_permille: u32,
}

impl ByModel {
    pub fn applied(&self) -> Option<Applied> {
        let detail = format!("{} instead of {}", self.step.model.as_deref()?, self.instead_of.as_deref()?);
        Some(Applied { strategy: Strategy::ModelDowngrade, detail, saved_bytes: 0 })
    }

    pub fn home(&self) -> Option<&PoolId> {
        self.step.demands.first().map(|demand| &demand.pool)
    }
}

/// The models of a template's chain that could do and cost no more, in its order. One is left out if its price is unknown, any
/// part of it is dearer, be it in a window of the other one's pool, or its pool can never hold as much.
pub fn alternatives(asked: &Asked<'_>, rule: &StepRule, step: &PlannedStep) -> Vec<ByModel> {
    let (Some(template), Some(from)) = (asked.general, rule.model.as_deref()) else { return Vec::new() };
    let cost = cost_of(&step.demands).unwrap_or(NanoUsd::ZERO);
    // An estimate is cut to what its pool can hold: a smaller pool is none for a request that would not fit.
    let has_room = |demand: &Demand| {
        let needed = step.demands.iter().map(|demand| demand.amount).max().unwrap_or(Tokens::ZERO);
        let capacity = asked.catalog.pools.get(&demand.pool).map(|record| record.body.capacity);
        demand.instead_of.is_none() || capacity.is_some_and(|capacity| needed <= capacity)
    };
    let fits = |cheaper: &ByModel| cheaper.cost <= cost && cheaper.step.demands.iter().all(has_room);
    let by = |model: &String| by_model(asked, rule, (from, &step.demands), model).filter(fits);
    template.downgrade_to.iter().filter(|model| *model != from).filter_map(by).collect()
}

/// The same by another model, if that is never dearer than the one that it is from, with what that one needs.
fn by_model(asked: &Asked<'_>, rule: &StepRule, (from, dear): (&str, &[Demand]), model: &str) -> Option<ByModel> {
    let catalog = asked.catalog;
    let mut pools: Vec<(PoolId, PoolId)> = Vec::new();
    let mut swap = |pool: &PoolId| -> Option<PoolId> {
        let to = pool_of(catalog, pool, from, model)?;
        if pools.iter().any(|(_, taken)| *taken == to) {
            return None;
        }
        pools.push((pool.clone(), to.clone()));
        Some(to)
    };
    let mut rule = StepRule { model: Some(model.to_owned()), ..rule.clone() };
    let mut resources = asked.resources.map(<[_]>::to_vec);
    match &mut resources {
        Some(resources) => {
            for resource in resources {
                resource.pool = swap(&resource.pool)?;
            }
        }
        None => {
            for rate in &mut rule.resources {
                rate.pool = swap(&rate.pool)?;
            }
        }
    }
    let asked = Asked { resources: resources.as_deref(), ..*asked };
    let (mut step, confidence_permille) = asked.step(0, rule).ok()?;
    for (demand, (before, _)) in step.demands.iter_mut().zip(&pools) {
        let dear = dear.iter().find(|demand| demand.pool == *before)?;
        let (price, dear_price) = (price_of(demand), price_of(dear));
        let is_cheaper_at_times = dear.off_peak.is_some() && dear.off_peak != demand.off_peak;
        // A pool that has nothing to do with models is the same one, at the same price.
        if demand.pool == *before && price == dear_price && !is_cheaper_at_times {
            continue;
        }
        if !is_never_dearer((price, demand.off_peak.as_ref()), (dear_price, dear.off_peak.as_ref())) {
            return None;
        }
        demand.instead_of = Some(dear_price);
        demand.instead_off_peak = dear.off_peak.clone();
    }
    let cost = cost_of(&step.demands).ok()?;
    let baseline = baseline_of(&step.demands)?;
    step.demands = home_first(catalog, step.demands);
    Some(ByModel { instead_of: Some(from.to_owned()), step, cost, baseline, confidence_permille })
}

const fn price_of(demand: &Demand) -> BarePrice {
    BarePrice { unit: demand.unit_price, apart: demand.apart }
}

/// The pool that a demand on `pool` goes to with the other model: a pool that says it serves it; `pool` itself if that
/// does, or has its price from the model; and if it has nothing to do with models, `pool` as well. `None` if there is none.
fn pool_of(catalog: &Catalog, pool: &PoolId, from: &str, model: &str) -> Option<PoolId> {
    let record = catalog.pools.get(pool)?;
    let serves = |record: &PoolRecord, model: &str| record.body.models.iter().any(|served| served == model);
    let by_table = record.body.unit_price_usd.is_none();
    let is_the_models = serves(record, from) || (record.body.models.is_empty() && by_table);
    if !is_the_models || serves(record, model) {
        return Some(pool.clone());
    }
    // A token is not a call: it goes to a pool that counts the same.
    let others = catalog.pools.values().filter(|other| serves(other, model) && other.body.unit == record.body.unit);
    let cheapest =
        others.min_by_key(|other| catalog.price(other, Some(model)).map_or(NanoUsd::MAX, |price| price.unit));
    match cheapest {
        Some(other) => Some(other.pool.clone()),
        None => by_table.then(|| pool.clone()),
    }
}

/// Leaves only those that the template's quality floor allows.
pub fn keep_to_floor(cheaper: &mut Vec<ByModel>, template: &TemplateBody) {
    let models = allowed_by(&template.downgrade_to, template.quality_floor.as_deref());
    cheaper.retain(|one| one.step.model.as_ref().is_some_and(|model| models.iter().any(|allowed| allowed == model)));
}

/// The cheapest of them, if it costs less than that.
pub fn cheapest(others: &[ByModel], than: NanoUsd) -> Option<&ByModel> {
    others.iter().filter(|one| one.cost < than).min_by_key(|one| one.cost)
}

/// The cheapest model that a template's quality floor allows, and whose pools can hold as much; and what a use by the template's
/// own would have cost by that one, if it uses more or less by as much as was learnt of both.
pub fn cost_by_cheaper(
    catalog: &Catalog,
    (id, template): (&TemplateId, &TemplateBody),
    used: &str,
    lines: &[Line],
    now: Instant,
) -> Option<(String, NanoUsd)> {
    let from = template.model.as_deref().filter(|from| *from == used)?;
    let factor = |pool: &PoolId| catalog.learnt.get(&(id.clone(), pool.clone())).map_or(1_000, Learnt::factor_permille);
    let by = |model: &String| {
        let cost = lines.iter().try_fold(NanoUsd::ZERO, |sum, line| {
            let dear_pool = catalog.pools.get(&line.pool)?;
            let pool = catalog.pools.get(&pool_of(catalog, &line.pool, from, model)?)?;
            let cheap =
                catalog.price(pool, Some(model)).map(|price| BarePrice { unit: price.unit, apart: price.apart })?;
            let dear = BarePrice { unit: line.unit_price, apart: line.apart };
            let off = catalog.off_peak_price(pool, Some(model), now);
            let dear_off = catalog.off_peak_price(dear_pool, Some(from), now);
            let is_untouched = pool.pool == line.pool && cheap == dear && (dear_off.is_none() || dear_off == off);
            let cost = match is_never_dearer((cheap, off.as_ref()), (dear, dear_off.as_ref())) {
                _ if is_untouched => line.cost,
                true if line.estimated.max(line.actual) > pool.body.capacity => return None,
                true => {
                    let cost = pricing::cost(cheap.unit, cheap.apart, line.actual, line.parts)?;
                    // What a caller named is as much by any model.
                    let learnt = line.formula.map_or((1, 1), |_| (factor(&pool.pool), factor(&line.pool)));
                    times_ratio(cost, learnt)?
                }
                false => return None,
            };
            sum.checked_add(cost)
        })?;
        Some((model.clone(), cost))
    };
    let allowed = allowed_by(&template.downgrade_to, template.quality_floor.as_deref());
    allowed.iter().filter_map(by).min_by_key(|(_, cost)| *cost)
}

fn times_ratio(cost: NanoUsd, (by, of): (u32, u32)) -> Option<NanoUsd> {
    let nanos = i128::from(cost.nanos()).checked_mul(by.into())?.checked_div(of.into())?;
    i64::try_from(nanos).ok().and_then(NanoUsd::from_nanos)
}
