//! When a cheaper model of the template's chain is taken.

use crate::pricing::{BarePrice, OffPeakPrice};
use crate::units::NanoUsd;

/// At the standard level a cheaper model is taken for the wait if the other one's pool lets it wait this much longer.
pub const DOWNGRADE_MARGIN_MS: i64 = 5_000;

/// A price, and what is off it in some windows, if anything is.
pub type PriceInTime<'a> = (BarePrice, Option<&'a OffPeakPrice>);

/// Whether a price is at most another one whatever a use consists of, and also in the windows in which that one costs less:
/// only then a downgrade never costs more. What is off in the very same windows is off there in both.
#[must_use]
pub fn is_never_dearer((price, off): PriceInTime<'_>, (than, than_off): PriceInTime<'_>) -> bool {
    let parts = |price: &BarePrice| match price.apart {
        Some(apart) => [price.unit, apart.cached_input, apart.output],
        None => [price.unit; 3],
    };
    let hundredths = |price: NanoUsd, percent: u8| i128::from(price.nanos()).saturating_mul(i128::from(percent));
    let left = |off: Option<&OffPeakPrice>| off.map_or(100, |off| 100_u8.saturating_sub(off.percent_off));
    let off_there = off.filter(|off| than_off.is_some_and(|than| than.windows == off.windows));
    let at_most = |percent, of_other| {
        let mut pairs = parts(&price).into_iter().zip(parts(&than));
        pairs.all(|(one, other)| hundredths(one, percent) <= hundredths(other, of_other))
    };
    at_most(100, 100) && at_most(left(off_there), left(than_off))
}

/// The models of a chain that a quality floor allows: those up to that one; all of them without one.
#[must_use]
pub fn allowed_by<'a>(chain: &'a [String], floor: Option<&str>) -> &'a [String] {
    let last = floor.and_then(|floor| chain.iter().position(|model| model == floor));
    last.and_then(|last| chain.get(..=last)).unwrap_or(chain)
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
    use super::{allowed_by, is_never_dearer, waits_too_long};
    use crate::off_peak::Window;
    use crate::pricing::{BarePrice, OffPeakPrice, PricesApart};
    use crate::units::{Instant, NanoUsd};

    fn price(unit: i64, apart: Option<(i64, i64)>) -> BarePrice {
        let nanos = |n| NanoUsd::from_nanos(n).unwrap();
        let apart = apart
            .map(|(cached_input, output)| PricesApart { cached_input: nanos(cached_input), output: nanos(output) });
        BarePrice { unit: nanos(unit), apart }
    }

    #[test]
    fn a_price_is_compared_part_by_part() {
        let never_dearer = |one: (i64, Option<(i64, i64)>), other: (i64, Option<(i64, i64)>)| {
            is_never_dearer((price(one.0, one.1), None), (price(other.0, other.1), None))
        };
        assert!(never_dearer((1, None), (2, None)));
        assert!(never_dearer((2, None), (2, None)));
        assert!(never_dearer((1, Some((1, 3))), (2, Some((1, 4)))));
        assert!(!never_dearer((1, Some((1, 5))), (2, Some((1, 4)))), "much output would cost more");
        assert!(!never_dearer((1, Some((0, 3))), (2, None)));
        assert!(never_dearer((2, Some((1, 2))), (2, None)));
    }

    #[test]
    fn it_is_compared_with_what_the_other_one_costs_in_its_windows() {
        let (half, never_dearer) = (off(50, 1), |unit, off: Option<&OffPeakPrice>, than_off: &OffPeakPrice| {
            is_never_dearer((price(unit, None), off), (price(100, None), Some(than_off)))
        });
        assert!(never_dearer(49, None, &half));
        assert!(!never_dearer(51, None, &half));
        assert!(never_dearer(50, None, &half));
        assert!(!never_dearer(51, Some(&off(90, 2)), &half), "that one is cheaper at other times");
    }

    #[test]
    fn in_the_same_windows_it_is_compared_with_what_is_off_there() {
        let (reasoner, chat) = (price(550, Some((140, 2_190))), price(270, Some((70, 1_100))));
        assert!(is_never_dearer((chat, Some(&off(50, 1))), (reasoner, Some(&off(74, 1)))));
        assert!(!is_never_dearer((chat, Some(&off(50, 2))), (reasoner, Some(&off(74, 1)))), "in other windows");
        assert!(!is_never_dearer((chat, Some(&off(40, 1))), (reasoner, Some(&off(74, 1)))), "it is dearer there");
        let flat = |unit| price(unit, None);
        assert!(!is_never_dearer((flat(101), Some(&off(90, 1))), (flat(100), Some(&off(1, 1)))), "and dearer outside");
    }

    fn off(percent_off: u8, day: i64) -> OffPeakPrice {
        let window = Window { start: Instant::from_millis(day), end: Instant::from_millis(day.saturating_add(1)) };
        OffPeakPrice { percent_off, windows: vec![window] }
    }

    #[test]
    fn a_floor_allows_what_is_before_it_and_itself() {
        let chain = ["medium".to_owned(), "small".to_owned(), "tiny".to_owned()];
        assert_eq!(allowed_by(&chain, Some("small")), &chain[..2]);
        assert_eq!(allowed_by(&chain, None), &chain);
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
