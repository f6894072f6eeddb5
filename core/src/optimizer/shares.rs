//! How a common use is divided among those that made it.

use crate::units::{MICROS_PER_UNIT, Tokens};

/// Divides a use by weights, in whole units as far as it has them, so that shares cost exactly what the whole does. The
/// largest remainders get what is left over (Hamilton's method), the first of those that are equal. The shares add up to
/// the whole. Without any weight all have the same.
#[must_use]
pub fn shares(total: Tokens, weights: &[Tokens]) -> Vec<Tokens> {
    let sum = weights.iter().fold(0_i128, |sum, weight| sum.saturating_add(i128::from(weight.micros().max(0))));
    let weight_of = |weight: &Tokens| if sum == 0 { 1 } else { i128::from(weight.micros().max(0)) };
    let sum = if sum == 0 { i128::try_from(weights.len()).unwrap_or(1).max(1) } else { sum };
    let whole = i128::from(total.units());
    let quotas: Vec<(i128, i128)> = weights
        .iter()
        .map(|weight| {
            let product = whole.saturating_mul(weight_of(weight));
            (product.checked_div(sum).unwrap_or(0), product.checked_rem(sum).unwrap_or(0))
        })
        .collect();
    let given = quotas.iter().fold(0_i128, |given, (units, _)| given.saturating_add(*units));
    let mut left = whole.saturating_sub(given);
    let mut by_remainder: Vec<usize> = (0..quotas.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(quotas.get(*index).map_or(0, |(_, remainder)| *remainder)));
    let mut units: Vec<i128> = quotas.iter().map(|(units, _)| *units).collect();
    for index in &by_remainder {
        if left > 0
            && let Some(share) = units.get_mut(*index)
        {
            *share = share.saturating_add(1);
            left = left.saturating_sub(1);
        }
    }
    let fraction = total.micros().checked_rem(MICROS_PER_UNIT).unwrap_or(0);
    let first = by_remainder.first().copied();
    let share = |(index, units): (usize, i128)| {
        let more = if Some(index) == first { fraction } else { 0 };
        let micros = units.saturating_mul(i128::from(MICROS_PER_UNIT)).saturating_add(i128::from(more));
        Tokens::clamped(i64::try_from(micros).unwrap_or(i64::MAX))
    };
    units.into_iter().enumerate().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::shares;
    use crate::units::{NanoUsd, Tokens};

    fn units(all: &[u64]) -> Vec<Tokens> {
        all.iter().map(|n| Tokens::from_units(*n).unwrap()).collect()
    }

    #[test]
    fn a_use_is_divided_by_weight_and_the_rest_goes_to_the_largest_remainders() {
        let divided = |total, weights: &[u64]| shares(Tokens::from_units(total).unwrap(), &units(weights));
        assert_eq!(divided(10, &[1, 1, 1]), units(&[4, 3, 3]));
        assert_eq!(divided(7, &[1, 2, 4]), units(&[1, 2, 4]));
        assert_eq!(divided(1, &[1, 5]), units(&[0, 1]));
        assert_eq!(divided(5, &[0, 0]), units(&[3, 2]));
        assert_eq!(divided(5, &[]), units(&[]));
        let half = Tokens::from_micros(1_500_000).unwrap();
        assert_eq!(
            shares(half, &units(&[1, 1])).iter().map(|share| share.micros()).collect::<Vec<_>>(),
            [1_500_000, 0]
        );
    }

    proptest! {
        #[test]
        fn shares_add_up_in_amount_and_in_price(
            total in 0_u64..1_000_000_000,
            weights in prop::collection::vec(0_u64..1_000_000, 1..100),
            price in 0_i64..1_000_000,
        ) {
            let total = Tokens::from_units(total).unwrap();
            let divided = shares(total, &units(&weights));
            let sum = divided.iter().fold(Tokens::ZERO, |sum, share| sum.saturating_add(*share));
            prop_assert_eq!(sum, total);
            let price = NanoUsd::from_nanos(price).unwrap();
            let costs = divided.iter().fold(NanoUsd::ZERO, |sum, share| sum.saturating_add(price.times(*share).unwrap()));
            prop_assert_eq!(costs, price.times(total).unwrap());
            let largest = weights.iter().enumerate().max_by_key(|(_, weight)| **weight).unwrap();
            for (share, weight) in divided.iter().zip(&weights) {
                if weight < largest.1 {
                    prop_assert!(*share <= divided[largest.0].saturating_add(Tokens::from_units(1).unwrap()));
                }
            }
        }
    }
}
