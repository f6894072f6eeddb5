//! Metric families, and how they are written.

use std::fmt::Write;

use serde::Serialize;
use utoipa::ToSchema;

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MetricKind)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric with all its samples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Metric)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub r#type: Kind,
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MetricSample)]
pub struct Sample {
    /// What follows the family's name: `_bucket`, `_sum`, `_count`, or nothing.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub suffix: &'static str,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: std::collections::BTreeMap<&'static str, String>,
    #[schema(value_type = f64)]
    pub value: Value,
}

/// A number that is printed exactly: an integer with so many decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub scaled: i64,
    pub decimals: u32,
}

impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        rm_core::decimal::serialize(self.scaled, self.decimals, serializer)
    }
}

impl Family {
    /// A family without samples.
    pub const fn new(r#type: Kind, name: &'static str, help: &'static str) -> Self {
        Self { name, help, r#type, samples: Vec::new() }
    }

    /// Adds a sample.
    pub fn add(&mut self, labels: &[(&'static str, &str)], scaled: i64, decimals: u32) {
        self.add_as("", labels, scaled, decimals);
    }

    /// Adds a sample whose name has a suffix.
    pub fn add_as(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], scaled: i64, decimals: u32) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value: Value { scaled, decimals } });
    }
}

/// The answer in JSON.
#[derive(Serialize, ToSchema)]
#[schema(as = Metrics)]
pub struct Json {
    pub metrics: Vec<Family>,
}

/// The answer as text.
pub fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        let kind = match family.r#type {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = family.name;
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        for sample in &family.samples {
            let labels: Vec<String> =
                sample.labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let value = rm_core::decimal::format(sample.value.scaled, sample.value.decimals);
            let _infallible = writeln!(text, "{name}{}{labels} {value}", sample.suffix);
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind, text};

    #[test]
    fn writes_the_text_format() {
        let mut family = Family::new(Kind::Gauge, "cost_usd", "What it cost.");
        family.add(&[("client", "a\"b\\")], 1_500_000_000, 9);
        family.add(&[], -2, 0);
        let expected =
            "# HELP cost_usd What it cost.\n# TYPE cost_usd gauge\ncost_usd{client=\"a\\\"b\\\\\"} 1.5\ncost_usd -2\n";
        assert_eq!(text(&[family]), expected);
    }
}
