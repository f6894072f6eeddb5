//! How much of a pool each client was granted lately, by what it cost: the fairness part of the score.
//!
//! A client's use halves every five minutes. Between two halvings it falls linearly, which keeps the arithmetic in
//! integers and is within six per cent of the exponential.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ClientId;
use crate::units::{Instant, NanoUsd, Tokens};

/// After this long, a use counts half.
pub const HALF_LIFE_MS: i64 = 300_000;
/// Full fairness, in thousandths of a point.
pub const MAX_MILLIPOINTS: i64 = 10_000;
/// Weights are kept in thousandths, so that small ones decay smoothly.
const SCALE: i64 = 1_000;
/// Below this a use is forgotten, so that the table stays as small as the set of clients that are really there.
const NEGLIGIBLE: i64 = 10;

/// What a grant weighs: its cost in billionths of a dollar, and one more for each whole unit, so that what costs nothing
/// is shared fairly too.
#[must_use]
pub fn weight(cost: NanoUsd, amount: Tokens) -> i64 {
    cost.nanos().max(0).saturating_add(i64::try_from(amount.ceil().units()).unwrap_or(i64::MAX))
}

/// Recent use by client, by [`weight`]. All entries are as of the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FairShare {
    uses: BTreeMap<ClientId, i64>,
    total: i64,
    as_of: Instant,
}

fn decayed(value: i64, elapsed_ms: i64) -> i64 {
    let halvings = u32::try_from(elapsed_ms.checked_div(HALF_LIFE_MS).unwrap_or(0)).unwrap_or(u32::MAX);
    let rest = elapsed_ms.checked_rem(HALF_LIFE_MS).unwrap_or(0);
    let halved = value.checked_shr(halvings.min(62)).unwrap_or(0);
    let lost = i128::from(halved)
        .saturating_mul(i128::from(rest))
        .checked_div(i128::from(HALF_LIFE_MS.saturating_mul(2)))
        .unwrap_or(0);
    halved.saturating_sub(i64::try_from(lost).unwrap_or(0))
}

impl FairShare {
    /// Counts what `client` was granted. Everybody's use decays only here and in steps of a second, for shares do not
    /// change by decay alone.
    pub fn record(&mut self, client: &ClientId, weight: i64, now: Instant) {
        let weight = weight.saturating_mul(SCALE);
        let elapsed = now.since(self.as_of);
        if elapsed >= 1_000 {
            self.as_of = now;
            self.uses.retain(|_, used| {
                *used = decayed(*used, elapsed);
                *used > NEGLIGIBLE
            });
            self.total = self.uses.values().fold(0, |sum, used| sum.saturating_add(*used));
        }
        let used = self.uses.entry(client.clone()).or_insert(0);
        *used = used.saturating_add(weight);
        self.total = self.total.saturating_add(weight);
    }

    /// Takes back a count: the grant came to nothing.
    pub fn forget(&mut self, client: &ClientId, weight: i64) {
        if let Some(used) = self.uses.get_mut(client) {
            let taken = weight.saturating_mul(SCALE).min(*used);
            *used = used.saturating_sub(taken);
            self.total = self.total.saturating_sub(taken);
        }
    }

    /// The fairness part of the score in thousandths of a point: full for a client that was granted nothing lately, none
    /// for one that was granted everything.
    #[must_use]
    pub fn millipoints(&self, client: &ClientId) -> i64 {
        let used = i128::from(self.uses.get(client).copied().unwrap_or(0));
        let share = used.saturating_mul(i128::from(MAX_MILLIPOINTS)).checked_div(i128::from(self.total)).unwrap_or(0);
        MAX_MILLIPOINTS.saturating_sub(i64::try_from(share).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::{FairShare, HALF_LIFE_MS, decayed, weight};
    use crate::units::{Instant, NanoUsd, Tokens};

    #[test]
    fn halves_each_half_life() {
        assert_eq!(decayed(1_000_000, HALF_LIFE_MS), 500_000);
        assert_eq!(decayed(1_000_000, HALF_LIFE_MS / 2), 750_000);
        assert_eq!(decayed(1_000_000, 3 * HALF_LIFE_MS), 125_000);
        assert_eq!(decayed(1_000_000, i64::MAX), 0);
    }

    #[test]
    fn a_grant_weighs_what_it_costs_and_a_free_one_its_units() {
        let units = |n| Tokens::from_units(n).unwrap();
        assert_eq!(weight(NanoUsd::from_nanos(3_000).unwrap(), units(2)), 3_002);
        assert_eq!(weight(NanoUsd::ZERO, units(2)), 2);
    }

    #[test]
    fn a_client_that_took_everything_has_no_points_and_gets_them_back() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut share = FairShare::default();
        assert_eq!(share.millipoints(&a), 10_000);
        share.record(&a, 10, Instant::from_millis(0));
        assert_eq!((share.millipoints(&a), share.millipoints(&b)), (0, 10_000));
        share.record(&b, 5, Instant::from_millis(HALF_LIFE_MS));
        assert_eq!((share.millipoints(&a), share.millipoints(&b)), (5_000, 5_000));
    }
}
