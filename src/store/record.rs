//! The record of usage in D1. Accounts send to it from their outbox; roll-ups follow by triggers.

use rm_core::id::ClientId;
use rm_core::id::RequestId;
use rm_core::request::{Kind, Line, Status};
use rm_core::units::{Instant, NanoUsd};
use serde::{Deserialize, Serialize};
use worker::{Env, Result};

use crate::store::catalog::number;

/// One charge.
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
        let statement = db
            .prepare(
                "INSERT INTO usage_events (event, request_id, client_id, kind, status, template_id, worker, model,
                   created_at, at, period_start, cost_nanousd, baseline_nanousd, uncertain, lines)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event) DO NOTHING",
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
                serde_json::to_string(&event.lines)?.into(),
            ])?;
        statements.push(statement);
    }
    db.batch(statements).await?;
    Ok(())
}
