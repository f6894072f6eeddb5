//! The score: `tier (0–40) + urgency (0–30) + wait (0–20) + fairness (0–10)`, in thousandths of a point.
//!
//! Tier and urgency points come from D1. Wait rises linearly to its most at the starvation bound, and at that same
//! moment a request is promoted. Requests of one client and lane age alike, so their order is that of their arrival,
//! which does not change with time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fair_share;
use crate::units::Instant;

/// A request that is older than this is promoted: ten minutes.
pub const STARVATION_BOUND_MS: i64 = 600_000;
/// The most that waiting adds, in thousandths of a point.
pub const MAX_WAIT_MILLIPOINTS: i64 = 20_000;
/// Milliseconds of waiting for a thousandth of a point.
const WAIT_MS_PER_MILLIPOINT: i64 = 30;
/// Of so many grants, one at least goes to a promoted request while there is one.
pub const PROMOTED_ONE_IN: u32 = 4;

/// The five lanes, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Urgency {
    /// A user is looking at it.
    Immediate,
    /// Within seconds.
    Fast,
    /// The default.
    Normal,
    /// May be combined with others.
    Batch,
    /// Whenever it is cheapest.
    Deferred,
}

impl Urgency {
    /// All lanes.
    pub const ALL: [Self; 5] = [Self::Immediate, Self::Fast, Self::Normal, Self::Batch, Self::Deferred];

    /// The lane's name, as in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Fast => "fast",
            Self::Normal => "normal",
            Self::Batch => "batch",
            Self::Deferred => "deferred",
        }
    }
}

/// A client's tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tier {
    /// A budget of its own, agreed with the client.
    Enterprise,
    /// The dearest of the fixed plans.
    Premium,
    /// The middle plan.
    Standard,
    /// The smallest plan.
    Basic,
}

impl Tier {
    /// All tiers.
    pub const ALL: [Self; 4] = [Self::Enterprise, Self::Premium, Self::Standard, Self::Basic];

    /// The tier's name, as in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enterprise => "enterprise",
            Self::Premium => "premium",
            Self::Standard => "standard",
            Self::Basic => "basic",
        }
    }
}

/// A text that is no lane or tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

impl FromStr for Urgency {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text).ok_or(UnknownName)
    }
}

impl FromStr for Tier {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text).ok_or(UnknownName)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The points of tiers and lanes, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// 0 to 40 000.
    pub tiers: BTreeMap<Tier, i64>,
    /// 0 to 30 000.
    pub urgencies: BTreeMap<Urgency, i64>,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            tiers: Tier::ALL.into_iter().zip([40_000, 30_000, 20_000, 10_000]).collect(),
            urgencies: Urgency::ALL.into_iter().zip([30_000, 22_000, 15_000, 7_000, 0]).collect(),
        }
    }
}

impl Weights {
    fn tier(&self, tier: Tier) -> i64 {
        self.tiers.get(&tier).copied().unwrap_or(0)
    }

    fn urgency(&self, urgency: Urgency) -> i64 {
        self.urgencies.get(&urgency).copied().unwrap_or(0)
    }

    /// A request's score as a moment, the smaller the better: when it was queued, less what its points are worth in waiting
    /// time. Waiting counts up to the starvation bound: beyond it all are queued at the same moment.
    #[must_use]
    pub fn key(&self, urgency: Urgency, enqueued_at: Instant, bonus: i64, now: Instant) -> i64 {
        let counted_from = enqueued_at.max(now.plus(STARVATION_BOUND_MS.saturating_neg()));
        let points = self.urgency(urgency).saturating_mul(WAIT_MS_PER_MILLIPOINT);
        counted_from.millis().saturating_sub(points).saturating_sub(bonus)
    }

    /// The same among those of one client and tier, however long they wait: when a request was queued, less what its lane is
    /// worth in waiting time.
    #[must_use]
    pub fn rank_in_client(&self, urgency: Urgency, enqueued_at: Instant) -> Instant {
        enqueued_at.plus(self.urgency(urgency).saturating_mul(WAIT_MS_PER_MILLIPOINT).saturating_neg())
    }

    /// What a client's requests share, on the scale of [`Self::key`]: tier and fairness.
    #[must_use]
    pub fn client_bonus(&self, tier: Tier, fairness_millipoints: i64) -> i64 {
        self.tier(tier).saturating_add(fairness_millipoints).saturating_mul(WAIT_MS_PER_MILLIPOINT)
    }

    /// The score of a request, with its parts.
    #[must_use]
    pub fn score(&self, tier: Tier, urgency: Urgency, waited_ms: i64, fairness_millipoints: i64) -> Score {
        let wait = waited_ms.max(0).checked_div(WAIT_MS_PER_MILLIPOINT).unwrap_or(0).min(MAX_WAIT_MILLIPOINTS);
        Score {
            tier: Points(self.tier(tier)),
            urgency: Points(self.urgency(urgency)),
            wait: Points(wait),
            fairness: Points(fairness_millipoints.clamp(0, fair_share::MAX_MILLIPOINTS)),
        }
    }
}

/// Thousandths of a point; in JSON a number of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Points(pub i64);

impl Serialize for Points {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::decimal::serialize(self.0, 3, serializer)
    }
}

impl<'de> Deserialize<'de> for Points {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::decimal::deserialize(3, deserializer).map(Self)
    }
}

/// A score and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Score {
    /// 0 to 40.
    pub tier: Points,
    /// 0 to 30.
    pub urgency: Points,
    /// 0 to 20.
    pub wait: Points,
    /// 0 to 10.
    pub fairness: Points,
}

impl Score {
    /// The sum: 0 to 100.
    #[must_use]
    pub fn total(&self) -> Points {
        let parts = [self.tier, self.urgency, self.wait, self.fairness];
        Points(parts.iter().fold(0, |sum, part| sum.saturating_add(part.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Points, STARVATION_BOUND_MS, Tier, Urgency, Weights};

    #[test]
    fn the_score_runs_from_the_least_to_the_most() {
        let weights = Weights::default();
        let most = weights.score(Tier::Enterprise, Urgency::Immediate, STARVATION_BOUND_MS, 10_000);
        assert_eq!(most.total(), Points(100_000));
        let patient_basic = weights.score(Tier::Basic, Urgency::Deferred, 10 * STARVATION_BOUND_MS, 10_000);
        assert_eq!(patient_basic.total(), Points(40_000));
        assert_eq!(serde_json::to_string(&Points(12_345)).unwrap(), "12.345");
    }

    #[test]
    fn half_a_minute_of_waiting_is_worth_a_point() {
        let weights = Weights::default();
        assert_eq!(weights.score(Tier::Basic, Urgency::Normal, 30_000, 0).wait, Points(1_000));
    }
}
