//! Alerts in D1. Opening what is open and resolving what is resolved change nothing, so whoever sees a condition may say
//! so at any time.

use std::collections::BTreeSet;

use rm_core::alert::AlertKind;
use rm_core::id::ClientId;
use rm_core::units::Instant;
use serde::Deserialize;
use wasm_bindgen::JsValue;
use worker::{D1PreparedStatement, Env, Result};

use crate::store::catalog::number;
use crate::wire::alert::{AlertFilter, AlertView, Severity};

/// A cause that comes back within this is the same alert again.
const WINDOW_MS: i64 = 3_600_000;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub kind: AlertKind,
    /// Which pool, client, worker or model.
    pub subject: String,
    /// Which mark was passed, where there are several; 0 otherwise.
    pub threshold: u8,
    /// The window's beginning, if it is not the hour.
    pub window: Option<Instant>,
}

impl Cause {
    /// A cause without marks.
    pub fn new(kind: AlertKind, what: &str, name: &str) -> Self {
        Self { kind, subject: format!("{what}:{name}"), threshold: 0, window: None }
    }
}

/// Opens an alert, unless it is open. `is_new` in what [`run`] answers says whether it was not.
pub fn open(env: &Env, cause: &Cause, severity: Severity, message: &str, now: Instant) -> Result<D1PreparedStatement> {
    let hour = now.millis().saturating_sub(now.millis().checked_rem(WINDOW_MS).unwrap_or(0));
    let window = cause.window.map_or(hour, Instant::millis);
    env.d1("DB")?
        .prepare(
            "INSERT INTO alerts (kind, subject, threshold, window_start, status, severity, message, opened_at, deliver_at)
             SELECT ?1, ?2, ?3, ?4, 'open', ?5, ?6, ?7, ?7
             WHERE NOT EXISTS (SELECT 1 FROM alerts WHERE kind = ?1 AND subject = ?2 AND threshold = ?3 AND status = 'open')
             ON CONFLICT (kind, subject, threshold, window_start) DO UPDATE SET status = 'open', resolved_at = NULL,
               severity = excluded.severity, message = excluded.message, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = excluded.deliver_at
             WHERE status = 'resolved'",
        )
        .bind(&[
            cause.kind.as_str().into(),
            cause.subject.as_str().into(),
            cause.threshold.into(),
            number(window),
            severity.as_str().into(),
            message.into(),
            number(now.millis()),
        ])
}

/// Resolves a cause's open alert, if there is one.
pub fn resolve(env: &Env, cause: &Cause, now: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET status = 'resolved', resolved_at = ?1, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = ?1 WHERE kind = ?2 AND subject = ?3 AND threshold = ?4 AND status = 'open'",
        )
        .bind(&[
            number(now.millis()),
            cause.kind.as_str().into(),
            cause.subject.as_str().into(),
            cause.threshold.into(),
        ])
}

/// Resolves whatever is open about something that is not there any more.
pub fn resolve_subject(env: &Env, subject: &str, now: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET status = 'resolved', resolved_at = ?1, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = ?1 WHERE subject = ?2 AND status = 'open'",
        )
        .bind(&[number(now.millis()), subject.into()])
}

/// Resolves whatever is open about pools and clients that are not there any more.
pub fn resolve_orphans(env: &Env, now: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET status = 'resolved', resolved_at = ?1, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = ?1 WHERE status = 'open' AND (
                 (subject GLOB 'pool:*' AND NOT EXISTS (SELECT 1 FROM pools WHERE pool = substr(subject, 6))) OR
                 (subject GLOB 'client:*' AND NOT EXISTS (SELECT 1 FROM clients WHERE client_id = substr(subject, 8))))",
        )
        .bind(&[number(now.millis())])
}

/// Resolves a client's budget alerts of other months than `month`, and those whose mark is above `reached`.
pub fn resolve_budgets(
    env: &Env,
    subject: &str,
    month: Instant,
    reached: u8,
    now: Instant,
) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET status = 'resolved', resolved_at = ?1, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = ?1 WHERE kind = ?2 AND subject = ?3 AND status = 'open' AND (window_start <> ?4 OR threshold > ?5)",
        )
        .bind(&[
            number(now.millis()),
            AlertKind::BudgetExceeded.as_str().into(),
            subject.into(),
            number(month.millis()),
            reached.into(),
        ])
}

/// Resolves the open alerts of a kind whose causes were not seen since `since`.
pub fn resolve_if_older(env: &Env, kind: AlertKind, since: Instant, now: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET status = 'resolved', resolved_at = ?1, sequence = sequence + 1, delivery_tries = 0,
               deliver_at = ?1 WHERE kind = ?2 AND status = 'open' AND coalesce(seen_at, opened_at) < ?3",
        )
        .bind(&[number(now.millis()), kind.as_str().into(), number(since.millis())])
}

/// Deletes alerts that were resolved before `before`, some at a time.
pub fn sweep(env: &Env, before: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare(
            "DELETE FROM alerts WHERE resolved_at < ? AND alert_id IN
               (SELECT alert_id FROM alerts WHERE status = 'resolved' ORDER BY alert_id LIMIT 200)",
        )
        .bind(&[number(before.millis())])
}

/// Notes that an open alert's cause was seen again.
pub fn seen(env: &Env, cause: &Cause, now: Instant) -> Result<D1PreparedStatement> {
    env.d1("DB")?
        .prepare("UPDATE alerts SET seen_at = ? WHERE kind = ? AND subject = ? AND threshold = ? AND status = 'open'")
        .bind(&[
            number(now.millis()),
            cause.kind.as_str().into(),
            cause.subject.as_str().into(),
            cause.threshold.into(),
        ])
}

/// Runs statements, some at a time: each says what is, so none depends on another.
pub async fn run(env: &Env, statements: Vec<D1PreparedStatement>) -> Result<()> {
    const AT_ONCE: usize = 50;
    let db = env.d1("DB")?;
    let mut statements = statements.into_iter().peekable();
    while statements.peek().is_some() {
        db.batch(statements.by_ref().take(AT_ONCE).collect()).await?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct AlertRow {
    alert_id: i64,
    kind: String,
    subject: String,
    threshold: u8,
    status: String,
    severity: String,
    message: String,
    opened_at: i64,
    resolved_at: Option<i64>,
    sequence: i64,
    delivery_tries: u32,
    delivered: i64,
}

const COLUMNS: &str = "alert_id, kind, subject, threshold, status, severity, message, opened_at, resolved_at, sequence,
  delivery_tries, delivered";

impl AlertRow {
    fn view(self) -> AlertView {
        AlertView {
            alert_id: self.alert_id,
            kind: self.kind,
            subject: self.subject,
            threshold: (self.threshold > 0).then_some(self.threshold),
            status: self.status,
            severity: self.severity,
            message: self.message,
            opened_at: Instant::from_millis(self.opened_at),
            resolved_at: self.resolved_at.map(Instant::from_millis),
            sequence: self.sequence,
        }
    }
}

/// Alerts, the newest first, up to `limit` that are older than `before`; with `only_client`, none about another client.
pub async fn list(
    env: &Env,
    filter: AlertFilter,
    only_client: Option<&ClientId>,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<AlertView>> {
    let before = before.unwrap_or(rm_core::decimal::MAX_EXACT);
    let db = env.d1("DB")?;
    let status = match filter {
        AlertFilter::Open => Some("open"),
        AlertFilter::Resolved => Some("resolved"),
        AlertFilter::All => None,
    };
    let whose = "(?2 IS NULL OR subject NOT GLOB 'client:*' OR subject = ?2)";
    let order = format!("{whose} ORDER BY alert_id DESC LIMIT {limit}");
    let subject = only_client.map_or(JsValue::NULL, |client| format!("client:{client}").into());
    let statement = match status {
        Some(status) => db
            .prepare(format!("SELECT {COLUMNS} FROM alerts WHERE status = ?3 AND alert_id < ?1 AND {order}"))
            .bind(&[number(before), subject, status.into()])?,
        None => db
            .prepare(format!("SELECT {COLUMNS} FROM alerts WHERE alert_id < ?1 AND {order}"))
            .bind(&[number(before), subject])?,
    };
    Ok(statement.all().await?.results::<AlertRow>()?.into_iter().map(AlertRow::view).collect())
}

/// An alert whose state its receiver does not know.
pub struct Due {
    pub alert: AlertView,
    pub tries: u32,
    /// The last state that it does know.
    pub delivered: i64,
}

/// What has been due for longer than this is not delivered any more: a webhook that is set up is not told of last month.
const DELIVERY_LIFE_MS: i64 = 86_400_000;

/// Takes what is due for delivery, up to `limit`, and puts each off to `put_off`, so that no other tick delivers the same.
pub async fn take_due(env: &Env, now: Instant, put_off: Instant, limit: u32) -> Result<Vec<Due>> {
    let db = env.d1("DB")?;
    let statement = db
        .prepare(format!(
            "UPDATE alerts SET deliver_at = ?, delivery_tries = delivery_tries + 1 WHERE alert_id IN
               (SELECT alert_id FROM alerts WHERE deliver_at BETWEEN ? AND ? ORDER BY deliver_at LIMIT {limit})
             RETURNING {COLUMNS}"
        ))
        .bind(&[number(put_off.millis()), number(now.plus(-DELIVERY_LIFE_MS).millis()), number(now.millis())])?;
    let rows = statement.all().await?.results::<AlertRow>()?;
    Ok(rows
        .into_iter()
        .map(|row| Due { tries: row.delivery_tries, delivered: row.delivered, alert: row.view() })
        .collect())
}

/// The receiver took an alert's state. If the state has changed since, the change stays due.
pub async fn delivered(env: &Env, alert: &AlertView) -> Result<()> {
    env.d1("DB")?
        .prepare(
            "UPDATE alerts SET delivered = ?1, deliver_at = CASE WHEN sequence = ?1 THEN NULL ELSE deliver_at END
             WHERE alert_id = ?2",
        )
        .bind(&[number(alert.sequence), number(alert.alert_id)])?
        .run()
        .await?;
    Ok(())
}

/// When to try again; never, if it is `None`.
pub async fn retry_at(env: &Env, alert: &AlertView, at: Option<Instant>) -> Result<()> {
    env.d1("DB")?
        .prepare("UPDATE alerts SET deliver_at = ? WHERE alert_id = ? AND sequence = ?")
        .bind(&[at.map_or(JsValue::NULL, |at| number(at.millis())), number(alert.alert_id), number(alert.sequence)])?
        .run()
        .await?;
    Ok(())
}

/// Which alerts about `what` (`pool`, `client`, …) are open: their kinds and subjects.
pub async fn open_about(env: &Env, what: &str, limit: u32) -> Result<BTreeSet<(String, String)>> {
    #[derive(Deserialize)]
    struct Row {
        kind: String,
        subject: String,
    }
    let query = format!("SELECT kind, subject FROM alerts WHERE status = 'open' AND subject GLOB ? LIMIT {limit}");
    let rows = env.d1("DB")?.prepare(query).bind(&[format!("{what}:*").into()])?.all().await?.results::<Row>()?;
    Ok(rows.into_iter().map(|row| (row.kind, row.subject)).collect())
}

/// How many alerts of each kind are open.
pub async fn open_by_kind(env: &Env) -> Result<Vec<(String, u64)>> {
    #[derive(Deserialize)]
    struct Row {
        kind: String,
        count: u64,
    }
    let query = "SELECT kind, count(*) AS count FROM alerts WHERE status = 'open' GROUP BY kind LIMIT 20";
    let rows = env.d1("DB")?.prepare(query).all().await?.results::<Row>()?;
    Ok(rows.into_iter().map(|row| (row.kind, row.count)).collect())
}
