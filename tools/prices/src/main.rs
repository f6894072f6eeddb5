//! Prints the price table of the crate `genai-prices` as SQL for `model_prices`: `prices <today, as YYYY-MM-DD>`.
//!
//! The crate keeps its table to itself and answers in floats, so the table is read from the crate's own source, which
//! Cargo.lock pins by its hash. The crate's calculator then has to agree with what was read.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use genai_prices::{Calculator, ErrorKind, PriceRequest, Usage, UsageKey};
use serde::Deserialize;
use serde_json::value::RawValue;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Who prices models of its own; an id that two of them have is the earlier one's. Resellers are left out.
const PROVIDERS: [&str; 13] = [
    "openai",
    "anthropic",
    "google",
    "mistral",
    "cohere",
    "deepseek",
    "groq",
    "x-ai",
    "meta",
    "moonshotai",
    "minimax",
    "zai",
    "perplexity",
];

/// D1 limits the length of a statement.
const ROWS_PER_STATEMENT: usize = 100;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: String,
}

#[derive(Deserialize)]
struct Provider {
    id: String,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(rename = "match")]
    rule: Rule,
    /// An object, or a list of prices with constraints.
    prices: Box<RawValue>,
}

/// How a name is recognised as the model's. Only what lists whole names is of use to a table.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rule {
    equals: Option<String>,
    or: Vec<Rule>,
}

#[derive(Deserialize)]
struct Conditional {
    #[serde(default)]
    constraint: Constraint,
    prices: Prices,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Constraint {
    start_date: Option<String>,
    /// From when to when of each day in UTC, as `HH:MM:SSZ`.
    start_time: Option<String>,
    end_time: Option<String>,
}

/// US dollars for a million tokens.
#[derive(Deserialize)]
struct Prices {
    input_mtok: Option<Box<RawValue>>,
    cache_read_mtok: Option<Box<RawValue>>,
    output_mtok: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Tiered {
    base: Box<RawValue>,
}

/// Hours of the day in UTC, as minutes, in which a model costs less.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OffPeak {
    percent: u64,
    windows: Vec<(u32, u32)>,
}

impl OffPeak {
    fn json(&self) -> String {
        let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let window = |(from, to): &(u32, u32)| format!("{{\"from\":\"{}\",\"to\":\"{}\"}}", clock(*from), clock(*to));
        let windows: Vec<String> = self.windows.iter().map(window).collect();
        format!("{{\"discountPercent\":{},\"windows\":[{}]}}", self.percent, windows.join(","))
    }
}

/// Nano-dollars for one token.
#[derive(Clone)]
struct Row {
    input: u64,
    cached_input: Option<u64>,
    output: u64,
    off_peak: Option<OffPeak>,
}

impl Rule {
    /// The names that are the model's by equality.
    fn names(&self) -> Vec<&str> {
        self.equals.as_deref().into_iter().chain(self.or.iter().flat_map(Rule::names)).collect()
    }
}

impl Model {
    /// Whether the price is always the same one.
    fn is_unconditional(&self) -> bool {
        self.prices.get().starts_with('{')
    }

    /// The prices in force at a date, each with the hours of the day that it is for, if it is for some.
    fn prices_at(&self, today: &str) -> Result<Vec<Conditional>> {
        if self.is_unconditional() {
            let prices = serde_json::from_str(self.prices.get())?;
            return Ok(vec![Conditional { constraint: Constraint::default(), prices }]);
        }
        let all: Vec<Conditional> = serde_json::from_str(self.prices.get())?;
        // Dates of this form sort as text, and no date comes before any date.
        let begun = |one: &Conditional| one.constraint.start_date.as_deref().is_none_or(|date| date <= today);
        let (by_hour, by_date): (Vec<_>, Vec<_>) =
            all.into_iter().filter(begun).partition(|one| one.constraint.start_time.is_some());
        let latest = by_date.into_iter().max_by(|a, b| a.constraint.start_date.cmp(&b.constraint.start_date));
        Ok(latest.into_iter().chain(by_hour).collect())
    }

    /// `None` if tokens of input and output do not both have a price. What has several prices a day has the dearest, and
    /// is cheaper in the hours of the others.
    fn row_at(&self, today: &str) -> Result<Option<Row>> {
        let prices = self.prices_at(today)?;
        let Some(base) = prices.first().map(Conditional::row).transpose()?.flatten() else { return Ok(None) };
        let mut dear = base.clone();
        let mut peaks = Vec::new();
        for one in prices.iter().skip(1) {
            let Some(row) = one.row()? else { return Ok(None) };
            if row.input < base.input || row.output < base.output {
                return Err(format!("{} is cheaper in some hours than at its base", self.id).into());
            }
            dear.input = dear.input.max(row.input);
            dear.output = dear.output.max(row.output);
            dear.cached_input = dear.cached_input.max(row.cached_input);
            peaks.push((minute(one.constraint.start_time.as_deref())?, minute(one.constraint.end_time.as_deref())?));
        }
        if !peaks.is_empty() {
            dear.off_peak = Some(off_peak(&base, &dear, peaks));
        }
        Ok(Some(dear))
    }
}

impl Conditional {
    fn row(&self) -> Result<Option<Row>> {
        let (Some(input), Some(output)) = (&self.prices.input_mtok, &self.prices.output_mtok) else { return Ok(None) };
        let cached_input = self.prices.cache_read_mtok.as_deref().map(base_price).transpose()?;
        Ok(Some(Row { input: base_price(input)?, cached_input, output: base_price(output)?, off_peak: None }))
    }
}

/// The minute of a day in UTC.
fn minute(time: Option<&str>) -> Result<u32> {
    let time = time.ok_or("a price for some hours has no end")?;
    let parts: Vec<&str> = time.strip_suffix('Z').ok_or("a time is not in UTC")?.split(':').collect();
    let [hours, minutes, "00"] = parts.as_slice() else { return Err(format!("{time} is no time of a day").into()) };
    Ok(hours.parse::<u32>()? * 60 + minutes.parse::<u32>()?)
}

/// How much less every part costs outside the peaks, in whole per cent, and when that is.
fn off_peak(base: &Row, dear: &Row, mut peaks: Vec<(u32, u32)>) -> OffPeak {
    let off = |base: u64, dear: u64| 100 - (base * 100).div_ceil(dear.max(1));
    let parts = [
        Some((base.input, dear.input)),
        base.cached_input.zip(dear.cached_input),
        Some((base.output, dear.output)),
    ];
    let percent = parts.into_iter().flatten().map(|(base, dear)| off(base, dear)).min().unwrap_or(0);
    peaks.sort_unstable();
    let next = |index: usize| peaks[(index + 1) % peaks.len()].0;
    let windows = peaks.iter().enumerate().map(|(index, (_, end))| (*end, next(index))).collect();
    OffPeak { percent, windows }
}

/// The price of a token before any tier, in nano-dollars.
fn base_price(price: &RawValue) -> Result<u64> {
    if price.get().starts_with('{') {
        let tiered: Tiered = serde_json::from_str(price.get())?;
        return nanousd_per_token(tiered.base.get());
    }
    nanousd_per_token(price.get())
}

/// Turns dollars for a million tokens into nano-dollars for one, a thousand times as many, and rounds up.
fn nanousd_per_token(per_million: &str) -> Result<u64> {
    let (whole, fraction) = per_million.split_once('.').unwrap_or((per_million, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{per_million} is not a plain decimal").into());
    }
    let padded = format!("{fraction:0<3}");
    let (thousandths, rest) = padded.split_at(3);
    let down: u64 = format!("{whole}{thousandths}").parse()?;
    Ok(down + u64::from(rest.bytes().any(|digit| digit != b'0')))
}

/// Fails if the crate takes the name for another model's, or prices it otherwise than the row does.
fn check(calculator: &Calculator, provider: &Provider, model: &Model, name: &str, row: &Row) -> Result<()> {
    let usage = Usage::from([(UsageKey::INPUT_TOKENS, 1.0), (UsageKey::OUTPUT_TOKENS, 1.0)]);
    let price = match calculator.calculate(&PriceRequest::new(name, &usage).with_provider_id(&provider.id)) {
        Ok(price) => price,
        // The ids of a few models are none of the names that these are recognised by.
        Err(error) if error.kind() == ErrorKind::ModelNotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if price.model_id != model.id {
        return Err(format!("{name} is listed for {} and recognised as {}", model.id, price.model_id).into());
    }
    // A conditional price depends on the moment, which the calculator takes from the clock here.
    let agrees = |nanousd: u64, usd: f64| (-1e-6..1.0).contains(&(nanousd as f64 - usd * 1e9));
    if model.is_unconditional() && !(agrees(row.input, price.input_price) && agrees(row.output, price.output_price)) {
        return Err(format!("{name} costs {} and {}", price.input_price, price.output_price).into());
    }
    Ok(())
}

/// The rows of all providers, by name.
fn rows(table: &str, today: &str) -> Result<BTreeMap<String, Row>> {
    let calculator = Calculator::from_json(table)?;
    let providers: Vec<Provider> = serde_json::from_str(table)?;
    let mut rows = BTreeMap::new();
    for id in PROVIDERS {
        let provider =
            providers.iter().find(|provider| provider.id == id).ok_or_else(|| format!("there is no provider {id}"))?;
        for model in &provider.models {
            let Some(row) = model.row_at(today)? else { continue };
            for name in std::iter::once(model.id.as_str()).chain(model.rule.names()) {
                check(&calculator, provider, model, name, &row)?;
                rows.entry(name.to_owned()).or_insert_with(|| row.clone());
            }
        }
    }
    Ok(rows)
}

fn sql(rows: &BTreeMap<String, Row>, version: &str, today: &str) -> Result<String> {
    let mut sql = format!(
        "-- Generated by `npm run prices` from genai-prices {version}, as in force on {today}. Prices are nano-dollars\n\
         -- (billionths of a US dollar) for one token, rounded up to a whole nano-dollar.\n"
    );
    let rows: Vec<_> = rows.iter().collect();
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        sql.push_str(
            "\nINSERT INTO model_prices (model, input_nanousd, cached_input_nanousd, output_nanousd, off_peak, version) VALUES",
        );
        for (index, (model, row)) in rows.iter().enumerate() {
            // What splits the file into statements looks at line ends and comments, and not at quotes.
            if model.contains("--") || model.contains(|c: char| c == ';' || c.is_control()) {
                return Err(format!("{model:?} cannot be put into SQL").into());
            }
            let cached_input = row.cached_input.map_or_else(|| "NULL".to_owned(), |price| price.to_string());
            let off_peak = row.off_peak.as_ref().map_or_else(|| "NULL".to_owned(), |off| format!("'{}'", off.json()));
            write!(
                sql,
                "{}\n  ('{}', {}, {cached_input}, {}, {off_peak}, 'genai-prices-{version} of {today}')",
                if index == 0 { "" } else { "," },
                model.replace('\'', "''"),
                row.input,
                row.output,
            )?;
        }
        sql.push_str(
            "\nON CONFLICT (model) DO UPDATE SET input_nanousd = excluded.input_nanousd, \
             cached_input_nanousd = excluded.cached_input_nanousd, output_nanousd = excluded.output_nanousd, \
             off_peak = excluded.off_peak, version = excluded.version\n  WHERE (version, off_peak) IS NOT (excluded.version, excluded.off_peak);\n",
        );
    }
    Ok(sql)
}

/// The crate's version and its table.
fn read_table() -> Result<(String, String)> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path", manifest])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("`cargo metadata` failed".into());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let package = metadata.packages.into_iter().find(|package| package.name == "genai-prices");
    let package = package.ok_or("genai-prices is not a dependency")?;
    let folder = Path::new(&package.manifest_path).parent().ok_or("genai-prices has no folder")?;
    Ok((package.version, std::fs::read_to_string(folder.join("data").join("prices.json"))?))
}

fn main() -> Result<()> {
    let today = std::env::args().nth(1).ok_or("use: prices <today, as YYYY-MM-DD>")?;
    let (version, table) = read_table()?;
    print!("{}", sql(&rows(&table, &today)?, &version, &today)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{OffPeak, Row, nanousd_per_token, off_peak};

    #[test]
    fn what_is_not_a_peak_is_off_peak() {
        let row = |input, output| Row { input, cached_input: Some(input / 4), output, off_peak: None };
        let found = off_peak(&row(136, 550), &row(272, 1200), vec![(360, 600), (60, 240)]);
        assert_eq!(found, OffPeak { percent: 50, windows: vec![(240, 360), (600, 60)] });
        let json = r#"{"discountPercent":50,"windows":[{"from":"04:00","to":"06:00"},{"from":"10:00","to":"01:00"}]}"#;
        assert_eq!(found.json(), json);
    }

    #[test]
    fn prices_are_exact_and_rounded_up() {
        for (per_million, nanousd) in [("30", 30000), ("0.0375", 38), ("0.3", 300), ("1.10", 1100), ("0.003625", 4)] {
            assert_eq!(nanousd_per_token(per_million).ok(), Some(nanousd), "{per_million}");
        }
        for wrong in ["", "-1", "1e-3", ".5", "null"] {
            assert!(nanousd_per_token(wrong).is_err(), "{wrong}");
        }
    }
}
