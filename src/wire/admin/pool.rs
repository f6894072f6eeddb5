//! Pools, as an admin sets them.

use rm_core::id::{ClientId, PoolId};
use rm_core::partition::Member;
use rm_core::priority::Tier;
use rm_core::units::{NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::admin::OffPeak;

/// `PUT /admin/pools/{pool}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolBody {
    #[schema(min_length = 1, max_length = 200)]
    pub unit: String,
    #[schema(value_type = f64, minimum = 1, maximum = 9_007_199_254_i64)]
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
    /// The models that it serves: a cheaper model of a template's chain is taken from the pool that has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 50)]
    pub models: Vec<String>,
    #[serde(default = "PoolBody::low_water", deserialize_with = "crate::wire::strict::whole")]
    #[schema(maximum = 100)]
    pub low_water_percent: u8,
    #[serde(default = "PoolBody::queue_cap", deserialize_with = "crate::wire::strict::whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub queue_cap: u32,
    #[serde(default)]
    pub window_cap: bool,
    /// Parts that are set aside; what no partition claims is shared.
    #[serde(default, deserialize_with = "crate::wire::strict::list")]
    #[schema(max_items = 16)]
    pub partitions: Vec<Partition>,
    /// When deferred work may run. Left out: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::wire::strict::optional")]
    pub off_peak: Option<OffPeak>,
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
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    pub kind: PartitionKind,
    /// Whom it is for: a tier, or a client. One of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// Of the capacity and of the refill. All partitions of a pool have 100 at most.
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "crate::wire::strict::whole")]
    pub percent: u8,
    /// Whether a reserved partition's idle share is lent; it is, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend: Option<bool>,
}

impl Partition {
    /// As the scheduler has it; `None` unless it is for just one tier or client.
    pub fn for_scheduler(&self) -> Option<rm_core::partition::Partition> {
        let member = match (self.tier, &self.client_id) {
            (Some(tier), None) => Member::Tier(tier),
            (None, Some(client)) => Member::Client(client.clone()),
            _ => return None,
        };
        let lends = self.kind == PartitionKind::Reserved && self.lend.unwrap_or(true);
        Some(rm_core::partition::Partition { name: self.name.clone(), member, percent: self.percent, lends })
    }
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
