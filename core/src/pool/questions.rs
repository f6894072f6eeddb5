//! How many slots of a client are asked for at once, and that its turn is kept meanwhile.
//!
//! A client that is at its limit should cost a few questions, not one for each request that it has queued. So a few are
//! asked at first; each slot that is given while most of them are out allows one more, so that they double with each round,
//! and one that is refused begins anew (as TCP's slow start does, RFC 5681, with the rule of RFC 7661 that what is not used
//! does not grow). While they are on their way nobody of lower rank is let past, but not for long: each account that is slow
//! holds back those of lower rank for a second, and one that cannot be reached is left alone for as long.

use std::collections::BTreeSet;

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

/// The executions of one client that have their tokens and not yet all the rest. It is there while there are any.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    out: BTreeSet<RequestId>,
    /// How many of them wait for a slot. The others wait for other pools, and hold back nobody.
    asking: usize,
    allowed: usize,
    /// Since when as many have been out as may be, or nearly.
    all_out_since: Option<Instant>,
}

impl Questions {
    const NONE: Self = Self { out: BTreeSet::new(), asking: 0, allowed: AT_FIRST, all_out_since: None };

    fn are_all_out(&self) -> bool {
        self.out.len() >= self.allowed
    }

    /// Until when the client's turn is kept, if as many slots are asked for as may be.
    fn turn_kept_until(&self) -> Option<Instant> {
        self.all_out_since.filter(|_| self.asking >= self.allowed).map(|since| since.plus(TURN_KEPT_MS))
    }
}

/// Whether a request waits for a slot of its client's; `None` if it is none of those that are counted here.
const fn asks_for_slot(request: &Request) -> Option<bool> {
    match (request.kind, &request.phase) {
        (Kind::Execution, Phase::Acquiring { slot, .. }) => Some(!*slot),
        _ => None,
    }
}

impl Pool {
    /// Indexes a request that has its tokens and not yet all the rest.
    pub(super) fn question_begins(&mut self, request: &Request) {
        let Some(asks) = asks_for_slot(request) else { return };
        let questions = self.questions.entry(request.client.clone()).or_insert(Questions::NONE);
        if questions.out.insert(request.id.clone()) {
            questions.asking = questions.asking.saturating_add(usize::from(asks));
        }
    }

    /// Takes it out of the index.
    pub(super) fn question_ends(&mut self, request: &Request) {
        let Some(asks) = asks_for_slot(request) else { return };
        let Some(questions) = self.questions.get_mut(&request.client) else { return };
        if questions.out.remove(&request.id) {
            questions.asking = questions.asking.saturating_sub(usize::from(asks));
        }
        if questions.out.is_empty() {
            self.questions.remove(&request.client);
        }
    }

    /// A grant of this client has begun.
    pub(super) fn note_question(&mut self, client: &ClientId, now: Instant) {
        if let Some(questions) = self.questions.get_mut(client)
            && questions.are_all_out()
        {
            questions.all_out_since = questions.all_out_since.or(Some(now));
        }
    }

    /// An account has given a slot, or refused one.
    pub(super) fn question_answered(&mut self, client: &ClientId, given: bool) {
        let Some(questions) = self.questions.get_mut(client) else { return };
        let are_used = questions.out.len() > questions.allowed >> 1;
        if !given {
            questions.allowed = AT_FIRST;
        } else if are_used {
            questions.allowed = questions.allowed.saturating_add(1).min(AT_MOST);
        } else {
            questions.all_out_since = None;
        }
    }

    /// Whether a client has as many grants waiting for its account, or for other pools, as it may.
    #[must_use]
    pub fn asks_enough(&self, client: &ClientId) -> bool {
        self.questions.get(client).is_some_and(Questions::are_all_out)
    }

    /// Those of a client's executions that have their tokens and not yet all the rest.
    pub(super) fn acquiring(&self, client: &ClientId) -> Vec<RequestId> {
        self.questions.get(client).map(|questions| questions.out.iter().cloned().collect()).unwrap_or_default()
    }

    /// How many they are.
    pub(super) fn count_acquiring(&self, client: &ClientId) -> usize {
        self.questions.get(client).map_or(0, |questions| questions.out.len())
    }

    /// Whether nobody is let past a client that has as many out as it may.
    pub(super) fn keeps_turn(&self, client: &ClientId, now: Instant) -> bool {
        let until = self.questions.get(client).and_then(Questions::turn_kept_until);
        until.is_some_and(|until| until > now) && !self.has_enough_for_all(now)
    }

    /// Until when its turn is kept for a request that cannot be granted before one of its client's questions is answered.
    pub(super) fn turn_is_kept(&self, request: &Request) -> Option<Instant> {
        let questions = self.questions.get(&request.client).filter(|questions| questions.are_all_out());
        questions.filter(|_| request.kind == Kind::Execution).and_then(Questions::turn_kept_until)
    }

    /// Whether there is enough for all that waits, so that nobody loses by who is granted first.
    fn has_enough_for_all(&self, now: Instant) -> bool {
        let claims = self.config.partitions.iter().map(|partition| self.state.shares.left(partition));
        let needed = claims.chain([self.kept(now)]).fold(self.queue.wanted(), Tokens::saturating_add);
        needed <= self.available(now)
    }
}
