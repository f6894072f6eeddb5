//! The tables: a line for each tier and pool, or three where a variant stands beside the baseline.

use std::fmt::Write as _;

use super::measure::{Group, Measured, Outcome};
use crate::numbers::grouped;

/// A number in its column.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    Count(u64),
    /// Milliseconds; `None` if nothing started.
    Wait(Option<i64>),
    Share(f64),
    NanoUsd(i128),
}

impl Cell {
    fn text(self) -> String {
        match self {
            Self::Count(count) => grouped(count),
            Self::Wait(None) => "–".into(),
            Self::Wait(Some(millis)) => seconds(millis),
            Self::Share(share) => format!("{:.1} %", share * 100.0),
            Self::NanoUsd(nanos) => dollars(nanos),
        }
    }

    /// What the variant has more, with its sign; nothing where there is no difference.
    fn difference(self, variant: Self) -> String {
        let signed = |text: String, sign: std::cmp::Ordering| match sign {
            std::cmp::Ordering::Equal => "=".into(),
            std::cmp::Ordering::Greater => format!("+{text}"),
            std::cmp::Ordering::Less => text,
        };
        match (self, variant) {
            (Self::Count(before), Self::Count(after)) => {
                let difference = i128::from(after) - i128::from(before);
                signed(grouped(difference), difference.cmp(&0))
            }
            (Self::Wait(Some(before)), Self::Wait(Some(after))) => {
                signed(seconds(after - before), (after - before).cmp(&0))
            }
            (Self::Share(before), Self::Share(after)) => {
                let tenths = crate::numbers::whole(after * 1_000.0) - crate::numbers::whole(before * 1_000.0);
                signed(format!("{:.1} %", crate::numbers::real(tenths) / 10.0), tenths.cmp(&0))
            }
            (Self::NanoUsd(before), Self::NanoUsd(after)) => signed(dollars(after - before), (after - before).cmp(&0)),
            _ => "–".into(),
        }
    }
}

/// Milliseconds as seconds.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let magnitude = millis.unsigned_abs();
    format!("{sign}{}.{:03}", grouped(magnitude / 1_000), magnitude % 1_000)
}

/// Nano-dollars as dollars, exactly.
#[must_use]
pub fn dollars(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.abs();
    format!("{sign}{}.{:09}", grouped(magnitude / 1_000_000_000), magnitude % 1_000_000_000)
}

const OF_A_GROUP: [&str; 9] =
    ["requests", "succeeded", "expired", "over budget", "not taken", "wait p50", "wait p95", "wait p99", "wait max"];

fn cells(group: &Group) -> Vec<Cell> {
    let mut cells = vec![Cell::Count(group.requests())];
    cells.extend(Outcome::ALL.map(|outcome| Cell::Count(group.with(outcome))));
    cells.extend([50, 95, 99, 100].map(|percent| Cell::Wait(group.wait_ms(percent))));
    cells
}

/// The rows of a table: what each is about, and its numbers.
type Rows = Vec<(String, Vec<Cell>)>;

fn by_tier(measured: &Measured) -> Rows {
    let row = |name: &str, group: &Group| {
        let mut row = cells(group);
        row.push(Cell::NanoUsd(group.cost_nanos()));
        (name.to_owned(), row)
    };
    let mut rows: Rows = measured.tiers.iter().map(|(tier, group)| row(tier.as_str(), group)).collect();
    rows.push(row("all", &measured.all()));
    rows
}

fn by_pool(measured: &Measured) -> Rows {
    let rows = measured.pools.iter().map(|(name, pool)| {
        let mut row = cells(&pool.group);
        row.push(Cell::NanoUsd(pool.group.cost_nanos()));
        row.push(Cell::Count(pool.most_queued));
        row.push(Cell::Share(pool.utilisation(measured.seconds)));
        (name.to_string(), row)
    });
    rows.collect()
}

/// The tables of a run, and of a variant beside it.
#[must_use]
pub fn tables(baseline: &Measured, variant: Option<&Measured>) -> String {
    let group: Vec<&str> = OF_A_GROUP.into_iter().chain(["cost USD"]).collect();
    let pool: Vec<&str> = group.iter().copied().chain(["most queued", "utilised"]).collect();
    let mut text = table("tier", &group, by_tier(baseline), variant.map(by_tier));
    text.push('\n');
    text.push_str(&table("pool", &pool, by_pool(baseline), variant.map(by_pool)));
    text
}

fn table(what: &str, columns: &[&str], baseline: Rows, variant: Option<Rows>) -> String {
    let mut lines: Vec<Vec<String>> = vec![std::iter::once(&what).chain(columns).map(ToString::to_string).collect()];
    let line = |name: &str, texts: Vec<String>| std::iter::once(name.to_owned()).chain(texts).collect::<Vec<String>>();
    let texts = |cells: &[Cell]| cells.iter().map(|cell| cell.text()).collect::<Vec<String>>();
    match variant {
        None => lines.extend(baseline.iter().map(|(name, cells)| line(name, texts(cells)))),
        Some(variant) => {
            for (name, before) in &baseline {
                // A client's tier may be what the variant changes: then a tier may be in one of the two only.
                let after = variant.iter().find(|(other, _)| other == name).map(|(_, after)| after.as_slice());
                lines.push(line(name, texts(before)));
                let Some(after) = after else { continue };
                lines.push(line("  → variant", texts(after)));
                let differences = before.iter().zip(after).map(|(before, after)| before.difference(*after));
                lines.push(line("  difference", differences.collect()));
            }
            for (name, after) in variant.iter().filter(|(name, _)| baseline.iter().all(|(other, _)| other != name)) {
                lines.push(line(&format!("{name} → variant"), texts(after)));
            }
        }
    }
    aligned(&lines)
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if index == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Cell, dollars, seconds};

    #[test]
    fn money_and_time_are_told_exactly() {
        assert_eq!(dollars(12_340_000_001), "12.340000001");
        assert_eq!(dollars(-1_500_000_000), "-1.500000000");
        assert_eq!(dollars(1_234_000_000_000), "1,234.000000000");
        assert_eq!(seconds(61_005), "61.005");
        assert_eq!(seconds(-5), "-0.005");
    }

    #[test]
    fn a_difference_has_its_sign() {
        assert_eq!(Cell::Count(5).difference(Cell::Count(3)), "-2");
        assert_eq!(Cell::Count(5).difference(Cell::Count(5)), "=");
        assert_eq!(Cell::Wait(Some(500)).difference(Cell::Wait(Some(2_000))), "+1.500");
        assert_eq!(Cell::Wait(None).difference(Cell::Wait(Some(2_000))), "–");
        assert_eq!(Cell::Share(0.5).difference(Cell::Share(0.25)), "-25.0 %");
        assert_eq!(Cell::NanoUsd(1).difference(Cell::NanoUsd(2)), "+0.000000001");
    }
}
