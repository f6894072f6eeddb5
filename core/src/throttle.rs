//! Back-pressure from below: a pool whose downstream is busy refills slower, and finds its way back.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain 1989; TCP's congestion avoidance): each sign that the
//! downstream is busy halves the rate, at most once a second, for the answers to one burst are one sign; each five quiet
//! seconds give a twentieth of the full rate back. A downstream that says what is left of its limit, and until when, slows
//! the pool to the rate which that tells.

use serde::{Deserialize, Serialize};

use crate::token_bucket::BucketLimits;
use crate::units::{Instant, Tokens};

/// The full rate.
pub const FULL_PERMILLE: u32 = 1_000;
/// The rate never falls below this: a pool that has stopped cannot learn that it may go on.
const LEAST_PERMILLE: u32 = 50;
/// What a quiet interval gives back.
const STEP_PERMILLE: u32 = 50;
/// How long a quiet interval is.
const STEP_MS: i64 = 5_000;
/// When a limit is reset is told to so many milliseconds, and rounded up.
const TOLD_TO_MS: i64 = 1_000;
/// Signs within this of the last slowing are the same sign.
const ONE_SIGN_MS: i64 = 1_000;

/// The rate at which a pool refills, in thousandths of what the operator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttle {
    permille: u32,
    /// When it was last slowed down or eased.
    since: Instant,
    /// When it was last slowed down.
    slowed_at: Option<Instant>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { permille: FULL_PERMILLE, since: Instant::from_millis(0), slowed_at: None }
    }
}

impl Throttle {
    /// The rate, in thousandths of the full one.
    #[must_use]
    pub const fn permille(&self) -> u32 {
        self.permille
    }

    /// The limits at this rate.
    #[must_use]
    pub fn apply(&self, limits: &BucketLimits) -> BucketLimits {
        if self.permille >= FULL_PERMILLE {
            return *limits;
        }
        let rate = i128::from(limits.refill_per_second.micros())
            .saturating_mul(i128::from(self.permille))
            .checked_div(i128::from(FULL_PERMILLE))
            .unwrap_or(0);
        // A pool that is refilled at all goes on being refilled.
        let least = i64::from(!limits.refill_per_second.is_zero());
        let refill_per_second = Tokens::clamped(i64::try_from(rate).unwrap_or(i64::MAX).max(least));
        BucketLimits { refill_per_second, ..*limits }
    }

    /// What a rate at this throttle is at another one.
    #[must_use]
    pub fn rate_at(&self, rate: Tokens, other: &Self) -> Tokens {
        let scaled = i128::from(rate.micros()).saturating_mul(i128::from(other.permille));
        let scaled = scaled.checked_div(i128::from(self.permille.max(1))).unwrap_or(0);
        Tokens::clamped(i64::try_from(scaled).unwrap_or(i64::MAX))
    }

    /// The downstream is busy; `false` if that was known already.
    pub fn slow_down(&mut self, now: Instant) -> bool {
        if self.slowed_at.is_some_and(|at| now.since(at) < ONE_SIGN_MS) {
            return false;
        }
        let halved = self.permille.checked_div(2).unwrap_or(0).max(LEAST_PERMILLE);
        *self = Self { permille: halved, since: now, slowed_at: Some(now) };
        true
    }

    /// The downstream says that this much is left of its limit, until that is reset in so many milliseconds. Some mean by that
    /// when a bucket is full again, others when a window begins anew: either what is missing comes until then, or what is
    /// left must do. It is the faster of the two, for it is not known which, and half a limit at least comes until then.
    /// `true` if that is slower than the rate so far.
    pub fn slow_to(&mut self, left: Tokens, resets_in_ms: i64, limits: &BucketLimits, now: Instant) -> bool {
        let ms = resets_in_ms.saturating_sub(TOLD_TO_MS);
        let amount = left.max(limits.capacity.saturating_sub(left));
        let in_full = i128::from(limits.refill_per_second.micros()).saturating_mul(i128::from(ms));
        let thousandths = i128::from(amount.micros()).saturating_mul(1_000).saturating_mul(i128::from(FULL_PERMILLE));
        let permille = match thousandths.checked_div(in_full) {
            Some(permille) if ms > 0 => u32::try_from(permille).unwrap_or(FULL_PERMILLE).max(LEAST_PERMILLE),
            _ => return false,
        };
        if permille >= self.permille {
            return false;
        }
        *self = Self { permille, since: now, ..*self };
        true
    }

    /// After how many milliseconds as much is refilled as at the full rate in `full_ms`, if it is slowed down no more.
    #[must_use]
    pub fn delayed_ms(&self, full_ms: i64, now: Instant) -> i64 {
        let full = i128::from(FULL_PERMILLE);
        let (mut throttle, mut from, mut left) = (*self, now, i128::from(full_ms.max(0)).saturating_mul(full));
        while let Some(eases_at) = throttle.eases_at() {
            let permille = i128::from(throttle.permille);
            let refilled = permille.saturating_mul(i128::from(eases_at.since(from).max(0)));
            if refilled >= left {
                break;
            }
            left = left.saturating_sub(refilled);
            from = from.max(eases_at);
            throttle.ease();
        }
        let permille = i128::from(throttle.permille.max(1));
        let ms = left.saturating_add(permille.saturating_sub(1)).checked_div(permille).unwrap_or(0);
        from.since(now).saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// When it is eased next.
    #[must_use]
    pub fn eases_at(&self) -> Option<Instant> {
        (self.permille < FULL_PERMILLE).then(|| self.since.plus(STEP_MS))
    }

    /// Eases it by one step, at the moment that [`Self::eases_at`] said.
    pub fn ease(&mut self) {
        if let Some(at) = self.eases_at() {
            self.permille = self.permille.saturating_add(STEP_PERMILLE).min(FULL_PERMILLE);
            self.since = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FULL_PERMILLE, Throttle};
    use crate::token_bucket::BucketLimits;
    use crate::units::{Instant, Tokens};

    fn at(ms: i64) -> Instant {
        Instant::from_millis(1_000_000).plus(ms)
    }

    #[test]
    fn halves_once_a_burst_and_comes_back_in_steps() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.eases_at(), None);
        assert!(throttle.slow_down(at(0)));
        assert!(!throttle.slow_down(at(999)), "the same burst");
        assert_eq!(throttle.permille(), 500);
        assert!(throttle.slow_down(at(1_000)));
        assert_eq!((throttle.permille(), throttle.eases_at()), (250, Some(at(6_000))));
        (0..20).for_each(|_| throttle.ease());
        assert_eq!((throttle.permille(), throttle.eases_at()), (FULL_PERMILLE, None));
    }

    #[test]
    fn what_a_downstream_says_of_its_limit_tells_a_rate() {
        let units = |n| Tokens::from_units(n).unwrap();
        let limits = BucketLimits { capacity: units(100), refill_per_second: units(20), window_cap: false };
        // Left of a hundred, told to be reset in seconds, and the rate of it that tells.
        for (left, seconds, permille) in [(0, 11, 500), (20, 11, 400), (80, 11, 400), (50, 26, 100), (99, 1_000, 50)] {
            let mut throttle = Throttle::default();
            assert!(throttle.slow_to(units(left), seconds * 1_000, &limits, at(0)));
            assert_eq!(
                (throttle.permille(), throttle.eases_at()),
                (permille, Some(at(5_000))),
                "{left} in {seconds} s"
            );
            assert!(!throttle.slow_to(units(left), 6_000, &limits, at(0)), "it is no faster than that");
            assert!(throttle.slow_down(at(0)), "that it is busy is another sign");
            assert_eq!(throttle.permille(), (permille / 2).max(50));
        }
        for (left, seconds) in [(0, 1), (0, 6), (100, 6), (50, 0), (50, -5)] {
            let mut throttle = Throttle::default();
            assert!(!throttle.slow_to(units(left), seconds * 1_000, &limits, at(0)), "{left} in {seconds} s");
        }
        let still = BucketLimits { refill_per_second: Tokens::ZERO, ..limits };
        assert!(!Throttle::default().slow_to(units(5), 60_000, &still, at(0)));
    }

    #[test]
    fn what_is_refilled_at_the_rate_that_rises_is_known_before() {
        assert_eq!(Throttle::default().delayed_ms(1_234, at(0)), 1_234);
        let mut throttle = Throttle::default();
        throttle.slow_down(at(0));
        assert_eq!((throttle.delayed_ms(0, at(0)), throttle.delayed_ms(2_500, at(0))), (0, 5_000));
        // Five seconds each at 50, 55, 60 and 65 of a hundred, and a second at 70.
        assert_eq!(throttle.delayed_ms(2_500 + 2_750 + 3_000 + 3_250 + 700, at(0)), 21_000);
        assert_eq!(throttle.delayed_ms(500, at(4_000)), 1_000);
        assert_eq!(throttle.delayed_ms(36_250 + 1_000, at(0)), 51_000, "it is as fast as ever then");
    }

    #[test]
    fn never_stops_what_is_refilled() {
        let mut throttle = Throttle::default();
        (0..20_i64).for_each(|n| {
            throttle.slow_down(at(n.saturating_mul(1_000)));
        });
        let refill_per_second = Tokens::from_micros(3).unwrap();
        let limits = BucketLimits { capacity: Tokens::from_units(1).unwrap(), refill_per_second, window_cap: false };
        assert_eq!(throttle.permille(), 50);
        assert_eq!(throttle.apply(&limits).refill_per_second.micros(), 1);
        let still = BucketLimits { refill_per_second: Tokens::ZERO, ..limits };
        assert_eq!(throttle.apply(&still).refill_per_second, Tokens::ZERO);
    }
}
