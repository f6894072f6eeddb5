//! Bills: one line for each pool, or for each part of a pool's use that has a price of its own.

use std::collections::BTreeSet;

use rm_core::pipeline::merged;
use rm_core::request::{Demand, Line, Request};
use rm_core::units::{NanoUsd, Tokens};

use crate::store::pool_store::StoredExecution;
use crate::views::baseline_of;
use crate::wire::execution::{BillLine, BillView, LineKind};

/// The lines for what was used.
pub fn bill_lines<'a>(lines: impl IntoIterator<Item = &'a Line>, model: Option<&str>) -> Vec<BillLine> {
    let mut bill = Vec::new();
    for line in lines {
        let of = |kind, amount: Tokens, price: NanoUsd| BillLine {
            pool: line.pool.clone(),
            model: model.map(ToOwned::to_owned),
            kind,
            amount,
            unit_price_usd: price,
            discount_percent: Some(line.discount_percent).filter(|percent| *percent > 0),
            cost_usd: price.times(amount).unwrap_or(NanoUsd::MAX),
        };
        let Some(apart) = line.apart else {
            bill.push(BillLine { cost_usd: line.cost, ..of(LineKind::Unit, line.actual, line.unit_price) });
            continue;
        };
        let others = [
            of(LineKind::CachedInput, line.parts.cached_input, apart.cached_input),
            of(LineKind::Output, line.parts.output, apart.output),
        ];
        let mut parts = vec![of(LineKind::Input, line.parts.input_of(line.actual), line.unit_price)];
        parts.extend(others.into_iter().filter(|line| !line.amount.is_zero()));
        spread(&mut parts, line.cost);
        bill.extend(parts);
    }
    bill
}

/// Has the parts of a line cost what it was charged: less than their prices say, where there was a discount. What does not
/// divide is the first one's.
fn spread(parts: &mut [BillLine], cost: NanoUsd) {
    let total = parts.iter().fold(0_i128, |sum, part| sum.saturating_add(i128::from(part.cost_usd.nanos())));
    let charged = i128::from(cost.nanos());
    if total == charged {
        return;
    }
    let mut left = charged;
    for part in parts.iter_mut().skip(1) {
        let share = i128::from(part.cost_usd.nanos()).saturating_mul(charged).checked_div(total).unwrap_or(0);
        part.cost_usd = i64::try_from(share).ok().and_then(NanoUsd::from_nanos).unwrap_or(NanoUsd::ZERO);
        left = left.saturating_sub(share);
    }
    if let Some(first) = parts.first_mut() {
        first.cost_usd = i64::try_from(left).ok().and_then(NanoUsd::from_nanos).unwrap_or(NanoUsd::ZERO);
    }
}

/// The lines for what is reserved.
pub fn estimate_lines(demands: &[Demand], model: Option<&str>) -> Vec<BillLine> {
    let needed = demands.iter().filter(|demand| !demand.amount.is_zero());
    let lines: Vec<Line> = needed.map(|demand| Line::of(demand, None, true)).collect();
    bill_lines(&lines, model)
}

/// Where the prices are from; several, if they are from several lists.
pub fn price_version<'a>(versions: impl Iterator<Item = &'a str>) -> String {
    let versions: BTreeSet<&str> = versions.filter(|version| !version.is_empty()).collect();
    versions.into_iter().collect::<Vec<_>>().join(", ")
}

/// The bill: as estimated, or as used once it ended.
pub fn bill_view(stored: &StoredExecution, live: Option<&Request>, settled: bool) -> Option<BillView> {
    let spec = &stored.spec;
    let ended = stored.ended.as_ref();
    let request = ended.map(|ended| &ended.request).or(live)?;
    let used = ended.filter(|_| live.is_none());
    let later = request.later.iter().flat_map(|step| &step.demands);
    let lines = match used {
        Some(ended) => bill_lines(&ended.end.lines, spec.model.as_deref()),
        None => {
            let past = request.past.iter().flat_map(|step| step.lines.iter().cloned());
            let demands = request.demands.iter().chain(later.clone()).filter(|demand| !demand.amount.is_zero());
            let expected = demands.map(|demand| Line::of(demand, None, true));
            bill_lines(&merged(past.chain(expected)), spec.model.as_deref())
        }
    };
    let past_versions = request.past.iter().flat_map(|step| &step.lines).map(|line| line.price_version.as_str());
    let versions = request.demands.iter().chain(later).map(|demand| demand.price_version.as_str()).chain(past_versions);
    let baseline = used.map_or(spec.baseline, |ended| baseline_of(&ended.end.lines));
    Some(BillView {
        request_id: request.id.clone(),
        estimated_usd: spec.estimated,
        actual_usd: used.map(|ended| ended.end.cost),
        baseline_usd: baseline,
        saved_usd: baseline.saturating_sub(used.map_or(spec.estimated, |ended| ended.end.cost)),
        lines,
        price_version: price_version(versions),
        settled: used.is_some() && settled,
    })
}
