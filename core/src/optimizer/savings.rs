//! What was saved, and by what. A line's baseline is never stored: it is the cost and all that was saved of it, so that
//! `baseline − actual = Σ strategies` cannot be otherwise.

use serde::{Deserialize, Serialize};

use crate::priority::UnknownName;
use crate::units::NanoUsd;

/// A strategy that makes requests cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Strategy {
    /// A cheaper model of the template's chain.
    ModelDowngrade,
    /// One call for several requests, or one run for several that are the same.
    RequestBatching,
    /// A result that was there before.
    Cache,
    /// Compressed payloads. It saves bytes, not money.
    Compression,
    /// A window in which it is cheaper.
    OffPeak,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ModelDowngrade, Self::RequestBatching, Self::Cache, Self::Compression, Self::OffPeak];

    /// The name, as in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelDowngrade => "model_downgrade",
            Self::RequestBatching => "request_batching",
            Self::Cache => "cache",
            Self::Compression => "compression",
            Self::OffPeak => "off_peak",
        }
    }
}

impl std::str::FromStr for Strategy {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == text).ok_or(UnknownName)
    }
}

/// What each strategy has saved of a line or a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Savings {
    /// By a cheaper model.
    #[serde(skip_serializing_if = "NanoUsd::is_none")]
    pub model_downgrade: NanoUsd,
    /// By being combined.
    #[serde(skip_serializing_if = "NanoUsd::is_none")]
    pub request_batching: NanoUsd,
    /// By a result that was there before.
    #[serde(skip_serializing_if = "NanoUsd::is_none")]
    pub cache: NanoUsd,
    /// By waiting for a window.
    #[serde(skip_serializing_if = "NanoUsd::is_none")]
    pub off_peak: NanoUsd,
}

impl Savings {
    /// Whether nothing was saved.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// By one strategy.
    #[must_use]
    pub const fn by(&self, strategy: Strategy) -> NanoUsd {
        match strategy {
            Strategy::ModelDowngrade => self.model_downgrade,
            Strategy::RequestBatching => self.request_batching,
            Strategy::Cache => self.cache,
            Strategy::Compression => NanoUsd::ZERO,
            Strategy::OffPeak => self.off_peak,
        }
    }

    /// By all.
    #[must_use]
    pub fn total(&self) -> NanoUsd {
        Strategy::ALL.into_iter().fold(NanoUsd::ZERO, |sum, strategy| sum.saturating_add(self.by(strategy)))
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            model_downgrade: self.model_downgrade.saturating_add(other.model_downgrade),
            request_batching: self.request_batching.saturating_add(other.request_batching),
            cache: self.cache.saturating_add(other.cache),
            off_peak: self.off_peak.saturating_add(other.off_peak),
        }
    }
}

/// A strategy that was applied to a request, whatever it saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Which one.
    pub strategy: Strategy,
    /// How, for people.
    pub detail: String,
    /// How many bytes it saved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub saved_bytes: u64,
}

const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Applied {
    /// What compression has done, if it has saved any bytes.
    #[must_use]
    pub fn compression(saved_bytes: u64) -> Option<Self> {
        let detail = "large payloads are gzipped".to_owned();
        (saved_bytes > 0).then_some(Self { strategy: Strategy::Compression, detail, saved_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::{Savings, Strategy};
    use crate::units::NanoUsd;

    #[test]
    fn a_strategy_has_one_name() {
        for strategy in Strategy::ALL {
            assert_eq!(serde_json::to_string(&strategy).unwrap(), format!("\"{}\"", strategy.as_str()));
            assert_eq!(strategy.as_str().parse::<Strategy>().unwrap(), strategy);
        }
    }

    #[test]
    fn the_total_is_the_sum_of_what_each_saved() {
        let nanos = |n| NanoUsd::from_nanos(n).unwrap();
        let savings = Savings {
            model_downgrade: nanos(1),
            request_batching: nanos(20),
            cache: nanos(300),
            off_peak: nanos(4_000),
        };
        assert_eq!(savings.total(), nanos(4_321));
        assert_eq!(savings.and(savings).total(), nanos(8_642));
        assert!(Savings::default().is_none() && !savings.is_none());
    }
}
