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
/// divide goes to those that are cut most (the largest remainders).
fn spread(parts: &mut [BillLine], cost: NanoUsd) {
    let total = parts.iter().fold(0_i128, |sum, part| sum.saturating_add(i128::from(part.cost_usd.nanos())));
    let charged = i128::from(cost.nanos());
    if total == charged {
        return;
    }
    let exact = |part: &BillLine| i128::from(part.cost_usd.nanos()).saturating_mul(charged);
    let mut shares: Vec<(i128, i128)> = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let whole = exact(part).checked_div(total).unwrap_or(0);
        shares.push((whole, exact(part).saturating_sub(whole.saturating_mul(total))));
    }
    let mut left = shares.iter().fold(charged, |left, (whole, _)| left.saturating_sub(*whole));
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(shares.get(*index).map_or(0, |(_, remainder)| *remainder)));
    for index in by_remainder {
        if let Some((whole, _)) = shares.get_mut(index).filter(|_| left > 0 && total > 0) {
            *whole = whole.saturating_add(1);
            left = left.saturating_sub(1);
        }
    }
    // Without any price there is nothing to divide by.
    if let Some((whole, _)) = shares.first_mut() {
        *whole = whole.saturating_add(left);
    }
    for (part, (share, _)) in parts.iter_mut().zip(shares) {
        part.cost_usd = i64::try_from(share).ok().and_then(NanoUsd::from_nanos).unwrap_or(NanoUsd::ZERO);
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

#[cfg(test)]
mod tests {
    use rm_core::units::{NanoUsd, Tokens};

    use super::spread;
    use crate::wire::execution::{BillLine, LineKind};

    #[test]
    fn what_does_not_divide_goes_to_the_largest_remainders() {
        let line = |nanos| BillLine {
            pool: "pool".parse().unwrap(),
            model: None,
            kind: LineKind::Unit,
            amount: Tokens::ZERO,
            unit_price_usd: NanoUsd::ZERO,
            discount_percent: None,
            cost_usd: NanoUsd::from_nanos(nanos).unwrap(),
        };
        let spread_over = |costs: &[i64], charged| {
            let mut parts: Vec<BillLine> = costs.iter().map(|nanos| line(*nanos)).collect();
            spread(&mut parts, NanoUsd::from_nanos(charged).unwrap());
            parts.iter().map(|part| part.cost_usd.nanos()).collect::<Vec<_>>()
        };
        // 33 % off: 220.43, 66.33 and 154.77, together 441.53, rounded up.
        assert_eq!(spread_over(&[329, 99, 231], 442), [221, 66, 155]);
        assert_eq!(spread_over(&[329, 99, 231], 659), [329, 99, 231]);
        assert_eq!(spread_over(&[0, 0], 7), [7, 0]);
        assert_eq!(spread_over(&[5, 0], 0), [0, 0]);
    }
}
