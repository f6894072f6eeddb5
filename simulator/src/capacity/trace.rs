//! A recorded load: JSON lines, one request each.

use rm_core::id::{ClientId, PoolId};
use rm_core::priority::Urgency;
use rm_core::units::Tokens;
use serde::Deserialize;

use super::arrivals::Planned;
use super::workload::{RUN_MS_MAX, SECONDS_MAX, Senseless, Workload, in_range, read_json, require};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    at_ms: u32,
    client: ClientId,
    urgency: Urgency,
    needs: Vec<Part>,
    #[serde(default)]
    usage: Vec<Part>,
    run_ms: u32,
    #[serde(default)]
    deadline_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    pool: PoolId,
    amount: Tokens,
}

/// Reads a trace whose pools and clients are those of `workload`, and takes the place of its arrivals: its time becomes
/// that up to the last request of the trace.
///
/// # Errors
/// What is wrong, in which line.
pub fn read(text: &str, workload: &mut Workload) -> Result<Vec<Planned>, Senseless> {
    let requests = requests(text, workload)?;
    let last_ms = requests.iter().map(|request| request.at_ms).max().unwrap_or(0);
    workload.arrivals = Vec::new();
    workload.seconds = u32::try_from(last_ms / 1_000 + 1).unwrap_or(SECONDS_MAX);
    Ok(requests)
}

fn requests(text: &str, workload: &Workload) -> Result<Vec<Planned>, Senseless> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            request(line, workload).map_err(|Senseless { field, problem }| {
                Senseless::new(format!("line {}", index + 1), format!("{field}: {problem}"))
            })
        })
        .collect()
}

fn request(line: &str, workload: &Workload) -> Result<Planned, Senseless> {
    let line: Line = read_json(line)?;
    in_range("atMs", line.at_ms / 1_000, 0, SECONDS_MAX - 1)?;
    workload.check_client("client", &line.client)?;
    workload.check_needs("needs", line.needs.iter().map(|part| &part.pool))?;
    for (index, need) in line.needs.iter().enumerate() {
        let field = format!("needs[{index}].amount");
        require(need.amount > Tokens::ZERO, &field, "must be more than zero")?;
        workload.check_amount(&field, &need.pool, need.amount)?;
    }
    for (index, used) in line.usage.iter().enumerate() {
        let needed = line.needs.iter().any(|need| need.pool == used.pool);
        let field = format!("usage[{index}].pool");
        require(needed, &field, &format!("`{}` is used, and was not needed", used.pool))?;
    }
    in_range("runMs", line.run_ms, 0, RUN_MS_MAX)?;
    if let Some(seconds) = line.deadline_seconds {
        in_range("deadlineSeconds", seconds, 1, SECONDS_MAX)?;
    }
    let parts = |parts: Vec<Part>| parts.into_iter().map(|part| (part.pool, part.amount)).collect();
    Ok(Planned {
        at_ms: line.at_ms.into(),
        client: line.client,
        urgency: line.urgency,
        needs: parts(line.needs),
        usage: parts(line.usage),
        run_ms: line.run_ms.into(),
        deadline_ms: line.deadline_seconds.map(|seconds| i64::from(seconds) * 1_000),
    })
}
