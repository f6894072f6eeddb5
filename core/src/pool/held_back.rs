//! Pools that wait for each other in a ring: each keeps tokens for requests of the next one, which are held back there.
//!
//! What is kept for a request of another pool is kept because it goes first here. If it does not go first in its home, which
//! ranks it by another fairness, or has the turn of the promoted ones at another time, that home may be keeping its tokens for
//! one of this pool's, and both stand still beside tokens that are there. So a pool that is held back says so to those homes,
//! which pass it on (edge chasing, after Chandy, Misra and Haas): if it hears of itself, it is in a ring, and of those in the
//! ring the one with the greatest name keeps nothing any more for those that hold it back.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::id::{PoolId, RequestId};
use crate::pool::index::entry;
use crate::pool::supply::Leave;
use crate::pool::{Effect, Pool};
use crate::queue::Entry;
use crate::token_bucket::Availability;
use crate::units::{Instant, Tokens};

/// A pool is held back for so long before it says so: those that it is held back by may be about to come.
const HELD_BACK_MS: i64 = 1_000;
/// While it is, it says so again after so long: what was said may be lost.
const TOLD_AGAIN_MS: i64 = 2_000;
/// What was said is no longer true after this.
const HEARD_MS: i64 = 3 * TOLD_AGAIN_MS;

/// Who holds back whom.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldBack {
    /// The homes for whose requests tokens are kept that are there for the next one here, and since when.
    by: BTreeMap<PoolId, Instant>,
    /// Those of them that this event has found.
    found: BTreeSet<PoolId>,
    /// What each of them was told, and when.
    told: BTreeMap<PoolId, (BTreeSet<PoolId>, Instant)>,
    /// Which pools wait for what is kept for this pool's requests, as those that keep it say, and when they said so.
    heard: BTreeMap<PoolId, (BTreeSet<PoolId>, Instant)>,
}

impl HeldBack {
    /// Those that have held this one back for so long that it is told.
    fn for_long(&self, now: Instant) -> impl Iterator<Item = &PoolId> {
        self.by.iter().filter(move |(_, since)| now.since(**since) >= HELD_BACK_MS).map(|(home, _)| home)
    }

    /// When that has to be looked at again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let due = |(home, since): (&PoolId, &Instant)| {
            self.told.get(home).map_or_else(|| since.plus(HELD_BACK_MS), |(_, told_at)| told_at.plus(TOLD_AGAIN_MS))
        };
        self.by.iter().map(due).min()
    }

    /// Whose turn it is, is looked for anew.
    pub(super) fn look_again(&mut self) {
        self.found.clear();
    }
}

impl Pool {
    /// Notes who holds this one back, after that request, whose turn it is among all or in a partition, was not granted: its
    /// tokens are there, and kept. Only those that this pool has the tokens of are about to come; of what is still gathered
    /// nobody can tell that it is in vain.
    pub(super) fn note_held_back(&mut self, id: &RequestId, partition: Option<usize>, now: Instant) {
        let Some(place) = self.requests.get(id).map(entry) else { return };
        if self.state.bucket.level() < place.amount {
            return;
        }
        let wanted = self.wanted(now);
        // Looked for once, and not for each order again: it looks at all flows.
        let lent_stands_back =
            LazyCell::new(|| self.is_turn_of_one_that_waits(self.next_in_turn(None, now).as_ref(), now));
        let mut is_held_back = false;
        let mut by = BTreeSet::new();
        for (order, _) in self.kept_for(&place, partition, now) {
            is_held_back = true;
            let home = order.id.home().filter(|home| !by.contains(home) && !self.held_back.found.contains(home));
            by.extend(home.filter(|_| self.has_tokens_of(&order, partition, &wanted, &lent_stands_back, now)));
        }
        self.standings.held_back |= is_held_back;
        self.held_back.found.extend(by);
    }

    /// Whether an order would be granted here, were nobody before it. `lent_stands_back` for one that is promoted.
    fn has_tokens_of(
        &self,
        order: &Entry<'_>,
        partition: Option<usize>,
        wanted: &[Tokens],
        lent_stands_back: &impl Deref<Target = bool>,
        now: Instant,
    ) -> bool {
        let own = self.partition_of(order.client, order.tier);
        let are_there = |insist, kept| {
            self.availability(order.amount, own, wanted, &Leave { insist, kept }, now) == Availability::Now
        };
        let promoted = self.is_old(order.enqueued_at, now) && self.is_promoted_turn(partition);
        if are_there(partition.is_some() || promoted, self.kept_before(order, partition, now)) {
            return true;
        }
        // Out of its share it is granted whoever else waits, but for a promoted one where the share is lent.
        let share = own.filter(|_| partition.is_none()).and_then(|index| self.config.partitions.get(index));
        share.is_some_and(|share| {
            let kept = self.kept_before(order, own, now);
            self.state.shares.left(share) >= order.amount.saturating_add(kept.all())
                && !(share.lends && **lent_stands_back)
                && are_there(true, kept)
        })
    }

    /// Tells those that hold this one back for long.
    pub(super) fn tell_held_back(&mut self, now: Instant) {
        let held = &mut self.held_back;
        let found = std::mem::take(&mut held.found);
        held.by.retain(|home, _| found.contains(home));
        for home in found {
            held.by.entry(home).or_insert(now);
        }
        held.heard.retain(|_, (_, at)| now.since(*at) < HEARD_MS);
        let own = &self.config.pool;
        // A ring has one greatest name: only that one's word comes all the way round.
        let others = held.heard.values().flat_map(|(waiting, _)| waiting).filter(|other| *other > own);
        let waiting: BTreeSet<PoolId> = others.chain([own]).cloned().collect();
        let by: BTreeSet<PoolId> = held.for_long(now).cloned().collect();
        let free: Vec<PoolId> = held.told.keys().filter(|home| !by.contains(*home)).cloned().collect();
        for home in free {
            held.told.remove(&home);
            self.effects.push(Effect::TellHeldBack { pool: home, waiting: BTreeSet::new() });
        }
        for home in by {
            let is_known =
                |(told, at): &(BTreeSet<PoolId>, Instant)| *told == waiting && now.since(*at) < TOLD_AGAIN_MS;
            if !held.told.get(&home).is_some_and(is_known) {
                held.told.insert(home.clone(), (waiting.clone(), now));
                self.effects.push(Effect::TellHeldBack { pool: home, waiting: waiting.clone() });
            }
        }
    }

    /// Another pool keeps tokens for requests of this one, and these pools wait for that: none of them, if none does any more.
    pub fn held_back_told(&mut self, keeper: &PoolId, waiting: BTreeSet<PoolId>, now: Instant) {
        self.event(now, |pool| {
            if waiting.contains(&pool.config.pool) {
                let by: BTreeSet<PoolId> = pool.held_back.for_long(now).cloned().collect();
                pool.orders.forget_those_of(&by);
            }
            if waiting.is_empty() {
                pool.held_back.heard.remove(keeper);
            } else {
                pool.held_back.heard.insert(keeper.clone(), (waiting, now));
            }
        });
    }
}
