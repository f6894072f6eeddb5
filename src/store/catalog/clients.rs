//! Clients, with what their tiers add.

use rm_core::account::{AccountConfig, ClientStatus};
use rm_core::id::ClientId;
use rm_core::units::NanoUsd;
use serde::Deserialize;
use wasm_bindgen::JsValue;
use worker::{Env, Result};

use crate::store::catalog::{number, stored};
use crate::wire::admin::{ClientBody, ClientRecord};

const SELECT_CLIENTS: &str = "SELECT c.client_id, c.name, c.tier,
  coalesce(c.monthly_budget_nanousd, t.monthly_budget_nanousd, 0) AS budget_nanousd,
  coalesce(c.max_concurrent, t.max_concurrent) AS max_concurrent, c.time_zone, c.status, c.revision
  FROM clients c JOIN tiers t ON t.tier = c.tier";

#[derive(Deserialize)]
struct ClientRow {
    client_id: String,
    name: String,
    tier: String,
    budget_nanousd: i64,
    max_concurrent: u32,
    time_zone: String,
    status: String,
    revision: i64,
}

impl ClientRow {
    fn record(self) -> Result<ClientRecord> {
        Ok(ClientRecord {
            client_id: self.client_id.parse().map_err(stored)?,
            name: self.name,
            tier: self.tier.parse().map_err(stored)?,
            monthly_budget_usd: NanoUsd::from_nanos(self.budget_nanousd)
                .ok_or_else(|| stored("a budget out of range"))?,
            max_concurrent: self.max_concurrent,
            time_zone: self.time_zone,
            status: if self.status == "suspended" { ClientStatus::Suspended } else { ClientStatus::Active },
            revision: self.revision,
        })
    }
}

impl ClientRecord {
    /// What the client's account needs of it.
    pub fn account_config(&self) -> AccountConfig {
        AccountConfig {
            client: self.client_id.clone(),
            tier: self.tier,
            budget: self.monthly_budget_usd,
            max_concurrent: self.max_concurrent,
            time_zone: self.time_zone.clone(),
            status: self.status,
            revision: self.revision,
        }
    }
}

/// A client, as it is in D1 now.
pub async fn client(env: &Env, id: &ClientId) -> Result<Option<ClientRecord>> {
    let db = env.d1("DB")?;
    let statement =
        db.prepare(format!("{SELECT_CLIENTS} WHERE c.client_id = ? LIMIT 1")).bind(&[id.as_str().into()])?;
    statement.first::<ClientRow>(None).await?.map(ClientRow::record).transpose()
}

/// Up to `limit` clients after `after`, in the order of their ids.
pub async fn clients_after(env: &Env, after: &str, limit: u32) -> Result<Vec<ClientRecord>> {
    let db = env.d1("DB")?;
    let query = format!("{SELECT_CLIENTS} WHERE c.client_id > ? ORDER BY c.client_id LIMIT {limit}");
    let rows = db.prepare(query).bind(&[after.into()])?.all().await?.results::<ClientRow>()?;
    rows.into_iter().map(ClientRow::record).collect()
}

/// Stores a client. The same again changes nothing.
pub async fn put_client(env: &Env, id: &ClientId, body: &ClientBody) -> Result<()> {
    let optional = |value: Option<i64>| value.map_or(JsValue::NULL, number);
    let status = match body.status {
        ClientStatus::Active => "active",
        ClientStatus::Suspended => "suspended",
    };
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO clients (client_id, name, tier, monthly_budget_nanousd, max_concurrent, time_zone, status)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, tier = excluded.tier,
           monthly_budget_nanousd = excluded.monthly_budget_nanousd, max_concurrent = excluded.max_concurrent,
           time_zone = excluded.time_zone, status = excluded.status, revision = revision + 1
         WHERE (name, tier, monthly_budget_nanousd, max_concurrent, time_zone, status)
           IS NOT (excluded.name, excluded.tier, excluded.monthly_budget_nanousd, excluded.max_concurrent,
                excluded.time_zone, excluded.status)",
    )
    .bind(&[
        id.as_str().into(),
        body.name.as_str().into(),
        body.tier.as_str().into(),
        optional(body.monthly_budget_usd.map(NanoUsd::nanos)),
        optional(body.max_concurrent.map(i64::from)),
        body.time_zone.as_str().into(),
        status.into(),
    ])?
    .run()
    .await?;
    Ok(())
}

/// Deletes a client. Its record of usage stays.
pub async fn delete_client(env: &Env, id: &ClientId) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare("DELETE FROM clients WHERE client_id = ?").bind(&[id.as_str().into()])?.run().await?;
    Ok(())
}
