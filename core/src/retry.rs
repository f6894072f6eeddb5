//! How long a request waits before its next attempt.

use crate::id::RequestId;

/// The wait after the first failure.
const FIRST_MS: i64 = 250;
/// The longest wait.
const LONGEST_MS: i64 = 60_000;
/// The longest pause that a downstream worker may ask for: five minutes.
pub const MAX_PAUSE_MS: i64 = 300_000;

/// Exponential backoff: doubled with each attempt that failed, with up to a quarter added that differs from request to
/// request, so that requests that failed together do not come back together.
#[must_use]
pub fn backoff_ms(id: &RequestId, failed_attempts: u32) -> i64 {
    let doublings = failed_attempts.saturating_sub(1).min(16);
    let wait = FIRST_MS.saturating_mul(1_i64.checked_shl(doublings).unwrap_or(1)).min(LONGEST_MS);
    // FNV-1a over the id: it holds 80 random bits.
    let hash = id
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let share = i64::try_from(hash >> 32 & 0xff).unwrap_or(0);
    wait.saturating_add(wait.saturating_mul(share).checked_div(1_024).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::backoff_ms;
    use crate::id::RequestId;
    use crate::units::Instant;

    #[test]
    fn doubles_up_to_a_minute_and_a_quarter() {
        let id = RequestId::new(Instant::from_millis(1), [7; 10], &"p".parse().unwrap());
        assert!((250..=313).contains(&backoff_ms(&id, 1)));
        assert!((1_000..=1_250).contains(&backoff_ms(&id, 3)));
        assert!((60_000..=75_000).contains(&backoff_ms(&id, u32::MAX)));
    }
}
