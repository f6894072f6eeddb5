//! Between whole numbers and real ones, for statistics and plots. Money never comes here.
#![allow(clippy::as_conversions)]

/// As a real number; beyond 2^53 the nearest one.
#[must_use]
pub const fn real(whole: i64) -> f64 {
    whole as f64
}

/// The nearest whole number, within the range.
#[must_use]
pub fn whole(real: f64) -> i64 {
    real.round() as i64
}

/// A share from 0 to 1, 1 excluded, made of the upper 53 bits.
#[must_use]
pub fn share(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// With a comma between thousands.
#[must_use]
pub fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len().saturating_sub(index)).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::{grouped, share};

    #[test]
    fn thousands_are_apart() {
        let texts = [0, 7, 999, 1_000, 1_234_567, -100, -1_000].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234,567", "-100", "-1,000"]);
    }

    #[test]
    fn shares_are_within_their_range() {
        assert!(share(0).abs() < f64::EPSILON);
        assert!(share(u64::MAX) < 1.0);
    }
}
