//! The record of usage in D1: one row for each charge, from which everything about a request can be told after its pool
//! has let go of it. Accounts send to it from their outbox; roll-ups follow by triggers.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::optimizer::{Savings, Strategy};
use rm_core::pricing::{Parts, PricesApart};
use rm_core::priority::Urgency;
use rm_core::request::{Failure, Kind, Line, Status};
use rm_core::units::{Instant, NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use worker::{Env, Result};

use crate::store::catalog::{number, stored};
use crate::wire::execution::OptimizationView;

/// One charge, as an account keeps it until D1 has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageEvent {
    pub event: String,
    pub request_id: RequestId,
    pub client_id: ClientId,
    pub kind: Kind,
    pub status: Status,
    pub template_id: Option<String>,
    pub worker: Option<String>,
    pub model: Option<String>,
    pub created_at: Instant,
    pub at: Instant,
    pub period_start: Instant,
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
    pub uncertain: bool,
    pub lines: Vec<Line>,
    #[serde(default = "UsageEvent::normal")]
    pub urgency: Urgency,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default)]
    pub started_at: Option<Instant>,
    #[serde(default)]
    pub estimated: NanoUsd,
    #[serde(default)]
    pub failure: Option<Failure>,
    #[serde(default)]
    pub optimizations: Vec<OptimizationView>,
    /// What requests that are the same have in common.
    #[serde(default)]
    pub same: Option<String>,
    /// By when it was to be finished.
    #[serde(default)]
    pub deadline: Option<Instant>,
    /// The strategies that it was made for.
    #[serde(default)]
    pub tried: Vec<Strategy>,
}

impl UsageEvent {
    const fn normal() -> Urgency {
        Urgency::Normal
    }
}

/// A line of a bill in D1, version 2: all numbers are integers, so that SQL can add them up exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredLine {
    pool: PoolId,
    estimated_micros: i64,
    actual_micros: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    formula_micros: Option<i64>,
    reported: bool,
    unit_price_nano_usd: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cached_input_price_nano_usd: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_price_nano_usd: Option<i64>,
    #[serde(default)]
    discount_percent: u8,
    #[serde(default)]
    cached_input_micros: i64,
    #[serde(default)]
    output_micros: i64,
    cost_nano_usd: i64,
    baseline_nano_usd: i64,
    /// By strategy: together they are what the baseline is more than the cost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    saved_nano_usd: BTreeMap<Strategy, i64>,
    #[serde(default)]
    price_version: String,
}

/// What was applied to a request, in D1, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredOptimization {
    strategy: Strategy,
    detail: String,
    saved_nano_usd: i64,
    saved_bytes: u64,
}

impl StoredOptimization {
    fn of(view: &OptimizationView) -> Self {
        Self {
            strategy: view.strategy,
            detail: view.detail.clone(),
            saved_nano_usd: view.saved_usd.nanos(),
            saved_bytes: view.saved_bytes,
        }
    }

    fn view(self) -> Result<OptimizationView> {
        let saved_usd = NanoUsd::from_nanos(self.saved_nano_usd).ok_or_else(|| stored("a saving out of range"))?;
        Ok(OptimizationView { strategy: self.strategy, detail: self.detail, saved_usd, saved_bytes: self.saved_bytes })
    }
}

/// The version of [`StoredLine`].
const LINES_VERSION: u32 = 2;

impl StoredLine {
    fn of(line: &Line) -> Self {
        Self {
            pool: line.pool.clone(),
            estimated_micros: line.estimated.micros(),
            actual_micros: line.actual.micros(),
            formula_micros: line.formula.map(Tokens::micros),
            reported: line.reported,
            unit_price_nano_usd: line.unit_price.nanos(),
            cached_input_price_nano_usd: line.apart.map(|apart| apart.cached_input.nanos()),
            output_price_nano_usd: line.apart.map(|apart| apart.output.nanos()),
            discount_percent: line.discount_percent,
            cached_input_micros: line.parts.cached_input.micros(),
            output_micros: line.parts.output.micros(),
            cost_nano_usd: line.cost.nanos(),
            baseline_nano_usd: line.baseline().nanos(),
            saved_nano_usd: Strategy::ALL
                .into_iter()
                .map(|strategy| (strategy, line.saved.by(strategy).nanos()))
                .filter(|(_, saved)| *saved > 0)
                .collect(),
            price_version: line.price_version.clone(),
        }
    }

    fn line(self) -> Result<Line> {
        let money = |nanos| NanoUsd::from_nanos(nanos).ok_or_else(|| stored("an amount of money out of range"));
        let apart = match (self.cached_input_price_nano_usd, self.output_price_nano_usd) {
            (Some(cached_input), Some(output)) => {
                Some(PricesApart { cached_input: money(cached_input)?, output: money(output)? })
            }
            _ => None,
        };
        let saved = |strategy| money(self.saved_nano_usd.get(&strategy).copied().unwrap_or(0));
        let saved = Savings {
            model_downgrade: saved(Strategy::ModelDowngrade)?,
            request_batching: saved(Strategy::RequestBatching)?,
            cache: saved(Strategy::Cache)?,
            off_peak: saved(Strategy::OffPeak)?,
        };
        Ok(Line {
            pool: self.pool,
            estimated: Tokens::clamped(self.estimated_micros),
            actual: Tokens::clamped(self.actual_micros),
            unit_price: money(self.unit_price_nano_usd)?,
            discount_percent: self.discount_percent,
            cost: money(self.cost_nano_usd)?,
            apart,
            parts: Parts {
                cached_input: Tokens::clamped(self.cached_input_micros),
                output: Tokens::clamped(self.output_micros),
            },
            formula: self.formula_micros.map(Tokens::clamped),
            reported: self.reported,
            price_version: self.price_version,
            saved,
        })
    }
}

/// Records charges, all or none of them. One that is there already is left as it is.
pub async fn send(env: &Env, events: &[UsageEvent]) -> Result<()> {
    let db = env.d1("DB")?;
    let mut statements = Vec::with_capacity(events.len());
    for event in events {
        let kind = match event.kind {
            Kind::Execution => "execution",
            Kind::Reservation => "reservation",
        };
        let optional = |text: &Option<String>| text.clone().unwrap_or_default().into();
        let lines: Vec<StoredLine> = event.lines.iter().map(StoredLine::of).collect();
        let optimizations: Vec<_> = event.optimizations.iter().map(StoredOptimization::of).collect();
        let failure = event.failure.as_ref().map(serde_json::to_string).transpose()?;
        let statement = db
            .prepare(
                "INSERT INTO usage_events (event, request_id, client_id, kind, status, template_id, worker, model,
                   created_at, at, period_start, cost_nanousd, baseline_nanousd, uncertain, lines, lines_version, urgency,
                   attempts, started_at, estimated_nanousd, failure, optimizations, same, deadline, tried)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event) DO NOTHING",
            )
            .bind(&[
                event.event.as_str().into(),
                event.request_id.as_str().into(),
                event.client_id.as_str().into(),
                kind.into(),
                event.status.as_str().into(),
                optional(&event.template_id),
                optional(&event.worker),
                optional(&event.model),
                number(event.created_at.millis()),
                number(event.at.millis()),
                number(event.period_start.millis()),
                number(event.cost.nanos()),
                number(event.baseline.nanos()),
                u8::from(event.uncertain).into(),
                serde_json::to_string(&lines)?.into(),
                LINES_VERSION.into(),
                event.urgency.as_str().into(),
                event.attempts.into(),
                event.started_at.map_or(JsValue::NULL, |at| number(at.millis())),
                number(event.estimated.nanos()),
                failure.map_or(JsValue::NULL, Into::into),
                serde_json::to_string(&optimizations)?.into(),
                optional(&event.same),
                event.deadline.map_or(JsValue::NULL, |at| number(at.millis())),
                event.tried.iter().map(|strategy| strategy.as_str()).collect::<Vec<_>>().join(",").into(),
            ])?;
        statements.push(statement);
    }
    db.batch(statements).await?;
    Ok(())
}

/// A row of the record.
#[derive(Deserialize)]
struct EventRow {
    event: String,
    request_id: String,
    client_id: String,
    kind: String,
    status: String,
    template_id: String,
    worker: String,
    model: String,
    created_at: i64,
    at: i64,
    period_start: i64,
    cost_nanousd: i64,
    baseline_nanousd: i64,
    uncertain: u8,
    lines: String,
    lines_version: u32,
    urgency: String,
    attempts: u32,
    started_at: Option<i64>,
    estimated_nanousd: i64,
    failure: Option<String>,
    optimizations: String,
    same: String,
    deadline: Option<i64>,
    tried: String,
}

impl EventRow {
    fn event(self) -> Result<UsageEvent> {
        let money = |nanos| NanoUsd::from_nanos(nanos).ok_or_else(|| stored("an amount of money out of range"));
        let optional = |text: String| (!text.is_empty()).then_some(text);
        let lines = match self.lines_version {
            // As the accounts kept them.
            1 => serde_json::from_str(&self.lines)?,
            _ => serde_json::from_str::<Vec<StoredLine>>(&self.lines)?
                .into_iter()
                .map(StoredLine::line)
                .collect::<Result<_>>()?,
        };
        Ok(UsageEvent {
            event: self.event,
            request_id: self.request_id.parse().map_err(stored)?,
            client_id: self.client_id.parse().map_err(stored)?,
            kind: if self.kind == "reservation" { Kind::Reservation } else { Kind::Execution },
            status: self.status.parse().map_err(stored)?,
            template_id: optional(self.template_id),
            worker: optional(self.worker),
            model: optional(self.model),
            created_at: Instant::from_millis(self.created_at),
            at: Instant::from_millis(self.at),
            period_start: Instant::from_millis(self.period_start),
            cost: money(self.cost_nanousd)?,
            baseline: money(self.baseline_nanousd)?,
            uncertain: self.uncertain == 1,
            lines,
            urgency: self.urgency.parse().map_err(stored)?,
            attempts: self.attempts,
            started_at: self.started_at.map(Instant::from_millis),
            estimated: money(self.estimated_nanousd)?,
            failure: self.failure.map(|failure| serde_json::from_str(&failure)).transpose()?,
            same: optional(self.same),
            deadline: self.deadline.map(Instant::from_millis),
            tried: Strategy::ALL
                .into_iter()
                .filter(|strategy| self.tried.split(',').any(|name| name == strategy.as_str()))
                .collect(),
            optimizations: serde_json::from_str::<Vec<StoredOptimization>>(&self.optimizations)?
                .into_iter()
                .map(StoredOptimization::view)
                .collect::<Result<_>>()?,
        })
    }
}

/// A request that ended, from the record: its end, and what was charged late. `None` if it is not there (yet).
pub struct Recorded {
    /// The charge at its end.
    pub end: UsageEvent,
    /// The charge for use that was reported after that.
    pub late: Option<UsageEvent>,
}

/// Looks a request up.
pub async fn find(env: &Env, id: &RequestId) -> Result<Option<Recorded>> {
    let db = env.d1("DB")?;
    let statement =
        db.prepare("SELECT * FROM usage_events WHERE request_id = ? LIMIT 2").bind(&[id.as_str().into()])?;
    let rows = statement.all().await?.results::<EventRow>()?;
    let events = rows.into_iter().map(EventRow::event).collect::<Result<Vec<_>>>()?;
    let (mut end, late): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.event == id.as_str());
    Ok(end.pop().map(|end| Recorded { end, late: late.into_iter().next() }))
}

/// The last executions of a client that ended well from `from` to before `to`, at most `limit`.
pub async fn last_of_client(
    env: &Env,
    client: &ClientId,
    (from, to): (Instant, Instant),
    limit: u32,
) -> Result<Vec<UsageEvent>> {
    let query = format!(
        "SELECT * FROM usage_events WHERE client_id = ? AND at >= ? AND at < ? AND kind = 'execution' AND status = 'succeeded'
         ORDER BY at DESC LIMIT {limit}"
    );
    let bindings = [client.as_str().into(), number(from.millis()), number(to.millis())];
    let rows = env.d1("DB")?.prepare(query).bind(&bindings)?.all().await?.results::<EventRow>()?;
    rows.into_iter().map(EventRow::event).collect()
}
