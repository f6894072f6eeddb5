//! Templates.

use rm_core::id::TemplateId;
use rm_core::units::Instant;
use serde::Deserialize;
use worker::{Env, Result};

use crate::store::catalog::{Catalog, ROWS_MAX, forget, number, stored};
use crate::wire::admin::{TemplateBody, TemplateRecord};

#[derive(Deserialize)]
pub(super) struct TemplateRow {
    template_id: String,
    body: String,
    purged_at: Option<i64>,
}

impl TemplateRow {
    pub(super) fn select() -> String {
        format!("SELECT template_id, body, purged_at FROM templates ORDER BY template_id LIMIT {ROWS_MAX}")
    }

    pub(super) fn parsed(self) -> Result<(TemplateId, TemplateBody, Option<Instant>)> {
        let purged_at = self.purged_at.map(Instant::from_millis);
        Ok((self.template_id.parse().map_err(stored)?, serde_json::from_str(&self.body)?, purged_at))
    }
}

/// Stores a template. The same again changes nothing.
pub async fn put_template(env: &Env, template: &TemplateId, body: &TemplateBody, now: Instant) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO templates (template_id, body, purged_at) VALUES (?, ?, ?)
         ON CONFLICT (template_id) DO UPDATE SET body = excluded.body, revision = revision + 1
         WHERE body IS NOT excluded.body",
    )
    // What was kept of an earlier one of this name is not its.
    .bind(&[template.as_str().into(), serde_json::to_string(body)?.into(), number(now.millis())])?
    .run()
    .await?;
    forget();
    Ok(())
}

/// What was kept of the template's results until now is not to be used any more.
pub async fn purge_template(env: &Env, template: &TemplateId, now: Instant) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare("UPDATE templates SET purged_at = ? WHERE template_id = ?")
        .bind(&[number(now.millis()), template.as_str().into()])?
        .run()
        .await?;
    forget();
    Ok(())
}

/// Deletes a template, and what was learnt of it. What runs by it goes on: it carries all that it needs.
pub async fn delete_template(env: &Env, template: &TemplateId) -> Result<()> {
    let db = env.d1("DB")?;
    db.batch(vec![
        db.prepare("DELETE FROM templates WHERE template_id = ?").bind(&[template.as_str().into()])?,
        db.prepare("DELETE FROM estimate_factors WHERE template_id = ?").bind(&[template.as_str().into()])?,
    ])
    .await?;
    forget();
    Ok(())
}

impl Catalog {
    /// A template as its record.
    pub fn template_record(&self, template: &TemplateId) -> Option<TemplateRecord> {
        let body = self.templates.get(template)?.clone();
        Some(TemplateRecord { template_id: template.clone(), body })
    }
}
