//! What is saved: totals reconcile, whatever strategies come together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use rm_core::off_peak::Window;
use rm_core::optimizer::Strategy;
use rm_core::pool::{PoolConfig, Submission};
use rm_core::pricing::{BarePrice, Discount, Parts, PricesApart};
use rm_core::priority::{Tier, Urgency};
use rm_core::request::{Demand, FORCE_SLACK_MS, Line, Usage};
use rm_core::units::{NanoUsd, Tokens};
use support::{at, config, cost, demand, ends, halved, normal, pool, queue, request, started, units, used};

fn nanos(n: i64) -> NanoUsd {
    NanoUsd::from_nanos(n).unwrap()
}

proptest! {
    /// Whatever was applied: what it would have cost is what it costs and what each strategy saved, and nothing is
    /// saved that would not have been spent.
    #[test]
    fn the_baseline_is_the_cost_and_all_savings(
        prices in (1_i64..100_000, 1_i64..100_000, 1_i64..100_000, 0_u8..=100),
        estimated in 1_u64..1_000_000,
        used in 0_u64..2_000_000,
        output in 0_u64..2_000_000,
        dear_percent_off in 0_u8..=100,
        flags in any::<[bool; 5]>(),
    ) {
        let (unit, cached, out, percent_off) = prices;
        let [told, dear, is_share, discounted, waited_for] = flags;
        let apart = |times: i64| PricesApart { cached_input: nanos(cached * times), output: nanos(out * times) };
        let demand = Demand {
            apart: Some(apart(1)),
            instead_of: dear.then(|| BarePrice { unit: nanos(unit * 7), apart: Some(apart(7)) }),
            instead_percent_off: dear_percent_off,
            discount: discounted.then_some(Discount { percent_off, waited_for }),
            ..Demand::flat("pool".parse().unwrap(), units(estimated), nanos(unit))
        };
        let parts = Parts { cached_input: Tokens::ZERO, output: units(output) };
        let usage = Usage { pool: demand.pool.clone(), amount: units(used), parts: told.then_some(parts), is_share };
        let line = Line::of(&demand, Some(&usage), true);
        let saved = line.saved;
        for strategy in Strategy::ALL {
            prop_assert!(saved.by(strategy) >= NanoUsd::ZERO);
        }
        prop_assert_eq!(line.baseline().saturating_sub(line.cost), saved.total());
        // What the caller would have paid at that moment: nothing off but what nobody waited for, alone, by the dear model.
        let came = Demand { instead_of: None, discount: demand.discount.filter(|off| !off.waited_for), ..demand.clone() };
        let used_alone = if is_share && estimated > used {
            Usage { amount: units(estimated), parts: None, is_share: false, ..usage.clone() }
        } else {
            Usage { is_share: false, ..usage.clone() }
        };
        let alone = |demand: &Demand| Line::of(demand, Some(&used_alone), true).cost;
        let dear_off = Discount { percent_off: dear_percent_off, waited_for: false };
        let by_dear = Demand { unit_price: nanos(unit * 7), apart: Some(apart(7)), discount: Some(dear_off), ..came.clone() };
        let would_be = if dear { alone(&came).max(alone(&by_dear)) } else { alone(&came) };
        prop_assert_eq!(line.baseline(), would_be.max(Line::of(&came, Some(&Usage { is_share: false, ..usage.clone() }), true).cost));
        prop_assert!(line.cost <= line.baseline(), "no strategy makes it dearer");
        if !(dear || is_share || waited_for) {
            prop_assert!(saved.is_none());
        }
        let nothing = Line::of(&demand, None, false);
        prop_assert_eq!((nothing.cost, nothing.saved.is_none()), (NanoUsd::ZERO, true), "what did not run saved nothing");
        for by in [Strategy::Cache, Strategy::RequestBatching] {
            let spared = Line::spared(&demand, &usage, by);
            prop_assert_eq!((spared.cost, spared.actual), (NanoUsd::ZERO, Tokens::ZERO));
            prop_assert_eq!(spared.baseline(), line.baseline());
            prop_assert_eq!(spared.saved.by(Strategy::ModelDowngrade), saved.by(Strategy::ModelDowngrade));
            let besides = spared.baseline().saturating_sub(spared.saved.by(Strategy::ModelDowngrade));
            if by == Strategy::Cache {
                prop_assert_eq!(spared.saved.by(by), besides, "a kept result was used, and nothing else");
            }
        }
    }
}

#[test]
fn a_share_of_nothing_would_have_cost_something_alone_and_what_failed_nothing() {
    let demand = Demand::flat("pool".parse().unwrap(), units(2), nanos(10));
    let none = Usage { pool: demand.pool.clone(), amount: Tokens::ZERO, parts: None, is_share: true };
    let line = Line::of(&demand, Some(&none), true);
    assert_eq!(
        (line.cost, line.baseline(), line.saved.by(Strategy::RequestBatching)),
        (nanos(0), nanos(20), nanos(20))
    );
    assert_eq!(Line::of(&demand, None, false).baseline(), nanos(0));
}

/// What deferred work that needs four units costs, what it saved by its window and what it would have cost, which is to be
/// forced out of the window from 50 to 1000 at `forced_at`, and for which there are no tokens until 600.
fn in_window_at_600(forced_at: Option<i64>) -> (NanoUsd, NanoUsd, NanoUsd) {
    let windows = Some(vec![Window { start: at(50), end: at(1_000) }]);
    let mut pool = pool(PoolConfig { off_peak: windows, ..config(4, 0) });
    let before = queue(&mut pool, normal(1, 4, at(0)), at(0));
    let (_, grant) = started(&mut pool, at(0))[0];
    let deferred = request(2, "client", Tier::Standard, Urgency::Deferred, at(0));
    let deadline = forced_at.map(|forced_at| at(forced_at + FORCE_SLACK_MS + deferred.timeout_ms));
    let id = queue(&mut pool, halved(Submission { deadline, demands: vec![demand("home", 4)], ..deferred }), at(0));
    [50, 500].into_iter().for_each(|now| pool.on_wakeup(at(now)));
    pool.report(&before, grant, used(0), at(600));
    let (started, grant) = started(&mut pool, at(600)).remove(0);
    assert_eq!(started, id);
    ends(&mut pool);
    pool.report(&id, grant, used(4), at(700));
    let ended = ends(&mut pool).remove(0);
    let line = &ended.end.lines[0];
    let told = ended.request.applied.iter().any(|applied| applied.strategy == Strategy::OffPeak);
    assert_eq!(told, !line.saved.off_peak.is_none());
    (line.cost, line.saved.off_peak, line.baseline())
}

#[test]
fn what_waited_for_its_window_saves_by_it_though_its_deadline_would_not_have_let_it_wait_on() {
    let waited = (cost(2), cost(2), cost(4));
    assert_eq!(in_window_at_600(None), waited);
    assert_eq!(in_window_at_600(Some(900)), waited, "it started before its deadline forced it");
    assert_eq!(in_window_at_600(Some(500)), waited, "while the window was open it waited for tokens");
    assert_eq!(in_window_at_600(Some(0)), (cost(2), NanoUsd::ZERO, cost(2)), "it never waited for the window");
}
