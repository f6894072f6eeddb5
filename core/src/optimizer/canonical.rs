//! One text for all the ways to write the same JSON: names sorted, no white space, strings with the escapes that they need.
//!
//! That is the JSON Canonicalization Scheme (RFC 8785) but for numbers, which keep all their digits: two inputs that differ
//! beyond what a float can tell are not the same input.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// JSON that is nested deeper has no canonical text.
const DEPTH_MAX: u32 = 64;

/// The canonical text; `None` for what is not JSON, nested too deep, or ambiguous: a name twice in one object, half of a
/// surrogate pair.
#[must_use]
pub fn canonical(json: &str) -> Option<String> {
    let mut text = String::with_capacity(json.len());
    write(serde_json::from_str(json).ok()?, 0, &mut text)?;
    Some(text)
}

fn write(json: &RawValue, depth: u32, out: &mut String) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    let deeper = depth.saturating_add(1);
    let text = json.get().trim();
    match text.bytes().next()? {
        b'{' => {
            let Members(mut members) = serde_json::from_str(text).ok()?;
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                let before = index.checked_sub(1).and_then(|before| members.get(before));
                if before.is_some_and(|(other, _)| other == name) {
                    return None;
                }
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(&serde_json::to_string(name).ok()?);
                out.push(':');
                write(value, deeper, out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (index, item) in items.into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(item, deeper, out)?;
            }
            out.push(']');
        }
        b'"' => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(text).ok()?).ok()?),
        b'-' | b'0'..=b'9' => out.push_str(&number(text)?),
        _ => out.push_str(text),
    }
    Some(())
}

/// A number as its digits, without zeros at their ends, and a power of ten.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let joined = format!("{whole}{fraction}");
    let significant = joined.trim_start_matches('0');
    let short = significant.trim_end_matches('0');
    if short.is_empty() {
        return Some("0".into());
    }
    let dropped = i64::try_from(significant.len().checked_sub(short.len())?).ok()?;
    let shift = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    Some(format!("{sign}{short}e{shift}"))
}

/// The members of an object, as they come.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::Value;

    use super::canonical;

    fn same(one: &str, other: &str) {
        assert_eq!(canonical(one), canonical(other), "{one} and {other}");
        assert!(canonical(one).is_some(), "{one}");
    }

    #[test]
    fn order_white_space_escapes_and_forms_of_numbers_make_no_difference() {
        same(r#"{"a":1,"b":[true,null]}"#, " { \"b\" : [ true , null ],\n\"a\":1.0e0 } ");
        same(r#""é\n/""#, r#""\u00e9\u000a\/""#);
        for other in ["100", "1E2", "1.00e+2", "1000e-1", "0.1e3", "100.000"] {
            same("1e2", other);
        }
        for other in ["0", "-0", "0.00", "0e7", "-0E-5"] {
            same("0.0", other);
        }
    }

    #[test]
    fn what_differs_differs() {
        let different = [
            "1",
            "-1",
            "10",
            "1.1",
            "9007199254740993",
            "9007199254740992",
            "0.1",
            "0.10000000000000001",
            "\"1\"",
            "true",
            "null",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"A":1}"#,
            r#"["a",1]"#,
            "\"\"",
            "\"null\"",
        ];
        let all: std::collections::BTreeSet<_> = different.iter().map(|json| canonical(json).unwrap()).collect();
        assert_eq!(all.len(), different.len());
    }

    #[test]
    fn what_is_ambiguous_has_none() {
        for json in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":1}"#, r#""\ud800""#, "1e99999999999999999999", "[1", ""] {
            assert_eq!(canonical(json), None, "{json}");
        }
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(canonical(&nested(64)).is_some() && canonical(&nested(65)).is_none());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<Option<bool>>().prop_map(|b| b.map_or(Value::Null, Value::Bool)),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The same value however it is laid out, and never that of another one.
        #[test]
        fn the_text_is_that_of_the_value(one in json(), other in json()) {
            let compact = canonical(&one.to_string()).unwrap();
            let pretty = serde_json::to_string_pretty(&one).unwrap();
            prop_assert_eq!(&compact, &canonical(&pretty).unwrap());
            prop_assert_eq!(one == other, compact == canonical(&other.to_string()).unwrap());
        }
    }
}
