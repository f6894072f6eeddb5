//! What was said of the use of leases lately: a word that comes twice is no second use.
//!
//! A home says again what was not confirmed in time, though it may have arrived. The lease is gone by then, and what is
//! used without one is taken of the pool as well; so what was taken already is remembered for longer than a word may take.
//! That is not stored: after an eviction in between, a pool believes for a while to have less than it has.

use std::collections::{BTreeMap, VecDeque};

use crate::units::{Instant, Tokens};

/// A word is said for the last time, and has arrived, after this.
const REPEATED_MS: i64 = 60_000;
/// Of more leases than this the oldest are forgotten.
const REMEMBERED: usize = 10_000;

/// By lease, what was used of it.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaseUses {
    used: BTreeMap<String, Tokens>,
    in_order: VecDeque<(Instant, String)>,
}

impl LeaseUses {
    /// Notes that so much was used of a lease in all; how much of that was not said before.
    pub(super) fn add(&mut self, key: &str, used: Tokens, now: Instant) -> Tokens {
        let is_over = |(at, _): &(Instant, String)| now.since(*at) > REPEATED_MS;
        while self.in_order.len() >= REMEMBERED || self.in_order.front().is_some_and(is_over) {
            let Some((_, oldest)) = self.in_order.pop_front() else { break };
            self.used.remove(&oldest);
        }
        if used.is_zero() {
            return used;
        }
        let before = self.used.get(key).copied();
        if before.is_none() {
            self.in_order.push_back((now, key.to_owned()));
        }
        let known = before.unwrap_or(Tokens::ZERO);
        self.used.insert(key.to_owned(), used.max(known));
        used.saturating_sub(known)
    }
}

#[cfg(test)]
mod tests {
    use super::{LeaseUses, REMEMBERED, REPEATED_MS};
    use crate::units::{Instant, Tokens};

    fn units(n: u64) -> Tokens {
        Tokens::from_units(n).unwrap()
    }

    #[test]
    fn what_is_said_again_is_no_more_use_and_a_larger_sum_is_the_difference() {
        let mut uses = LeaseUses::default();
        let at = Instant::from_millis;
        let said =
            [("a", 4, 0), ("a", 4, 1), ("b", 1, 1), ("a", 6, 2), ("a", 5, 3), ("b", 0, 3), ("b", 1, REPEATED_MS)];
        let new = said.map(|(key, used, ms)| uses.add(key, units(used), at(ms)).units());
        assert_eq!(new, [4, 0, 1, 2, 0, 0, 0]);
        assert_eq!(uses.add("a", units(6), at(REPEATED_MS + 1)), units(6), "nobody says it again after so long");
        assert_eq!(uses.used.len(), 2);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut uses = LeaseUses::default();
        for n in 0..=REMEMBERED {
            uses.add(&n.to_string(), units(1), Instant::from_millis(0));
        }
        assert_eq!((uses.used.len(), uses.in_order.len()), (REMEMBERED, REMEMBERED));
    }
}
