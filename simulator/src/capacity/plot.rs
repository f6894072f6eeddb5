//! The plots: SVG, with a variant beside the baseline in the same axes.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, DashedLineSeries, DrawingArea, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries,
    PathElement, RGBColor, SVGBackend, ShapeStyle, Text, WHITE,
};
use plotters::style::Color;
use rm_core::id::PoolId;
use rm_core::priority::Tier;

use super::measure::{Group, Measured, PoolMeasured};
use crate::numbers::real;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

// Told apart by the colour-blind as well (Okabe and Ito 2008).
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const RED: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(110, 110, 110);

const WIDTH: u32 = 960;
/// Title and legend.
const HEADER: u32 = 70;
const PANEL_HEIGHT: u32 = 220;
/// So many points of a distribution are drawn.
const CDF_POINTS: usize = 400;
/// A logarithmic axis has no zero: it begins with this wait, in seconds.
const SHORTEST: f64 = 0.1;

/// Writes the plots into a folder, and gives back their names.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &Path, baseline: &Measured, variant: Option<&Measured>) -> Outcome<Vec<String>> {
    fs::create_dir_all(folder)?;
    let file = |name: &str| folder.join(name);
    fs::write(file("waits.svg"), waits(baseline, variant)?)?;
    let utilisation = Panels {
        title: "Utilisation of each pool: taken, in per cent of what was refilled",
        points: |pool, seconds| {
            let shares = pool.utilisation_over_time(seconds);
            let step = f64::from(seconds) / real(count(shares.len()).max(1));
            shares.iter().zip(0..).map(|(share, index)| (step * (real(index) + 0.5), share * 100.0)).collect()
        },
        least_top: 100.0,
    };
    fs::write(file("utilisation.svg"), utilisation.draw(baseline, variant)?)?;
    let queue = Panels {
        title: "Requests that wait at each pool",
        points: |pool, seconds| {
            let step = f64::from(seconds) / real(count(pool.samples.len()).max(2) - 1);
            let depth = |sample: &super::measure::Sample| real(i64::try_from(sample.queued).unwrap_or(i64::MAX));
            pool.samples.iter().zip(0..).map(|(sample, index)| (step * real(index), depth(sample))).collect()
        },
        least_top: 5.0,
    };
    fs::write(file("queue.svg"), queue.draw(baseline, variant)?)?;
    Ok(["waits.svg", "utilisation.svg", "queue.svg"].map(|name| file(name).display().to_string()).to_vec())
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const fn colour(tier: Tier) -> RGBColor {
    match tier {
        Tier::Enterprise => BLUE,
        Tier::Premium => GREEN,
        Tier::Standard => ORANGE,
        Tier::Basic => RED,
    }
}

/// The share of the requests that had started after so many seconds, from the left edge to the right one.
fn cdf(group: &Group, right: f64) -> Points {
    let waits = group.waits();
    let rank = |point: usize| (waits.len() * point).div_ceil(CDF_POINTS).max(1);
    let at = |point: usize| {
        let wait = waits.get(rank(point) - 1)?;
        Some(((real(*wait) / 1_000.0).max(SHORTEST), 100.0 * real(count(point)) / real(count(CDF_POINTS))))
    };
    let mut points: Points = (0..=CDF_POINTS).filter_map(at).collect();
    if !points.is_empty() {
        points.push((right, 100.0));
    }
    points
}

fn waits(baseline: &Measured, variant: Option<&Measured>) -> Outcome<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 540)).into_drawing_area();
        root.fill(&WHITE)?;
        let (header, body) = root.split_vertically(HEADER);
        let mut legend = Legend::titled(&header, "Wait from arrival to start: share of the requests that had started")?;
        for tier in baseline.tiers.keys() {
            legend.entry(tier.as_str(), colour(*tier), false)?;
        }
        if variant.is_some() {
            legend.entry("baseline", GREY, false)?;
            legend.entry("variant", GREY, true)?;
        }
        let both = [Some(baseline), variant];
        let groups = || both.iter().flatten().flat_map(|measured| measured.tiers.values());
        let longest = groups().filter_map(|group| group.wait_ms(100)).max().unwrap_or(0);
        let right = (real(longest) / 1_000.0).max(SHORTEST * 10.0);
        let mut chart = ChartBuilder::on(&body)
            .margin(12)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d((SHORTEST..right).log_scale(), 0.0..102.0)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .label_style(("sans-serif", 14).into_font())
            .x_desc("wait in seconds, logarithmic; a tenth of a second and less is at the left edge")
            .y_desc("started, in per cent")
            .y_labels(6)
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for (measured, dashed) in both.iter().zip([false, true]) {
            for (tier, group) in measured.iter().flat_map(|measured| &measured.tiers) {
                let points = cdf(group, right).into_iter();
                if dashed {
                    chart.draw_series(DashedLineSeries::new(points, 6, 4, colour(*tier).stroke_width(2)))?;
                } else {
                    chart.draw_series(LineSeries::new(points, colour(*tier).stroke_width(2)))?;
                }
            }
        }
        root.present()?;
    }
    Ok(svg)
}

/// A panel for each pool, all of one kind.
struct Panels {
    title: &'static str,
    /// By the second.
    points: fn(&PoolMeasured, u32) -> Points,
    /// An axis goes up to this at least.
    least_top: f64,
}

impl Panels {
    fn draw(&self, baseline: &Measured, variant: Option<&Measured>) -> Outcome<String> {
        let rows = baseline.pools.len().div_ceil(2).max(1);
        let height = HEADER + PANEL_HEIGHT * u32::try_from(rows)?;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE)?;
            let (header, body) = root.split_vertically(HEADER);
            let mut legend = Legend::titled(&header, self.title)?;
            legend.entry("baseline", BLUE, false)?;
            if variant.is_some() {
                legend.entry("variant", ORANGE, false)?;
            }
            for (panel, (name, pool)) in body.split_evenly((rows, 2)).iter().zip(&baseline.pools) {
                let before = (self.points)(pool, baseline.seconds);
                let after = variant
                    .and_then(|variant| variant.pools.get(name).map(|pool| (self.points)(pool, variant.seconds)));
                self.panel(panel, name, before, after.unwrap_or_default(), baseline.seconds)?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn panel(&self, area: &Area<'_>, name: &PoolId, before: Points, after: Points, seconds: u32) -> Outcome<()> {
        let (unit, length) = if seconds < 300 { ("seconds", 1.0) } else { ("minutes", 60.0) };
        let scaled = |points: Points| points.into_iter().map(move |(x, y)| (x / length, y));
        let top = before.iter().chain(&after).map(|(_, y)| *y * 1.05).fold(self.least_top, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(18)
            .caption(name.as_str(), ("sans-serif", 16).into_font())
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..f64::from(seconds) / length, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .label_style(("sans-serif", 13).into_font())
            .x_desc(unit)
            .x_labels(7)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_labels(5)
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        // The baseline is the wider line: it is seen under a variant that is no different.
        let width = if after.is_empty() { 2 } else { 5 };
        chart.draw_series(LineSeries::new(scaled(before), BLUE.stroke_width(width)))?;
        chart.draw_series(LineSeries::new(scaled(after), ORANGE.stroke_width(2)))?;
        Ok(())
    }
}

/// What the lines are, in a row under the title.
struct Legend<'a, 'b> {
    area: &'a Area<'b>,
    next_x: i32,
}

impl<'a, 'b> Legend<'a, 'b> {
    const Y: i32 = 52;

    fn titled(area: &'a Area<'b>, title: &str) -> Outcome<Self> {
        area.draw(&Text::new(title.to_owned(), (16, 14), ("sans-serif", 20).into_font().color(&BLACK)))?;
        Ok(Self { area, next_x: 16 })
    }

    fn entry(&mut self, name: &str, colour: RGBColor, dashed: bool) -> Outcome<()> {
        let style: ShapeStyle = colour.stroke_width(3);
        let dashes: &[(i32, i32)] = if dashed { &[(0, 8), (12, 20), (24, 28)] } else { &[(0, 28)] };
        for (from, to) in dashes {
            let line = vec![(self.next_x + from, Self::Y), (self.next_x + to, Self::Y)];
            self.area.draw(&PathElement::new(line, style))?;
        }
        let font = ("sans-serif", 14).into_font().color(&BLACK);
        self.area.draw(&Text::new(name.to_owned(), (self.next_x + 36, Self::Y - 8), font))?;
        self.next_x += 36 + 9 * i32::try_from(name.chars().count())? + 24;
        Ok(())
    }
}
