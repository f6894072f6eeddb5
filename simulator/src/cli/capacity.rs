//! `simulate capacity`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lexopt::{Parser, ValueExt};

use super::args::number;
use super::{EXIT_OK, Refused};
use crate::capacity::measure::Measured;
use crate::capacity::what_if::{self, WHAT_CAN_BE_CHANGED};
use crate::capacity::workload::{Senseless, Workload};
use crate::capacity::{arrivals, engine, plot, table, trace};
use crate::numbers::grouped;

const HELP: &str = "\
simulate capacity: what a load would meet, by the scheduler itself in simulated time

  --workload FILE    pools, clients and arrivals (JSON; see examples/workloads/mixed.json)
  --trace FILE       requests to play, one a line (JSON lines; see examples/workloads/trace.jsonl), in place of the
                     workload's arrivals; the workload still gives pools and clients
  --what-if CHANGE   a variant to compare with, as often as wanted; all changes make one variant
  --svg DIR          write waits.svg, utilisation.svg and queue.svg there
  --seed N           what the arrivals are drawn from (0); the same seed is the same load

What can be changed:

";

const NOTES: &str = "\
Waits are in seconds from arrival to start, of the requests that started. Requests that need several pools count for each
of them. `not taken`: the queue was full, or a pool can never hold what is needed. `most queued` counts requests at their
home pool. A pool may have `partitions`, as the service's pools do; windows are not simulated. `utilised`: the share that was taken of the full bucket at first and all that was refilled while requests came.
";

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    workload: Option<PathBuf>,
    trace: Option<PathBuf>,
    changes: Vec<String>,
    svg: Option<PathBuf>,
    seed: u64,
}

pub fn run(parser: &mut Parser, out: &mut (impl Write + ?Sized)) -> Result<u8, Refused> {
    use lexopt::Arg::{Long, Short};
    let mut asked = Asked::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("workload") => asked.workload = Some(parser.value()?.into()),
            Long("trace") => asked.trace = Some(parser.value()?.into()),
            Long("what-if") => asked.changes.push(parser.value()?.string()?),
            Long("svg") => asked.svg = Some(parser.value()?.into()),
            Long("seed") => asked.seed = number(parser, "--seed", 0)?,
            Long("help") | Short('h') => {
                writeln!(out, "{HELP}{WHAT_CAN_BE_CHANGED}\n\n{NOTES}")?;
                return Ok(EXIT_OK);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    answer(&asked, out)
}

fn answer(asked: &Asked, out: &mut (impl Write + ?Sized)) -> Result<u8, Refused> {
    let Some(path) = &asked.workload else {
        return Err(Refused::new("--workload is missing: it gives the pools and the clients"));
    };
    let in_file = |path: &Path, problem: Senseless| Refused::new(format!("{}: {problem}", path.display()));
    let mut workload = Workload::read(&read(path)?).map_err(|problem| in_file(path, problem))?;
    let played = match &asked.trace {
        Some(path) => trace::read(&read(path)?, &mut workload).map_err(|problem| in_file(path, problem))?,
        None => Vec::new(),
    };
    let changed = match asked.changes.as_slice() {
        [] => None,
        changes => {
            Some(what_if::apply(&workload, changes).map_err(|problem| Refused::new(format!("--what-if {problem}")))?)
        }
    };
    let measure = |workload: &Workload| {
        let planned = arrivals::plan(workload, played.clone(), asked.seed);
        (!planned.is_empty()).then(|| engine::run(workload, &planned, asked.seed))
    };
    let nothing = || Refused::new("nothing would arrive: the workload has no arrivals, and there is no --trace");
    let baseline = measure(&workload).ok_or_else(nothing)?;
    let variant = changed.as_ref().map(|changed| measure(changed).ok_or_else(nothing)).transpose()?;
    print(asked, &baseline, variant.as_ref(), out)?;
    if let Some(folder) = &asked.svg {
        let written = plot::write(folder, &baseline, variant.as_ref());
        let files = written.map_err(|problem| Refused::new(format!("{}: {problem}", folder.display())))?;
        writeln!(out, "\nwritten: {}", files.join(", "))?;
    }
    Ok(EXIT_OK)
}

fn read(path: &Path) -> Result<String, Refused> {
    fs::read_to_string(path).map_err(|error| Refused::new(format!("{}: {error}", path.display())))
}

fn print(
    asked: &Asked,
    baseline: &Measured,
    variant: Option<&Measured>,
    out: &mut (impl Write + ?Sized),
) -> Result<(), Refused> {
    let requests = grouped(baseline.all().requests());
    writeln!(out, "{requests} requests in {} s, seed {}", grouped(baseline.seconds), asked.seed)?;
    if let Some(variant) = variant {
        let requests = grouped(variant.all().requests());
        writeln!(out, "variant: {}; {requests} requests", asked.changes.join(", "))?;
    }
    let ended = |measured: &Measured| grouped(measured.ended_ms / 1_000);
    let of_variant = variant.map_or(String::new(), |variant| format!(" → {} s", ended(variant)));
    writeln!(out, "the last one had ended after {} s{of_variant}\n", ended(baseline))?;
    write!(out, "{}\n{NOTES}", table::tables(baseline, variant))?;
    Ok(())
}
