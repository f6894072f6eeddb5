//! Requests that may be combined, and the calls that they are made in.

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::pool::{BatchTerms, Effect, Pool, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;

use super::{at, demand, request};

/// One of a client of its own that needs four units, and may be combined with two others.
pub fn item(n: u64, now: i64) -> Submission {
    let terms = BatchTerms { key: "all".into(), max_size: 3, window_ms: 1_000 };
    let client = format!("client-{n}");
    Submission {
        batch: Some(terms),
        demands: vec![demand("home", 4)],
        ..request(n, &client, Tier::Standard, Urgency::Batch, at(now))
    }
}

/// What starts now, every slot being given: each call with the requests that it is for.
pub fn calls(pool: &mut Pool, now: Instant) -> Vec<Vec<(RequestId, u32)>> {
    let mut calls = Vec::new();
    loop {
        let effects = pool.take_effects();
        if effects.is_empty() {
            return calls;
        }
        for effect in effects {
            match effect {
                Effect::AcquireSlot { id, grant, .. } => pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now),
                Effect::Start { id, grant, .. } => calls.push(vec![(id, grant)]),
                Effect::StartBatch { items, .. } => calls.push(items),
                _ => {}
            }
        }
    }
}
