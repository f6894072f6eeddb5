//! Budget periods: calendar months.

use chrono::{DateTime, Datelike, Months, Utc};
use serde::{Deserialize, Serialize};

use crate::units::Instant;

/// A calendar month of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Which month: midnight of its first day in UTC, whatever the client's time zone. So a change of the time zone in
    /// mid-month does not begin another period.
    pub month: Instant,
    /// Its first moment where the client is.
    pub start: Instant,
    /// The first moment after it.
    pub end: Instant,
}

/// The furthest that any time zone is from UTC, and then some: 27 hours.
const OFFSET_MAX_MS: i64 = 27 * 3_600_000;

impl Period {
    /// The calendar month, in UTC, that a moment belongs to. Beyond the calendar (some 260 000 years) it is one endless
    /// period.
    #[must_use]
    pub fn month_of(at: Instant) -> Self {
        Self::month_in(at, |_| 0)
    }

    /// The calendar month that a moment belongs to where clocks are `offset_ms` ahead of UTC at a moment. Where the
    /// clocks jump over a month's first midnight, the month begins with the jump; where that midnight comes twice, with
    /// one of the two. Months meet without gap or overlap.
    #[must_use]
    pub fn month_in(at: Instant, offset_ms: impl Fn(Instant) -> i64) -> Self {
        let months = || {
            let local = at.plus(offset_ms(at));
            let month = first_of_month(local, 0)?;
            let period = |month: Instant| {
                let next = first_of_month(month, 1)?;
                Some(Self { month, start: begin(month, &offset_ms), end: begin(next, &offset_ms) })
            };
            let found = period(month)?;
            // Near a midnight that comes twice the clock's month is not always the period's.
            if at < found.start {
                period(first_of_month(month.plus(-1), 0)?)
            } else if at >= found.end {
                period(first_of_month(month, 1)?)
            } else {
                Some(found)
            }
        };
        let beginning = Instant::from_millis(0);
        months().unwrap_or(Self { month: beginning, start: beginning, end: Instant::from_millis(i64::MAX) })
    }
}

/// The first day of the month of `at`, or of the month `later` after it, at midnight UTC.
fn first_of_month(at: Instant, later: u32) -> Option<Instant> {
    let date = DateTime::<Utc>::from_timestamp_millis(at.millis())?.date_naive();
    let first = date.with_day(1)?.checked_add_months(Months::new(later))?;
    Some(Instant::from_millis(first.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis()))
}

/// The first moment, found by halving, at which the local clocks are past `midnight`.
fn begin(midnight: Instant, offset_ms: &impl Fn(Instant) -> i64) -> Instant {
    let (mut before, mut past) = (midnight.plus(-OFFSET_MAX_MS), midnight.plus(OFFSET_MAX_MS));
    while past.since(before) > 1 {
        let middle = before.plus(past.since(before).checked_div(2).unwrap_or(0));
        if middle.plus(offset_ms(middle)) >= midnight {
            past = middle;
        } else {
            before = middle;
        }
    }
    past
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
    use chrono::{Offset, TimeZone};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{Period, parse_rfc3339, rfc3339};
    use crate::units::Instant;

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
            assert_eq!(period.month, period.start);
        }
    }

    /// The offset of a zone of the IANA database.
    fn zone(name: &str) -> impl Fn(Instant) -> i64 {
        let zone: chrono_tz::Tz = name.parse().unwrap();
        move |at| {
            let utc = chrono::DateTime::from_timestamp_millis(at.millis()).unwrap().naive_utc();
            i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()).saturating_mul(1_000)
        }
    }

    #[test]
    fn months_begin_at_the_clients_midnight() {
        for (zone_name, at, month, start, end) in [
            // Clocks change within the month: its ends have different offsets.
            (
                "America/New_York",
                "2026-11-24T05:06:07.089Z",
                "2026-11",
                "2026-11-01T04:00:00.000Z",
                "2026-12-01T05:00:00.000Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-31T21:59:59.999Z",
                "2026-03",
                "2026-02-28T23:00:00.000Z",
                "2026-03-31T22:00:00.000Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-31T22:00:00.000Z",
                "2026-04",
                "2026-03-31T22:00:00.000Z",
                "2026-04-30T22:00:00.000Z",
            ),
            // A leap day, half an hour, the far east and the far west.
            (
                "Asia/Kolkata",
                "2028-02-29T18:29:59.999Z",
                "2028-02",
                "2028-01-31T18:30:00.000Z",
                "2028-02-29T18:30:00.000Z",
            ),
            (
                "Pacific/Kiritimati",
                "2026-12-31T10:00:00.000Z",
                "2027-01",
                "2026-12-31T10:00:00.000Z",
                "2027-01-31T10:00:00.000Z",
            ),
            (
                "Pacific/Pago_Pago",
                "2027-01-01T10:59:59.999Z",
                "2026-12",
                "2026-12-01T11:00:00.000Z",
                "2027-01-01T11:00:00.000Z",
            ),
            // The clocks went from 23:59:59 on 31 March 2022 to 01:00 on 1 April: that midnight never was.
            (
                "Asia/Amman",
                "2022-03-31T22:00:00.000Z",
                "2022-04",
                "2022-03-31T21:00:00.000Z",
                "2022-04-30T21:00:00.000Z",
            ),
        ] {
            let period = Period::month_in(parse_rfc3339(at).unwrap(), zone(zone_name));
            let seen =
                (rfc3339(period.month).chars().take(7).collect::<String>(), rfc3339(period.start), rfc3339(period.end));
            assert_eq!(seen, (month.into(), start.into(), end.into()), "{zone_name} {at}");
        }
    }

    proptest! {
        /// In every zone, every moment belongs to one month, and the next month begins where it ends.
        #[test]
        fn months_meet_everywhere(at in 0_i64..4_102_444_800_000, index in 0..chrono_tz::TZ_VARIANTS.len()) {
            let offset = zone(chrono_tz::TZ_VARIANTS[index].name());
            let at = Instant::from_millis(at);
            let period = Period::month_in(at, &offset);
            prop_assert!(period.start <= at && at < period.end);
            prop_assert_eq!(Period::month_in(period.start, &offset), period);
            prop_assert_eq!(Period::month_in(period.end.plus(-1), &offset), period);
            let next = Period::month_in(period.end, &offset);
            prop_assert_eq!(next.start, period.end);
            prop_assert!(next.month > period.month);
            let days = period.end.since(period.start) / 86_400_000;
            prop_assert!((26..=31).contains(&days));
        }
    }
}
