//! What is said to a downstream worker, and what it answers.

use rm_core::id::{ClientId, RequestId, TemplateId};
use rm_core::units::Instant;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `POST https://{binding}/execute`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkOrder<'a> {
    pub request_id: &'a RequestId,
    pub attempt: u32,
    pub client_id: &'a ClientId,
    pub template_id: Option<&'a TemplateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    pub input: &'a RawValue,
    pub parameters: &'a RawValue,
    #[serde(with = "super::time::optional")]
    pub deadline: Option<Instant>,
}

/// A good answer.
#[derive(Debug, Deserialize)]
pub struct WorkResult {
    pub result: Box<RawValue>,
    /// Units by pool, as the worker wrote it.
    #[serde(default)]
    pub usage: Option<Box<RawValue>>,
}
