//! A cap on what is granted in any sliding minute.
//!
//! A bucket with a minute's refill lets nearly twice that through in a minute after idling: the full bucket, and the
//! minute's refill. Some providers forbid that. The log counts grants by the second, and counts a second's grants until
//! the whole second has left the window, so that it is never too generous, and at most a second too strict.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::units::{Instant, Tokens};

/// The window's length.
pub const WINDOW_MS: i64 = 60_000;
const SLOT_MS: i64 = 1_000;

/// What was granted in the last minute, by the second; at most 61 entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WindowCap {
    slots: VecDeque<(i64, Tokens)>,
}

const fn slot_of(at: Instant) -> i64 {
    at.millis().div_euclid(SLOT_MS)
}

/// When the last grant that a slot may hold has left the window.
const fn leaves_at(slot: i64) -> Instant {
    Instant::from_millis(slot.saturating_add(1).saturating_mul(SLOT_MS)).plus(WINDOW_MS)
}

impl WindowCap {
    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Counts a grant, and drops what has left the window.
    pub fn record(&mut self, amount: Tokens, now: Instant) {
        while self.slots.front().is_some_and(|(slot, _)| leaves_at(*slot) <= now) {
            self.slots.pop_front();
        }
        let slot = slot_of(now);
        match self.slots.back_mut() {
            // A clock that went backwards counts with the newest second, which is the strict side.
            Some((last, sum)) if *last >= slot => *sum = sum.saturating_add(amount),
            _ => self.slots.push_back((slot, amount)),
        }
    }

    /// Takes back a grant that was not used.
    pub fn forget(&mut self, amount: Tokens, taken_at: Instant) {
        let slot = slot_of(taken_at);
        if let Some((_, sum)) = self.slots.iter_mut().find(|(s, _)| *s == slot) {
            *sum = sum.saturating_sub(amount);
        }
    }

    fn counted(&self, now: Instant) -> impl Iterator<Item = &(i64, Tokens)> {
        self.slots.iter().filter(move |(slot, _)| leaves_at(*slot) > now)
    }

    /// What may still be granted now.
    #[must_use]
    pub fn room(&self, cap: Tokens, now: Instant) -> Tokens {
        cap.saturating_sub(self.counted(now).fold(Tokens::ZERO, |sum, (_, n)| sum.saturating_add(*n)))
    }

    /// The first moment, `now` or later, with room for `amount`, if nothing is granted until then.
    #[must_use]
    pub fn room_at(&self, cap: Tokens, amount: Tokens, now: Instant) -> Instant {
        let mut room = self.room(cap, now);
        let mut at = now;
        for (slot, granted) in self.counted(now) {
            if room >= amount {
                break;
            }
            room = room.saturating_add(*granted);
            at = leaves_at(*slot);
        }
        at
    }
}
