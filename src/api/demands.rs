//! From amounts to demands: what a request needs of each pool, at which price, and which pool is its home.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rm_core::estimate;
use rm_core::id::{ClientId, PoolId, TemplateId};
use rm_core::priority::Tier;
use rm_core::request::Demand;
use rm_core::units::{Instant, NanoUsd, Tokens};
use worker::{Context, Env};

use crate::alerts;
use crate::host::log;
use crate::store::catalog::Catalog;
use crate::wire::admin::StepRule;
use crate::wire::api::ResourceAmount;
use crate::wire::problem::{Code, FieldError, More, Problem};

/// The most pools that one request may need.
pub const POOLS_MAX: usize = 8;
/// How sure an estimate is that nothing was learnt of yet, in thousandths: if its formula counts an input, and if not.
const GUESS_PERMILLE: u32 = 500;
const FIXED_PERMILLE: u32 = 900;
/// An alert about one price is told this often at most; and about so many names, for callers may name any.
const TOLD_EVERY_MS: i64 = 60_000;
const TOLD_MAX: usize = 20;

/// What a template is expected to need.
pub struct Estimated {
    pub demands: Vec<Demand>,
    /// How sure that is, in thousandths.
    pub confidence_permille: u32,
}

/// The demands of a template, or of one of its steps, for an input: its formula, times what was learnt, at most what each
/// pool can ever grant.
pub fn of_template(
    catalog: &Catalog,
    (id, step): (&TemplateId, &StepRule),
    input_bytes: u64,
    output_tokens: Option<u64>,
    now: Instant,
) -> Result<Estimated, Problem> {
    let mut demands = Vec::new();
    let mut confidence_permille = 1_000;
    for (index, rate) in step.resources.iter().enumerate() {
        let formula = estimate::formula(rate, input_bytes, output_tokens);
        let learnt = catalog.learnt.get(&(id.clone(), rate.pool.clone()));
        let factor = learnt.map_or(1_000, estimate::Learnt::factor_permille);
        let capacity = catalog.pools.get(&rate.pool).map_or(Tokens::MAX, |record| record.body.capacity);
        let amount = estimate::estimate(formula.amount, factor, capacity);
        let fixed = rate.per_input_token.is_zero() && rate.per_output_token.is_zero();
        let unlearnt = if fixed { FIXED_PERMILLE } else { GUESS_PERMILLE };
        let sure = learnt.and_then(estimate::Learnt::confidence_permille).unwrap_or(unlearnt);
        confidence_permille = confidence_permille.min(sure);
        let mut demand = demand(catalog, index, &rate.pool, amount, (step.model.as_deref(), now))?;
        if demand.apart.is_some() || step.model.is_some() {
            // By a cheaper model with one price for any use, it is told what the same would have cost by this one.
            demand = demand.with_output(formula.amount, formula.output);
        }
        demand.formula = Some(formula.amount);
        demands.push(demand);
    }
    if demands.is_empty() {
        return Err(Problem::new(Code::Unsatisfiable, "the template needs no pool: nothing can be priced"));
    }
    Ok(Estimated { demands, confidence_permille })
}

/// The demands of a list of amounts in a body.
pub fn of_amounts(
    catalog: &Catalog,
    resources: &[ResourceAmount],
    model: Option<&str>,
    now: Instant,
) -> Result<Vec<Demand>, Problem> {
    let amounts: Vec<_> = resources.iter().map(|resource| (&resource.pool, resource.amount)).collect();
    check_amounts(&amounts, "/resources", 1)?;
    if resources.is_empty() {
        return Err(Problem::field("/resources", "must name at least one pool"));
    }
    let demand = |(index, resource): (usize, &ResourceAmount)| {
        let amount = Tokens::from_units(resource.amount).unwrap_or(Tokens::MAX);
        demand(catalog, index, &resource.pool, amount, (model, now))
    };
    resources.iter().enumerate().map(demand).collect()
}

/// Checks that amounts are in range, and no pool is named twice.
pub fn check_amounts(amounts: &[(&PoolId, u64)], pointer: &str, least: u64) -> Result<(), Problem> {
    if amounts.len() > POOLS_MAX {
        return Err(Problem::field(pointer, format!("must name at most {POOLS_MAX} pools")));
    }
    let mut seen = BTreeSet::new();
    for (index, (pool, amount)) in amounts.iter().enumerate() {
        if !seen.insert(pool) {
            return Err(Problem::field(format!("{pointer}/{index}/pool"), "is named twice"));
        }
        let valid = *amount >= least && Tokens::from_units(*amount).is_some();
        if !valid {
            let most = Tokens::MAX.units();
            return Err(Problem::field(format!("{pointer}/{index}/amount"), format!("must be from {least} to {most}")));
        }
    }
    Ok(())
}

/// One demand. What a pool can never hold, or has no price, is refused.
fn demand(
    catalog: &Catalog,
    index: usize,
    pool: &PoolId,
    amount: Tokens,
    (model, now): (Option<&str>, Instant),
) -> Result<Demand, Problem> {
    let unsatisfiable = |field: &str, detail: String| {
        let mut problem = Problem::new(Code::Unsatisfiable, detail.clone());
        problem.errors.push(FieldError { pointer: format!("/resources/{index}/{field}"), detail });
        problem
    };
    let Some(record) = catalog.pools.get(pool) else {
        let problem = unsatisfiable("pool", format!("there is no pool `{pool}`, so no price for it"));
        // Callers may name any pool: all that are none are one cause.
        return Err(problem.with(More::UnknownPrice("pools", "unknown".into())));
    };
    let Some(price) = catalog.price(record, model) else {
        let (what, name) = model.map_or(("pool", pool.as_str()), |model| ("model", model));
        let detail = format!(
            "the price of the {what} `{name}` is unknown: `{pool}` has none of its own, and the price table has none"
        );
        return Err(unsatisfiable("pool", detail).with(More::UnknownPrice(what, name.to_owned())));
    };
    if amount > record.body.capacity {
        let most = record.body.capacity.units();
        return Err(unsatisfiable(
            "amount",
            format!("`{pool}` can hold {most} at most; {} are asked for", amount.units()),
        ));
    }
    Ok(Demand {
        apart: price.apart,
        price_version: price.version,
        off_peak: catalog.off_peak_price(record, model, now),
        ..Demand::flat(pool.clone(), amount, price.unit)
    })
}

/// Refuses what a client can never be granted, because it is dedicated to others.
pub fn check_reach<'a>(
    catalog: &Catalog,
    (client, tier): (&ClientId, Tier),
    demands: impl Iterator<Item = &'a Demand>,
) -> Result<(), Problem> {
    for demand in demands {
        // A pool that is gone by now refuses by itself.
        let reach = catalog.reach(&demand.pool, client, tier).unwrap_or(Tokens::MAX);
        if demand.amount > reach {
            let detail = format!(
                "of `{}` the client can be granted {} at most at once, for the rest is dedicated to others; {} are needed",
                demand.pool,
                reach.units(),
                demand.amount.units()
            );
            return Err(Problem::new(Code::Unsatisfiable, detail));
        }
    }
    Ok(())
}

/// What demands cost in all.
pub fn cost_of<'a>(demands: impl IntoIterator<Item = &'a Demand>) -> Result<NanoUsd, Problem> {
    let mut total = NanoUsd::ZERO;
    for demand in demands {
        let cost = demand.estimated_cost().and_then(|cost| total.checked_add(cost));
        total = cost.ok_or_else(|| Problem::new(Code::Unsatisfiable, "its price is beyond what can be counted"))?;
    }
    Ok(total)
}

/// What demands would cost in all without any strategy; `None` beyond what can be counted.
pub fn baseline_of(demands: &[Demand]) -> Option<NanoUsd> {
    demands.iter().try_fold(NanoUsd::ZERO, |sum, demand| sum.checked_add(demand.baseline_cost()?))
}

/// Puts the home first: the scarcest of the pools, whose refill takes longest to make up for this request.
pub fn home_first(catalog: &Catalog, demands: Vec<Demand>) -> Vec<Demand> {
    let home = scarcest(catalog, demands.iter());
    with_home(demands, home.as_ref())
}

/// The pool whose refill takes longest to make up for all of these demands.
pub fn scarcest<'a>(catalog: &Catalog, demands: impl Iterator<Item = &'a Demand>) -> Option<PoolId> {
    let mut needed: Vec<(PoolId, i128)> = Vec::new();
    for demand in demands {
        let amount = i128::from(demand.amount.micros());
        match needed.iter_mut().find(|(pool, _)| *pool == demand.pool) {
            Some((_, sum)) => *sum = sum.saturating_add(amount),
            None => needed.push((demand.pool.clone(), amount)),
        }
    }
    let refill = |pool: &PoolId| {
        let record = catalog.pools.get(pool);
        i128::from(record.map_or(0, |record| record.body.refill_per_second.micros()))
    };
    let scarcer = |best: (PoolId, i128), other: (PoolId, i128)| {
        let time_of_other = other.1.saturating_mul(refill(&best.0));
        let time_of_best = best.1.saturating_mul(refill(&other.0));
        if time_of_other > time_of_best { other } else { best }
    };
    needed.into_iter().reduce(scarcer).map(|(pool, _)| pool)
}

/// Puts a pool's demand first; one that is not there is nothing of that pool.
pub fn with_home(mut demands: Vec<Demand>, home: Option<&PoolId>) -> Vec<Demand> {
    let Some(home) = home else { return demands };
    match demands.iter().position(|demand| demand.pool == *home) {
        Some(index) => demands.swap(0, index),
        None => demands.insert(0, Demand::flat(home.clone(), Tokens::ZERO, NanoUsd::ZERO)),
    }
    demands
}

thread_local! {
    /// Which unknown prices were told, and when.
    static TOLD: RefCell<BTreeMap<String, Instant>> = const { RefCell::new(BTreeMap::new()) };
}

/// Raises the alert for an unknown price, after the answer, unless that was done a moment ago.
pub fn tell_unknown_price(env: Env, context: &Context, what: &'static str, name: String, now: Instant) {
    let is_due = TOLD.with_borrow_mut(|told| {
        told.retain(|_, at| now.since(*at) < TOLD_EVERY_MS);
        let due = told.len() < TOLD_MAX && !told.contains_key(&name);
        if due {
            told.insert(name.clone(), now);
        }
        due
    });
    if is_due {
        context.wait_until(async move {
            if let Err(error) = alerts::tell_unknown_price(&env, what, &name).await {
                log::warn("alert_not_recorded", &name, &error.to_string());
            }
        });
    }
}
