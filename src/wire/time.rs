//! Times in JSON: RFC 3339 in UTC with milliseconds. For `#[serde(with)]`.

use rm_core::period::{parse_rfc3339, rfc3339};
use rm_core::units::Instant;
use serde::{Deserialize, Deserializer, Serializer};

pub fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_rfc3339(&text)
        .ok_or_else(|| serde::de::Error::custom("expected a time as RFC 3339, such as 2026-11-24T06:00:00.000Z"))
}

const DAY_MS: i64 = 86_400_000;
/// The first moment whose year has five digits: RFC 3339 has years of four.
const YEAR_10000: Instant = Instant::from_millis(253_402_300_800_000);
/// What a moment or a day may look like.
pub const MOMENT_OR_DAY: &str =
    "expected a time as RFC 3339, such as 2026-11-24T06:00:00.000Z, or a day, such as 2026-11-24";

/// A moment, or a day: `day_at` is what a day adds to its midnight in UTC, in days.
pub fn moment_or_day(text: &str, day_at: i64) -> Option<Instant> {
    let day = || parse_rfc3339(&format!("{text}T00:00:00Z")).map(|at| at.plus(day_at.saturating_mul(DAY_MS)));
    parse_rfc3339(text).or_else(day).filter(|at| *at < YEAR_10000)
}

fn optional_moment<'de, D: Deserializer<'de>>(deserializer: D, day_at: i64) -> Result<Option<Instant>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    moment_or_day(&text, day_at).map(Some).ok_or_else(|| serde::de::Error::custom(MOMENT_OR_DAY))
}

/// For a time from which on something counts: a day counts from its beginning.
pub fn optional_from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
    optional_moment(deserializer, 0)
}

/// For a time to which something counts: a day counts to its end.
pub fn optional_to<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
    optional_moment(deserializer, 1)
}

pub mod optional {
    //! The same for a time that may be missing.

    use rm_core::units::Instant;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Time(#[serde(with = "super")] Instant);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
    }
}
