//! What a downstream worker's answer means.

use std::collections::BTreeMap;

use chrono::{DateTime, Months, NaiveDateTime};
use rm_core::id::PoolId;
use rm_core::pool::{Remaining, Retry};
use rm_core::pricing::Parts;
use rm_core::request::{Failure, Usage};
use rm_core::units::{Instant, Tokens};
use serde_json::value::RawValue;

use crate::dispatch::downstream::ANSWER_MAX_BYTES;
use crate::host::log;
use crate::wire::api::UsedParts;
use crate::wire::downstream::{LimitLeft, ResetIn, WorkResult};
use crate::wire::payload::Payload;
use crate::wire::pool::RunOutcome;
use crate::wire::strict::Object;

/// The longest message that is taken over from a worker.
const MESSAGE_MAX_CHARS: usize = 500;
const FIFTY_YEARS_MS: i64 = 50 * 31_557_600_000;

/// A failed attempt.
pub fn failed(code: &str, message: impl Into<String>, retry: Retry) -> RunOutcome {
    RunOutcome::Failed { failure: Failure { code: code.into(), message: message.into() }, retry }
}

/// The outcome of an answer; `body` is `None` if it was too long.
pub fn outcome_of(name: &str, status: u16, retry_after: Option<&str>, body: Option<&[u8]>, now: Instant) -> RunOutcome {
    let Some(body) = body else { return too_long(name, ANSWER_MAX_BYTES) };
    match status {
        200..=299 => good_answer(name, body),
        // A 503 that does not say when to come back is a failure like any other.
        429 | 503 if status == 429 || retry_after.is_some() => {
            let pause_ms = retry_after.and_then(|value| pause(value, now));
            failed("worker_busy", format!("`{name}` answered {status}"), Retry::Busy { pause_ms })
        }
        500..=599 => failed("worker_failed", format!("`{name}` answered {status}{}", said(body)), Retry::Failing),
        _ => failed("worker_refused", format!("`{name}` answered {status}{}", said(body)), Retry::No),
    }
}

/// The outcome of an answer that was not read to its end.
pub fn too_long(name: &str, max_bytes: usize) -> RunOutcome {
    failed("result_too_large", format!("`{name}` answered with more than {max_bytes} bytes"), Retry::No)
}

fn said(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(MESSAGE_MAX_CHARS).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn pause(value: &str, now: Instant) -> Option<i64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(1_000));
    }
    Some(Instant::from_millis(http_date(value, now)?).since(now))
}

/// An HTTP date (RFC 9110, 5.6.7) in milliseconds: as it is written today, or in one of the two obsolete forms, which are
/// to be understood.
fn http_date(value: &str, now: Instant) -> Option<i64> {
    if let Ok(date) = DateTime::parse_from_rfc2822(value) {
        return Some(date.timestamp_millis());
    }
    let millis =
        |format| NaiveDateTime::parse_from_str(value, format).ok().map(|date| date.and_utc().timestamp_millis());
    let of_two_digits = || {
        let date = NaiveDateTime::parse_from_str(value, "%A, %d-%b-%y %H:%M:%S GMT").ok()?;
        // A year that seems to be more than fifty years ahead is the last one with these digits.
        let is_past = date.and_utc().timestamp_millis().saturating_sub(now.millis()) > FIFTY_YEARS_MS;
        let date = if is_past { date.checked_sub_months(Months::new(1_200))? } else { date };
        Some(date.and_utc().timestamp_millis())
    };
    of_two_digits().or_else(|| millis("%a %b %e %H:%M:%S %Y"))
}

fn good_answer(name: &str, body: &[u8]) -> RunOutcome {
    match serde_json::from_slice::<Object<WorkResult>>(body) {
        Ok(Object(WorkResult { result, usage, limits })) => RunOutcome::Succeeded {
            result: Payload::Inline(result),
            usage: usage_by_pool(name, usage),
            remaining: limits_by_pool(name, limits),
        },
        Err(error) => {
            let message = format!("`{name}` answered something that is not {{\"result\": …}}: {error}");
            failed("invalid_worker_response", message, Retry::No)
        }
    }
}

/// What the worker says it used, by pool: a number of units, or an object with its parts. What cannot be read is left
/// out, and so charged as it was reserved.
pub fn usage_by_pool(name: &str, usage: Option<Box<RawValue>>) -> Vec<Usage> {
    let Some(usage) = usage else { return Vec::new() };
    let not_readable = |what: &str| log::warn("usage_not_readable", name, what);
    let Ok(by_pool) = serde_json::from_str::<Option<BTreeMap<String, Box<RawValue>>>>(usage.get()) else {
        not_readable("it is not an object");
        return Vec::new();
    };
    let read = |(pool, said): (String, Box<RawValue>)| {
        let pool = pool.parse::<PoolId>().ok();
        let used = pool.and_then(|pool| match serde_json::from_str::<Object<UsedParts>>(said.get()) {
            Ok(Object(parts)) => usage_of(pool, parts),
            Err(_) => {
                Some(Usage { pool, amount: serde_json::from_str(said.get()).ok()?, parts: None, is_share: false })
            }
        });
        if used.is_none() {
            not_readable("an amount of it is no number of units");
        }
        used
    };
    by_pool.unwrap_or_default().into_iter().filter_map(read).collect()
}

/// What the worker says is left of limits, by pool. What cannot be read is left out.
pub fn limits_by_pool(name: &str, limits: Option<Box<RawValue>>) -> Vec<Remaining> {
    let Some(limits) = limits else { return Vec::new() };
    let Ok(by_pool) = serde_json::from_str::<Option<BTreeMap<String, Box<RawValue>>>>(limits.get()) else {
        log::warn("limits_not_readable", name, "they are not an object");
        return Vec::new();
    };
    let read = |(pool, said): (String, Box<RawValue>)| {
        let Object(left) = serde_json::from_str::<Object<LimitLeft>>(said.get()).ok()?;
        Some(Remaining {
            pool: pool.parse().ok()?,
            left: left.remaining,
            resets_in_ms: left.reset_seconds.map(|ResetIn(ms)| ms),
        })
    };
    by_pool.unwrap_or_default().into_iter().filter_map(read).collect()
}

/// A use that is told apart; `None` if an amount is out of range, or the parts are more than the whole.
pub fn usage_of(pool: PoolId, said: UsedParts) -> Option<Usage> {
    let amount = Tokens::from_units(said.amount)?;
    let parts = match (said.cached_input, said.output) {
        (None, None) => None,
        (cached_input, output) => Some(Parts {
            cached_input: Tokens::from_units(cached_input.unwrap_or(0))?,
            output: Tokens::from_units(output.unwrap_or(0))?,
        }),
    };
    let fits = parts.is_none_or(|parts| parts.within(amount) == parts);
    fits.then_some(Usage { pool, amount, parts, is_share: false })
}

#[cfg(test)]
mod tests {
    use rm_core::units::Instant;

    use rm_core::pool::Retry;

    use super::{outcome_of, pause};
    use crate::wire::payload::Payload;
    use crate::wire::pool::RunOutcome;

    fn outcome(status: u16, retry_after: Option<&str>, body: &str) -> RunOutcome {
        outcome_of("ECHO", status, retry_after, Some(body.as_bytes()), Instant::from_millis(0))
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(pause("7", Instant::from_millis(0)), Some(7_000));
        assert_eq!(pause(&"9".repeat(40), Instant::from_millis(0)), Some(i64::MAX));
        assert_eq!(pause("Thu, 01 Jan 1970 00:01:00 GMT", Instant::from_millis(0)), Some(60_000));
        assert_eq!(pause("Thu, 01 Jan 1970 00:01:00 GMT", Instant::from_millis(90_000)), Some(0));
        // RFC 850 and asctime.
        assert_eq!(pause("Thursday, 01-Jan-70 00:01:00 GMT", Instant::from_millis(0)), Some(60_000));
        assert_eq!(pause("Thu Jan  1 00:01:00 1970", Instant::from_millis(0)), Some(60_000));
        let in_2026 = Instant::from_millis(1_795_651_200_000);
        assert_eq!(pause("Thursday, 26-Nov-26 00:01:00 GMT", in_2026), Some(60_000));
        assert_eq!(pause("Sunday, 06-Nov-94 08:49:37 GMT", in_2026), Some(0), "that was in 1994");
        assert_eq!(pause("soon", Instant::from_millis(0)), None);
        assert_eq!(pause("-1", Instant::from_millis(0)), None);
    }

    #[test]
    fn only_what_may_get_better_is_tried_again() {
        let busy = |pause_ms| Retry::Busy { pause_ms };
        for (status, after, retry) in [
            (400, None, Retry::No),
            (404, None, Retry::No),
            (302, None, Retry::No),
            (429, None, busy(None)),
            (429, Some("2"), busy(Some(2_000))),
            (500, None, Retry::Failing),
            (503, None, Retry::Failing),
            (503, Some("1"), busy(Some(1_000))),
        ] {
            let RunOutcome::Failed { retry: said, .. } = outcome(status, after, "") else { panic!("{status}") };
            assert_eq!(said, retry, "{status}");
        }
    }

    #[test]
    fn garbage_is_a_failure_and_bad_usage_is_left_out() {
        assert!(matches!(outcome(200, None, "<html>"), RunOutcome::Failed { retry: Retry::No, .. }));
        assert!(matches!(outcome(200, None, "[1]"), RunOutcome::Failed { .. }));
        let answer = outcome(200, None, r#"{"result":{"n":1.0},"usage":{"a":-1,"b":"x","c":3,"Ä":1,"d":1e300}}"#);
        let RunOutcome::Succeeded { result: Payload::Inline(result), usage, .. } = answer else {
            panic!("must succeed")
        };
        assert_eq!(result.get(), r#"{"n":1.0}"#);
        assert_eq!(usage.len(), 1);
        let told = outcome(
            200,
            None,
            r#"{"result":1,"usage":{"a":{"amount":264704,"cachedInput":257955,"output":1744},"b":{"amount":1,"output":2}}}"#,
        );
        let RunOutcome::Succeeded { usage, .. } = told else { panic!("must succeed") };
        assert_eq!(usage.len(), 1, "parts that are more than the whole cannot be read");
        assert_eq!(usage[0].parts.map(|parts| parts.output.units()), Some(1_744));
        let limits = r#"{"result":1,"limits":{"a":{"remaining":7,"resetSeconds":2},"b":{"remaining":-1e300,"resetSeconds":0.2504},
            "c":3,"d":{"remaining":0.30000000000000004},"e":{"remaining":"7"},"f":{"remaining":1e300,"resetSeconds":1e300},
            "g":{"remaining":null},"Ä":{"remaining":1}}}"#;
        let RunOutcome::Succeeded { remaining, .. } = outcome(200, None, limits) else { panic!("must succeed") };
        let read: Vec<_> =
            remaining.iter().map(|said| (said.pool.as_str(), said.left.micros(), said.resets_in_ms)).collect();
        let most = 9_007_199_254_740_991;
        let told = [("a", 7_000_000, Some(2_000)), ("b", 0, Some(250)), ("d", 300_000, None), ("f", most, Some(most))];
        assert_eq!(read, told);
        let answer = outcome(200, None, r#"{"result":null,"usage":"much"}"#);
        assert!(matches!(answer, RunOutcome::Succeeded { usage, .. } if usage.is_empty()));
    }
}
