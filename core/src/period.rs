//! Budget periods: calendar months.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::units::Instant;

/// A span of time, its start included and its end not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Its first moment.
    pub start: Instant,
    /// The first moment after it.
    pub end: Instant,
}

impl Period {
    /// The calendar month, in UTC, that a moment belongs to. Beyond the calendar (some 260 000 years) it is one endless
    /// period.
    #[must_use]
    pub fn month_of(at: Instant) -> Self {
        let endless = Self { start: Instant::from_millis(0), end: Instant::from_millis(i64::MAX) };
        let midnight = |date: NaiveDate| {
            let time = date.and_hms_opt(0, 0, 0)?;
            Some(Instant::from_millis(time.and_utc().timestamp_millis()))
        };
        let bounds = || {
            let date = DateTime::<Utc>::from_timestamp_millis(at.millis())?.date_naive();
            let first = date.with_day(1)?;
            Some(Self { start: midnight(first)?, end: midnight(first.checked_add_months(Months::new(1))?)? })
        };
        bounds().unwrap_or(endless)
    }
}

/// A moment as RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn rfc3339(at: Instant) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(at.millis()).unwrap_or(DateTime::<Utc>::UNIX_EPOCH);
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Reads RFC 3339, in any offset.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Instant> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(Instant::from_millis(time.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::{Period, parse_rfc3339, rfc3339};

    #[test]
    fn months_meet_at_midnight() {
        for (at, start, end) in [
            ("2026-11-24T05:06:07.089Z", "2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z"),
            ("2028-02-29T23:59:59.999Z", "2028-02-01T00:00:00.000Z", "2028-03-01T00:00:00.000Z"),
            ("2026-12-31T23:59:59.999Z", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"),
            ("2026-11-30T23:30:00-01:00", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"),
        ] {
            let period = Period::month_of(parse_rfc3339(at).unwrap());
            assert_eq!((rfc3339(period.start).as_str(), rfc3339(period.end).as_str()), (start, end));
        }
    }
}
