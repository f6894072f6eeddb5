//! Totals over everything, for the metrics, as they are at one moment. Every query is bounded, and so is the number of label
//! values.

use rm_core::optimizer::Strategy;
use rm_core::units::Instant;
use serde::Deserialize;
use worker::{D1Result, Env, Error, Result};

use crate::store::catalog::number;
use crate::store::savings::{self, Saved};

/// The most clients, and the most templates, that have series of their own: those that cost most.
pub const SERIES_MAX: u32 = 50;

/// D1 hands integers over exactly up to 2^53; what is beyond says that much.
const SPENT: &str = "CAST(min(spent_nanousd, 9007199254740991) AS INTEGER) AS spent_nanousd";
const COST: &str = "CAST(min(cost_nanousd, 9007199254740991) AS INTEGER) AS cost_nanousd";

/// What ended in a lane with a status.
#[derive(Debug, Deserialize)]
pub struct LaneOutcome {
    pub urgency: String,
    pub status: String,
    pub requests: u64,
    pub run_ms: u64,
}

/// How many requests of a lane waited up to a bound, and longer than up to the one before.
#[derive(Debug, Deserialize)]
pub struct LaneWait {
    pub urgency: String,
    pub up_to_ms: i64,
    pub requests: u64,
    pub wait_ms: u64,
}

/// What a client has cost this month.
#[derive(Debug, Deserialize)]
pub struct ClientCost {
    pub client_id: String,
    pub spent_nanousd: i64,
}

/// What a template has cost, ever.
#[derive(Debug, Deserialize)]
pub struct TemplateTotal {
    pub template_id: String,
    pub model: String,
    pub requests: u64,
    pub succeeded: u64,
    pub cost_nanousd: i64,
}

/// What was charged, ever.
#[derive(Debug, Deserialize)]
struct Charged {
    cost_nanousd: i64,
}

/// Everything together.
#[derive(Debug, Default)]
pub struct Totals {
    pub outcomes: Vec<LaneOutcome>,
    pub waits: Vec<LaneWait>,
    pub clients: Vec<ClientCost>,
    pub templates: Vec<TemplateTotal>,
    /// What was charged in all, by those templates and all others.
    pub cost_nanousd: i64,
    /// What each strategy has saved.
    pub saved: Vec<(Strategy, Saved)>,
}

/// Reads the totals. Costs of clients are those of `month`, as UTC has it.
pub async fn read(env: &Env, month: Instant) -> Result<Totals> {
    let db = env.d1("DB")?;
    let answers = db
        .batch(vec![
            db.prepare(
                "SELECT urgency, status, requests, run_ms FROM lane_outcomes ORDER BY urgency, status LIMIT 100",
            ),
            db.prepare(
                "SELECT urgency, up_to_ms, requests, wait_ms FROM lane_waits ORDER BY urgency, up_to_ms LIMIT 100",
            ),
            db.prepare(format!(
                "SELECT client_id, {SPENT} FROM budget_periods WHERE period_start = ?
                 ORDER BY budget_periods.spent_nanousd DESC LIMIT {SERIES_MAX}"
            ))
            .bind(&[number(month.millis())])?,
            db.prepare(format!(
                "SELECT template_id, model, requests, succeeded, {COST} FROM template_totals
                 ORDER BY template_totals.cost_nanousd DESC LIMIT {SERIES_MAX}"
            )),
            // A row for each template and model, of which operators make as many as they do: fewer writes than a sum of its own.
            db.prepare(
                "SELECT CAST(min(coalesce(sum(cost_nanousd), 0), 9007199254740991) AS INTEGER) AS cost_nanousd
                 FROM template_totals",
            ),
            db.prepare(savings::TOTALS),
        ])
        .await?;
    let [outcomes, waits, clients, templates, charged, saved] = answers.as_slice() else {
        return Err(Error::RustError("D1 answered another number of statements".into()));
    };
    Ok(Totals {
        outcomes: rows(outcomes)?,
        waits: rows(waits)?,
        clients: rows(clients)?,
        templates: rows(templates)?,
        cost_nanousd: rows::<Charged>(charged)?.first().map_or(0, |charged| charged.cost_nanousd),
        saved: savings::totals(saved)?,
    })
}

fn rows<T: for<'de> Deserialize<'de>>(answer: &D1Result) -> Result<Vec<T>> {
    answer.results::<T>()
}
