//! Back-pressure from below: a pool whose downstream is busy refills slower, and finds its way back.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain 1989; TCP's congestion avoidance): each sign that the
//! downstream is busy halves the rate, at most once a second, for the answers to one burst are one sign; each five quiet
//! seconds give a twentieth of the full rate back.

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
