//! What a pool foretells of a request: before it is sent, and before it is taken in.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rm_core::id::RequestId;
use rm_core::off_peak::WaitsFor;
use rm_core::pool::{Refusal, Submission};
use rm_core::request::Kind;
use rm_core::units::Instant;
use worker::Result;

use crate::host::clock;
use crate::objects::pool_operations::submission;
use crate::objects::resource_pool::PoolObject;
use crate::wire::pool::{ForetellAnswer, ForetellCall, SubmitCall, SubmitRefusal};

/// Longer than a pool takes a request in after its hold.
const REMEMBERED_MS: i64 = 60_000;

/// Requests that were refused and may have gone elsewhere, with when they were held for.
#[derive(Default)]
pub(super) struct TurnedAway(RefCell<BTreeMap<RequestId, (Instant, SubmitRefusal)>>);

impl TurnedAway {
    fn find(&self, id: &RequestId) -> Option<SubmitRefusal> {
        self.0.borrow().get(id).map(|(_, refusal)| *refusal)
    }

    fn note(&self, call: &SubmitCall, refusal: SubmitRefusal, now: Instant) {
        let mut all = self.0.borrow_mut();
        // In the order of their ids those before are the older ones.
        while let Some(oldest) = all.first_entry().filter(|oldest| now.since(oldest.get().0) > REMEMBERED_MS) {
            oldest.remove();
        }
        all.insert(call.id.clone(), (call.held_at, refusal));
    }
}

impl PoolObject {
    pub(super) fn foretell(&self, call: ForetellCall) -> Result<ForetellAnswer> {
        self.look(|pool, now| {
            let submission = Submission {
                id: call.id,
                client: call.client,
                tier: call.tier,
                kind: Kind::Execution,
                urgency: call.urgency,
                held_at: now,
                deadline: call.deadline,
                demands: call.demands,
                max_attempts: 1,
                timeout_ms: call.timeout_ms,
                worker: call.worker,
                later: Vec::new(),
                has_slot: false,
                slots: None,
                applied: Vec::new(),
                twin: None,
                batch: None,
                // A window is waited for of one's own choice: it is no reason for another model.
                waits_for: Some(WaitsFor::Nothing),
                work: call.work,
            };
            match pool.foretell(submission, now) {
                Ok(start) => ForetellAnswer::Wait { ms: start.map(|start| start.since(now)) },
                Err(Refusal::NotNow { retry_at }) => ForetellAnswer::TooLate { retry_at },
                Err(_) => ForetellAnswer::Refused,
            }
        })
    }

    /// Why a request is not taken in that may go elsewhere: it would wait for too long. Who was refused is not taken in by that
    /// id any more, whoever sends it again: it may be held for by another id, at another pool, by then.
    pub(super) fn turns_away(&self, call: &SubmitCall) -> Result<Option<SubmitRefusal>> {
        let before = self.turned_away.find(&call.id);
        let Some(provided) = call.provided.filter(|_| before.is_none()) else { return Ok(before) };
        let too_long = self.look(|pool, now| {
            if pool.request(&call.id).is_some() {
                return None;
            }
            let at_any_time = Submission { waits_for: Some(WaitsFor::Nothing), ..submission(call) };
            // What cannot be foretold is refused when it is submitted.
            let wait_ms = pool.foretell(at_any_time, now).ok()?.map(|start| start.since(now));
            (!provided.allows(wait_ms, call.deadline, now)).then_some(SubmitRefusal::TooLong { wait_ms })
        })?;
        if let Some(refusal) = too_long {
            self.remember_refusal(call, refusal);
        }
        Ok(too_long)
    }

    /// A request was refused: if it may go elsewhere, that is remembered.
    pub(super) fn remember_refusal(&self, call: &SubmitCall, refusal: SubmitRefusal) {
        if call.provided.is_some() {
            self.turned_away.note(call, refusal, clock::now());
        }
    }
}
