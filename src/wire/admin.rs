//! Bodies and answers of `/admin`.

use rm_core::account::ClientStatus;
use rm_core::estimate::Rate;
use rm_core::id::{ClientId, PoolId, TemplateId, WorkerBinding};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::{NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT /admin/pools/{pool}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolBody {
    #[schema(min_length = 1, max_length = 200)]
    pub unit: String,
    #[schema(value_type = f64, minimum = 0.000001, maximum = 9_007_199_254_i64)]
    pub capacity: Tokens,
    pub refill_per_second: Tokens,
    /// Left out: what the model costs by the price table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub unit_price_usd: Option<NanoUsd>,
    /// Left out: the same as any unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub cached_input_price_usd: Option<NanoUsd>,
    /// Left out: the same as any unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub output_price_usd: Option<NanoUsd>,
    #[serde(default = "PoolBody::low_water", deserialize_with = "super::strict::whole")]
    #[schema(maximum = 100)]
    pub low_water_percent: u8,
    #[serde(default = "PoolBody::queue_cap", deserialize_with = "super::strict::whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub queue_cap: u32,
    #[serde(default)]
    pub window_cap: bool,
    #[serde(default, deserialize_with = "super::strict::list")]
    #[schema(max_items = 0)]
    pub partitions: Vec<Partition>,
}

impl PoolBody {
    const fn low_water() -> u8 {
        10
    }

    const fn queue_cap() -> u32 {
        10_000
    }
}

/// A part of a pool that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partition {
    pub name: String,
    pub kind: PartitionKind,
    #[serde(default)]
    pub tier: Option<Tier>,
    #[serde(default)]
    pub client_id: Option<ClientId>,
    #[serde(deserialize_with = "super::strict::whole")]
    pub percent: u8,
    #[serde(default)]
    pub lend: Option<bool>,
}

/// Whether an idle share is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PartitionKind {
    Reserved,
    Dedicated,
}

/// A pool as stored.
#[derive(Debug, Clone, Serialize)]
pub struct PoolRecord {
    pub pool: PoolId,
    #[serde(flatten)]
    pub body: PoolBody,
    #[serde(skip)]
    pub revision: i64,
}

/// `PUT /admin/clients/{clientId}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientBody {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    pub tier: Tier,
    #[serde(default)]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub monthly_budget_usd: Option<NanoUsd>,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub max_concurrent: Option<u32>,
    /// A name of the IANA time-zone database.
    #[serde(default = "ClientBody::utc")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    #[serde(default = "ClientBody::active")]
    pub status: ClientStatus,
}

impl ClientBody {
    fn utc() -> String {
        "UTC".into()
    }

    const fn active() -> ClientStatus {
        ClientStatus::Active
    }
}

/// A client as stored, with what its tier adds.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientRecord {
    pub client_id: ClientId,
    pub name: String,
    pub tier: Tier,
    pub monthly_budget_usd: NanoUsd,
    pub max_concurrent: u32,
    pub time_zone: String,
    pub status: ClientStatus,
    #[serde(skip)]
    pub revision: i64,
}

/// `PUT /admin/templates/{templateId}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateBody {
    pub worker: WorkerBinding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub model: Option<String>,
    #[serde(deserialize_with = "super::strict::list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Vec<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downgrade_to: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub cache_ttl_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional")]
    pub batch: Option<BatchRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_urgency: Option<Urgency>,
}

/// How requests of a template may be combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchRule {
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub max_size: u32,
    #[schema(maximum = 60_000)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub window_ms: u32,
}

/// A template as stored.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRecord {
    pub template_id: TemplateId,
    #[serde(flatten)]
    pub body: TemplateBody,
}

/// The answer of `GET /admin/pools` and its likes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// There are more: ask with this as `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
