//! How many slots of a client are asked for at once, and that its turn is kept meanwhile.
//!
//! A client that is at its limit should cost a few questions, not one for each request that it has queued. So a few are
//! asked at first; each slot that is given allows one more, so that they double with each round, and one that is refused
//! begins anew (as TCP's slow start does, RFC 5681). While they are on their way nobody of lower rank is let past, but not
//! for long: an account that is slow or cannot be reached holds back nobody else.

use crate::id::{ClientId, RequestId};
use crate::pool::Pool;
use crate::request::{Kind, Phase, Request};
use crate::units::{Instant, Tokens};

/// So many grants of one client may be waiting for its account at once, to begin with.
const AT_FIRST: usize = 4;
/// And so many at most.
const AT_MOST: usize = 64;
/// For so long the turn of a client is kept that has as many out as it may.
const TURN_KEPT_MS: i64 = 1_000;

/// What is asked of one client's account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Questions {
    allowed: usize,
    /// Since when as many have been out as may be, or nearly.
    all_out_since: Option<Instant>,
}

impl Questions {
    const NONE: Self = Self { allowed: AT_FIRST, all_out_since: None };
}

impl Pool {
    fn questions_of(&self, client: &ClientId) -> Questions {
        self.questions.get(client).copied().unwrap_or(Questions::NONE)
    }

    /// Whether a client has as many grants waiting for its account, or for other pools, as it may.
    #[must_use]
    pub fn asks_enough(&self, client: &ClientId) -> bool {
        self.acquiring.get(client).is_some_and(|asked| asked.len() >= self.questions_of(client).allowed)
    }

    /// A grant of this client has begun.
    pub(super) fn note_question(&mut self, client: &ClientId, now: Instant) {
        if self.asks_enough(client) {
            let known = self.questions.entry(client.clone()).or_insert(Questions::NONE);
            known.all_out_since = known.all_out_since.or(Some(now));
        }
    }

    /// An account has given a slot, or refused one.
    pub(super) fn question_answered(&mut self, client: &ClientId, given: bool) {
        let before = self.questions.remove(client).unwrap_or(Questions::NONE);
        let out = self.acquiring.get(client).map_or(0, std::collections::BTreeSet::len);
        if given && out > 0 {
            let all_out_since = before.all_out_since.filter(|_| out > before.allowed >> 1);
            let allowed = before.allowed.saturating_add(1).min(AT_MOST);
            self.questions.insert(client.clone(), Questions { allowed, all_out_since });
        }
    }

    /// Until when the turn of a client is kept that has as many slots asked for as it may. Who waits for another pool holds
    /// back nobody.
    fn turn_kept_until(&self, client: &ClientId) -> Option<Instant> {
        let Questions { allowed, all_out_since } = self.questions_of(client);
        let asks = |id: &RequestId| {
            let phase = self.requests.get(id).map(|request| &request.phase);
            matches!(phase, Some(Phase::Acquiring { slot: false, .. }))
        };
        let asked = self.acquiring.get(client)?.iter().filter(|(_, id)| asks(id)).count();
        all_out_since.filter(|_| asked >= allowed).map(|since| since.plus(TURN_KEPT_MS))
    }

    /// Whether nobody is let past a client that has as many out as it may.
    pub(super) fn keeps_turn(&self, client: &ClientId, now: Instant) -> bool {
        self.turn_kept_until(client).is_some_and(|until| until > now) && !self.has_enough_for_all(now)
    }

    /// Until when its turn is kept for a request that cannot be granted before one of its client's questions is answered.
    pub(super) fn turn_is_kept(&self, request: &Request) -> Option<Instant> {
        let asks = request.kind == Kind::Execution && self.asks_enough(&request.client);
        if asks { self.turn_kept_until(&request.client) } else { None }
    }

    /// Whether there is enough for all that waits, so that nobody loses by who is granted first.
    fn has_enough_for_all(&self, now: Instant) -> bool {
        let claims = self.config.partitions.iter().map(|partition| self.state.shares.left(partition));
        let promised = self.promise.as_ref().map(|promise| promise.order.amount);
        let needed = claims.chain(promised).fold(self.queue.wanted(), Tokens::saturating_add);
        needed <= self.available(now)
    }
}
