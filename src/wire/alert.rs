//! Alerts, as operators and the webhook see them.

use rm_core::units::Instant;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    /// The name, as in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Which alerts are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AlertFilter {
    Open,
    Resolved,
    All,
}

/// An alert.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertView {
    pub alert_id: i64,
    pub kind: String,
    /// `pool:…`, `client:…`, `worker:…` or `model:…`.
    pub subject: String,
    /// The mark that was passed, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u8>,
    pub status: String,
    pub severity: String,
    pub message: String,
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Instant,
    #[serde(with = "super::time::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resolved_at: Option<Instant>,
    /// Rises with each change of its state.
    pub sequence: i64,
}
