//! Bodies and answers of `/admin`.

mod client;
mod lane;
mod off_peak;
mod pool;
pub mod template;

pub use client::{ClientBody, ClientRecord};
pub use lane::{LaneBody, LaneRecord};
pub use off_peak::{OffPeak, Weekday};
pub use pool::{Partition, PartitionKind, PoolBody, PoolRecord};
use serde::Serialize;
pub use template::{BatchRule, Isolation, StepRule, TemplateBody, TemplateRecord};

/// The answer of `GET /admin/pools` and its likes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// There are more: ask with this as `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
