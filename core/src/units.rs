//! Quantities as types: tokens, money, points in time. All are integers; none is a float.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decimal::{self, MAX_EXACT};

/// One whole unit (a token of a language model, an e-mail, a query) in [`Tokens`] steps.
pub const MICROS_PER_UNIT: i64 = 1_000_000;

/// An amount of a pool's unit, in millionths, never negative, at most 2^53 − 1 millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Tokens(i64);

impl Tokens {
    /// None.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(MAX_EXACT);

    /// From millionths; `None` when negative or too large.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..=MAX_EXACT).contains(&micros).then_some(Self(micros))
    }

    /// From millionths, kept within the range.
    #[must_use]
    pub fn clamped(micros: i64) -> Self {
        Self(micros.clamp(0, MAX_EXACT))
    }

    /// From whole units; `None` when too large.
    #[must_use]
    pub fn from_units(units: u64) -> Option<Self> {
        i64::try_from(units).ok()?.checked_mul(MICROS_PER_UNIT).and_then(Self::from_micros)
    }

    /// In millionths.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// In whole units, rounded down.
    #[must_use]
    pub fn units(self) -> u64 {
        u64::try_from(self.0.checked_div(MICROS_PER_UNIT).unwrap_or(0)).unwrap_or(0)
    }

    /// Rounded up to a whole unit.
    #[must_use]
    pub fn ceil(self) -> Self {
        match self.0.checked_rem(MICROS_PER_UNIT) {
            Some(0) | None => self,
            Some(rest) => Self(self.0.saturating_sub(rest).saturating_add(MICROS_PER_UNIT).min(MAX_EXACT)),
        }
    }

    /// The sum, kept within the range.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(MAX_EXACT))
    }

    /// The difference, not below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As [`Self::is_zero`], for what is left out when it is stored.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        decimal::serialize(self.0, 6, serializer)
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let micros = decimal::deserialize(6, deserializer)?;
        Self::from_micros(micros).ok_or_else(|| serde::de::Error::custom("must not be negative"))
    }
}

/// Money in billionths of a US dollar. Differences may be negative; budgets, holds and prices are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct NanoUsd(i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that every store keeps exactly: some nine million dollars.
    pub const MAX: Self = Self(MAX_EXACT);

    /// From billionths of a dollar; `None` beyond ±(2^53 − 1).
    #[must_use]
    pub fn from_nanos(nanos: i64) -> Option<Self> {
        (-MAX_EXACT..=MAX_EXACT).contains(&nanos).then_some(Self(nanos))
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// In billionths of a dollar.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The sum; `None` beyond the range.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::from_nanos)
    }

    /// The sum, kept within the range.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).clamp(-MAX_EXACT, MAX_EXACT))
    }

    /// The difference, kept within the range.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).clamp(-MAX_EXACT, MAX_EXACT))
    }

    /// The larger of this and zero.
    #[must_use]
    pub fn or_zero(self) -> Self {
        Self(self.0.max(0))
    }

    /// What `amount` costs at this price a whole unit, rounded up to a billionth of a dollar; `None` beyond the range.
    #[must_use]
    pub fn times(self, amount: Tokens) -> Option<Self> {
        let product = i128::from(self.0).checked_mul(i128::from(amount.micros()))?;
        let per_unit = i128::from(MICROS_PER_UNIT);
        let rounded = product.checked_add(per_unit.checked_sub(1)?)?.checked_div(per_unit)?;
        i64::try_from(rounded).ok().and_then(Self::from_nanos)
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        decimal::serialize(self.0, 9, serializer)
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decimal::deserialize(9, deserializer).map(Self)
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(i64);

impl Instant {
    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// `millis` later.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this, not below zero.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }
}
