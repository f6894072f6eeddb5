//! What a request is expected to need, from its template and the size of its input.

use serde::{Deserialize, Serialize};

use crate::id::PoolId;
use crate::units::{MICROS_PER_UNIT, Tokens};

/// Bytes of JSON to a token of a language model: the usual ratio for English text. A tokeniser would be more exact, and
/// takes megabytes of code.
const BYTES_PER_TOKEN: u64 = 4;
/// What a template is expected to write when the request does not limit it.
pub const DEFAULT_OUTPUT_TOKENS: u64 = 500;

/// How much of one pool a template needs: `base + perInputToken × input + perOutputToken × output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Which pool.
    pub pool: PoolId,
    /// Units for every request.
    #[serde(default)]
    pub base: Tokens,
    /// Units for each token of the input.
    #[serde(default)]
    pub per_input_token: Tokens,
    /// Units for each token of the output.
    #[serde(default)]
    pub per_output_token: Tokens,
}

/// The estimate for one pool, in whole units, at least one.
#[must_use]
pub fn amount(rate: &Rate, input_bytes: u64, max_output_tokens: Option<u64>) -> Tokens {
    let input = input_bytes.div_ceil(BYTES_PER_TOKEN);
    let output = max_output_tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS);
    let times = |per: Tokens, n: u64| i128::from(per.micros()).saturating_mul(i128::from(n));
    let micros = i128::from(rate.base.micros())
        .saturating_add(times(rate.per_input_token, input))
        .saturating_add(times(rate.per_output_token, output));
    let micros = i64::try_from(micros).unwrap_or(i64::MAX).max(MICROS_PER_UNIT);
    Tokens::clamped(micros).ceil()
}

#[cfg(test)]
mod tests {
    use super::{Rate, amount};
    use crate::units::Tokens;

    fn rate(json: &str) -> Rate {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn counts_input_and_output() {
        let chat = rate(r#"{"pool":"p","base":10,"perInputToken":1,"perOutputToken":1.5}"#);
        assert_eq!(amount(&chat, 401, Some(100)), Tokens::from_units(10 + 101 + 150).unwrap());
        assert_eq!(amount(&rate(r#"{"pool":"p"}"#), 0, None), Tokens::from_units(1).unwrap());
        assert_eq!(amount(&chat, u64::MAX, Some(u64::MAX)), Tokens::MAX.ceil());
    }
}
