//! Off-peak windows: when deferred work may run.
//!
//! A rule says on which days, from when to when, in a time zone. The windows that come of it are plain pairs of moments,
//! so that whoever decides needs no time zone.

use serde::{Deserialize, Serialize};

use crate::units::Instant;

/// A stretch of time, its end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its first moment.
    pub start: Instant,
    /// The first moment after it.
    pub end: Instant,
}

impl Window {
    /// Whether a moment is in it.
    #[must_use]
    pub fn contains(&self, at: Instant) -> bool {
        (self.start..self.end).contains(&at)
    }
}

/// Which windows a request waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WaitsFor {
    /// For none.
    Nothing,
    /// For those of its home pool.
    Pool,
    /// For those of the template of this name.
    Template(String),
}

/// A rule for windows, as clocks show the time somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffPeakRule {
    /// On which days of the week a window begins: 0 is Monday.
    pub days: Vec<u8>,
    /// At which minute of the day it begins.
    pub from_minute: u16,
    /// At which minute of that day or, if that is not later, of the next day it ends.
    pub to_minute: u16,
}

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;
/// 1970-01-01 was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

impl OffPeakRule {
    /// The windows from the one that `now` is in, or the next, for about a week. `offset_ms` is how far local clocks are
    /// ahead of UTC at a moment. What clocks jump over is left out of a window; of what they show twice it begins and ends
    /// with the second.
    #[must_use]
    pub fn windows(&self, now: Instant, offset_ms: impl Fn(Instant) -> i64) -> Vec<Window> {
        let local = now.plus(offset_ms(now)).millis();
        let today = local.div_euclid(DAY_MS);
        let mut windows: Vec<Window> = (-1..=8_i64)
            .map(|ahead| today.saturating_add(ahead))
            .filter(|day| {
                let weekday = day.saturating_add(EPOCH_WEEKDAY).rem_euclid(7);
                self.days.iter().any(|wanted| i64::from(*wanted) == weekday)
            })
            .map(|day| {
                let next_day = i64::from(self.to_minute <= self.from_minute);
                let at = |day: i64, minute: u16| {
                    day.saturating_mul(DAY_MS).saturating_add(i64::from(minute).saturating_mul(MINUTE_MS))
                };
                Window {
                    start: moment(at(day, self.from_minute), &offset_ms),
                    end: moment(at(day.saturating_add(next_day), self.to_minute), &offset_ms),
                }
            })
            .filter(|window| window.start < window.end && window.end > now)
            .collect();
        windows.sort_by_key(|window| window.start);
        windows
    }
}

/// No clocks are further ahead of UTC, nor further behind, than this.
const MOST_AHEAD_MS: i64 = 14 * 60 * MINUTE_MS;

/// The moment at which local clocks show `local`: the second one, if they show it twice; and that of their jump, if they
/// jump over it.
fn moment(local: i64, offset_ms: &impl Fn(Instant) -> i64) -> Instant {
    let at = |offset: i64| Instant::from_millis(local.saturating_sub(offset));
    let (before, after) = (offset_ms(at(MOST_AHEAD_MS)), offset_ms(at(MOST_AHEAD_MS.saturating_neg())));
    [after, before].into_iter().find(|offset| offset_ms(at(*offset)) == *offset).map_or_else(
        || {
            let (mut not_yet, mut already) = (at(after), at(before));
            while already.since(not_yet) > 1 {
                let between = not_yet.plus(already.since(not_yet) >> 1);
                *if offset_ms(between) == before { &mut not_yet } else { &mut already } = between;
            }
            already
        },
        at,
    )
}

/// Whether a moment is in one of the windows; if not, when the next begins.
///
/// # Errors
/// The next beginning; `None` if no window is known after the moment.
pub fn is_open(windows: &[Window], now: Instant) -> Result<(), Option<Instant>> {
    if windows.iter().any(|window| (window.start..window.end).contains(&now)) {
        return Ok(());
    }
    Err(windows.iter().map(|window| window.start).filter(|start| *start > now).min())
}

/// Until when it is open from a moment in one of the windows on: through those too that follow without a gap. `None` if it is
/// closed at that moment.
#[must_use]
pub fn open_until(windows: &[Window], at: Instant) -> Option<Instant> {
    let mut until = at;
    while let Some(end) = windows.iter().filter(|window| window.contains(until)).map(|window| window.end).max() {
        until = end;
    }
    (until > at).then_some(until)
}

#[cfg(test)]
mod tests {
    use chrono::{Offset, TimeZone};

    use super::{OffPeakRule, Window, is_open, open_until};
    use crate::period::{parse_rfc3339, rfc3339};
    use crate::units::Instant;

    fn offset(zone: chrono_tz::Tz, at: Instant) -> i64 {
        let utc = chrono::DateTime::from_timestamp_millis(at.millis()).unwrap().naive_utc();
        i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()).saturating_mul(1_000)
    }

    fn berlin(at: Instant) -> i64 {
        offset(chrono_tz::Europe::Berlin, at)
    }

    /// The first window, as clocks show UTC, of a rule for all days: `22:00-06:00`.
    fn first(zone: chrono_tz::Tz, from_to: &str, now: &str) -> String {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':').unwrap();
            hour.parse::<u16>().unwrap().saturating_mul(60).saturating_add(minute.parse().unwrap())
        };
        let (from, to) = from_to.split_once('-').unwrap();
        let rule = OffPeakRule { days: (0..7).collect(), from_minute: minute(from), to_minute: minute(to) };
        let (start, end) = spans(&rule.windows(at(now), |at| offset(zone, at))).remove(0);
        format!("{} {}", start.get(8..16).unwrap(), end.get(8..16).unwrap())
    }

    fn at(text: &str) -> Instant {
        parse_rfc3339(text).unwrap()
    }

    fn spans(windows: &[Window]) -> Vec<(String, String)> {
        windows.iter().map(|window| (rfc3339(window.start), rfc3339(window.end))).collect()
    }

    const NIGHT: (u16, u16) = (22 * 60, 6 * 60);

    fn nightly(days: &[u8]) -> OffPeakRule {
        OffPeakRule { days: days.to_vec(), from_minute: NIGHT.0, to_minute: NIGHT.1 }
    }

    #[test]
    fn a_night_goes_on_into_the_next_day() {
        // A Tuesday, five in the morning in Berlin: Monday's night.
        let now = at("2026-11-24T04:00:00Z");
        let windows = nightly(&[0, 1, 2, 3, 4, 5, 6]).windows(now, berlin);
        let first = ("2026-11-23T21:00:00.000Z".to_owned(), "2026-11-24T05:00:00.000Z".to_owned());
        assert_eq!(spans(&windows)[0], first);
        assert_eq!(is_open(&windows, now), Ok(()));
        assert_eq!(is_open(&windows, at("2026-11-24T05:00:00Z")), Err(Some(at("2026-11-24T21:00:00Z"))));
        assert!(windows.len() >= 8);
    }

    #[test]
    fn only_on_its_days() {
        let windows = nightly(&[5]).windows(at("2026-11-24T12:00:00Z"), berlin);
        assert_eq!(spans(&windows)[0].0, "2026-11-28T21:00:00.000Z", "Saturday");
        assert!(nightly(&[]).windows(at("2026-11-24T12:00:00Z"), berlin).is_empty());
        assert_eq!(is_open(&[], at("2026-11-24T12:00:00Z")), Err(None));
    }

    #[test]
    fn follows_the_clocks_over_their_changes() {
        // The night of 28 to 29 March 2027 has 23 hours around it in Berlin, that of 30 to 31 October 25.
        let spring = nightly(&[5]).windows(at("2027-03-27T12:00:00Z"), berlin);
        assert_eq!(spans(&spring)[0], ("2027-03-27T21:00:00.000Z".into(), "2027-03-28T04:00:00.000Z".into()));
        let autumn = nightly(&[5]).windows(at("2027-10-30T12:00:00Z"), berlin);
        assert_eq!(spans(&autumn)[0], ("2027-10-30T20:00:00.000Z".into(), "2027-10-31T05:00:00.000Z".into()));
    }

    #[test]
    fn a_window_that_was_a_moment_ago_is_known_for_next_week() {
        let rule = OffPeakRule { days: vec![1], from_minute: 60, to_minute: 120 };
        let windows = rule.windows(at("2026-11-24T02:00:00Z"), |_| 0);
        assert_eq!(spans(&windows), [("2026-12-01T01:00:00.000Z".into(), "2026-12-01T02:00:00.000Z".into())]);
        // In the evening of a Monday it is Tuesday already twelve hours further east.
        let east = rule.windows(at("2026-11-23T15:00:00Z"), |_| 12 * 3_600_000);
        assert_eq!(spans(&east)[0].0, "2026-11-30T13:00:00.000Z");
    }

    #[test]
    fn a_window_that_clocks_jump_over_is_left_out() {
        let rule = OffPeakRule { days: vec![6], from_minute: 120, to_minute: 180 };
        let windows = rule.windows(at("2027-03-27T12:00:00Z"), berlin);
        assert!(windows.iter().all(|window| window.start < window.end), "{windows:?}");
        assert_eq!(is_open(&windows, at("2027-03-28T01:00:00Z")), Err(Some(at("2027-04-04T00:00:00Z"))));
        let later = OffPeakRule { from_minute: 180, to_minute: 240, ..rule };
        let first = later.windows(at("2027-03-27T12:00:00Z"), berlin).remove(0);
        assert_eq!(spans(&[first]), [("2027-03-28T01:00:00.000Z".into(), "2027-03-28T02:00:00.000Z".into())]);
    }

    #[test]
    fn what_clocks_jump_over_is_left_out_wherever_they_are() {
        // In New York from 02:00 to 03:00, at 07:00 UTC.
        for (rule, utc) in [
            ("01:00-02:00", "08T06:00 08T07:00"),
            ("01:00-02:30", "08T06:00 08T07:00"),
            ("02:00-06:00", "08T07:00 08T10:00"),
            ("02:30-04:00", "08T07:00 08T08:00"),
            ("03:00-04:00", "08T07:00 08T08:00"),
            ("22:00-02:00", "08T03:00 08T07:00"),
            ("02:15-02:45", "09T06:15 09T06:45"),
            ("02:00-03:00", "09T06:00 09T07:00"),
        ] {
            assert_eq!(first(chrono_tz::America::New_York, rule, "2026-03-08T05:00:00Z"), utc, "{rule}");
        }
        // In Berlin from 02:00 to 03:00, at 01:00 UTC.
        for (rule, utc) in [
            ("01:00-02:30", "28T00:00 28T01:00"),
            ("02:30-04:00", "28T01:00 28T02:00"),
            ("02:15-02:45", "29T00:15 29T00:45"),
        ] {
            assert_eq!(first(chrono_tz::Europe::Berlin, rule, "2027-03-27T23:59:00Z"), utc, "{rule}");
        }
    }

    #[test]
    fn of_what_clocks_show_twice_it_is_the_second() {
        // In New York from 01:00 to 02:00, until 06:00 UTC and after it; in Berlin from 02:00 to 03:00, until 01:00 and after it.
        for (zone, rule, utc) in [
            (chrono_tz::America::New_York, "01:00-02:00", "01T06:00 01T07:00"),
            (chrono_tz::America::New_York, "01:15-01:45", "01T06:15 01T06:45"),
            (chrono_tz::America::New_York, "00:30-01:30", "01T04:30 01T06:30"),
        ] {
            assert_eq!(first(zone, rule, "2026-11-01T04:00:00Z"), utc, "{rule}");
        }
        for (rule, utc) in [("02:00-03:00", "31T01:00 31T02:00"), ("01:30-02:30", "30T23:30 31T01:30")] {
            assert_eq!(first(chrono_tz::Europe::Berlin, rule, "2027-10-30T23:00:00Z"), utc, "{rule}");
        }
    }

    #[test]
    fn windows_without_a_gap_are_one() {
        let ms = Instant::from_millis;
        let windows = [(0, 10), (10, 20), (25, 30)].map(|(start, end)| Window { start: ms(start), end: ms(end) });
        let until = |at| open_until(&windows, ms(at)).map(Instant::millis);
        assert_eq!([5, 10, 20, 25, 30].map(until), [Some(20), Some(20), None, Some(30), None]);
    }

    #[test]
    fn the_whole_day_is_one_window() {
        let rule = OffPeakRule { days: vec![6], from_minute: 0, to_minute: 0 };
        let windows = rule.windows(at("2026-11-24T12:00:00Z"), |_| 0);
        assert_eq!(spans(&windows)[0], ("2026-11-29T00:00:00.000Z".into(), "2026-11-30T00:00:00.000Z".into()));
    }
}
