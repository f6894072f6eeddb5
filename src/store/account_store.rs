//! The SQLite of one `ClientAccount`.

use std::collections::BTreeMap;

use rm_core::account::{Account, AccountChanges, AccountConfig, Hold, PeriodTotals};
use rm_core::id::RequestId;
use rm_core::units::{Instant, NanoUsd};
use serde::{Deserialize, de::DeserializeOwned};
use worker::{Error, Result, Storage};

use crate::host::sqlite::{Database, integer, text};
use crate::store::record::UsageEvent;
use crate::wire::account::Idempotency;

/// The version of these tables and of the JSON in them.
const VERSION: &str = "1";

const SCHEMA: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS period (start INTEGER PRIMARY KEY, spent INTEGER NOT NULL, held INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS hold (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    // What was charged, until D1 has it, and then as long as a repetition of it could still come.
    "CREATE TABLE IF NOT EXISTS charge (event TEXT PRIMARY KEY, at INTEGER NOT NULL, body TEXT) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS charge_to_send ON charge (at) WHERE body IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS idempotency (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, id TEXT NOT NULL,
       at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS idempotency_by_id ON idempotency (id)",
];

/// How long an idempotency key is remembered: a day.
pub const KEY_LIFE_MS: i64 = 86_400_000;
/// How long a charge that D1 has is remembered, so that its repetition is recognised.
const CHARGE_LIFE_MS: i64 = 3 * 86_400_000;
/// The most charges sent to D1 at once: each takes one statement of a batch.
pub const SEND_MAX: usize = 50;

/// The store.
pub struct AccountStore {
    db: Database,
}

/// What a key was used for.
pub struct KeyUse {
    pub fingerprint: String,
    pub id: RequestId,
    pub at: Instant,
}

#[derive(Deserialize)]
struct Body {
    body: String,
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T> {
    Ok(serde_json::from_str(json)?)
}

impl AccountStore {
    /// Opens the store.
    pub fn open(storage: Storage) -> Result<Self> {
        Ok(Self { db: Database::open(storage, SCHEMA, VERSION)? })
    }

    /// The configuration that was last stored.
    pub fn config(&self) -> Result<Option<AccountConfig>> {
        self.db.meta("config")?.as_deref().map(parse).transpose()
    }

    /// Stores a configuration that was read for the first time.
    pub fn set_config(&self, config: &AccountConfig) -> Result<()> {
        self.db.set_meta("config", serde_json::to_string(config)?)
    }

    /// Whether the client was deleted.
    pub fn is_closed(&self) -> Result<bool> {
        Ok(self.db.meta("closed")?.is_some())
    }

    /// The client was deleted, or is there again. What was spent stays.
    pub fn set_closed(&self, closed: bool) -> Result<()> {
        match closed {
            true => self.db.set_meta("closed", "1"),
            false => self.db.run("DELETE FROM meta WHERE key = 'closed'", vec![]),
        }
    }

    /// What was kept of the client's results by then is not to be used any more.
    pub fn purged_at(&self) -> Result<Option<Instant>> {
        Ok(self.db.meta("purged_at")?.and_then(|at| at.parse().ok()).map(Instant::from_millis))
    }

    /// Sets that.
    pub fn set_purged_at(&self, at: Instant) -> Result<()> {
        self.db.set_meta("purged_at", at.millis().to_string())
    }

    /// The totals of the last periods and all holds.
    pub fn load(&self) -> Result<(BTreeMap<Instant, PeriodTotals>, Vec<Hold>)> {
        #[derive(Deserialize)]
        struct Row {
            start: i64,
            spent: i64,
            held: i64,
        }
        // A hold may be settled in the period before; two more are kept for late reports.
        let rows: Vec<Row> =
            self.db.rows("SELECT start, spent, held FROM period ORDER BY start DESC LIMIT 4", vec![])?;
        let money =
            |nanos| NanoUsd::from_nanos(nanos).ok_or_else(|| Error::RustError("an amount is out of range".into()));
        let mut periods = BTreeMap::new();
        for row in rows {
            let totals = PeriodTotals { spent: money(row.spent)?, held: money(row.held)? };
            periods.insert(Instant::from_millis(row.start), totals);
        }
        let bodies: Vec<Body> = self.db.rows("SELECT body FROM hold", vec![])?;
        let holds = bodies.iter().map(|row| parse(&row.body)).collect::<Result<_>>()?;
        Ok((periods, holds))
    }

    /// Stores what an event changed, all or nothing.
    pub fn save(
        &self,
        account: &Account,
        changes: &AccountChanges,
        key: Option<(&Idempotency, &RequestId, Instant)>,
        charge: Option<&UsageEvent>,
        forget_key_of: Option<&RequestId>,
    ) -> Result<()> {
        self.db.transaction(|| {
            if changes.config {
                self.db.set_meta("config", serde_json::to_string(account.config())?)?;
            }
            for start in &changes.periods {
                let totals = account.totals(*start);
                self.db.run(
                    "INSERT INTO period (start, spent, held) VALUES (?, ?, ?)
                     ON CONFLICT (start) DO UPDATE SET spent = excluded.spent, held = excluded.held",
                    vec![integer(start.millis())?, integer(totals.spent.nanos())?, integer(totals.held.nanos())?],
                )?;
            }
            for id in &changes.holds {
                match account.held_for(id) {
                    Some(hold) => self.db.run(
                        "INSERT INTO hold (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                        vec![text(id.as_str()), text(serde_json::to_string(hold)?)],
                    )?,
                    None => self.db.run("DELETE FROM hold WHERE id = ?", vec![text(id.as_str())])?,
                }
            }
            if let Some((key, id, at)) = key {
                self.db.run(
                    "INSERT INTO idempotency (key, fingerprint, id, at) VALUES (?, ?, ?, ?)
                     ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, id = excluded.id, at = excluded.at",
                    vec![text(key.key.as_str()), text(key.fingerprint.as_str()), text(id.as_str()), integer(at.millis())?],
                )?;
            }
            if let Some(charge) = charge {
                self.db.run(
                    "INSERT INTO charge (event, at, body) VALUES (?, ?, ?)",
                    vec![text(charge.event.as_str()), integer(charge.at.millis())?, text(serde_json::to_string(charge)?)],
                )?;
            }
            if let Some(id) = forget_key_of {
                self.db.run("DELETE FROM idempotency WHERE id = ?", vec![text(id.as_str())])?;
            }
            Ok(())
        })
    }

    /// What a key was used for in the last day.
    pub fn key_use(&self, key: &str, now: Instant) -> Result<Option<KeyUse>> {
        #[derive(Deserialize)]
        struct Row {
            fingerprint: String,
            id: String,
            at: i64,
        }
        let query = "SELECT fingerprint, id, at FROM idempotency WHERE key = ? AND at > ? LIMIT 1";
        let since = now.plus(KEY_LIFE_MS.saturating_neg());
        let Some(row) = self.db.row::<Row>(query, vec![text(key), integer(since.millis())?])? else { return Ok(None) };
        let id = row.id.parse().map_err(|_| Error::RustError("a stored request id is malformed".into()))?;
        Ok(Some(KeyUse { fingerprint: row.fingerprint, id, at: Instant::from_millis(row.at) }))
    }

    /// Whether a charge was made before.
    pub fn is_charged(&self, event: &str) -> Result<bool> {
        let row: Option<Body> =
            self.db.row("SELECT event AS body FROM charge WHERE event = ? LIMIT 1", vec![text(event)])?;
        Ok(row.is_some())
    }

    /// Charges that D1 has not got, the oldest first.
    pub fn charges_to_send(&self) -> Result<Vec<UsageEvent>> {
        let limit = i64::try_from(SEND_MAX).unwrap_or(i64::MAX);
        let query = "SELECT body FROM charge WHERE body IS NOT NULL ORDER BY at LIMIT ?";
        let rows: Vec<Body> = self.db.rows(query, vec![integer(limit)?])?;
        rows.iter().map(|row| parse(&row.body)).collect()
    }

    /// D1 has these charges.
    pub fn sent(&self, events: &[UsageEvent]) -> Result<()> {
        self.db.transaction(|| {
            for event in events {
                self.db.run("UPDATE charge SET body = NULL WHERE event = ?", vec![text(event.event.as_str())])?;
            }
            Ok(())
        })
    }

    /// Forgets what is too old to be asked for; a bounded number.
    pub fn sweep(&self, now: Instant) -> Result<()> {
        let before = |life: i64| integer(now.plus(life.saturating_neg()).millis());
        self.db.run(
            "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE at < ? LIMIT 500)",
            vec![before(KEY_LIFE_MS)?],
        )?;
        self.db.run(
            "DELETE FROM charge WHERE event IN (SELECT event FROM charge WHERE body IS NULL AND at < ? LIMIT 500)",
            vec![before(CHARGE_LIFE_MS)?],
        )?;
        self.db.run("DELETE FROM period WHERE start < ? AND held = 0", vec![before(200 * 86_400_000)?])
    }
}
