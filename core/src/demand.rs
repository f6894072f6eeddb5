//! What a request needs of a pool, and the prices that it is charged by.

use serde::{Deserialize, Serialize};

use crate::id::PoolId;
use crate::pricing::{BarePrice, Discount, OffPeakPrice, PricesApart};
use crate::units::{NanoUsd, Tokens};

/// What a request needs of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// Which pool.
    pub pool: PoolId,
    /// How much, as estimated.
    pub amount: Tokens,
    /// The price of a whole unit when the request was admitted; of a unit of input, where there are prices apart.
    pub unit_price: NanoUsd,
    /// The prices of cached input and output, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<PricesApart>,
    /// How much of the amount is expected to be output; `None` if nobody can tell. A use that nobody told apart is split
    /// like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_output: Option<Tokens>,
    /// How much of the amount may turn out to be output; `None` is as much as is expected. The hold covers this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bound: Option<Tokens>,
    /// What the template's formula said, before what was learnt of it; `None` if the caller named the amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<Tokens>,
    /// Where the prices are from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub price_version: String,
    /// What a unit would cost of the model that this is a cheaper one for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<BarePrice>,
    /// That one is cheaper in some windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_off_peak: Option<OffPeakPrice>,
    /// What would have been off its price, in per cent, without waiting for a window: settled when it starts.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub instead_percent_off: u8,
    /// It is cheaper in some windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_peak: Option<OffPeakPrice>,
    /// What is off the price, since it started in such a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<Discount>,
}

// What serde asks takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_nothing(percent: &u8) -> bool {
    *percent == 0
}

impl Demand {
    /// An amount that the caller named, at one price.
    #[must_use]
    pub const fn flat(pool: PoolId, amount: Tokens, unit_price: NanoUsd) -> Self {
        Self {
            pool,
            amount,
            unit_price,
            apart: None,
            expected_output: None,
            output_bound: None,
            formula: None,
            price_version: String::new(),
            instead_of: None,
            instead_off_peak: None,
            instead_percent_off: 0,
            off_peak: None,
            discount: None,
        }
    }
}
