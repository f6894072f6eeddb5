//! Templates, as an admin sets them.

use rm_core::estimate::Rate;
use rm_core::id::{PoolId, TemplateId, WorkerBinding};
use rm_core::priority::Urgency;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::admin::OffPeak;

/// `PUT /admin/templates/{templateId}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateBody {
    /// Left out, with `model` and `resources`, by a template with steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerBinding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "crate::wire::strict::list", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub resources: Vec<Rate>,
    /// A pipeline: what is run one after the other, each step with what the one before it gave.
    #[serde(default, deserialize_with = "crate::wire::strict::list", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub steps: Vec<StepRule>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
    /// Cheaper models that may do, in the order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub downgrade_to: Vec<String>,
    /// The last model of the chain that is taken where another one would do; those after it only where none of the others is
    /// within reach. Left out: the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub quality_floor: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(maximum = 31_536_000)]
    pub cache_ttl_seconds: Option<u32>,
    /// Whether a request that is the same as one of its client's in flight has that one's result. Left out: yes, if results
    /// are kept or requests combined; else no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::wire::strict::optional")]
    pub batch: Option<BatchRule>,
    /// When deferred work of it may run. Left out: when its pool's may.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::wire::strict::optional")]
    pub off_peak: Option<OffPeak>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_urgency: Option<Urgency>,
}

impl TemplateBody {
    /// What is run: its steps, or what it is itself.
    pub fn all_steps(&self) -> Vec<StepRule> {
        match &self.worker {
            Some(worker) if self.steps.is_empty() => vec![StepRule {
                name: None,
                worker: worker.clone(),
                model: self.model.clone(),
                resources: self.resources.clone(),
                max_attempts: self.max_attempts,
                timeout_ms: self.timeout_ms,
            }],
            _ => self.steps.clone(),
        }
    }

    /// Whether it needs a pool.
    pub fn needs(&self, pool: &PoolId) -> bool {
        self.all_steps().iter().any(|step| step.resources.iter().any(|rate| rate.pool == *pool))
    }
}

/// A step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepRule {
    /// Left out: its number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    pub worker: WorkerBinding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub model: Option<String>,
    #[serde(deserialize_with = "crate::wire::strict::list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Vec<Rate>,
    /// Left out: the template's.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    /// Left out: the template's.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
}

/// How requests of a template may be combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchRule {
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "crate::wire::strict::whole")]
    pub max_size: u32,
    #[schema(maximum = 60_000)]
    #[serde(deserialize_with = "crate::wire::strict::whole")]
    pub window_ms: u32,
    /// Whose requests may be in one call. Left out: those of one client.
    #[serde(default, deserialize_with = "crate::wire::strict::or_default")]
    #[schema(value_type = Option<Isolation>)]
    pub isolation: Isolation,
}

/// Whose requests may be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// Those of one client.
    #[default]
    Client,
    /// Those of clients of one tier.
    Tier,
    /// Those of all clients.
    Shared,
}

/// A template as stored.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRecord {
    pub template_id: TemplateId,
    #[serde(flatten)]
    pub body: TemplateBody,
}
