//! `simulate invariants`.

use std::io::Write;
use std::sync::Mutex;

use lexopt::Parser;

use super::args::number;
use super::clock::Stopwatch;
use super::{EXIT_BROKEN, EXIT_OK, Refused};
use crate::invariants::campaign::{Campaign, Summary};
use crate::invariants::{checks, history};
use crate::numbers::grouped;

const HELP: &str = "\
simulate invariants: random histories of the scheduler, and what must hold in them

  --seeds N     how many histories (1000)
  --from S      the first one's seed (0)
  --seed X      that seed alone
  --steps K     how many steps a history has (250)
  --threads T   on how many threads (as many as there are cores)
  --tell        with --seed: print what happens, whether it fails or not

Messages are late, doubled and lost, workers fail and hang, objects crash. After each step, and when everything has run
out, the invariants of ARCHITECTURE.md are checked. The lowest seed that breaks one is cut down to the steps that it
needs, and those are printed; the exit code is then 1.
";

/// The longest history: its steps are kept.
const STEPS_MAX: u64 = 1_000_000;

pub fn run(
    parser: &mut Parser,
    out: &mut (impl Write + ?Sized),
    err: &mut (impl Write + Send + ?Sized),
) -> Result<u8, Refused> {
    use lexopt::Arg::{Long, Short};
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut campaign = Campaign { from: 0, seeds: 1_000, steps: 250, threads: cores, checks: checks::ALL };
    let mut tell = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seeds") => campaign.seeds = number(parser, "--seeds", 1)?,
            Long("from") => campaign.from = number(parser, "--from", 0)?,
            Long("seed") => {
                campaign.from = number(parser, "--seed", 0)?;
                campaign.seeds = 1;
            }
            Long("steps") => {
                campaign.steps = number(parser, "--steps", 1)?;
                if campaign.steps > STEPS_MAX {
                    return Err(Refused::new(format!("--steps takes {STEPS_MAX} at most")));
                }
            }
            Long("threads") => {
                campaign.threads = usize::try_from(number(parser, "--threads", 1)?).unwrap_or(usize::MAX).min(256);
            }
            Long("tell") => tell = Some(()),
            Long("help") | Short('h') => {
                out.write_all(HELP.as_bytes())?;
                return Ok(EXIT_OK);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if campaign.from.checked_add(campaign.seeds).is_none() {
        return Err(Refused::new("there are not so many seeds from that one on"));
    }
    if cfg!(panic = "abort") {
        let sentence = "note: this build cannot catch a panic, so that the first seed that fails ends it without a trace; \
                        `npm run simulate` builds with the profile that can";
        writeln!(err, "{sentence}")?;
    }
    if tell.is_some() {
        if campaign.seeds != 1 {
            return Err(Refused::new("--tell needs --seed: it tells one history"));
        }
        let steps: Vec<u64> = (0..campaign.steps).collect();
        for line in history::tell(campaign.from, &steps, campaign.checks).log {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
    }
    let watch = Stopwatch::start();
    let summary = with_progress(campaign, watch, err);
    let seconds = watch.elapsed().as_secs_f64();
    print(campaign, &summary, seconds, out)?;
    Ok(if summary.failed.is_some() { EXIT_BROKEN } else { EXIT_OK })
}

/// Says now and then how far it is.
fn with_progress(campaign: Campaign, watch: Stopwatch, err: &mut (impl Write + Send + ?Sized)) -> Summary {
    let every = campaign.seeds.div_ceil(20).max(1_000);
    let err = Mutex::new(err);
    campaign.run(|done| {
        if done.is_multiple_of(every)
            && let Ok(mut err) = err.lock()
        {
            let (done, all, seconds) = (grouped(done), grouped(campaign.seeds), watch.elapsed().as_secs());
            // Progress that nobody can read is no reason to stop.
            let _ = writeln!(err, "{done} of {all} seeds after {seconds} s");
        }
    })
}

fn print(campaign: Campaign, summary: &Summary, seconds: f64, out: &mut (impl Write + ?Sized)) -> Result<(), Refused> {
    let Summary { seeds, steps, messages, checked, events, failed } = summary;
    writeln!(out, "seeds     {} from {}, of {} steps each", grouped(*seeds), campaign.from, grouped(campaign.steps))?;
    writeln!(out, "steps     {}", grouped(*steps))?;
    writeln!(out, "messages  {}", grouped(*messages))?;
    writeln!(out, "events")?;
    for (event, count) in events {
        writeln!(out, "  {event:<28} {:>16}", grouped(*count))?;
    }
    let checks = campaign.checks;
    writeln!(out, "invariants, checked {} times", grouped(*checked))?;
    for (checks, when) in [(checks.always, "after each step"), (checks.at_the_end, "in the end")] {
        for check in checks {
            writeln!(out, "  {} ({when})", check.name)?;
        }
    }
    writeln!(out, "time      {seconds:.1} s on {} threads", campaign.threads)?;
    match failed {
        None => writeln!(out, "0 failed")?,
        Some(shrunk) => {
            writeln!(out, "1 failed\n\n{shrunk}")?;
            let steps = campaign.steps;
            writeln!(out, "again: npm run simulate -- invariants --seed {} --steps {steps}", shrunk.seed)?;
        }
    }
    Ok(())
}
