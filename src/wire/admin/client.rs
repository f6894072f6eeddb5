//! Clients, as an admin sets them.

use rm_core::account::ClientStatus;
use rm_core::id::ClientId;
use rm_core::priority::Tier;
use rm_core::units::NanoUsd;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    #[serde(default, deserialize_with = "crate::wire::strict::optional_whole")]
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
    pub(super) fn utc() -> String {
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
