//! What the use of a pool costs.
//!
//! A unit has one price, unless the pool or its model has prices apart for cached input and for output. Then every use
//! is told apart into three parts: input, cached input and output. A use that nobody told apart is split as it was
//! expected; one that nobody had expected apart is priced as its dearest part.

use serde::{Deserialize, Serialize};

use crate::off_peak::Window;
use crate::optimizer::{Savings, Strategy};
use crate::request::Demand;
use crate::units::{Instant, NanoUsd, Tokens};

/// The prices of a whole unit that is not plain input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PricesApart {
    /// Of a unit of input that the provider had cached.
    pub cached_input: NanoUsd,
    /// Of a unit of output.
    pub output: NanoUsd,
}

/// What a whole unit costs, and since when it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Of a unit, or of a unit of input where there are prices apart.
    pub unit: NanoUsd,
    /// For cached input and output, where they differ.
    pub apart: Option<PricesApart>,
    /// Which list it is from, and which edition of it.
    pub version: String,
}

/// A price without where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BarePrice {
    /// See [`Price::unit`].
    pub unit: NanoUsd,
    /// See [`Price::apart`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<PricesApart>,
}

/// What is off the price in some windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffPeakPrice {
    /// In per cent of the price, 100 at most.
    pub percent_off: u8,
    /// The windows that are known, in their order.
    pub windows: Vec<Window>,
}

impl OffPeakPrice {
    /// What is off the price at a moment, in per cent.
    #[must_use]
    pub fn percent_at(&self, at: Instant) -> u8 {
        if self.windows.iter().any(|window| window.contains(at)) { self.percent_off } else { 0 }
    }
}

/// What is off the price of a run, by the moment that it started at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discount {
    /// In per cent.
    pub percent_off: u8,
    /// The request waited for it: otherwise it would have cost the full price.
    pub waited_for: bool,
}

impl Discount {
    /// What is left of a cost, rounded up to a nano-dollar.
    #[must_use]
    pub fn applied_to(self, cost: NanoUsd) -> NanoUsd {
        let left = i128::from(100_u8.saturating_sub(self.percent_off));
        let product = i128::from(cost.nanos()).saturating_mul(left).saturating_add(99);
        let rounded = product.checked_div(100).and_then(|nanos| i64::try_from(nanos).ok());
        rounded.and_then(NanoUsd::from_nanos).map_or(cost, |discounted| discounted.min(cost))
    }
}

/// How much of an amount is not plain input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// Cached input.
    pub cached_input: Tokens,
    /// Output.
    pub output: Tokens,
}

impl Parts {
    /// Both within `amount`: what is said beyond it does not count.
    #[must_use]
    pub fn within(self, amount: Tokens) -> Self {
        let output = self.output.min(amount);
        Self { cached_input: self.cached_input.min(amount.saturating_sub(output)), output }
    }

    /// The rest of `amount`: plain input.
    #[must_use]
    pub fn input_of(self, amount: Tokens) -> Tokens {
        amount.saturating_sub(self.cached_input).saturating_sub(self.output)
    }
}

/// What `amount` costs, `parts` of it apart; rounded up to a nano-dollar for each part. `None` beyond what can be counted.
#[must_use]
pub fn cost(unit: NanoUsd, apart: Option<PricesApart>, amount: Tokens, parts: Parts) -> Option<NanoUsd> {
    let Some(apart) = apart else { return unit.times(amount) };
    let parts = parts.within(amount);
    unit.times(parts.input_of(amount))?
        .checked_add(apart.cached_input.times(parts.cached_input)?)?
        .checked_add(apart.output.times(parts.output)?)
}

impl Demand {
    /// How a use of `amount` is told apart when its user did not: for its own price or, if that is one for any use, for the
    /// price of the model that this one is a cheaper one for.
    #[must_use]
    pub fn expected_parts(&self, amount: Tokens) -> Parts {
        let own = BarePrice { unit: self.unit_price, apart: self.apart };
        let price = self.instead_of.filter(|_| self.apart.is_none()).unwrap_or(own);
        let Some(apart) = price.apart else { return Parts::default() };
        let output = match self.expected_output {
            Some(output) => share(amount, output, self.amount),
            None if apart.output > price.unit => amount,
            None => Tokens::ZERO,
        };
        Parts { cached_input: Tokens::ZERO, output }.within(amount)
    }

    /// What a use costs.
    #[must_use]
    pub fn cost_of(&self, amount: Tokens, parts: Parts) -> Option<NanoUsd> {
        cost(self.unit_price, self.apart, amount, parts)
    }

    /// What a use costs, and what was saved of what it would have cost without any strategy. The steps from the one to the
    /// other are taken one after the other, so that they add up: the model that it would have been; that of the chain;
    /// a use alone; the share of a use together; the price of the window that it waited for. What is off without waiting is
    /// off in each of them. What a share would have been alone is not known: its estimate stands for it.
    #[must_use]
    pub fn billed(&self, amount: Tokens, parts: Parts, is_share: bool) -> Option<(NanoUsd, Savings)> {
        let (waited_for, as_it_came) = match self.discount {
            Some(discount) if discount.waited_for => (Some(discount), None),
            other => (None, other),
        };
        let less = |discount: Option<Discount>, cost| discount.map_or(cost, |discount| discount.applied_to(cost));
        let own_cost = |amount, parts| self.cost_of(amount, parts).map(|cost| less(as_it_came, cost));
        let share = own_cost(amount, parts)?;
        let (alone, alone_parts) = match is_share && self.amount > amount {
            true => (self.amount, self.expected_parts(self.amount)),
            false => (amount, parts),
        };
        let by_itself = own_cost(alone, alone_parts).map_or(share, |cost| cost.max(share));
        let as_it_was = self.instead_of.and_then(|price| {
            let full = cost(price.unit, price.apart, alone, alone_parts)?;
            Some(Discount { percent_off: self.instead_percent_off, waited_for: false }.applied_to(full))
        });
        let baseline = as_it_was.map_or(by_itself, |cost| cost.max(by_itself));
        let cost = less(waited_for, share);
        let savings = Savings {
            model_downgrade: baseline.saturating_sub(by_itself),
            request_batching: by_itself.saturating_sub(share),
            cache: NanoUsd::ZERO,
            off_peak: share.saturating_sub(cost),
        };
        Some((cost, savings))
    }

    /// What was saved of a use that was not made, because its result was there: all that it would have cost. Besides a cheaper
    /// model's part that is all a kept result's: nobody waited, for others or for a window.
    #[must_use]
    pub fn spared(&self, amount: Tokens, parts: Parts, is_share: bool, by: Strategy) -> Savings {
        let Some((cost, savings)) = self.billed(amount, parts, is_share) else { return Savings::default() };
        match by {
            Strategy::RequestBatching => {
                Savings { request_batching: savings.request_batching.saturating_add(cost), ..savings }
            }
            _ => {
                let model_downgrade = savings.model_downgrade;
                let cache = savings.total().saturating_sub(model_downgrade).saturating_add(cost);
                Savings { model_downgrade, cache, ..Savings::default() }
            }
        }
    }

    /// What it would cost as it was planned, without any strategy.
    #[must_use]
    pub fn baseline_cost(&self) -> Option<NanoUsd> {
        let plain = Self { instead_of: None, ..self.clone() };
        let dear = self.instead_of.map(|price| Self { unit_price: price.unit, apart: price.apart, ..plain.clone() });
        dear.unwrap_or(plain).estimated_cost()
    }

    /// Settles the price of a run that starts: whether it does in a window, and whether it waited for that; and what the model
    /// that this is a cheaper one for would have cost when it came.
    pub(crate) fn price_at(&mut self, now: Instant, waited_since: Option<Instant>) {
        let came = waited_since.unwrap_or(now);
        self.instead_percent_off = self.instead_off_peak.as_ref().map_or(0, |dear| dear.percent_at(came));
        let Some(off_peak) = &self.off_peak else { return };
        let is_in_window = |at: Instant| off_peak.windows.iter().any(|window| window.contains(at));
        self.discount = is_in_window(now).then(|| Discount {
            percent_off: off_peak.percent_off,
            waited_for: waited_since.is_some_and(|since| !is_in_window(since)),
        });
    }

    /// What is to be held for it: as much of it is output as may be, and the rest is cached or not, whichever is dearer.
    #[must_use]
    pub fn estimated_cost(&self) -> Option<NanoUsd> {
        let expected = self.expected_parts(self.amount);
        let output = self.output_bound.map_or(expected.output, |bound| bound.max(expected.output));
        let input = self.apart.map_or(self.unit_price, |apart| apart.cached_input.max(self.unit_price));
        cost(input, self.apart, self.amount, Parts { output, ..expected })
    }

    /// Says what a formula expects of the output, when the formula gave `formula` in all and `output` of it as output,
    /// and the amount is that times what was learnt. What was learnt is about the whole: the expected output is its
    /// part of the amount; but all that is more than the formula said may be output, and of what is less, all the rest.
    #[must_use]
    pub fn with_output(self, formula: Tokens, output: Tokens) -> Self {
        let expected = share(self.amount, output, formula).min(self.amount);
        let more = self.amount.saturating_sub(formula);
        let bound = output.saturating_add(more).min(self.amount);
        Self { expected_output: Some(expected), output_bound: Some(bound), ..self }
    }
}

/// `amount × part ÷ whole`, rounded up.
fn share(amount: Tokens, part: Tokens, whole: Tokens) -> Tokens {
    let whole = i128::from(whole.micros().max(1));
    let product = i128::from(amount.micros()).saturating_mul(i128::from(part.micros()));
    let rounded = product.saturating_add(whole.saturating_sub(1)).checked_div(whole).unwrap_or(0);
    Tokens::clamped(i64::try_from(rounded).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{BarePrice, OffPeakPrice, Parts, PricesApart, cost};
    use crate::off_peak::Window;
    use crate::request::{Demand, Line, Usage};
    use crate::units::{Instant, NanoUsd, Tokens};

    fn units(n: u64) -> Tokens {
        Tokens::from_units(n).unwrap()
    }

    fn nanos(n: i64) -> NanoUsd {
        NanoUsd::from_nanos(n).unwrap()
    }

    fn demand(amount: u64, expected_output: Option<u64>, apart: Option<PricesApart>) -> Demand {
        Demand {
            expected_output: expected_output.map(units),
            apart,
            ..Demand::flat("p".parse().unwrap(), units(amount), nanos(1_250))
        }
    }

    const APART: PricesApart = PricesApart { cached_input: NanoUsd::ZERO, output: NanoUsd::ZERO };

    #[test]
    fn cached_input_is_not_billed_as_if_it_were_not() {
        // 262 960 tokens in, 257 955 of them cached, 1 744 out; $1.25, $0.125 and $10 a million.
        let apart = Some(PricesApart { cached_input: nanos(125), output: nanos(10_000) });
        let parts = Parts { cached_input: units(257_955), output: units(1_744) };
        let amount = units(262_960 + 1_744);
        let expected = (262_960 - 257_955) * 1_250 + 257_955 * 125 + 1_744 * 10_000;
        assert_eq!(cost(nanos(1_250), apart, amount, parts), Some(nanos(expected)));
        assert!(cost(nanos(1_250), apart, amount, Parts::default()) > Some(nanos(expected * 5)));
    }

    #[test]
    fn what_nobody_told_apart_is_split_as_expected_or_priced_as_the_dearest() {
        let apart = Some(PricesApart { output: nanos(10_000), ..APART });
        assert_eq!(demand(100, Some(25), apart).expected_parts(units(40)).output, units(10));
        assert_eq!(demand(100, None, apart).expected_parts(units(40)).output, units(40));
        assert_eq!(demand(100, None, Some(APART)).expected_parts(units(40)).output, Tokens::ZERO);
        assert_eq!(demand(100, None, None).expected_parts(units(40)), Parts::default());
    }

    #[test]
    fn what_was_learnt_changes_the_hold_and_not_what_a_use_costs() {
        let apart = Some(PricesApart { cached_input: nanos(125), output: nanos(10_000) });
        let untold = |amount: u64, used: u64| {
            let demand = demand(amount, None, apart).with_output(units(1_000), units(500));
            demand.cost_of(units(used), demand.expected_parts(units(used)))
        };
        let half_and_half = Some(nanos(200 * 1_250 + 200 * 10_000));
        assert_eq!([untold(1_000, 400), untold(400, 400), untold(2_000, 400)], [half_and_half; 3]);
        let hold = |amount: u64| demand(amount, None, apart).with_output(units(1_000), units(500)).estimated_cost();
        assert_eq!(hold(400), Some(nanos(400 * 10_000)), "all of it may be output");
        assert_eq!(hold(2_000), Some(nanos(500 * 1_250 + 1_500 * 10_000)), "all that is more may be output");
    }

    proptest! {
        /// A hold covers every use within what was reserved, however it is told apart, if no more of it is output than
        /// was expected.
        #[test]
        fn a_hold_covers_what_was_reserved(
            amount in 1_u64..1_000_000, share in 0_u64..=100, used in 0_u64..=100, out in 0_u64..=100, cached in 0_u64..=100,
            input in 0_i64..100_000, dearer in 0_i64..100_000, cheaper in 0_i64..4,
        ) {
            let percent = |n: u64, percent: u64| n.saturating_mul(percent) / 100;
            let expected = percent(amount, share);
            let apart = Some(PricesApart { cached_input: nanos(input.saturating_mul(cheaper) / 2), output: nanos(input.saturating_mul(2).saturating_add(dearer)) });
            let demand = Demand {
                expected_output: Some(units(expected)), apart,
                ..Demand::flat("p".parse().unwrap(), units(amount), nanos(input))
            };
            let used = percent(amount, used);
            let parts = Parts { output: units(percent(used, out).min(expected)), cached_input: units(percent(used, cached)) };
            let hold = demand.estimated_cost().unwrap();
            prop_assert!(demand.cost_of(units(used), parts).unwrap() <= hold);
            let untold = demand.cost_of(units(used), demand.expected_parts(units(used))).unwrap();
            prop_assert!(untold <= hold);
        }

        /// Parts never count for more than the amount they are parts of.
        #[test]
        fn parts_stay_within(amount in 0_u64..1_000, cached in any::<u32>(), output in any::<u32>()) {
            let parts = Parts { cached_input: units(cached.into()), output: units(output.into()) }.within(units(amount));
            let sum = parts.input_of(units(amount)).saturating_add(parts.cached_input).saturating_add(parts.output);
            prop_assert_eq!(sum, units(amount));
        }
    }

    #[test]
    fn what_is_expected_of_the_output_is_rounded_up() {
        let apart = Some(PricesApart { output: nanos(10_000), ..APART });
        assert_eq!(demand(3, Some(1), apart).expected_parts(units(1)).output.micros(), 333_334);
    }

    #[test]
    fn each_step_from_the_baseline_to_the_cost_is_that_of_one_strategy() {
        let bare = |unit| BarePrice { unit: nanos(unit), apart: None };
        let cheap = Demand { instead_of: Some(bare(5_000)), ..demand(10, None, None) };
        let saved = |demand: &Demand, amount, is_share| {
            let (cost, saved) = demand.billed(units(amount), Parts::default(), is_share).unwrap();
            (cost.nanos(), saved.model_downgrade.nanos(), saved.request_batching.nanos())
        };
        assert_eq!(saved(&cheap, 4, false), (5_000, 15_000, 0));
        assert_eq!(saved(&cheap, 4, true), (5_000, 37_500, 7_500), "alone it would have been ten of the dear model");
        assert_eq!(cheap.baseline_cost(), Some(nanos(50_000)));
        assert_eq!(Demand { instead_of: None, ..cheap.clone() }.baseline_cost(), Some(nanos(12_500)));
        // A price that is not dearer after all has saved nothing, and what is saved is never less than that.
        assert_eq!(saved(&Demand { instead_of: Some(bare(1)), ..cheap.clone() }, 4, false), (5_000, 0, 0));
        let apart = Some(PricesApart { cached_input: nanos(0), output: nanos(100_000) });
        let dear_output = Demand { apart, expected_output: Some(units(0)), ..demand(10, None, None) };
        let parts = Parts { output: units(4), ..Parts::default() };
        let (cost, none) = dear_output.billed(units(4), parts, true).unwrap();
        assert_eq!((cost, none.request_batching), (nanos(400_000), NanoUsd::ZERO));
    }

    #[test]
    fn a_flat_price_is_compared_with_what_the_same_use_would_have_cost_by_parts() {
        let apart = Some(PricesApart { cached_input: nanos(1_250), output: nanos(10_000) });
        let dear = demand(20, None, apart).with_output(units(20), units(10));
        let flat = Demand { unit_price: nanos(100), apart: None, ..dear.clone() };
        let cheap = Demand { instead_of: Some(BarePrice { unit: dear.unit_price, apart }), ..flat };
        let would_be = dear.cost_of(units(20), dear.expected_parts(units(20))).unwrap();
        assert_eq!((cheap.baseline_cost(), would_be), (Some(would_be), nanos(10 * 1_250 + 10 * 10_000)));
        for (used, cost) in [(20, nanos(2_000)), (7, nanos(700))] {
            let told = |demand: &Demand, parts| {
                let usage = Usage { pool: demand.pool.clone(), amount: units(used), parts, is_share: false };
                Line::of(demand, Some(&usage), true)
            };
            let output = Some(Parts { output: units(3), ..Parts::default() });
            for parts in [None, output, Some(Parts::default())] {
                let (by_dear, by_cheap) = (told(&dear, parts), told(&cheap, parts));
                assert_eq!((by_cheap.baseline(), by_cheap.cost), (by_dear.cost, cost), "{parts:?}");
            }
        }
    }

    #[test]
    fn a_window_is_cheaper_and_saves_only_what_was_waited_for() {
        let window = |from, to| Window { start: Instant::from_millis(from), end: Instant::from_millis(to) };
        let off_peak = Some(OffPeakPrice { percent_off: 30, windows: vec![window(100, 200), window(300, 400)] });
        let mut demand = Demand { off_peak, ..Demand::flat("pool".parse().unwrap(), units(7), nanos(101)) };
        let at = Instant::from_millis;
        let mut billed = |started, since| {
            demand.price_at(at(started), since);
            let line = Line::of(&demand, None, true);
            (line.cost.nanos(), line.saved.off_peak.nanos(), line.baseline().nanos())
        };
        assert_eq!(billed(100, Some(at(0))), (495, 212, 707), "rounded up, and saved exactly");
        assert_eq!(billed(350, Some(at(150))), (495, 0, 495), "it came in a window: it would not have cost more");
        assert_eq!(billed(150, None), (495, 0, 495), "nobody waited");
        assert_eq!(billed(200, Some(at(0))), (707, 0, 707), "forced out, at the full price");
    }
}
