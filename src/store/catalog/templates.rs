//! Templates.

use rm_core::id::TemplateId;
use serde::Deserialize;
use worker::{Env, Result};

use crate::store::catalog::{Catalog, ROWS_MAX, forget, stored};
use crate::wire::admin::{TemplateBody, TemplateRecord};

#[derive(Deserialize)]
pub(super) struct TemplateRow {
    template_id: String,
    body: String,
}

impl TemplateRow {
    pub(super) fn select() -> String {
        format!("SELECT template_id, body FROM templates ORDER BY template_id LIMIT {ROWS_MAX}")
    }

    pub(super) fn parsed(self) -> Result<(TemplateId, TemplateBody)> {
        Ok((self.template_id.parse().map_err(stored)?, serde_json::from_str(&self.body)?))
    }
}

/// Stores a template. The same again changes nothing.
pub async fn put_template(env: &Env, template: &TemplateId, body: &TemplateBody) -> Result<()> {
    let db = env.d1("DB")?;
    db.prepare(
        "INSERT INTO templates (template_id, body) VALUES (?, ?)
         ON CONFLICT (template_id) DO UPDATE SET body = excluded.body, revision = revision + 1
         WHERE body IS NOT excluded.body",
    )
    .bind(&[template.as_str().into(), serde_json::to_string(body)?.into()])?
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
