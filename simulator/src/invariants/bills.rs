//! What is checked of bills: they are recalculated from the use and the prices.

use rm_core::bill::Line;
use rm_core::demand::Demand;
use rm_core::optimizer::Strategy;
use rm_core::pool::Ended;
use rm_core::pricing::{Discount, OffPeakPrice};
use rm_core::units::{NanoUsd, Tokens};

use super::world::World;

/// 10: a bill is the sum of its lines, a line costs its use by its price and window, and the use, the window and the dear
/// model's price say to the nano-dollar what was saved.
pub(super) fn savings_add_up(world: &World) {
    for (id, ended) in world.pools.values().flat_map(|pool| &pool.ended) {
        let lines = &ended.end.lines;
        let costs = lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.cost));
        assert_eq!(costs, ended.end.cost, "{id}: the bill and its lines");
        for line in lines {
            let saved = Strategy::ALL.map(|strategy| line.saved.by(strategy));
            assert!(saved.iter().all(|saved| *saved >= NanoUsd::ZERO), "{id} saved less than nothing");
            let full = times(line.unit_price, line.actual);
            assert_eq!(line.cost, less(line.discount_percent, full), "{id} costs its use");
            // What was not used itself would have cost what another one used.
            if line.actual.is_zero() {
                continue;
            }
            let of_its_window = full.saturating_sub(line.cost);
            let off_peak = line.saved.off_peak;
            assert!(off_peak == NanoUsd::ZERO || off_peak == of_its_window, "{id} saved what its window does not give");
            let dearest = times(NanoUsd::from_nanos(3_000).unwrap(), line.actual.saturating_add(line.estimated));
            assert!(line.baseline() <= dearest, "{id} saved what nothing could have cost");
            if let Some(demand) = demand_of(ended, line) {
                recalculated(ended, demand, line);
            }
        }
    }
}

/// What a line is for, if that is still there: those of the steps before the last one are not.
fn demand_of<'a>(ended: &'a Ended, line: &Line) -> Option<&'a Demand> {
    let has_one_step = ended.request.past.is_empty();
    ended.request.demands.iter().find(|demand| has_one_step && demand.pool == line.pool)
}

/// A window's price is a saving if the request came outside of it, and the rest is what the dear model would have cost.
fn recalculated(ended: &Ended, demand: &Demand, line: &Line) {
    let id = &ended.request.id;
    let full = times(line.unit_price, line.actual);
    let discount = demand.discount.unwrap_or(Discount { percent_off: 0, waited_for: false });
    assert_eq!(line.discount_percent, discount.percent_off, "{id}: the line and the window it started in");
    let in_window =
        |price: &OffPeakPrice| price.windows.iter().any(|window| window.contains(ended.request.enqueued_at));
    if discount.waited_for {
        assert!(!demand.off_peak.as_ref().is_some_and(in_window), "{id} waited for what was there when it came");
    }
    let by_waiting = if discount.waited_for { full.saturating_sub(line.cost) } else { NanoUsd::ZERO };
    assert_eq!(line.saved.off_peak, by_waiting, "{id} saved by its window");
    // What a share would have been alone is an estimate.
    if !line.saved.request_batching.is_none() {
        return;
    }
    let alone = if discount.waited_for { full } else { line.cost };
    let dear = demand.instead_of.map_or(alone, |dear| less(demand.instead_percent_off, times(dear.unit, line.actual)));
    assert_eq!(line.baseline(), alone.max(dear), "{id}: what it would have cost");
}

fn times(unit: NanoUsd, amount: Tokens) -> NanoUsd {
    unit.times(amount).expect("the amounts of a history are small")
}

fn less(percent_off: u8, cost: NanoUsd) -> NanoUsd {
    Discount { percent_off, waited_for: false }.applied_to(cost)
}
