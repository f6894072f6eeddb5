//! The token bucket (Turner 1986; RFC 2697's committed bucket): `capacity` tokens at most, refilled at a steady rate.
//!
//! The level is exact: what a refill leaves below a millionth of a token is carried over, so that a bucket that is
//! looked at every millisecond holds as much as one that is looked at once. The level may be below zero: a worker that
//! used more than it reserved has used it, and the pool pays it back before it grants again.

use serde::{Deserialize, Serialize};

use crate::units::{Instant, Tokens};
use crate::window_cap::{WINDOW_MS, WindowCap};

/// The two numbers of a bucket, and whether it also has a window cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketLimits {
    /// The most that it holds.
    pub capacity: Tokens,
    /// What it gains in a second.
    pub refill_per_second: Tokens,
    /// Also cap what is granted in any 60 seconds at the capacity (see [`WindowCap`]).
    pub window_cap: bool,
}

/// When an amount can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// At once.
    Now,
    /// Not before this moment.
    At(Instant),
    /// Not by waiting: nothing is refilled.
    NoRefill,
    /// Never: more than the capacity.
    Never,
}

/// A bucket's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucket {
    /// Millionths; from −capacity to +capacity.
    level: i64,
    /// Thousandths of a millionth that the last refill left over.
    carry: i64,
    refilled_at: Instant,
    /// What was granted in the last minute, if that is capped.
    #[serde(default, skip_serializing_if = "WindowCap::is_empty")]
    window: WindowCap,
}

const MILLIS_PER_SECOND: i128 = 1_000;

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn full(limits: &BucketLimits, now: Instant) -> Self {
        Self { level: limits.capacity.micros(), carry: 0, refilled_at: now, window: WindowCap::default() }
    }

    /// A bucket that holds `amount`, at most its capacity.
    #[must_use]
    pub fn holding(limits: &BucketLimits, amount: Tokens, now: Instant) -> Self {
        Self { level: amount.min(limits.capacity).micros(), ..Self::full(limits, now) }
    }

    /// What it holds, whatever a window says; nothing while it is in debt.
    #[must_use]
    pub fn level(&self) -> Tokens {
        Tokens::clamped(self.level)
    }

    /// How far it is below nothing.
    #[must_use]
    pub fn debt(&self) -> Tokens {
        Tokens::clamped(self.level.saturating_neg())
    }

    /// When it will have paid back what it owes, if it owes anything: never, if it is not refilled.
    #[must_use]
    pub fn paid_back_at(&self, limits: &BucketLimits) -> Option<Instant> {
        let paid_back_at = || match self.level_reaches(limits, Tokens::ZERO, self.refilled_at) {
            Availability::At(at) => at,
            _ => Instant::from_millis(i64::MAX),
        };
        (self.level < 0).then(paid_back_at)
    }

    /// Gains nothing up to then.
    pub fn skip_to(&mut self, then: Instant) {
        self.refilled_at = self.refilled_at.max(then);
    }

    /// Takes up to `amount` of what it holds; what that was.
    pub fn draw(&mut self, amount: Tokens) -> Tokens {
        let drawn = amount.min(self.level());
        self.level = self.level.saturating_sub(drawn.micros());
        drawn
    }

    /// Holds no more than `most`: somebody who knows says so.
    pub fn lower_to(&mut self, most: Tokens) {
        self.level = self.level.min(most.micros());
    }

    /// Brings the level up to `now`. A clock that went backwards refills nothing.
    pub fn refill(&mut self, limits: &BucketLimits, now: Instant) {
        let elapsed = i128::from(now.since(self.refilled_at));
        if elapsed == 0 {
            return;
        }
        self.refilled_at = now;
        let capacity = limits.capacity.micros();
        let gained = i128::from(limits.refill_per_second.micros())
            .saturating_mul(elapsed)
            .saturating_add(i128::from(self.carry));
        let whole = gained.checked_div(MILLIS_PER_SECOND).unwrap_or(0);
        let level = i128::from(self.level).saturating_add(whole);
        if level >= i128::from(capacity) {
            self.level = capacity;
            self.carry = 0;
        } else {
            self.level = i64::try_from(level).unwrap_or(capacity);
            self.carry = i64::try_from(gained.checked_rem(MILLIS_PER_SECOND).unwrap_or(0)).unwrap_or(0);
        }
    }

    /// Fits the level to changed limits, after a refill under the old ones. Nothing is gained by it.
    pub fn resize(&mut self, old: &BucketLimits, new: &BucketLimits, now: Instant) {
        self.refill(old, now);
        self.level = self.level.clamp(new.capacity.micros().saturating_neg(), new.capacity.micros());
        self.carry = 0;
        if !new.window_cap {
            self.window = WindowCap::default();
        }
    }

    /// When a window cap has let so many millionths through, if they are taken as soon as it lets them: its capacity a minute.
    #[must_use]
    pub fn window_has_room_at(&self, limits: &BucketLimits, micros: i128, now: Instant) -> Instant {
        let cap = i128::from(limits.capacity.micros()).max(1);
        let minutes = micros.saturating_sub(1).max(0).checked_div(cap).unwrap_or(0);
        let rest = micros.saturating_sub(minutes.saturating_mul(cap));
        let rest = Tokens::clamped(i64::try_from(rest).unwrap_or(i64::MAX));
        let later = i64::try_from(minutes).unwrap_or(i64::MAX).saturating_mul(WINDOW_MS);
        self.window.room_at(limits.capacity, rest, now).plus(later)
    }

    /// What can be taken now, in the bucket and, if it applies, in the window. Call [`Self::refill`] first.
    #[must_use]
    pub fn available(&self, limits: &BucketLimits, now: Instant) -> Tokens {
        let level = Tokens::clamped(self.level);
        if limits.window_cap { level.min(self.window.room(limits.capacity, now)) } else { level }
    }

    /// When `amount` can be taken, if nobody takes any in between. Call [`Self::refill`] first.
    #[must_use]
    pub fn availability(&self, limits: &BucketLimits, amount: Tokens, now: Instant) -> Availability {
        if amount > limits.capacity {
            return Availability::Never;
        }
        let by_level = self.level_reaches(limits, amount, now);
        if !limits.window_cap {
            return by_level;
        }
        match (by_level, self.window.room_at(limits.capacity, amount, now)) {
            (Availability::At(level), window) => Availability::At(level.max(window)),
            (Availability::Now, window) if window > now => Availability::At(window),
            (other, _) => other,
        }
    }

    fn level_reaches(&self, limits: &BucketLimits, amount: Tokens, now: Instant) -> Availability {
        let missing = i128::from(amount.micros()).saturating_sub(i128::from(self.level));
        if missing <= 0 {
            return Availability::Now;
        }
        let rate = i128::from(limits.refill_per_second.micros());
        let needed = missing.saturating_mul(MILLIS_PER_SECOND).saturating_sub(i128::from(self.carry));
        let rounded_up = needed.saturating_add(rate.saturating_sub(1));
        match rounded_up.checked_div(rate) {
            Some(millis) => Availability::At(now.plus(i64::try_from(millis).unwrap_or(i64::MAX))),
            None => Availability::NoRefill,
        }
    }

    /// Takes `amount`, if all of it is there. Call [`Self::refill`] first.
    ///
    /// # Errors
    /// When it is not there, with the bucket as it was.
    pub fn take(&mut self, limits: &BucketLimits, amount: Tokens, now: Instant) -> Result<(), Availability> {
        match self.availability(limits, amount, now) {
            Availability::Now => {
                self.level = self.level.saturating_sub(amount.micros());
                self.record(limits, amount, now);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Puts back what was taken at `taken_at` and not used.
    pub fn give_back(&mut self, limits: &BucketLimits, amount: Tokens, taken_at: Instant) {
        self.level = self.level.saturating_add(amount.micros()).min(limits.capacity.micros());
        self.window.forget(amount, taken_at);
    }

    /// Takes what was used beyond its reservation, into debt if need be. The debt is at most the capacity: a bucket
    /// stands for a limit that is itself forgotten after about that long.
    pub fn take_used(&mut self, limits: &BucketLimits, amount: Tokens, now: Instant) {
        let floor = limits.capacity.micros().saturating_neg();
        self.level = self.level.saturating_sub(amount.micros()).max(floor);
        self.record(limits, amount, now);
    }

    fn record(&mut self, limits: &BucketLimits, amount: Tokens, now: Instant) {
        if limits.window_cap {
            self.window.record(amount, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Availability, BucketLimits, TokenBucket};
    use crate::units::{Instant, Tokens};

    fn limits(capacity: u64, refill: &str, window_cap: bool) -> BucketLimits {
        let refill = crate::decimal::parse(refill, 6).ok().and_then(Tokens::from_micros).unwrap();
        BucketLimits { capacity: Tokens::from_units(capacity).unwrap(), refill_per_second: refill, window_cap }
    }

    fn units(n: u64) -> Tokens {
        Tokens::from_units(n).unwrap()
    }

    #[test]
    fn refills_exactly_however_often_it_is_looked_at() {
        let limits = limits(1_000_000, "1.666667", false);
        let start = Instant::from_millis(0);
        let mut often = TokenBucket::full(&limits, start);
        often.take(&limits, units(1_000_000), start).unwrap();
        let mut once = often.clone();
        for ms in 1..=60_000 {
            often.refill(&limits, Instant::from_millis(ms));
        }
        once.refill(&limits, Instant::from_millis(60_000));
        assert_eq!(often, once);
        assert_eq!(once.available(&limits, Instant::from_millis(60_000)).units(), 100);
    }

    #[test]
    fn says_when_and_keeps_its_word() {
        let limits = limits(100, "3", false);
        let start = Instant::from_millis(5_000);
        let mut bucket = TokenBucket::full(&limits, start);
        bucket.take(&limits, units(100), start).unwrap();
        let Availability::At(at) = bucket.availability(&limits, units(10), start) else { panic!("must wait") };
        assert_eq!(at, start.plus(3_334));
        bucket.refill(&limits, at.plus(-1));
        assert!(bucket.clone().take(&limits, units(10), at.plus(-1)).is_err());
        bucket.refill(&limits, at);
        bucket.take(&limits, units(10), at).unwrap();
    }

    #[test]
    fn never_and_not_by_waiting_are_not_the_same() {
        let limits = limits(100, "0", false);
        let now = Instant::from_millis(0);
        let mut bucket = TokenBucket::full(&limits, now);
        assert_eq!(bucket.availability(&limits, units(101), now), Availability::Never);
        bucket.take(&limits, units(100), now).unwrap();
        assert_eq!(bucket.availability(&limits, units(1), now), Availability::NoRefill);
    }

    #[test]
    fn a_clock_that_goes_backwards_grants_nothing() {
        let limits = limits(10, "10", false);
        let mut bucket = TokenBucket::full(&limits, Instant::from_millis(10_000));
        bucket.take(&limits, units(10), Instant::from_millis(10_000)).unwrap();
        bucket.refill(&limits, Instant::from_millis(1));
        bucket.refill(&limits, Instant::from_millis(10_000));
        assert_eq!(bucket.available(&limits, Instant::from_millis(10_000)), Tokens::ZERO);
    }

    #[test]
    fn a_window_cap_stops_the_second_burst() {
        let limits = limits(60, "1", true);
        let start = Instant::from_millis(0);
        let mut bucket = TokenBucket::full(&limits, start);
        bucket.take(&limits, units(60), start).unwrap();
        let later = start.plus(30_000);
        bucket.refill(&limits, later);
        let Err(Availability::At(at)) = bucket.take(&limits, units(30), later) else { panic!("must wait") };
        assert!(at > start.plus(60_000) && at <= start.plus(61_000), "{at:?}");
        bucket.refill(&limits, at);
        bucket.take(&limits, units(30), at).unwrap();
    }

    #[test]
    fn debt_is_paid_back_and_bounded() {
        let limits = limits(10, "1", false);
        let start = Instant::from_millis(0);
        let mut bucket = TokenBucket::full(&limits, start);
        bucket.take_used(&limits, units(1_000_000), start);
        assert_eq!(bucket.availability(&limits, units(1), start), Availability::At(start.plus(11_000)));
        assert_eq!(bucket.paid_back_at(&limits), Some(start.plus(10_000)));
        bucket.skip_to(start.plus(1_000));
        bucket.refill(&limits, start.plus(11_000));
        assert_eq!((bucket.paid_back_at(&limits), bucket.debt()), (None, Tokens::ZERO), "a second was skipped");
    }
}
