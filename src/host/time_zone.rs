//! Time zones, from the runtime's own tables, which are kept up to date and weigh nothing here.

use rm_core::units::Instant;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

#[wasm_bindgen]
extern "C" {
    /// `Intl.DateTimeFormat`, whose constructor throws for a zone that it does not know.
    type DateTimeFormat;

    #[wasm_bindgen(constructor, catch, js_namespace = Intl, js_class = "DateTimeFormat")]
    fn new(locale: &str, options: &JsValue) -> Result<DateTimeFormat, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn format(this: &DateTimeFormat, date: &js_sys::Date) -> Result<String, JsValue>;
}

/// The clocks of a time zone.
pub struct TimeZone {
    format: Option<DateTimeFormat>,
}

impl TimeZone {
    /// The zone of a name of the IANA database; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        if name == "UTC" {
            return Some(Self { format: None });
        }
        // The runtime also takes offsets such as `+01:00`, which are no zones.
        let is_name = name.len() <= 64
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
        if !is_name {
            return None;
        }
        let options = js_sys::Object::new();
        for (key, value) in [("timeZone", name), ("timeZoneName", "longOffset")] {
            js_sys::Reflect::set(&options, &JsValue::from_str(key), &JsValue::from_str(value)).ok()?;
        }
        let format = DateTimeFormat::new("en-US", options.unchecked_ref()).ok()?;
        Some(Self { format: Some(format) })
    }

    /// How many milliseconds the clocks are ahead of UTC at a moment.
    pub fn offset_ms(&self, at: Instant) -> i64 {
        let Some(format) = &self.format else { return 0 };
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
        let date = js_sys::Date::new(&JsValue::from_f64(at.millis() as f64));
        // Such as `11/24/2026, GMT-05:00`.
        format.format(&date).ok().and_then(|text| parse(text.rsplit_once("GMT")?.1)).unwrap_or(0)
    }
}

/// `±HH:MM`, with seconds for times long ago; empty for UTC itself.
fn parse(offset: &str) -> Option<i64> {
    let (sign, digits) = match offset.strip_prefix(['-', '\u{2212}']) {
        Some(digits) => (-1, digits),
        None => (1, offset.strip_prefix('+').unwrap_or(offset)),
    };
    if digits.is_empty() {
        return Some(0);
    }
    let mut parts = digits.split(':').map(str::parse::<i64>);
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    let total = hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)?;
    total.checked_mul(1_000)?.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_offsets() {
        assert_eq!(
            [parse(""), parse("+05:30"), parse("-05:00"), parse("-00:01:15")],
            [Some(0), Some(19_800_000), Some(-18_000_000), Some(-75_000)]
        );
        assert_eq!(parse("+x"), None);
    }
}
