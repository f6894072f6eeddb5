//! The answers of `simulate capacity`: loads whose answer can be computed by hand, and questions that make no sense.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use rm_core::priority::Tier;
use rm_simulator::capacity::measure::{Measured, Outcome};
use rm_simulator::capacity::workload::Workload;
use rm_simulator::capacity::{arrivals, engine, trace, what_if};
use rm_simulator::cli::{EXIT_OK, EXIT_USAGE, run};

/// Ten requests at once for a pool that gains one a second.
const BURST: &str = r#"{
    "seconds": 60,
    "pools": {"one": {"capacity": 1, "refillPerSecond": 1, "unitPriceUsd": 0.000000003}},
    "clients": [{"client": "ann", "tier": "premium", "monthlyBudgetUsd": 1, "maxConcurrent": 100}],
    "arrivals": [{"client": "ann", "perMinute": 0, "urgency": "normal", "needs": [{"pool": "one", "amount": 1}],
                  "runMs": 500, "burst": {"atSecond": 5, "count": 10}}]
}"#;

fn measure(text: &str, changes: &[&str]) -> Measured {
    let workload = what_if::apply(&Workload::read(text).unwrap(), changes).unwrap();
    engine::run(&workload, &arrivals::plan(&workload, Vec::new(), 1), 1)
}

fn waits(text: &str, changes: &[&str]) -> Vec<i64> {
    measure(text, changes).all().waits().to_vec()
}

#[test]
fn a_burst_waits_for_the_refill() {
    assert_eq!(waits(BURST, &[]), [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000]);
    let group = measure(BURST, &[]).all();
    assert_eq!([50, 95, 99, 100].map(|percent| group.wait_ms(percent).unwrap()), [4_000, 9_000, 9_000, 9_000]);
}

#[test]
fn twice_the_refill_is_half_the_wait() {
    let halved = [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 3_500, 4_000, 4_500];
    assert_eq!(waits(BURST, &["pool.one.refillPerSecond=x2"]), halved);
    assert_eq!(waits(BURST, &["pool.one.refillPerSecond=2"]), halved);
    // A bucket of five lets five through at once; the refill is as it was.
    assert_eq!(waits(BURST, &["pool.one.capacity=5"]), [0, 0, 0, 0, 0, 1_000, 2_000, 3_000, 4_000, 5_000]);
    assert_eq!(waits(BURST, &["pool.one=x5"]), [0, 0, 0, 0, 0, 200, 400, 600, 800, 1_000]);
}

#[test]
fn slots_are_waited_for_as_well() {
    let half_a_second_each = (0..10).map(|n| n * 500).collect::<Vec<_>>();
    assert_eq!(waits(BURST, &["pool.one=x10", "client.ann.maxConcurrent=1"]), half_a_second_each);
}

#[test]
fn what_is_not_finished_by_its_deadline_expires() {
    let with_deadline = BURST.replace(r#""runMs": 500,"#, r#""runMs": 500, "deadlineSeconds": 4,"#);
    let group = measure(&with_deadline, &[]).all();
    // After 0, 1, 2 and 3 s there is half a second left; what would start after 4 s has none.
    assert_eq!(group.waits(), [0, 1_000, 2_000, 3_000]);
    assert_eq!((group.with(Outcome::Succeeded), group.with(Outcome::Expired)), (4, 6));
    assert_eq!(group.cost_nanos(), 12);
}

#[test]
fn costs_are_exact_and_end_at_the_budget() {
    let group = measure(BURST, &[]).all();
    assert_eq!(group.cost_nanos(), 30);
    // All ten come at one moment, so what is held counts.
    let group = measure(BURST, &["client.ann.monthlyBudgetUsd=0.000000014"]).all();
    assert_eq!((group.with(Outcome::Succeeded), group.with(Outcome::OverBudget)), (4, 6));
    assert_eq!(group.cost_nanos(), 12);
    // A third of a nano-dollar a unit cannot be; a price is rounded down to whole ones.
    assert_eq!(measure(BURST, &["pool.one.unitPriceUsd=x0.4"]).all().cost_nanos(), 10);
}

#[test]
fn a_full_queue_and_a_need_that_never_fits_are_not_taken() {
    let group = measure(BURST, &["pool.one.queueCap=3"]).all();
    assert_eq!((group.with(Outcome::Succeeded), group.with(Outcome::NotTaken)), (4, 6));
    let group = measure(BURST, &["pool.one.capacity=0.5"]).all();
    assert_eq!(group.with(Outcome::NotTaken), 10);
}

#[test]
fn utilisation_is_what_was_taken_of_what_there_was() {
    let measured = measure(BURST, &[]);
    let pool = &measured.pools[&"one".parse().unwrap()];
    // One that was there, and 60 refilled; ten taken.
    assert!((pool.utilisation(60) - 10.0 / 61.0).abs() < 1e-9);
    assert_eq!(pool.most_queued, 9);
    assert!(measured.ended_ms >= 14_500);
}

#[test]
fn the_tiers_are_served_in_their_order() {
    let (from, to) = (r#""clients": ["#, r#""arrivals": ["#);
    let two = BURST
        .replace(from, r#""clients": [{"client": "bob", "tier": "basic", "monthlyBudgetUsd": 1, "maxConcurrent": 9}, "#)
        .replace(
            to,
            r#""arrivals": [{"client": "bob", "perMinute": 0, "urgency": "normal", "runMs": 1,
                "needs": [{"pool": "one", "amount": 1}], "burst": {"atSecond": 5, "count": 10}}, "#,
        );
    let measured = measure(&two, &[]);
    // The first takes the token that is there; then ann's go first.
    assert_eq!(measured.tiers[&Tier::Premium].wait_ms(100), Some(10_000));
    assert_eq!(measured.tiers[&Tier::Basic].wait_ms(100), Some(19_000));
}

#[test]
fn a_trace_is_played_with_its_own_use() {
    let mut workload = Workload::read(BURST).unwrap();
    let text = r#"
        {"atMs": 1000, "client": "ann", "urgency": "fast", "needs": [{"pool": "one", "amount": 1}], "runMs": 10}
        {"atMs": 0, "client": "ann", "urgency": "fast", "needs": [{"pool": "one", "amount": 1}],
         "usage": [{"pool": "one", "amount": 0.5}], "runMs": 100}"#;
    let text = text.replace(",\n", ",");
    let played = trace::read(&text, &mut workload).unwrap();
    assert_eq!((workload.seconds, played.len()), (2, 2));
    let measured = engine::run(&workload, &arrivals::plan(&workload, played, 1), 1);
    assert_eq!(measured.all().waits(), [0, 0]);
    // One whole unit, and a half of which the price is rounded up.
    assert_eq!(measured.all().cost_nanos(), 3 + 2);
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/workloads").join(name)
}

/// Runs the program; what it exits with, and what it prints on stdout and stderr.
fn simulate(args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(args.iter().map(OsString::from), &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// A folder that is gone at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("simulate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_example_has_one_bottleneck_and_every_request_is_counted_once() {
    let workload = Workload::read(&fs::read_to_string(example("mixed.json")).unwrap()).unwrap();
    let planned = arrivals::plan(&workload, Vec::new(), 0);
    let measured = engine::run(&workload, &planned, 0);
    assert_eq!(measured.all().requests(), u64::try_from(planned.len()).unwrap());
    assert_eq!(measured.tiers.len(), 4);
    for (name, pool) in &measured.pools {
        assert_eq!(pool.utilisation(workload.seconds) > 0.95, name.as_str() == "openai-gpt-4", "{name}");
    }
    let of_pools: i128 = measured.pools.values().map(|pool| pool.group.cost_nanos()).sum();
    assert_eq!(of_pools, measured.all().cost_nanos());
}

#[test]
fn the_same_seed_is_the_same_answer() {
    let path = example("mixed.json");
    let ask = |seed: &str, folder: &Folder| {
        let folder = folder.0.to_str().unwrap();
        let change = "pool.openai-gpt-4.capacity=x2";
        let args = ["capacity", "--workload", path.to_str().unwrap(), "--what-if", change, "--seed", seed];
        let (code, out, err) = simulate(&[&args[..], &["--svg", folder]].concat());
        assert_eq!((code, err.as_str()), (EXIT_OK, ""));
        let plots = ["waits", "utilisation", "queue"].map(|name| fs::read_to_string(format!("{folder}/{name}.svg")));
        (out.replace(folder, ""), plots.map(Result::unwrap))
    };
    let (one, two) = (Folder::new("one"), Folder::new("two"));
    let first = ask("5", &one);
    assert_eq!(first, ask("5", &two));
    assert_ne!(first.0, ask("6", &two).0);
    assert!(first.0.contains("→ variant") && first.0.contains("difference"), "{}", first.0);
    assert!(first.1.iter().all(|svg| svg.contains("variant") && svg.ends_with("</svg>\n")));
}

#[test]
fn the_example_trace_can_be_played() {
    let (workload, trace) = (example("mixed.json"), example("trace.jsonl"));
    let args = ["capacity", "--workload", workload.to_str().unwrap(), "--trace", trace.to_str().unwrap()];
    let (code, out, err) = simulate(&args);
    assert_eq!((code, err.as_str()), (EXIT_OK, ""));
    assert!(out.starts_with("24 requests in 23 s"), "{out}");
}

/// What a question is refused with, after the name of the file.
fn refusal(args: &[&str]) -> String {
    let (code, out, err) = simulate(&[&["capacity"], args].concat());
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{args:?}");
    assert_eq!(err.lines().count(), 1, "{err}");
    err.trim_end().to_owned()
}

#[test]
fn workloads_that_make_no_sense_are_refused_by_field() {
    let folder = Folder::new("workloads");
    for (from, to, said) in [
        (r#""seconds": 60"#, r#""seconds": 0"#, "seconds: must be from 1 to 2419200, not 0"),
        (r#""seconds": 60"#, r#""seconds": 60, "hours": 1"#, "hours: unknown field `hours`"),
        (r#""capacity": 1"#, r#""capacity": -1"#, "pools.one.capacity: must not be negative"),
        (r#""capacity": 1"#, r#""capacity": 0"#, "pools.one.capacity: must be more than zero"),
        ("0.000000003", "-1", "pools.one.unitPriceUsd: must not be negative"),
        ("0.000000003", "0.0000000003", "pools.one.unitPriceUsd: has more than 9 decimals"),
        (r#""tier": "premium""#, r#""tier": "gold""#, "clients[0].tier: unknown variant `gold`"),
        (r#""client": "ann", "per"#, r#""client": "eve", "per"#, "arrivals[0].client: there is no client `eve`"),
        (r#""perMinute": 0"#, r#""perMinute": -3"#, "arrivals[0].perMinute: must not be negative"),
        (r#""perMinute": 0"#, r#""perMinute": 1e9"#, "arrivals: about 1000000010 requests would arrive"),
        (r#""pool": "one""#, r#""pool": "two""#, "arrivals[0].needs[0].pool: there is no pool `two`"),
        (r#""amount": 1"#, r#""amount": 2"#, "arrivals[0].needs[0].amount: `one` can hold 1 at most"),
        (r#""amount": 1"#, r#""amount": {"min": 1}"#, "arrivals[0].needs[0].amount: missing field `max`"),
        (
            r#""amount": 1"#,
            r#""amount": {"min": 1, "max": 0.5}"#,
            "arrivals[0].needs[0].amount: must be more than zero",
        ),
        (r#""runMs": 500"#, r#""runMs": -5"#, "arrivals[0].runMs: invalid value"),
        (r#""runMs": 500"#, r#""runMs": 600001"#, "arrivals[0].runMs: must be from 0 to 600000"),
        (r#""atSecond": 5"#, r#""atSecond": 60"#, "arrivals[0].burst.atSecond: must be from 0 to 59, not 60"),
        (r#""urgency": "normal","#, "", "arrivals[0]: missing field `urgency`"),
    ] {
        assert!(BURST.contains(from), "{from}");
        let path = folder.file("workload.json", &BURST.replacen(from, to, 1));
        let refused = refusal(&["--workload", &path]);
        assert!(refused.strip_prefix(&format!("{path}: ")).is_some_and(|rest| rest.starts_with(said)), "{refused}");
    }
}

#[test]
fn traces_that_make_no_sense_are_refused_by_line() {
    let folder = Folder::new("traces");
    let workload = folder.file("workload.json", BURST);
    let good =
        r#"{"atMs": 1, "client": "ann", "urgency": "fast", "needs": [{"pool": "one", "amount": 1}], "runMs": 10}"#;
    for (from, to, said) in [
        (r#""atMs": 1, "#, "", "line 2: .: missing field `atMs`"),
        (r#""client": "ann""#, r#""client": "eve""#, "line 2: client: there is no client `eve`"),
        (r#""amount": 1"#, r#""amount": 7"#, "line 2: needs[0].amount: `one` can hold 1 at most"),
        (r#""runMs""#, r#""usage": [{"pool": "two", "amount": 1}], "runMs""#, "line 2: usage[0].pool: `two` is used"),
        (r#""runMs""#, r#""cost": 5, "runMs""#, "line 2: cost: unknown field `cost`"),
    ] {
        let trace = folder.file("trace.jsonl", &format!("{good}\n{}\n", good.replacen(from, to, 1)));
        let refused = refusal(&["--workload", &workload, "--trace", &trace]);
        assert!(refused.strip_prefix(&format!("{trace}: ")).is_some_and(|rest| rest.starts_with(said)), "{refused}");
    }
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name() {
    let folder = Folder::new("changes");
    let workload = folder.file("workload.json", BURST);
    for (change, said) in [
        ("pool.two.capacity=x2", "pool.two.capacity: there is no pool `two`; there are one"),
        ("pool.one.capacity=-4", "pool.one.capacity: `-4` must not be negative"),
        ("pool.one.capacity=x-2", "pool.one.capacity: `-2` must not be negative"),
        ("pool.one.capacity=x0", "pools.one.capacity: must be more than zero"),
        ("pool.one.capacity=many", "pool.one.capacity: `many`: expected a number"),
        ("pool.one.colour=x2", "pool.one.colour: a pool has no `colour` that can be changed"),
        ("pool.one=5", "pool.one: takes a factor"),
        ("pool.one.windowCap=x2", "pool.one.windowCap: takes true or false"),
        ("client.eve.maxConcurrent=2", "client.eve.maxConcurrent: there is no client `eve`"),
        ("client.ann.maxConcurrent=1.5", "client.ann.maxConcurrent: `1.5`: has more than 0 decimals"),
        ("client.ann.tier=gold", "client.ann.tier: takes a tier's name"),
        ("load=2", "load: takes a factor"),
        ("seconds=2", "seconds: is nothing that can be changed"),
        ("nonsense", "nonsense: expected NAME=VALUE"),
    ] {
        let refused = refusal(&["--workload", &workload, "--what-if", change]);
        assert!(refused.starts_with(&format!("--what-if {said}")), "{refused}");
    }
}

#[test]
fn questions_that_are_none_are_refused() {
    let folder = Folder::new("questions");
    let idle = folder.file("idle.json", &BURST.replace(r#", "burst": {"atSecond": 5, "count": 10}"#, ""));
    assert!(refusal(&["--workload", &idle]).starts_with("nothing would arrive"));
    assert!(refusal(&[]).starts_with("--workload is missing"));
    assert!(refusal(&["--workload", "/nowhere.json"]).starts_with("/nowhere.json: No such file"));
    assert!(refusal(&["--seed", "-1"]).starts_with("--seed takes a whole number"));
    assert!(refusal(&["--workloads", &idle]).contains("--workloads"));
    let (code, _, err) = simulate(&["sing"]);
    assert_eq!((code, err.as_str()), (EXIT_USAGE, "there is no `simulate sing`: see simulate --help\n"));
    for help in [&["--help"][..], &["invariants", "--help"], &["capacity", "--help"]] {
        let (code, out, _) = simulate(help);
        assert!(code == EXIT_OK && out.starts_with("simulate"), "{out}");
    }
}

#[test]
fn invariants_are_summed_up() {
    let (code, out, _) = simulate(&["invariants", "--seeds", "20", "--from", "7", "--steps", "100", "--threads", "2"]);
    assert_eq!(code, EXIT_OK, "{out}");
    assert!(out.starts_with("seeds     20 from 7, of 100 steps each\nsteps     2,000\n"), "{out}");
    assert!(out.ends_with("0 failed\n"), "{out}");
    for none in [&["--from", "18446744073709551615"][..], &["--seed", "18446744073709551615"], &["--steps", "1000001"]]
    {
        let (code, out, err) = simulate(&[&["invariants"], none].concat());
        assert_eq!((code, out.as_str(), err.lines().count()), (EXIT_USAGE, "", 1), "{err}");
    }
}

#[test]
fn parts_of_a_pool_are_written_as_for_the_service() {
    let with = |parts: &str| {
        BURST.replace(
            r#""unitPriceUsd": 0.000000003"#,
            &format!(r#""unitPriceUsd": 0.000000003, "partitions": {parts}"#),
        )
    };
    // Half of two tokens are kept for somebody who sends nothing, or lent to those who do.
    let last = |parts: &str| waits(&with(parts).replace(r#""capacity": 1"#, r#""capacity": 2"#), &[]).last().copied();
    assert_eq!(last(r#"[{"name": "theirs", "kind": "dedicated", "clientId": "bob", "percent": 50}]"#), Some(9_000));
    assert_eq!(last(r#"[{"name": "theirs", "kind": "reserved", "tier": "basic", "percent": 50}]"#), Some(8_000));
    for (senseless, said) in [
        (r#"[{"name": "p", "kind": "reserved", "percent": 50}]"#, "must name a tier or a clientId"),
        (r#"[{"name": "p", "kind": "reserved", "tier": "basic", "percent": 101}]"#, "100 at most"),
        (
            r#"[{"name": "p", "kind": "reserved", "tier": "basic", "percent": 5, "member": 1}]"#,
            "unknown field `member`",
        ),
    ] {
        let refused = Workload::read(&with(senseless)).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}
