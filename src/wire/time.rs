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
