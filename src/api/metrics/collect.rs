//! From what is known to metric families.

use std::collections::BTreeMap;

use rm_core::decimal::MAX_EXACT;
use rm_core::estimate::Learnt;
use rm_core::id::{PoolId, TemplateId};

use crate::api::metrics::exposition::{Family, Kind};
use crate::api::resources::pool_availability;
use crate::store::totals::{SERIES_MAX, Totals};
use crate::wire::pool::ViewAnswer;
use rm_core::optimizer::Strategy;

/// Where the figures come from.
pub struct Sources<'a> {
    pub views: &'a [ViewAnswer],
    pub totals: &'a Totals,
    pub alerts: &'a [(String, u64)],
    pub learnt: &'a BTreeMap<(TemplateId, PoolId), Learnt>,
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(MAX_EXACT).min(MAX_EXACT)
}

/// All families.
pub fn collect(sources: &Sources<'_>) -> Vec<Family> {
    let mut families = pools(sources.views);
    families.extend(queue(sources.views));
    families.extend(lanes(sources.totals));
    families.extend(costs(sources.totals));
    families.extend(estimates(sources.learnt));
    let mut alerts = Family::new(Kind::Gauge, "resource_manager_open_alerts", "Alerts that are open, by kind.");
    for (kind, count) in sources.alerts {
        alerts.add(&[("kind", kind)], int(*count), 0);
    }
    families.push(alerts);
    families
}

fn pools(views: &[ViewAnswer]) -> Vec<Family> {
    let gauge = |name, help| Family::new(Kind::Gauge, name, help);
    let mut capacity = gauge("resource_manager_pool_capacity_units", "What a pool holds at most.");
    let mut available = gauge("resource_manager_pool_available_units", "What could be taken from a pool now.");
    let mut reserved = gauge("resource_manager_pool_reserved_units", "What is taken from a pool and not settled.");
    let mut utilization =
        gauge("resource_manager_pool_utilization_ratio", "The share of a pool's capacity that is not available.");
    let mut running = gauge("resource_manager_pool_running_requests", "Requests that run, by home pool.");
    let mut queued = gauge("resource_manager_pool_queued_requests", "Requests that wait, by home pool.");
    let mut rate = gauge(
        "resource_manager_pool_refill_rate_ratio",
        "The share of a pool's refill that its downstream bears, as learnt.",
    );
    let mut lent = gauge("resource_manager_pool_lent_units", "What is lent of a pool's reserved partitions.");
    let mut open = gauge(
        "resource_manager_pool_open_circuits",
        "Downstream workers that are left alone or only probed, by home pool.",
    );
    let counter = |name, help| Family::new(Kind::Counter, name, help);
    let mut foretold = counter(
        "resource_manager_start_estimates_total",
        "Starts of requests that had to wait, by whether they were later than estimated when they came.",
    );
    let mut error = counter(
        "resource_manager_start_estimate_error_seconds_total",
        "The sum of how far those starts were from their estimates; divided by the count it is the mean.",
    );
    for view in views {
        let pool = &[("pool", view.pool.pool.as_str())];
        let seen = pool_availability(view.pool.clone());
        capacity.add(pool, view.pool.capacity.micros(), 6);
        available.add(pool, view.pool.available.micros(), 6);
        reserved.add(pool, view.pool.reserved.micros(), 6);
        utilization.add(pool, seen.utilization.0, 3);
        running.add(pool, int(view.queue.running), 0);
        queued.add(pool, int(view.queue.depth), 0);
        let full = view.pool.refill_per_second.micros().max(1);
        let effective = seen.effective_refill_per_second.micros();
        rate.add(pool, effective.saturating_mul(1_000).checked_div(full).unwrap_or(0), 3);
        lent.add(pool, view.pool.lent.micros(), 6);
        let circuits = view.pool.breakers.iter().filter(|breaker| breaker.state != "closed").count();
        open.add(pool, i64::try_from(circuits).unwrap_or(0), 0);
        let late = |late| [pool.as_slice(), &[("late", late)]].concat();
        foretold.add(&late("true"), int(view.foretold.late), 0);
        foretold.add(&late("false"), int(view.foretold.count.saturating_sub(view.foretold.late)), 0);
        error.add(pool, view.foretold.error_ms, 3);
    }
    vec![capacity, available, reserved, utilization, running, queued, rate, lent, open, foretold, error]
}

fn queue(views: &[ViewAnswer]) -> Vec<Family> {
    let mut depth = Family::new(Kind::Gauge, "resource_manager_queue_depth_requests", "Requests that wait, by lane.");
    let mut oldest = Family::new(
        Kind::Gauge,
        "resource_manager_queue_oldest_wait_seconds",
        "How long the longest waiting request of a lane has waited.",
    );
    let mut lanes: BTreeMap<&'static str, (u64, i64)> = BTreeMap::new();
    for lane in views.iter().flat_map(|view| &view.queue.lanes) {
        let sum = lanes.entry(lane.urgency.as_str()).or_default();
        *sum = (sum.0.saturating_add(lane.depth), sum.1.max(lane.oldest_wait_ms));
    }
    for (lane, (count, wait_ms)) in lanes {
        depth.add(&[("lane", lane)], int(count), 0);
        oldest.add(&[("lane", lane)], wait_ms, 3);
    }
    vec![depth, oldest]
}

fn lanes(totals: &Totals) -> Vec<Family> {
    let mut requests =
        Family::new(Kind::Counter, "resource_manager_requests_total", "Executions that ended, by lane and status.");
    let mut runs = Family::new(
        Kind::Counter,
        "resource_manager_run_seconds_total",
        "The time from an execution's first start to its end, by lane and status.",
    );
    for outcome in &totals.outcomes {
        let labels = &[("lane", outcome.urgency.as_str()), ("status", outcome.status.as_str())];
        requests.add(labels, int(outcome.requests), 0);
        runs.add(labels, int(outcome.run_ms), 3);
    }
    let mut waits = Family::new(
        Kind::Histogram,
        "resource_manager_queue_wait_seconds",
        "How long executions waited before they first started, by lane.",
    );
    let mut by_lane: BTreeMap<&str, BTreeMap<i64, (u64, u64)>> = BTreeMap::new();
    for wait in &totals.waits {
        let bounds = by_lane.entry(&wait.urgency).or_default();
        bounds.insert(wait.up_to_ms, (wait.requests, wait.wait_ms));
    }
    for (lane, bounds) in by_lane {
        let (mut count, mut sum) = (0_u64, 0_u64);
        for (bound, seconds) in WAIT_BOUNDS {
            let (requests, wait_ms) = bounds.get(&bound).copied().unwrap_or_default();
            count = count.saturating_add(requests);
            sum = sum.saturating_add(wait_ms);
            waits.add_as("_bucket", &[("lane", lane), ("le", seconds)], int(count), 0);
        }
        waits.add_as("_sum", &[("lane", lane)], int(sum), 3);
        waits.add_as("_count", &[("lane", lane)], int(count), 0);
    }
    vec![requests, runs, waits]
}

/// The bounds of the record's trigger, and their names in seconds.
const WAIT_BOUNDS: [(i64, &str); 13] = [
    (10, "0.01"),
    (50, "0.05"),
    (100, "0.1"),
    (500, "0.5"),
    (1_000, "1"),
    (5_000, "5"),
    (15_000, "15"),
    (30_000, "30"),
    (60_000, "60"),
    (300_000, "300"),
    (600_000, "600"),
    (1_800_000, "1800"),
    (MAX_EXACT, "+Inf"),
];

fn costs(totals: &Totals) -> Vec<Family> {
    let mut clients = Family::new(
        Kind::Gauge,
        "resource_manager_client_month_cost_usd",
        "What a client has cost this month; the clients that cost most.",
    );
    for client in &totals.clients {
        clients.add(&[("client", &client.client_id)], client.spent_nanousd, 9);
    }
    let counter = |name, help| Family::new(Kind::Counter, name, help);
    let mut charged = counter(
        "resource_manager_cost_usd_total",
        "What was charged in all; with what was saved it is what all requests would have cost.",
    );
    charged.add(&[], totals.cost_nanousd, 9);
    let mut cost = counter(
        "resource_manager_template_cost_usd_total",
        "What was charged, by template and model; those that cost most.",
    );
    let mut requests =
        counter("resource_manager_template_requests_total", "Requests that ended, by template, model and success.");
    for total in &totals.templates {
        let labels = &[("template", total.template_id.as_str()), ("model", total.model.as_str())];
        cost.add(labels, total.cost_nanousd, 9);
        let by_success = |success| [labels.as_slice(), &[("succeeded", success)]].concat();
        requests.add(&by_success("true"), int(total.succeeded), 0);
        requests.add(&by_success("false"), int(total.requests.saturating_sub(total.succeeded)), 0);
    }
    let mut savings = counter(
        "resource_manager_optimization_savings_usd_total",
        "What each strategy has saved of what requests would have cost.",
    );
    let mut by_strategy =
        counter("resource_manager_optimizations_total", "How often each strategy was applied to a request.");
    let mut bytes =
        counter("resource_manager_optimization_saved_bytes_total", "How many bytes each strategy has saved.");
    for strategy in Strategy::ALL {
        let saved = totals.saved.iter().find(|(of, _)| *of == strategy).map(|(_, saved)| *saved).unwrap_or_default();
        let labels = &[("strategy", strategy.as_str())];
        savings.add(labels, saved.saved.nanos().clamp(0, MAX_EXACT), 9);
        by_strategy.add(labels, int(saved.applied), 0);
        bytes.add(labels, int(saved.bytes), 0);
    }
    vec![clients, charged, cost, requests, savings, by_strategy, bytes]
}

fn estimates(learnt: &BTreeMap<(TemplateId, PoolId), Learnt>) -> Vec<Family> {
    let counter = |name, help| Family::new(Kind::Counter, name, help);
    let mut samples =
        counter("resource_manager_estimates_total", "Settled uses that estimates were compared with, by coverage.");
    let mut error = counter(
        "resource_manager_estimate_error_ratio_total",
        "The sum over all of |use - estimate| / estimate; divided by resource_manager_estimates_total it is the mean.",
    );
    let mut factor = Family::new(
        Kind::Gauge,
        "resource_manager_estimate_factor_ratio",
        "What a template's formula is multiplied by, as learnt.",
    );
    let mut most_used: Vec<_> = learnt.iter().collect();
    most_used.sort_by_key(|(_, learnt)| std::cmp::Reverse(learnt.samples));
    for ((template, pool), learnt) in most_used.into_iter().take(usize::try_from(SERIES_MAX).unwrap_or(50)) {
        let labels = &[("template", template.as_str()), ("pool", pool.as_str())];
        let covered = |covered| [labels.as_slice(), &[("covered", covered)]].concat();
        samples.add(&covered("true"), int(learnt.covered), 0);
        samples.add(&covered("false"), int(learnt.samples.saturating_sub(learnt.covered)), 0);
        error.add(labels, int(learnt.error_permille), 3);
        factor.add(labels, learnt.factor_permille().into(), 3);
    }
    vec![samples, error, factor]
}
