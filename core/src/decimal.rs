//! Decimal numbers as scaled integers: how money (nine decimals) and tokens (six) cross the JSON boundary without a
//! float in between.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// Why a text is not a decimal number of the wanted scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// Not a JSON number.
    #[error("expected a number")]
    NotANumber,
    /// Digits beyond the scale that are not zero.
    #[error("has more than {0} decimals")]
    TooPrecise(u32),
    /// Beyond 2^53 units of the smallest step, which is as far as every store keeps integers exactly.
    #[error("is out of range")]
    OutOfRange,
}

/// The largest integer that D1 and JavaScript keep exactly: 2^53 − 1.
pub const MAX_EXACT: i64 = 9_007_199_254_740_991;

/// Reads a JSON number, exponent included, as an integer of `10^-scale` steps.
///
/// # Errors
/// See [`DecimalError`].
pub fn parse(text: &str, scale: u32) -> Result<i64, DecimalError> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| DecimalError::OutOfRange)?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(DecimalError::NotANumber);
    }
    // The value is `digits × 10^shift` steps.
    let shift = i64::from(exponent)
        .saturating_add(i64::from(scale))
        .saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
    let joined = format!("{whole}{fraction}");
    let significant = joined.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let kept = if shift < 0 {
        let drop = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
        let split = significant.len().saturating_sub(drop);
        let (kept, dropped) = significant.split_at_checked(split).unwrap_or(("", significant));
        if dropped.bytes().any(|b| b != b'0') {
            return Err(DecimalError::TooPrecise(scale));
        }
        kept.to_owned()
    } else {
        let zeros = usize::try_from(shift).unwrap_or(usize::MAX);
        if significant.len().saturating_add(zeros) > 16 {
            return Err(DecimalError::OutOfRange);
        }
        format!("{significant}{}", "0".repeat(zeros))
    };
    if kept.is_empty() {
        return Ok(0);
    }
    let magnitude: i64 = kept.parse().map_err(|_| DecimalError::OutOfRange)?;
    if magnitude > MAX_EXACT {
        return Err(DecimalError::OutOfRange);
    }
    Ok(if negative { magnitude.saturating_neg() } else { magnitude })
}

/// Prints an integer of `10^-scale` steps as the shortest exact JSON number, never with an exponent.
#[must_use]
pub fn format(value: i64, scale: u32) -> String {
    let unit = 10_u64.saturating_pow(scale);
    let magnitude = value.unsigned_abs();
    let whole = magnitude.checked_div(unit).unwrap_or(magnitude);
    let fraction = magnitude.checked_rem(unit).unwrap_or(0);
    let sign = if value < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let width = usize::try_from(scale).unwrap_or(0);
    let fraction = format!("{fraction:0width$}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

/// Serialises an integer of `10^-scale` steps as a JSON number.
///
/// # Errors
/// Passes on the serialiser's error.
pub fn serialize<S: Serializer>(value: i64, scale: u32, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(format(value, scale)).map_err(S::Error::custom)?.serialize(serializer)
}

/// Deserialises a JSON number as an integer of `10^-scale` steps.
///
/// # Errors
/// If the number is missing, too precise or out of range.
pub fn deserialize<'de, D: Deserializer<'de>>(scale: u32, deserializer: D) -> Result<i64, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    parse(raw.get(), scale).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::{DecimalError, format, parse};

    #[test]
    fn reads_and_prints_exactly() {
        for (text, nanos) in [
            ("0", 0),
            ("0.1", 100_000_000),
            ("5.00", 5_000_000_000),
            ("-1.5", -1_500_000_000),
            ("1e-9", 1),
            ("2.5E2", 250_000_000_000),
            ("0.000000001", 1),
            ("100", 100_000_000_000),
        ] {
            assert_eq!(parse(text, 9), Ok(nanos), "{text}");
            assert_eq!(parse(&format(nanos, 9), 9), Ok(nanos));
        }
        assert_eq!(format(1, 9), "0.000000001");
        assert_eq!(format(100_000_000, 9), "0.1");
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        assert_eq!(parse("0.0000000001", 9), Err(DecimalError::TooPrecise(9)));
        assert_eq!(parse("1e-10", 9), Err(DecimalError::TooPrecise(9)));
        assert_eq!(parse("1e300", 9), Err(DecimalError::OutOfRange));
        assert_eq!(parse("1e99999999999", 9), Err(DecimalError::OutOfRange));
        assert_eq!(parse("9007199.254740992", 9), Err(DecimalError::OutOfRange));
        assert_eq!(parse("\"1\"", 9), Err(DecimalError::NotANumber));
        assert_eq!(parse("null", 9), Err(DecimalError::NotANumber));
    }
}
