//! What the lanes allow, besides their points: how long a request may wait, and how many may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::priority::Urgency;

/// How long an `immediate` request waits at most, unless D1 says otherwise.
pub const IMMEDIATE_WAIT_MS: i64 = 30_000;

/// The limits of one lane in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneLimits {
    /// A request that has not started by then expires; one that is not expected to start by then is refused at once.
    pub max_wait_ms: Option<i64>,
    /// The most requests of the lane that may wait in one pool.
    pub queue_cap: Option<u32>,
}

/// The limits of all lanes that have any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lanes(pub BTreeMap<Urgency, LaneLimits>);

impl Default for Lanes {
    fn default() -> Self {
        let immediate = LaneLimits { max_wait_ms: Some(IMMEDIATE_WAIT_MS), queue_cap: None };
        Self(BTreeMap::from([(Urgency::Immediate, immediate)]))
    }
}

impl Lanes {
    /// The limits of one lane.
    #[must_use]
    pub fn of(&self, lane: Urgency) -> LaneLimits {
        self.0.get(&lane).copied().unwrap_or_default()
    }
}
