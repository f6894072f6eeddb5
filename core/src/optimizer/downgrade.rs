//! When a cheaper model of the template's chain is taken.

use crate::pricing::Price;
use crate::units::NanoUsd;

/// At the standard level a cheaper model is taken for the wait if the other one's pool lets it wait this much longer.
pub const DOWNGRADE_MARGIN_MS: i64 = 5_000;

/// Whether a price is at most another one whatever a use consists of: only then a downgrade never costs more.
#[must_use]
pub fn is_never_dearer(price: &Price, than: &Price) -> bool {
    let parts = |price: &Price| match price.apart {
        Some(apart) => [price.unit, apart.cached_input, apart.output],
        None => [price.unit; 3],
    };
    parts(price).into_iter().zip(parts(than)).all(|(one, other)| one <= other)
        && parts(price).into_iter().fold(NanoUsd::ZERO, NanoUsd::saturating_add)
            < parts(than).into_iter().fold(NanoUsd::ZERO, NanoUsd::saturating_add)
}

/// Whether a request would wait so much longer for one pool than for another that it goes to the other. `None` is a wait
/// that does not end by itself.
#[must_use]
pub fn waits_too_long(wait_ms: Option<i64>, other_wait_ms: Option<i64>) -> bool {
    match (wait_ms, other_wait_ms) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(wait), Some(other)) => wait > other.saturating_add(DOWNGRADE_MARGIN_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_never_dearer, waits_too_long};
    use crate::pricing::{Price, PricesApart};
    use crate::units::NanoUsd;

    fn price(unit: i64, apart: Option<(i64, i64)>) -> Price {
        let nanos = |n| NanoUsd::from_nanos(n).unwrap();
        let apart = apart
            .map(|(cached_input, output)| PricesApart { cached_input: nanos(cached_input), output: nanos(output) });
        Price { unit: nanos(unit), apart, version: String::new() }
    }

    #[test]
    fn a_price_is_compared_part_by_part() {
        assert!(is_never_dearer(&price(1, None), &price(2, None)));
        assert!(!is_never_dearer(&price(2, None), &price(2, None)), "the same saves nothing");
        assert!(is_never_dearer(&price(1, Some((1, 3))), &price(2, Some((1, 4)))));
        assert!(!is_never_dearer(&price(1, Some((1, 5))), &price(2, Some((1, 4)))), "much output would cost more");
        assert!(!is_never_dearer(&price(1, Some((0, 3))), &price(2, None)));
        assert!(is_never_dearer(&price(2, Some((1, 2))), &price(2, None)));
    }

    #[test]
    fn a_wait_must_be_longer_by_the_margin() {
        assert!(!waits_too_long(Some(5_000), Some(0)));
        assert!(waits_too_long(Some(5_001), Some(0)));
        assert!(!waits_too_long(Some(9_000), Some(5_000)));
        assert!(waits_too_long(None, Some(60_000)));
        assert!(!waits_too_long(Some(60_000), None) && !waits_too_long(None, None));
    }
}
