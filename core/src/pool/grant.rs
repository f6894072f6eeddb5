//! Granting: who gets the tokens that are there.

use crate::id::RequestId;
use crate::pool::{Pool, outcome::Finish};
use crate::priority::PROMOTED_ONE_IN;
use crate::request::{Failure, Phase, Status};
use crate::token_bucket::Availability;
use crate::units::Instant;

/// The most grants of one event. Cloudflare allows 32 calls through service bindings to an event; each grant may need
/// one for its run and one for its slot.
pub const MAX_GRANTS_PER_EVENT: usize = 16;
/// The most grants of one client that may be waiting for its account at once: a client that is at its limit should cost
/// a question or two, not one for each request that it has queued.
const MAX_ACQUIRING_PER_CLIENT: u32 = 4;

impl Pool {
    /// Grants in the order of rank until the tokens, or this event's share of grants, are used up. The one whose turn it
    /// is waits for its tokens, and the others wait with it: nobody of lower rank is let past.
    pub(super) fn grant(&mut self, now: Instant) {
        self.grant_with_slot(now, None);
    }

    /// As [`Self::grant`]; `slot_of` is the request whose slot the account gave together with its hold.
    pub(super) fn grant_with_slot(&mut self, now: Instant, slot_of: Option<&RequestId>) {
        self.head_ready_at = None;
        self.backlog = false;
        if !self.config.scheduler_running {
            return;
        }
        if let Some(until) = self.state.paused_until {
            self.head_ready_at = (!self.queue.is_empty()).then_some(until);
            return;
        }
        let mut granted = 0_usize;
        while let Some((id, promoted)) = self.next_in_turn(now) {
            if granted >= MAX_GRANTS_PER_EVENT {
                self.backlog = true;
                return;
            }
            granted = granted.saturating_add(1);
            let Some(amount) = self.requests.get(&id).map(crate::request::Request::home_amount) else {
                return;
            };
            match self.state.bucket.take(&self.config.limits, amount, now) {
                Ok(()) => {}
                Err(Availability::At(at)) => {
                    self.head_ready_at = Some(at);
                    return;
                }
                Err(Availability::Never) => {
                    self.refuse_for_good(&id, now);
                    continue;
                }
                Err(_) => return,
            }
            let since_promoted = if promoted { 0 } else { self.state.since_promoted.saturating_add(1) };
            self.state.since_promoted = since_promoted;
            self.state.ledger.reserved = self.state.ledger.reserved.saturating_add(amount.micros());
            self.changes.state = true;
            let Some(mut request) = self.take(&id) else {
                return;
            };
            self.fairness.record(&request.client, amount, now);
            request.grants = request.grants.saturating_add(1);
            let slot = slot_of == Some(&id);
            request.phase = Phase::Acquiring { since: now, slot, leased: 0, woken: false };
            self.acquire_next(request, now);
        }
    }

    pub(super) fn next_in_turn(&self, now: Instant) -> Option<(RequestId, bool)> {
        let promoted_turn = self.state.since_promoted.saturating_add(1) >= PROMOTED_ONE_IN;
        let eligible = |client: &crate::id::ClientId| {
            !self.blocked.contains_key(client)
                && self.acquiring.get(client).is_none_or(|count| *count < MAX_ACQUIRING_PER_CLIENT)
        };
        let pick = self.queue.pick(&self.config.weights, &self.fairness, promoted_turn, now, eligible)?;
        Some((pick.id, pick.promoted))
    }

    /// The pool was made smaller than what this request needs.
    fn refuse_for_good(&mut self, id: &RequestId, now: Instant) {
        if let Some(request) = self.take(id) {
            let failure = Failure {
                code: "unsatisfiable".into(),
                message: format!("it needs more than the pool `{}` can hold now", self.config.pool),
            };
            self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
        }
    }
}
