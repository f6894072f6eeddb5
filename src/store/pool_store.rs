//! The SQLite of one `ResourcePool`.
//!
//! An execution is in two tables while it lives: `live` has what the scheduler changes, a small row; `execution` has
//! the rest, the input among it, and is written twice, when the request comes and when it ends.

use rm_core::fair_share::FairShare;
use rm_core::id::RequestId;
use rm_core::pool::{Changes, Ended, Lease, Pool, PoolConfig, PoolState, Stored};
use rm_core::request::{Request, Settlement};
use rm_core::units::Instant;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use worker::{Result, Storage};

use crate::host::sqlite::{Database, integer, optional_text, text};
use crate::wire::execution::Spec;
use crate::wire::payload::{Payload, StoredPayload};
use crate::wire::pool::ConsumeAnswer;

/// The version of these tables and of the JSON in them.
const VERSION: &str = "1";

const SCHEMA: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS live (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS execution (id TEXT PRIMARY KEY, spec TEXT NOT NULL, input TEXT NOT NULL,
       ended TEXT, result TEXT) WITHOUT ROWID",
    // What the steps of pipelines gave, for the steps after them.
    "CREATE TABLE IF NOT EXISTS step_output (id TEXT NOT NULL, step INTEGER NOT NULL, body TEXT NOT NULL,
       PRIMARY KEY (id, step)) WITHOUT ROWID",
    // The keys of reports of use, with their answers.
    "CREATE TABLE IF NOT EXISTS use_key (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer TEXT NOT NULL,
       at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS use_key_by_age ON use_key (at)",
    "CREATE TABLE IF NOT EXISTS lease (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS settlement (event TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
];

/// The store.
pub struct PoolStore {
    db: Database,
}

/// An execution as stored.
pub struct StoredExecution {
    pub spec: Spec,
    pub ended: Option<Ended>,
    pub result: Option<Payload>,
}

/// How long a key of a report of use counts: 24 hours.
const KEY_LIFE_MS: i64 = 86_400_000;

/// A key of a report of use.
pub struct UsedKey {
    pub fingerprint: String,
    pub answer: ConsumeAnswer,
}

/// What is stored together with the changes of an event.
#[derive(Default)]
pub struct Extra<'a> {
    pub new: Option<NewExecution<'a>>,
    pub result: Option<(&'a RequestId, &'a Payload)>,
    /// What a step of a pipeline gave.
    pub step_output: Option<(&'a RequestId, usize, &'a Payload)>,
}

/// A new request's row, to be stored together with the changes that it makes.
pub struct NewExecution<'a> {
    pub id: &'a RequestId,
    pub spec: &'a Spec,
    pub input: &'a Payload,
}

#[derive(Deserialize)]
struct Body {
    body: String,
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T> {
    Ok(serde_json::from_str(json)?)
}

fn payload(column: String) -> Result<Payload> {
    Ok(Payload::from_column(column)?)
}

impl PoolStore {
    /// Opens the store.
    pub fn open(storage: Storage) -> Result<Self> {
        Ok(Self { db: Database::open(storage, SCHEMA, VERSION)? })
    }

    /// The configuration that was last stored.
    pub fn config(&self) -> Result<Option<PoolConfig>> {
        self.db.meta("config")?.as_deref().map(parse).transpose()
    }

    /// Stores a configuration that was read for the first time.
    pub fn set_config(&self, config: &PoolConfig) -> Result<()> {
        self.db.set_meta("config", serde_json::to_string(config)?)
    }

    /// Everything that the pool needs to go on. The queue's cap bounds it.
    pub fn load(&self, config: PoolConfig) -> Result<Stored> {
        let bodies = |query: &str| -> Result<Vec<String>> {
            let rows: Vec<Body> = self.db.rows(query, vec![])?;
            Ok(rows.into_iter().map(|row| row.body).collect())
        };
        let live: Vec<Request> =
            bodies("SELECT body FROM live")?.iter().map(|body| parse(body)).collect::<Result<_>>()?;
        let leases: Vec<Lease> =
            bodies("SELECT body FROM lease")?.iter().map(|body| parse(body)).collect::<Result<_>>()?;
        Ok(Stored {
            config,
            state: self.db.meta("state")?.as_deref().map(parse::<PoolState>).transpose()?,
            fairness: self.db.meta("fairness")?.as_deref().map(parse::<FairShare>).transpose()?.unwrap_or_default(),
            requests: live,
            leases,
            unsettled: bodies("SELECT event AS body FROM settlement")?,
        })
    }

    /// Stores what an event changed, all or nothing.
    pub fn save(&self, pool: &Pool, changes: &Changes, extra: &Extra<'_>) -> Result<()> {
        let Extra { new, result, step_output } = extra;
        self.db.transaction(|| {
            if changes.config {
                self.db.set_meta("config", serde_json::to_string(pool.config())?)?;
            }
            if changes.state {
                self.db.set_meta("state", serde_json::to_string(pool.state())?)?;
            }
            if let Some(new) = new {
                self.insert_execution(new)?;
            }
            if let Some((id, step, output)) = step_output {
                self.db.run(
                    "INSERT INTO step_output (id, step, body) VALUES (?, ?, ?)
                     ON CONFLICT (id, step) DO UPDATE SET body = excluded.body",
                    vec![text(id.as_str()), integer(i64::try_from(*step).unwrap_or(0))?, text(output.to_column()?)],
                )?;
            }
            for id in &changes.requests {
                match pool.request(id) {
                    Some(request) => self.put("live", "id", id.as_str(), request)?,
                    None => self.delete("live", "id", id.as_str())?,
                }
            }
            for id in &changes.dropped {
                self.delete("live", "id", id.as_str())?;
                self.delete("execution", "id", id.as_str())?;
            }
            for ended in &changes.ended {
                let id = &ended.request.id;
                if pool.request(id).is_none() {
                    self.delete("live", "id", id.as_str())?;
                }
                self.end(ended, result.filter(|(of, _)| *of == id).map(|(_, result)| result))?;
            }
            for late in &changes.late {
                self.charge_late(late)?;
            }
            for key in &changes.leases {
                match pool.lease(key) {
                    Some(lease) => self.put("lease", "key", key, lease)?,
                    None => self.delete("lease", "key", key)?,
                }
            }
            for settlement in &changes.settlements {
                self.put("settlement", "event", &settlement.event, settlement)?;
            }
            for event in &changes.settled {
                self.delete("settlement", "event", event)?;
            }
            Ok(())
        })
    }

    fn insert_execution(&self, new: &NewExecution<'_>) -> Result<()> {
        self.db.run(
            "INSERT INTO execution (id, spec, input) VALUES (?, ?, ?)",
            vec![text(new.id.as_str()), text(serde_json::to_string(new.spec)?), text(new.input.to_column()?)],
        )
    }

    fn put(&self, table: &'static str, key_column: &'static str, key: &str, body: &impl Serialize) -> Result<()> {
        self.db.run(
            &format!(
                "INSERT INTO {table} ({key_column}, body) VALUES (?, ?)
                 ON CONFLICT ({key_column}) DO UPDATE SET body = excluded.body"
            ),
            vec![text(key), text(serde_json::to_string(body)?)],
        )
    }

    fn delete(&self, table: &'static str, key_column: &'static str, key: &str) -> Result<()> {
        self.db.run(&format!("DELETE FROM {table} WHERE {key_column} = ?"), vec![text(key)])
    }

    fn end(&self, ended: &Ended, result: Option<&Payload>) -> Result<()> {
        if let Some(other) = &ended.result_of {
            return self.db.run(
                "UPDATE execution SET ended = ?, result = (SELECT result FROM execution WHERE id = ?)
                 WHERE id = ? AND ended IS NULL",
                vec![text(serde_json::to_string(ended)?), text(other.as_str()), text(ended.request.id.as_str())],
            );
        }
        self.db.run(
            "UPDATE execution SET ended = ?, result = ? WHERE id = ? AND ended IS NULL",
            vec![
                text(serde_json::to_string(ended)?),
                optional_text(result.map(Payload::to_column).transpose()?),
                text(ended.request.id.as_str()),
            ],
        )
    }

    /// The end stays as it was; only what it costs is known now.
    fn charge_late(&self, late: &Ended) -> Result<()> {
        let Some(mut stored) = self.execution(&late.request.id)?.and_then(|execution| execution.ended) else {
            return Ok(());
        };
        stored.request.clone_from(&late.request);
        stored.end.lines.clone_from(&late.end.lines);
        stored.end.cost = late.end.cost;
        stored.end.uncertain = late.end.uncertain;
        self.db.run(
            "UPDATE execution SET ended = ? WHERE id = ?",
            vec![text(serde_json::to_string(&stored)?), text(late.request.id.as_str())],
        )
    }

    /// An execution, ended or not.
    pub fn execution(&self, id: &RequestId) -> Result<Option<StoredExecution>> {
        #[derive(Deserialize)]
        struct Row {
            spec: String,
            ended: Option<String>,
            result: Option<String>,
        }
        let query = "SELECT spec, ended, result FROM execution WHERE id = ? LIMIT 1";
        let Some(row) = self.db.row::<Row>(query, vec![text(id.as_str())])? else { return Ok(None) };
        Ok(Some(StoredExecution {
            spec: parse(&row.spec)?,
            ended: row.ended.as_deref().map(parse).transpose()?,
            result: row.result.map(payload).transpose()?,
        }))
    }

    /// A request's input.
    pub fn input(&self, id: &RequestId) -> Result<Option<Payload>> {
        let query = "SELECT input AS body FROM execution WHERE id = ? LIMIT 1";
        self.db.row::<Body>(query, vec![text(id.as_str())])?.map(|row| payload(row.body)).transpose()
    }

    /// What a step of a pipeline gave.
    pub fn step_output(&self, id: &RequestId, step: usize) -> Result<Option<Payload>> {
        let query = "SELECT body FROM step_output WHERE id = ? AND step = ? LIMIT 1";
        let key = vec![text(id.as_str()), integer(i64::try_from(step).unwrap_or(0))?];
        self.db.row::<Body>(query, key)?.map(|row| payload(row.body)).transpose()
    }

    /// What a key of a report of use was used for in the last 24 hours.
    pub fn use_key(&self, key: &str, now: Instant) -> Result<Option<UsedKey>> {
        #[derive(Deserialize)]
        struct Row {
            fingerprint: String,
            answer: String,
        }
        let query = "SELECT fingerprint, answer FROM use_key WHERE key = ? AND at > ? LIMIT 1";
        let since = now.plus(KEY_LIFE_MS.saturating_neg());
        let Some(row) = self.db.row::<Row>(query, vec![text(key), integer(since.millis())?])? else { return Ok(None) };
        Ok(Some(UsedKey { fingerprint: row.fingerprint, answer: parse(&row.answer)? }))
    }

    /// Keeps a key of a report of use, with its answer.
    pub fn put_use_key(&self, key: &str, fingerprint: &str, answer: &ConsumeAnswer, now: Instant) -> Result<()> {
        self.db.run(
            "INSERT INTO use_key (key, fingerprint, answer, at) VALUES (?, ?, ?, ?)
             ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer, at = excluded.at",
            vec![text(key), text(fingerprint), text(serde_json::to_string(answer)?), integer(now.millis())?],
        )
    }

    /// Forgets keys that are too old to count.
    pub fn sweep_use_keys(&self, now: Instant) -> Result<()> {
        let before = now.plus(KEY_LIFE_MS.saturating_neg());
        self.db.run(
            "DELETE FROM use_key WHERE key IN (SELECT key FROM use_key WHERE at <= ? ORDER BY at LIMIT 1000)",
            vec![integer(before.millis())?],
        )
    }

    /// A settlement that is not confirmed.
    pub fn settlement(&self, event: &str) -> Result<Option<Settlement>> {
        let query = "SELECT body FROM settlement WHERE event = ? LIMIT 1";
        self.db.row::<Body>(query, vec![text(event)])?.map(|row| parse(&row.body)).transpose()
    }

    /// Stores who was granted what lately. It is soft: after a crash the last minute of it is missing.
    pub fn save_fairness(&self, fairness: &FairShare) -> Result<()> {
        self.db.set_meta("fairness", serde_json::to_string(fairness)?)
    }

    /// Deletes executions that ended before `since` and are settled; at most `limit`. What ended was made before, and ids
    /// sort by time, so the primary key finds them: `first_id` is the first that `since` could have. Answers with how
    /// many they were, and what they had in R2.
    pub fn sweep(&self, since: Instant, first_id: &RequestId, limit: i64) -> Result<(usize, Vec<StoredPayload>)> {
        #[derive(Deserialize)]
        struct Row {
            id: String,
            input: Option<String>,
            result: Option<String>,
        }
        let rows: Vec<Row> = self.db.rows(
            "DELETE FROM execution WHERE id IN (
               SELECT e.id FROM execution e WHERE e.id < ? AND e.ended IS NOT NULL
                 AND json_extract(e.ended, '$.end.finishedAt') < ?
                 AND NOT EXISTS (SELECT 1 FROM live l WHERE l.id = e.id)
                 AND NOT EXISTS (SELECT 1 FROM settlement s WHERE s.event = e.id)
               ORDER BY e.id LIMIT ?)
             RETURNING id, CASE WHEN input LIKE '@r2:%' THEN input END AS input,
               CASE WHEN result LIKE '@r2:%' THEN result END AS result",
            vec![text(first_id.as_str()), integer(since.millis())?, integer(limit)?],
        )?;
        let count = rows.len();
        let mut stored = Vec::new();
        for row in rows {
            let outputs = "DELETE FROM step_output WHERE id = ?
              RETURNING CASE WHEN body LIKE '@r2:%' THEN body ELSE 'null' END AS body";
            let outputs: Vec<Body> = self.db.rows(outputs, vec![text(row.id)])?;
            let columns = [row.input, row.result].into_iter().flatten();
            for column in columns.chain(outputs.into_iter().map(|output| output.body)) {
                if let Payload::Stored(found) = payload(column)? {
                    stored.push(found);
                }
            }
        }
        Ok((count, stored))
    }

    /// The pool is let go of: its configuration will come from D1 again, if it is there. Level and ledger stay.
    pub fn forget_config(&self) -> Result<()> {
        self.db.run("DELETE FROM meta WHERE key = 'config'", vec![])
    }

    /// Whether a request was ever submitted here and is still kept.
    pub fn knows(&self, id: &RequestId) -> Result<bool> {
        Ok(self
            .db
            .row::<Body>("SELECT id AS body FROM execution WHERE id = ? LIMIT 1", vec![text(id.as_str())])?
            .is_some())
    }
}

/// The smallest id of a request made at `at`.
pub fn first_id_at(at: Instant, pool: &rm_core::id::PoolId) -> RequestId {
    RequestId::new(at, [0; 10], pool)
}
