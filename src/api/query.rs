//! Query parameters. One that a route does not know is refused: a misspelt filter must not be silently ignored.

use std::collections::BTreeMap;

use rm_core::units::Instant;

use crate::api::Call;
use crate::api::routes::decode;
use crate::wire::problem::Problem;
use crate::wire::time::{MOMENT_OR_DAY, moment_or_day};

/// The most rows of a page.
const LIMIT_MAX: u32 = 1_000;
/// The rows of a page when nobody says how many.
const LIMIT_DEFAULT: u32 = 100;

/// The parameters of a request.
pub struct Query(BTreeMap<String, String>);

/// The field of a problem about a parameter.
fn wrong(name: &str, detail: impl Into<String>) -> Problem {
    Problem::field(name, detail)
}

impl Query {
    /// Reads the parameters; only those in `known` may be there, each once.
    pub fn of(call: &Call, known: &[&str]) -> Result<Self, Problem> {
        let url = call.request.url().map_err(|error| wrong("query", error.to_string()))?;
        let mut found = BTreeMap::new();
        for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| decode(&text.replace('+', " ")).ok_or_else(|| wrong("query", "is not UTF-8"));
            let (name, value) = (read(name)?, read(value)?);
            if !known.contains(&name.as_str()) {
                let detail = format!("is not known here; this route takes {}", known.join(", "));
                return Err(wrong(&name.chars().take(64).collect::<String>(), detail));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(wrong(&name, "is there twice"));
            }
        }
        Ok(Self(found))
    }

    /// A parameter as it is.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `limit`.
    pub fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.text("limit") else { return Ok(LIMIT_DEFAULT) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let limit = text.parse::<u32>().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| wrong("limit", format!("must be a whole number from 1 to {LIMIT_MAX}")))
    }

    /// A moment, or a day: `day_at` is what a day adds to its midnight, in days.
    pub fn moment(&self, name: &str, day_at: i64) -> Result<Option<Instant>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // `+` of an offset that was not encoded has become a space.
        let moment = moment_or_day(text, day_at).or_else(|| moment_or_day(&text.replace(' ', "+"), day_at));
        moment.map(Some).ok_or_else(|| wrong(name, MOMENT_OR_DAY))
    }
}

/// A cursor: where the next page of a list begins, and of which list.
pub struct Cursor;

impl Cursor {
    /// Makes one. `list` names the list together with its filters: a cursor is good for no other.
    pub fn write(list: &str, last: &str) -> String {
        let hex: String = last.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("{:08x}{hex}", checksum(list))
    }

    /// Reads one back.
    pub fn read(list: &str, cursor: Option<&str>) -> Result<Option<String>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let parsed = || {
            let (sum, hex) = cursor.split_at_checked(8)?;
            if u32::from_str_radix(sum, 16).ok()? != checksum(list) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let digits = hex.as_bytes().chunks(2).map(|pair| {
                let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
                u8::from_str_radix(text, 16).ok()
            });
            String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
        };
        parsed().map(Some).ok_or_else(|| wrong("cursor", "is not one of this list with these filters"))
    }
}

/// FNV-1a in 32 bits: against mistakes, not against malice; a cursor gives no right to anything.
fn checksum(list: &str) -> u32 {
    list.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn a_cursor_is_good_for_its_own_list() {
        for last in ["", "2026-11-24", "ä|;"] {
            let cursor = Cursor::write("usage day", last);
            assert_eq!(Cursor::read("usage day", Some(&cursor)).unwrap().as_deref(), Some(last));
            assert!(Cursor::read("usage pool", Some(&cursor)).is_err());
        }
        for bad in ["", "zz", "0000000", "é12345678", "811c9dc5zz", "811c9dc5+1"] {
            assert!(Cursor::read("", Some(bad)).is_err(), "{bad}");
        }
        assert!(Cursor::read("", None).unwrap().is_none());
    }
}
