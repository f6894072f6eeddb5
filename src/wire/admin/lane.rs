//! Lanes, as an admin sets them.

use rm_core::priority::{Points, Urgency};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT /admin/lanes/{lane}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaneBody {
    /// What the lane adds to a request's score.
    #[schema(value_type = f64, minimum = 0, maximum = 30)]
    pub points: Points,
    /// A request that has not started by then expires; one that is not expected to start by then is refused at once. Left
    /// out: no limit.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub max_wait_ms: Option<i64>,
    /// The most requests of the lane that may wait in one pool. Left out: as many as the pool's queue takes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(maximum = 4_294_967_295_u64)]
    pub queue_cap: Option<u32>,
}

/// A lane as stored.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneRecord {
    pub urgency: Urgency,
    pub points: Points,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_cap: Option<u32>,
}
