//! Orders for leases that were refused and will be given again: requests of other pools that wait for tokens here.
//!
//! They have no place in the queue, for they ask only now and then. But they have a rank like everybody else: what those need
//! that go before a request is kept from it while they are expected to ask again, or else everybody of lower rank would take
//! the tokens as they come. One that does not ask when it should is held up by something else, and holds back nobody.
//!
//! Nor does one that this pool granted and the next one refused, but for the time that this pool needs to gain its tokens until
//! the other one has them, if that one can say when, and keeps its word.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ClientId, PoolId, RequestId};
use crate::partition::Kept;
use crate::pool::acquire::LeaseAnswer;
use crate::pool::elsewhere::asks_again_at;
use crate::pool::keep::{GRACE_MS, Keep, TURN_MS};
use crate::pool::lease::{grant_of, request_of};
use crate::pool::{Effect, LeaseEnd, LeaseOrder, Pool};
use crate::queue::Entry;
use crate::units::{Instant, Tokens};

/// The most orders that are known at once: the oldest ones.
pub(super) const ORDERS_MAX: usize = 256;

/// An order that was refused.
#[derive(Debug, Clone)]
struct Refused {
    order: LeaseOrder,
    /// The partition that it belongs to, if its share can hold what it asks for.
    own: Option<usize>,
    /// The partition whose claim covers what is kept for it, if one does.
    covered_by: Option<usize>,
    /// From here on tokens are kept for it.
    from: Instant,
    /// So long.
    until: Instant,
    /// Its home is given time to gain its own tokens.
    is_waited_for: bool,
    /// Its home was told that tokens were given back, and it has not asked since.
    woken: bool,
}

/// An order that was granted.
#[derive(Debug, Clone)]
struct Granted {
    id: RequestId,
    order: LeaseOrder,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    /// By age, and by the request that they are for.
    refused: BTreeMap<(Instant, RequestId), Refused>,
    /// The pools that asked in vain, be it for a reservation that does not ask again, and the most that they were told since
    /// to be there by what came to nothing.
    homes: BTreeMap<PoolId, Tokens>,
    /// Those that were granted, by the name of the lease.
    granted: BTreeMap<String, Granted>,
    /// What is known of the clients that these are for, by their homes.
    of_clients: BTreeMap<(PoolId, ClientId), OfClient>,
}

/// What a client's fairness was in its home, and when.
type Standing = (Option<Instant>, i64);

/// What is known of a client while orders of its are granted.
#[derive(Debug, Clone)]
struct OfClient {
    standing: Option<Standing>,
    /// How many are.
    granted: usize,
}

impl Orders {
    fn of<'a>(&'a self, now: Instant) -> impl Iterator<Item = (Entry<'a>, &'a Refused)> {
        let known = self.refused.iter().filter(move |(_, refused)| refused.from <= now && refused.until > now);
        known.map(|((_, id), refused)| (asked(&refused.order, id), refused))
    }

    /// Forgets those that did not ask again.
    pub(super) fn forget_late(&mut self, now: Instant) {
        self.refused.retain(|_, refused| refused.until > now);
    }

    /// Forgets all of them: the partitions are others.
    pub(super) fn forget(&mut self) {
        self.refused.clear();
    }

    /// Forgets what a request has asked.
    fn forget_request(&mut self, id: &RequestId) {
        self.refused.retain(|(_, known), _| known != id);
    }

    /// Forgets those of these homes.
    pub(super) fn forget_those_of(&mut self, homes: &BTreeSet<PoolId>) {
        self.refused.retain(|(_, id), _| id.home().is_none_or(|home| !homes.contains(&home)));
    }

    /// When the first of them is late.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.refused.values().map(|refused| refused.until).min()
    }

    fn remember(&mut self, id: &RequestId, refused: Refused) {
        let key = (refused.order.enqueued_at, id.clone());
        if self.refused.len() >= ORDERS_MAX && !self.refused.contains_key(&key) {
            match self.refused.last_key_value() {
                Some((youngest, _)) if *youngest > key => self.refused.pop_last(),
                _ => return,
            };
        }
        self.refused.insert(key, refused);
    }

    /// From when on tokens are kept for a request's order, if it is known.
    pub(super) fn kept_from(&self, enqueued_at: Instant, id: &RequestId) -> Option<Instant> {
        self.refused.get(&(enqueued_at, id.clone())).filter(|refused| refused.is_waited_for).map(|refused| refused.from)
    }

    /// Whether the request has a lease of a later grant.
    fn is_here_again(&self, id: &RequestId, key: &str) -> bool {
        let of_it = self.granted.range(format!("{id}#")..).take_while(|(_, granted)| granted.id == *id);
        of_it.map(|(other, _)| grant_of(other)).any(|grant| grant > grant_of(key))
    }

    /// Whether the request was refused with a later grant, or has inquired since this one.
    fn was_refused_since(&self, granted: &Granted, key: &str) -> bool {
        let refused = self.refused.get(&(granted.order.enqueued_at, granted.id.clone()));
        refused.is_some_and(|refused| {
            let asked = grant_of(&refused.order.key);
            asked > grant_of(key) || (refused.order.inquires && asked == grant_of(key))
        })
    }

    /// A lease ended by itself: whether its request asks again is not known.
    pub(super) fn lease_ran_out(&mut self, key: &str) {
        self.take_granted(key);
    }

    /// An order that was granted is so no more; it has what was said of its client since.
    fn take_granted(&mut self, key: &str) -> Option<Granted> {
        let mut granted = self.granted.remove(key)?;
        if let Some(home) = granted.id.home() {
            let name = (home, granted.order.client.clone());
            if let Some(of_client) = self.of_clients.get_mut(&name) {
                if let Some((stood_at, standing)) = of_client.standing {
                    (granted.order.stood_at, granted.order.standing) = (stood_at, Some(standing));
                }
                of_client.granted = of_client.granted.saturating_sub(1);
                if of_client.granted == 0 {
                    self.of_clients.remove(&name);
                }
            }
        }
        Some(granted)
    }

    /// What the fairness of a client was in that home, and when: for every order of its from there, unless something later is
    /// known. Of one moment the least is the last, for a grant lowers it. The latest that is known.
    pub(super) fn stand(&mut self, home: &PoolId, client: &ClientId, said: Standing) -> Standing {
        let is_later = |one: Standing, other: Standing| one.0 > other.0 || (one.0 == other.0 && one.1 < other.1);
        let mut of_client = self.of_clients.get_mut(&(home.clone(), client.clone()));
        let known = of_client.as_ref().and_then(|of_client| of_client.standing);
        let waiting = self.refused.iter_mut().filter(|(_, refused)| refused.order.client == *client);
        let mut waiting: Vec<&mut LeaseOrder> = waiting
            .filter(|((_, id), _)| id.home().as_ref() == Some(home))
            .map(|(_, refused)| &mut refused.order)
            .collect();
        let known = waiting.iter().filter_map(|order| Some((order.stood_at, order.standing?))).chain(known);
        let latest = known.fold(said, |latest, known| if is_later(known, latest) { known } else { latest });
        for order in &mut waiting {
            (order.stood_at, order.standing) = (latest.0, Some(latest.1));
        }
        if let Some(of_client) = &mut of_client {
            of_client.standing = Some(latest);
        }
        latest
    }

    /// An order says what its client's fairness is in its home, or has what was said later.
    pub(super) fn stand_alike(&mut self, id: &RequestId, order: &mut LeaseOrder) {
        if let Some((home, standing)) = id.home().zip(order.standing) {
            let (stood_at, standing) = self.stand(&home, &order.client, (order.stood_at, standing));
            (order.stood_at, order.standing) = (stood_at, Some(standing));
        }
    }

    /// An order is granted.
    pub(super) fn granted(&mut self, id: &RequestId, order: &LeaseOrder) {
        self.refused.remove(&(order.enqueued_at, id.clone()));
        if order.returns {
            let granted = Granted { id: id.clone(), order: order.clone() };
            let is_known = self.granted.insert(order.key.clone(), granted).is_some();
            if let Some(home) = id.home().filter(|_| !is_known) {
                let standing = order.standing.map(|standing| (order.stood_at, standing));
                let nothing = OfClient { standing: None, granted: 0 };
                let of_client = self.of_clients.entry((home, order.client.clone())).or_insert(nothing);
                of_client.standing = standing.or(of_client.standing);
                of_client.granted = of_client.granted.saturating_add(1);
            }
        }
    }
}

/// The order as the queue would have it.
pub(super) fn asked<'a>(order: &'a LeaseOrder, id: &'a RequestId) -> Entry<'a> {
    Entry {
        id,
        client: &order.client,
        tier: order.tier,
        urgency: order.urgency,
        enqueued_at: order.enqueued_at,
        amount: order.amount,
        needs_slot: false,
        worker: None,
        has_failed: false,
        off_peak: None,
        standing: order.standing,
    }
}

impl Pool {
    /// Remembers an order that was refused, and tells when it should be granted.
    pub(super) fn note_refused(
        &mut self,
        id: &RequestId,
        order: LeaseOrder,
        answer: LeaseAnswer,
        now: Instant,
    ) -> LeaseAnswer {
        let retry_at = match answer {
            LeaseAnswer::NotNow { retry_at, .. } => retry_at,
            LeaseAnswer::Ready => {
                // Its home has its tokens, or it is in vain to wait for it: there it waits in its place, however long. But a
                // promoted one has them soon, and would never have both.
                let is_old = self.is_old(order.enqueued_at, now);
                let until = if is_old { self.turn_ends_at(&order, now, now) } else { now.plus(GRACE_MS) };
                self.remember_order(id, order, Keep { is_waited_for: is_old, ..Keep::until(until, now) }, now);
                return answer;
            }
            LeaseAnswer::LeftAlone { .. } => {
                self.orders.forget_request(id);
                return answer;
            }
            _ => return answer,
        };
        self.orders.homes.extend(id.home().map(|home| (home, Tokens::ZERO)));
        let place = asked(&order, id);
        // What is said to be there already is held up by what nobody can foretell.
        let is_running = self.config.scheduler_running;
        let ready_at = if is_running { self.tokens_at(&place, self.before(&place, now), now) } else { None };
        let ready_at = ready_at.filter(|at| *at > now);
        if order.returns {
            let is_next =
                self.kept_before(&place, None, now).all().is_zero() && !self.somebody_is_before(&order, id, None, now);
            let asks_at = asks_again_at(retry_at, ready_at, order.enqueued_at, now);
            let keep = match is_next || self.is_old(order.enqueued_at, now) {
                true => self.keep_for_turn(id, &order, asks_at, now),
                false => Keep::until(asks_at.plus(GRACE_MS), now),
            };
            self.remember_order(id, order, keep, now);
        }
        LeaseAnswer::NotNow { retry_at, ready_at }
    }

    fn remember_order(&mut self, id: &RequestId, order: LeaseOrder, keep: Keep, now: Instant) {
        // An inquiry may be older than the grant that it has led to.
        let is_late = order.inquires && self.orders.is_here_again(id, &order.key);
        // Where its home has its tokens after all that, there is nothing to keep.
        let share = self.partition_of(&order.client, order.tier);
        let own = share.filter(|index| self.share_can_hold(*index, order.amount));
        if !is_late && keep.from < keep.until && self.has_place_for(&order, own, id, keep, now) {
            // What is dedicated it takes first, be it more than that can hold.
            let is_dedicated = |index: &usize| self.config.partitions.get(*index).is_some_and(|share| !share.lends);
            let covered_by = own.or_else(|| share.filter(is_dedicated));
            let Keep { from, until, is_waited_for } = keep;
            self.orders.remember(id, Refused { order, own, covered_by, from, until, is_waited_for, woken: false });
        }
    }

    /// Another pool refused one that was granted here, and has its tokens at `needed_at`.
    fn keep_until_needed(&mut self, granted: Granted, needed_at: Instant, now: Instant) {
        let Granted { id, order } = granted;
        let own = self.partition_of(&order.client, order.tier);
        let from = self.gain_ms(order.amount, own).map_or(now, |gain_ms| needed_at.plus(gain_ms.saturating_neg()));
        let until = self.turn_ends_at(&order, needed_at.max(now), now);
        self.remember_order(&id, order, Keep { from, until, is_waited_for: true }, now);
    }

    /// A lease is settled, or an order for it is not given any more. One whose grant came to nothing is waited for again, if it
    /// is known when.
    pub(super) fn order_ends(&mut self, key: &str, end: LeaseEnd, now: Instant) {
        let granted = self.orders.take_granted(key);
        match end {
            LeaseEnd::Ran => {}
            LeaseEnd::Returns { needed_at } => {
                let is_latest = |granted: &Granted| {
                    !self.orders.is_here_again(&granted.id, key) && !self.orders.was_refused_since(granted, key)
                };
                let granted = granted.filter(is_latest);
                if let Some((granted, needed_at)) = granted.zip(needed_at) {
                    self.keep_until_needed(granted, needed_at, now);
                }
            }
            LeaseEnd::Over => {
                if let Some(id) = request_of(key) {
                    self.orders.forget_request(&id);
                }
            }
        }
    }

    /// Makes sure that no more is known at once of a client's than it has slots for: more would be kept than it can use, and those
    /// that wait for its slots hold back nobody. It is those that go first which are known, of its share and of what is shared
    /// by themselves: what is too large for the share waits for other tokens. One slot at least it has, whatever was known when
    /// it was admitted: an order is given with a slot in hand.
    fn has_place_for(
        &mut self,
        order: &LeaseOrder,
        own: Option<usize>,
        id: &RequestId,
        keep: Keep,
        now: Instant,
    ) -> bool {
        let Some(slots) = order.slots.and_then(|slots| usize::try_from(slots.max(1)).ok()) else { return true };
        loop {
            let known = self.orders.refused.iter();
            let others = known.filter(|((_, other), refused)| {
                let at_once = refused.from < keep.until && keep.from < refused.until;
                other != id && refused.order.client == order.client && refused.own == own && at_once
            });
            let others: Vec<_> = others.map(|(key, refused)| (asked(&refused.order, &key.1), key)).collect();
            if others.len() < slots {
                return true;
            }
            let goes_first = |one: &Entry<'_>, other: &Entry<'_>| self.goes_before(one, other, true, now);
            let last = others.iter().reduce(|last, one| if goes_first(&last.0, &one.0) { one } else { last });
            match last {
                Some((last, key)) if goes_first(&asked(order, id), last) => {
                    let key = (*key).clone();
                    self.orders.refused.remove(&key);
                }
                _ => return false,
            }
        }
    }

    fn share_can_hold(&self, index: usize, amount: Tokens) -> bool {
        let limits = self.limits();
        self.config.partitions.get(index).is_some_and(|share| amount <= share.limits(&limits).capacity)
    }

    /// What is kept for requests of other pools that go before this one: among all, or among the members of a partition.
    pub(super) fn kept_before(&self, one: &Entry<'_>, partition: Option<usize>, now: Instant) -> Kept {
        let mut kept = Kept::NONE;
        for (order, covered_by) in self.kept_for(one, partition, now) {
            kept.add(covered_by, order.amount);
        }
        kept
    }

    /// For which, and the partition whose claim covers it.
    pub(super) fn kept_for<'a>(
        &'a self,
        one: &'a Entry<'a>,
        partition: Option<usize>,
        now: Instant,
    ) -> impl Iterator<Item = (Entry<'a>, Option<usize>)> {
        let promoted_turn = self.is_promoted_turn(partition);
        let before = self.orders.of(now).filter(move |(entry, refused)| {
            (partition.is_none() || refused.own == partition) && self.goes_before(entry, one, promoted_turn, now)
        });
        before.map(|(entry, refused)| (entry, refused.covered_by))
    }

    /// What is kept for all of them.
    pub(super) fn kept(&self, now: Instant) -> Tokens {
        self.orders.of(now).fold(Tokens::ZERO, |sum, (entry, _)| sum.saturating_add(entry.amount))
    }

    /// What those of the members of each partition want of its share: the most that one does, and all together.
    pub(super) fn ordered_of_shares(&self, now: Instant) -> Vec<(Tokens, Tokens)> {
        let mut ordered = vec![(Tokens::ZERO, Tokens::ZERO); self.config.partitions.len()];
        if ordered.is_empty() {
            return ordered;
        }
        for (entry, refused) in self.orders.of(now) {
            if let Some((most, all)) = refused.own.and_then(|index| ordered.get_mut(index)) {
                *most = entry.amount.max(*most);
                *all = all.saturating_add(entry.amount);
            }
        }
        ordered
    }

    /// Whether a promoted request of another pool waits for tokens of this one, as far as is known here.
    #[must_use]
    pub fn is_old_one_ordered(&self, now: Instant) -> bool {
        self.orders.of(now).next().is_some_and(|(oldest, _)| self.is_old(oldest.enqueued_at, now))
    }

    /// What was given back here may be what another pool's request waits for. What is refilled is no news: that pool was
    /// told when.
    pub(super) fn wake_lease_waiters(&mut self, now: Instant) {
        let Some(came_to_nothing) = self.gave_back.take().filter(|_| !self.state.bucket.level().is_zero()) else {
            return;
        };
        let available = self.state.bucket.level();
        if came_to_nothing {
            for (home, told) in self.orders.homes.iter_mut().filter(|(_, told)| **told < available) {
                *told = available;
                self.effects.push(Effect::LeaseFree { home: home.clone(), came_to_nothing, available });
            }
            return;
        }
        let woken = self.orders.refused.iter().filter(|(_, refused)| !refused.woken);
        let until = woken.map(|(key, refused)| {
            let until = match refused.is_waited_for {
                // A promoted one has all the time that its home needs: more of it is for one that asks.
                true if self.is_old(refused.order.enqueued_at, now) => now.plus(TURN_MS),
                true => self.turn_ends_at(&refused.order, now, now),
                false => now.plus(GRACE_MS),
            };
            (key.clone(), until)
        });
        for (key, until) in until.collect::<Vec<_>>() {
            if let Some(refused) = self.orders.refused.get_mut(&key) {
                refused.woken = true;
                refused.until = refused.until.max(until);
            }
        }
        let homes = std::mem::take(&mut self.orders.homes);
        self.effects.extend(homes.into_keys().map(|home| Effect::LeaseFree { home, came_to_nothing, available }));
    }

    /// Tokens are given back in this event, be it only what a grant had that came to nothing.
    pub(super) fn note_gave_back(&mut self, came_to_nothing: bool) {
        self.gave_back = Some(came_to_nothing && self.gave_back.unwrap_or(true));
    }
}
