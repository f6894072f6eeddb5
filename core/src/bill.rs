//! Bills: what was used, what it costs, and how a request ended.

use serde::{Deserialize, Serialize};

use crate::id::{ClientId, PoolId, RequestId};
use crate::optimizer::{Savings, Strategy};
use crate::pricing::{Parts, PricesApart};
use crate::request::{Demand, Failure, Kind, Status};
use crate::units::{Instant, NanoUsd, Tokens};

/// What was used of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Which pool.
    pub pool: PoolId,
    /// How much, in all.
    pub amount: Tokens,
    /// How much of it is cached input and output, if that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// It is a share of what several used together: nobody knows what it would have been alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_share: bool,
}

/// A line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Which pool.
    pub pool: PoolId,
    /// What was reserved.
    pub estimated: Tokens,
    /// What was used.
    pub actual: Tokens,
    /// The price of a whole unit; of a unit of input, where there are prices apart.
    pub unit_price: NanoUsd,
    /// What is off these prices, in per cent: it started in a cheaper window.
    #[serde(default, skip_serializing_if = "nothing_is_off")]
    pub discount_percent: u8,
    /// What the use costs.
    pub cost: NanoUsd,
    /// The prices of cached input and output, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<PricesApart>,
    /// How much of the use was cached input and output.
    #[serde(default)]
    pub parts: Parts,
    /// See [`Demand::formula`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<Tokens>,
    /// Somebody said what was used; else it is what was reserved.
    #[serde(default)]
    pub reported: bool,
    /// Where the prices are from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub price_version: String,
    /// What was saved of what it would have cost without any strategy.
    #[serde(default, skip_serializing_if = "Savings::is_none")]
    pub saved: Savings,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn nothing_is_off(percent: &u8) -> bool {
    *percent == 0
}

impl Line {
    /// The bill for a use; one that is `None` was as reserved (`as_reserved`), or nothing. A use whose price would be
    /// beyond what can be counted is billed as it was reserved.
    #[must_use]
    pub fn of(demand: &Demand, usage: Option<&Usage>, as_reserved: bool) -> Self {
        let otherwise = if as_reserved { demand.amount } else { Tokens::ZERO };
        let mut actual = usage.map_or(otherwise, |usage| usage.amount);
        let told = usage.and_then(|usage| usage.parts);
        let mut parts = told.unwrap_or_else(|| demand.expected_parts(actual)).within(actual);
        let is_share = usage.is_some_and(|usage| usage.is_share);
        let (cost, saved) = demand.billed(actual, parts, is_share).unwrap_or_else(|| {
            actual = demand.amount;
            parts = demand.expected_parts(actual);
            demand.billed(actual, parts, is_share).unwrap_or_default()
        });
        Self {
            pool: demand.pool.clone(),
            estimated: demand.amount,
            actual,
            unit_price: demand.unit_price,
            discount_percent: demand.discount.map_or(0, |discount| discount.percent_off),
            cost,
            apart: demand.apart,
            parts,
            formula: demand.formula,
            reported: usage.is_some(),
            price_version: demand.price_version.clone(),
            saved,
        }
    }

    /// The bill for a use that was not made: its result was there. `usage` is what it would have used.
    #[must_use]
    pub fn spared(demand: &Demand, usage: &Usage, by: Strategy) -> Self {
        let parts = usage.parts.unwrap_or_else(|| demand.expected_parts(usage.amount)).within(usage.amount);
        Self { saved: demand.spared(usage.amount, parts, usage.is_share, by), ..Self::of(demand, None, false) }
    }

    /// What it would have cost without any strategy.
    #[must_use]
    pub fn baseline(&self) -> NanoUsd {
        self.cost.saturating_add(self.saved.total())
    }
}

/// The end of a request, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// How.
    pub status: Status,
    /// Why, if not well.
    pub failure: Option<Failure>,
    /// When.
    pub finished_at: Instant,
    /// What it is charged for.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub cost: NanoUsd,
    /// Nobody said what was used; nothing was charged.
    pub uncertain: bool,
}

/// What the client's account must learn of an end, exactly once in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settlement {
    /// Makes a repetition harmless: the request's id.
    pub event: String,
    /// Which request.
    pub request: RequestId,
    /// Whose.
    pub client: ClientId,
    /// How the request ended.
    pub status: Status,
    /// Which kind it was.
    pub kind: Kind,
    /// When it ended, or the late report came.
    pub at: Instant,
    /// What is charged.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub cost: NanoUsd,
    /// Nobody said what was used.
    pub uncertain: bool,
}
