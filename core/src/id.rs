//! Names. Each kind of name is a type of its own, checked when it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::units::Instant;

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {0}")]
pub struct IdError(&'static str);

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(IdError($rule)) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_name(text: &str, extra: &[u8]) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

name!(
    /// A resource pool, such as `openai-gpt-4`. It has no underscore, which separates it from the rest of a [`RequestId`].
    PoolId,
    "a pool name: lower-case letters, digits, `-` and `.`, at most 64",
    |text| is_name(text, b"-.") && !text.bytes().any(|b| b.is_ascii_uppercase())
);
name!(
    /// A client of the platform.
    ClientId,
    "a client id: letters, digits, `-`, `_`, `.`, `:` and `@`, at most 64",
    |text| is_name(text, b"-_.:@")
);
name!(
    /// A request template, such as `chat-completion`.
    TemplateId,
    "a template name: letters, digits, `-`, `_` and `.`, at most 64",
    |text| is_name(text, b"-_.")
);
name!(
    /// The service binding of a downstream worker, such as `ECHO`.
    WorkerBinding,
    "a service binding's name: upper-case letters, digits and `_`, at most 64",
    |text| is_name(text, b"_") && !text.bytes().any(|b| b.is_ascii_lowercase())
);
name!(
    /// A request or reservation: a sortable unique part, `_`, and the request's home pool.
    RequestId,
    "a request id",
    |text| RequestId::split(text).is_some()
);

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const UNIQUE_LENGTH: usize = 26;

impl RequestId {
    /// A new id for a request whose home is `pool`: a ULID (48 bits of time, 80 of randomness, Crockford's base 32),
    /// in lower case, and the pool.
    #[must_use]
    pub fn new(now: Instant, random: [u8; 10], pool: &PoolId) -> Self {
        let time = u128::try_from(now.millis().max(0)).unwrap_or(0) & 0xffff_ffff_ffff;
        let mut bits = time << 80;
        for (index, byte) in random.iter().rev().enumerate() {
            let shift = u32::try_from(index).unwrap_or(0).saturating_mul(8);
            bits |= u128::from(*byte).checked_shl(shift).unwrap_or(0);
        }
        let mut text = String::with_capacity(UNIQUE_LENGTH.saturating_add(pool.0.len()).saturating_add(1));
        for place in (0..26_u32).rev() {
            let digit = bits.checked_shr(place.saturating_mul(5)).unwrap_or(0) & 31;
            let letter = usize::try_from(digit).ok().and_then(|d| CROCKFORD.get(d)).copied().unwrap_or(b'0');
            text.push(char::from(letter));
        }
        text.push('_');
        text.push_str(&pool.0);
        Self(text)
    }

    fn split(text: &str) -> Option<(&str, &str)> {
        let (unique, pool) = text.split_once('_')?;
        let valid = unique.len() == UNIQUE_LENGTH && unique.bytes().all(|b| CROCKFORD.contains(&b));
        (valid && pool.parse::<PoolId>().is_ok()).then_some((unique, pool))
    }

    /// When it was made.
    #[must_use]
    pub fn made_at(&self) -> Instant {
        let time = self.0.bytes().take(10).fold(0_i64, |time, byte| {
            let digit = CROCKFORD.iter().position(|letter| *letter == byte).and_then(|digit| i64::try_from(digit).ok());
            time.saturating_mul(32).saturating_add(digit.unwrap_or(0))
        });
        Instant::from_millis(time)
    }

    /// The pool that keeps this request.
    #[must_use]
    pub fn home(&self) -> Option<PoolId> {
        let (_, pool) = Self::split(&self.0)?;
        pool.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientId, PoolId, RequestId, WorkerBinding};
    use crate::units::Instant;

    #[test]
    fn a_request_id_sorts_by_time_and_names_its_home() {
        let pool: PoolId = "openai-gpt-3.5".parse().unwrap();
        let early = RequestId::new(Instant::from_millis(1_700_000_000_000), [255; 10], &pool);
        let late = RequestId::new(Instant::from_millis(1_700_000_000_001), [0; 10], &pool);
        assert!(early < late);
        assert_eq!(early.home(), Some(pool));
        assert_eq!(early.as_str().parse::<RequestId>().unwrap(), early);
        assert_eq!(late.made_at(), Instant::from_millis(1_700_000_000_001));
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "Upper", "with space", "under_score", "-first", &"x".repeat(65), "ä"] {
            assert!(bad.parse::<PoolId>().is_err(), "{bad}");
        }
        assert!("a b".parse::<ClientId>().is_err());
        assert!("../x".parse::<ClientId>().is_err());
        assert!("echo".parse::<WorkerBinding>().is_err());
        assert!("01hzzzzzzzzzzzzzzzzzzzzzz_pool".parse::<RequestId>().is_err());
        assert!("01hzzzzzzzzzzzzzzzzzzzzzzu_pool".parse::<RequestId>().is_err());
    }
}
