//! When the tokens are there for a place in the queue: the refill is played forward, and with it what goes to the partitions.
//! All of it is refilled at the same part of the full rate, so that is told as if nothing slowed the pool down, and then how
//! long it takes at the rate that rises again.
//!
//! What a partition has by some moment is its share as it is refilled, as long as that can hold it or its members take it; a
//! share that is lent has no more than its members want. So the refill that a full share cannot hold is everybody's, and what
//! was lent comes back first.

use crate::id::RequestId;
use crate::partition::{self, Kept, Partition};
use crate::pool::Pool;
use crate::queue::{Ahead, Entry, Flow, Needs};
use crate::request::Request;
use crate::units::{Instant, Tokens};

/// What goes to a partition, in millionths: more and more of it.
#[derive(Clone, Copy)]
struct Part {
    /// So much whatever its share has: its members that go first, and what is kept for them.
    least: i128,
    /// How much of that they do not take of the share, which goes on gaining.
    borrowed: i128,
    /// What its share has now,
    left: i128,
    /// gains in a second,
    rate: i128,
    /// from so many milliseconds on,
    from: i64,
    /// and can hold or give away.
    most: i128,
}

impl Part {
    /// What goes to it of its share alone.
    const fn of_share(&self) -> Self {
        Self { least: 0, borrowed: 0, ..*self }
    }

    /// After how many milliseconds its share alone has gained so much.
    fn gains(&self, amount: i128) -> Option<i64> {
        match wait_ms(amount.saturating_sub(self.left), self.rate)? {
            0 => Some(0),
            ms => Some(ms.saturating_add(self.from)),
        }
    }

    /// Thousandths of a millionth, after so many milliseconds.
    fn after(&self, ms: i64) -> i128 {
        let gained = self.rate.saturating_mul(i128::from(ms.saturating_sub(self.from).max(0)));
        let has = thousandths(self.borrowed.saturating_add(self.left)).saturating_add(gained);
        has.min(thousandths(self.most)).max(thousandths(self.least))
    }
}

/// What a pool gains. It is at least as much as its partitions do.
struct Supply {
    /// Millionths that it has now, less what it owes.
    level: i128,
    /// In a second.
    rate: i128,
}

impl Supply {
    /// After how many milliseconds so many millionths are there besides what goes to these partitions.
    fn reaches(&self, amount: i128, parts: &[Part]) -> Option<i64> {
        let is_there = |ms: i64| {
            let has = thousandths(self.level).saturating_add(self.rate.saturating_mul(i128::from(ms)));
            parts.iter().fold(has, |left, part| left.saturating_sub(part.after(ms))) >= thousandths(amount)
        };
        if is_there(0) {
            return Some(0);
        }
        // At the latest when each of them has all that it can have.
        let all = parts.iter().fold(amount, |sum, part| sum.saturating_add(part.least.max(part.most)));
        let mut last = wait_ms(all.saturating_sub(self.level), self.rate)?;
        let mut not_yet = 0_i64;
        while last.saturating_sub(not_yet) > 1 {
            let middle = not_yet.saturating_add(last.saturating_sub(not_yet) >> 1);
            if is_there(middle) { last = middle } else { not_yet = middle }
        }
        Some(last)
    }

    /// Finds how much each partition's members that go first do not take of its share, for their turn comes before that has
    /// it. `ahead` is what all need that go first: where the members are among them is not looked at, and taken to be the
    /// middle.
    fn note_borrowed(&self, parts: &mut [Part], needs: &[Needs], ahead: i128) {
        let of_shares: Vec<Part> = parts.iter().map(Part::of_share).collect();
        for (index, (part, needs)) in parts.iter_mut().zip(needs).enumerate().filter(|(_, (_, needs))| needs.ahead > 0)
        {
            let before = ahead.saturating_sub(needs.ahead).max(0) >> 1;
            let others: Vec<Part> = others(&of_shares, Some(index)).map(|(_, other)| *other).collect();
            let turn = self.reaches(needs.ahead.saturating_add(before), &others);
            let drawn = turn.map_or(needs.ahead, |ms| part.of_share().after(ms).checked_div(1_000).unwrap_or(0));
            part.borrowed = needs.ahead.saturating_sub(drawn).max(0);
        }
    }
}

/// Those of all but one.
fn others(parts: &[Part], own: Option<usize>) -> impl Iterator<Item = (usize, &Part)> {
    parts.iter().enumerate().filter(move |(index, _)| Some(*index) != own)
}

fn thousandths(micros: i128) -> i128 {
    micros.saturating_mul(1_000)
}

/// How long it takes, in milliseconds, to gain so many millionths; `None` if nothing is gained.
fn wait_ms(missing: i128, a_second: i128) -> Option<i64> {
    if missing <= 0 {
        return Some(0);
    }
    let rounded_up = thousandths(missing).saturating_add(a_second.saturating_sub(1));
    rounded_up.checked_div(a_second).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

fn micros(tokens: Tokens) -> i128 {
    i128::from(tokens.micros())
}

impl Pool {
    /// When the tokens are there for one at this place of the queue, which `ahead` of it go before, be it of this pool or of
    /// another one.
    pub(super) fn tokens_at(&self, place: &Entry<'_>, ahead: Ahead, now: Instant) -> Option<Instant> {
        let wait = match self.config.partitions.is_empty() {
            true => self.undivided_wait(place, ahead, now)?,
            false => self.divided_wait(place, ahead, now)?,
        };
        // Both are told as if the pool were refilled at its full rate.
        let at = now.plus(self.state.throttle.delayed_ms(wait, now)).max(self.window_at(place, ahead, now));
        Some(self.state.paused_until.map_or(at, |until| at.max(until)))
    }

    /// When a pool that grants no more than its capacity in any minute has room for this one after the others.
    fn window_at(&self, place: &Entry<'_>, ahead: Ahead, now: Instant) -> Instant {
        let limits = self.limits();
        if !limits.window_cap {
            return now;
        }
        let kept = self.kept_before(place, None, now).all();
        let needed = micros(place.amount.saturating_add(kept)).saturating_add(ahead.micros);
        self.state.bucket.window_has_room_at(&limits, needed, now)
    }

    fn undivided_wait(&self, place: &Entry<'_>, ahead: Ahead, now: Instant) -> Option<i64> {
        let needed = place.amount.saturating_add(self.kept_before(place, None, now).all());
        let needed = ahead.micros.saturating_add(micros(needed)).saturating_add(micros(self.state.bucket.debt()));
        let missing = needed.saturating_sub(micros(self.available(now)));
        if missing <= 0 {
            return Some(0);
        }
        let ms = thousandths(missing).checked_div(micros(self.config.limits.refill_per_second))?;
        Some(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// Its turn comes among all, or out of its partition's own share.
    fn divided_wait(&self, place: &Entry<'_>, ahead: Ahead, now: Instant) -> Option<i64> {
        let own = self.partition_of(place.client, place.tier);
        let needs = self.needs_of_members(place, now);
        let kept = self.kept_before(place, None, now);
        let level = micros(self.available(now)).saturating_sub(micros(self.bucket_at(now).debt()));
        let supply = Supply { level, rate: micros(self.config.limits.refill_per_second) };
        let mut parts = self.parts(place, &needs, &kept, now);
        supply.note_borrowed(&mut parts, &needs, ahead.micros);
        let needed = micros(place.amount).saturating_add(ahead.micros).saturating_add(micros(kept.all()));
        let needed = others(&parts, own).fold(needed, |needed, (_, part)| needed.saturating_sub(part.least));
        let of_others: Vec<Part> = others(&parts, own).map(|(_, part)| *part).collect();
        let of_all = supply.reaches(needed, &of_others);
        let of_share = own.and_then(|own| self.share_wait(place, own, &supply, &needs, &parts, now));
        [of_all, of_share].into_iter().flatten().min()
    }

    /// Its turn comes out of its partition's own share, past whoever waits for what is shared.
    fn share_wait(
        &self,
        place: &Entry<'_>,
        own: usize,
        supply: &Supply,
        needs: &[Needs],
        parts: &[Part],
        now: Instant,
    ) -> Option<i64> {
        let (share, part) = (self.config.partitions.get(own)?, parts.get(own)?);
        if place.amount > share.limits(&self.limits()).capacity {
            return None;
        }
        let before = needs.get(own).map_or(0, |needs| needs.ahead);
        let kept = self.kept_before(place, Some(own), now).all();
        let needed = micros(place.amount.saturating_add(kept)).saturating_add(before);
        let has_it = part.gains(needed.saturating_sub(part.borrowed))?;
        // Of those whose lent shares have their tokens the one that needs least is first.
        let wanted = self.wanted(now);
        let next = |index: usize| wanted.get(index).copied().filter(|next| !next.is_zero());
        let own_next = next(own).unwrap_or(place.amount);
        let is_first = |(other, _): &(usize, &Part)| {
            let lends = self.config.partitions.get(*other).is_some_and(|other| other.lends);
            !lends || next(*other).is_some_and(|next| (next, *other) < (own_next, own))
        };
        let first: Vec<Part> = others(parts, Some(own)).filter(is_first).map(|(_, part)| part.of_share()).collect();
        Some(supply.reaches(needed, &first)?.max(has_it))
    }

    /// What the members of each partition need that nothing holds up which does not hold up this one as well: those before
    /// it, and all of them whose turn may come out of the share.
    fn needs_of_members(&self, place: &Entry<'_>, now: Instant) -> Vec<Needs> {
        let partitions = &self.config.partitions;
        let (flow, limits) = (place.flow(), self.limits());
        let fits = |share: &Partition, first: &RequestId| {
            let amount = self.requests.get(first).map_or(Tokens::ZERO, Request::home_amount);
            amount <= share.limits(&limits).capacity
        };
        let group = |other: &Flow, tier, first: &RequestId| {
            let index = partition::index_of(partitions, &other.client, tier)?;
            let is_counted = self.is_held_up_by_nothing_else(other, &flow, now);
            is_counted.then(|| (index, partitions.get(index).is_some_and(|share| fits(share, first))))
        };
        self.queue.needs_by(&self.config.weights, &self.fairness, place, now, partitions.len(), group)
    }

    /// What goes to each partition from now on, and what goes before this one in any case.
    fn parts(&self, place: &Entry<'_>, needs: &[Needs], kept: &Kept, now: Instant) -> Vec<Part> {
        let (partitions, limits) = (&self.config.partitions, self.limits());
        let mut shares = self.state.shares.clone();
        shares.refill(partitions, &limits, self.state.bucket.paid_back_at(&limits), now);
        let full = self.config.limits;
        let paid_back_ms = self.bucket_at(now).paid_back_at(&full).map_or(0, |at| at.since(now));
        let ordered = self.ordered_of_shares(now);
        // On the turn of a promoted one no more comes back than what is wanted next.
        let next = self.is_old(place.enqueued_at, now).then(|| self.wanted(now));
        let part = |(index, share): (usize, &Partition)| {
            let Needs { ahead, all } = needs.get(index).copied().unwrap_or_default();
            let asked = ordered.get(index).map_or(Tokens::ZERO, |(_, all)| *all);
            let all = all.saturating_add(micros(asked));
            let of_share = share.limits(&full);
            let most = match next.as_ref().and_then(|next| next.get(index)) {
                _ if !share.lends => all.saturating_add(micros(of_share.capacity)),
                Some(next) => all.min(micros(*next)),
                None => all,
            };
            Part {
                least: ahead.saturating_add(micros(kept.of(index))),
                borrowed: 0,
                left: micros(shares.left(share)),
                rate: micros(of_share.refill_per_second),
                from: if share.lends { 0 } else { paid_back_ms },
                most,
            }
        };
        partitions.iter().enumerate().map(part).collect()
    }
}
