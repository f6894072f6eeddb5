//! Granting: who gets the tokens that are there.

use std::collections::BTreeSet;

use crate::breaker::Breaker;
use crate::fair_share::weight;
use crate::id::{RequestId, WorkerBinding};
use crate::off_peak::{self, WaitsFor, Window};
use crate::partition::{self, Kept};
use crate::pool::Pool;
use crate::pool::finish::Finish;
use crate::pool::index::entry;
use crate::pool::supply::Leave;
use crate::priority::{PROMOTED_ONE_IN, Tier};
use crate::queue::{Flow, Pick};
use crate::request::{Failure, Phase, Request, Status};
use crate::token_bucket::Availability;
use crate::units::{Instant, NanoUsd, Tokens};

/// The most grants of one event. Cloudflare allows 32 calls through service bindings to an event; each grant may need
/// one for its run and one for its slot.
pub const MAX_GRANTS_PER_EVENT: usize = 16;

/// What a member must leave that takes of its partition's own share.
pub(super) const OWN_SHARE: Leave = Leave { insist: true, kept: Kept::NONE };

/// What comes next.
enum Turn {
    /// This one has its tokens, or the one that goes `first` in its turn; `own` of them of its partition's share. It was picked
    /// for that partition, or for all.
    Granted { pick: Pick, first: Option<RequestId>, own: Tokens, picked_for: Option<usize> },
    /// It can never have them.
    Refused(RequestId),
    /// Nobody's tokens are there before this moment, if it is known.
    Wait(Option<Instant>),
}

impl Pool {
    /// Grants in the order of rank until the tokens, or this event's share of grants, are used up. The one whose turn it
    /// is waits for its tokens, and the others wait with it, but for those that have a share of their own: nobody else of
    /// lower rank is let past.
    ///
    /// `granted` is how many this event has granted so far, and `slot_of` the request whose slot the account gave together
    /// with its hold.
    pub(super) fn grant(&mut self, granted: &mut usize, slot_of: Option<&RequestId>, now: Instant) {
        self.head_ready_at = None;
        self.backlog = false;
        if !self.config.scheduler_running {
            return;
        }
        // What needs nothing of this pool waits for none of its tokens.
        while *granted < MAX_GRANTS_PER_EVENT
            && let Some(pick) = self.pick_free(now)
        {
            *granted = granted.saturating_add(1);
            let first =
                self.first_in(&pick.id, now).filter(|_| slot_of != Some(&pick.id)).map(|first| first.id.clone());
            let id = self.who_goes(first, pick.id);
            self.begin_acquiring(&id, Tokens::ZERO, false, false, slot_of, now);
        }
        if let Some(until) = self.state.paused_until {
            let until = (!self.queue.is_empty()).then_some(until);
            self.head_ready_at = [until, self.eligible_at(now)].into_iter().flatten().min();
            self.backlog = *granted >= MAX_GRANTS_PER_EVENT;
            return;
        }
        let ready_at = loop {
            if *granted >= MAX_GRANTS_PER_EVENT {
                self.backlog = true;
                break None;
            }
            match self.next_turn(slot_of, now) {
                Turn::Granted { pick, first, own, picked_for } => {
                    *granted = granted.saturating_add(1);
                    let on_turn = pick.promoted && self.is_promoted_turn(picked_for);
                    self.count_turn(picked_for, on_turn);
                    if on_turn {
                        self.turn_was_used(picked_for);
                    }
                    let id = self.who_goes(first, pick.id);
                    self.begin_acquiring(&id, own, picked_for.is_some(), on_turn, slot_of, now);
                }
                Turn::Refused(id) => {
                    *granted = granted.saturating_add(1);
                    self.finish_refused(&id, now);
                }
                Turn::Wait(ready_at) => break ready_at,
            }
        };
        let late_at = self.orders.late_at().filter(|_| !self.queue.is_empty());
        self.head_ready_at = [ready_at, late_at, self.eligible_at(now)].into_iter().flatten().min();
        if ready_at.is_some()
            && let Some(eases_at) = self.state.throttle.eases_at()
        {
            self.head_ready_at = self.head_ready_at.map(|at| at.min(eases_at));
        }
    }

    fn next_turn(&mut self, slot_of: Option<&RequestId>, now: Instant) -> Turn {
        self.held_back.look_again();
        let wanted = self.wanted(now);
        let Some(head) = self.next_in_turn(None, now) else { return Turn::Wait(None) };
        let insist = head.promoted && self.is_promoted_turn(None);
        let Some(first) = self.requests.get(&head.id) else { return Turn::Wait(None) };
        let (own, amount) = self.place_of(first);
        let leave = Leave { insist, kept: self.kept_before(&entry(first), None, now) };
        let is_there = |pool: &Self| pool.availability(amount, own, &wanted, &leave, now) == Availability::Now;
        let taken = match self.turn_is_kept(first) {
            Some(until) => Err(Availability::At(until)),
            // One that has its slot already goes itself.
            None if slot_of != Some(&head.id) && self.first_in(&head.id, now).is_some() && is_there(self) => {
                if let Some((first, own)) = self.take_for_first_in(&head, insist, &wanted, now) {
                    return Turn::Granted { pick: head, first: Some(first), own, picked_for: None };
                }
                self.take_tokens(amount, own, &wanted, &leave, now)
            }
            None => self.take_tokens(amount, own, &wanted, &leave, now),
        };
        let mut ready_at = match taken {
            Ok(drawn) => return Turn::Granted { pick: head, first: None, own: drawn, picked_for: None },
            Err(Availability::Never) => return Turn::Refused(head.id),
            Err(Availability::At(at)) => Some(at),
            Err(Availability::Now | Availability::NoRefill) => None,
        };
        self.note_held_back(&head.id, None, now);
        let lent_stand_back = self.is_turn_of_one_that_waits(Some(&head), now);
        for index in 0..self.config.partitions.len() {
            if lent_stand_back && self.config.partitions.get(index).is_none_or(|partition| partition.lends) {
                continue;
            }
            let Some(pick) = self.next_in_turn(Some(index), now) else { continue };
            let Some(next) = self.requests.get(&pick.id) else { continue };
            if let Some(until) = self.turn_is_kept(next) {
                ready_at = [ready_at, Some(until)].into_iter().flatten().min();
                continue;
            }
            let (_, amount) = self.place_of(next);
            let share = self.config.partitions.get(index);
            let limits = self.limits();
            // Requests of other pools are members too.
            let kept = self.kept_before(&entry(next), Some(index), now);
            let needed = amount.saturating_add(kept.all());
            let by_share = share.map(|share| self.state.shares.reaches(share, &limits, needed, now));
            let leave = Leave { kept, ..OWN_SHARE };
            let older = self.first_in(&pick.id, now).filter(|_| slot_of != Some(&pick.id));
            let is_there = self.availability(amount, Some(index), &wanted, &leave, now) == Availability::Now;
            let older = older.filter(|older| is_there && older.home_amount() <= amount);
            let (first, amount) = older.map_or((None, amount), |older| (Some(older.id.clone()), older.home_amount()));
            let at = match by_share {
                // What the others lend is not their own to insist on: whose turn comes first is served first.
                Some(Availability::Now) => match self.take_tokens(amount, Some(index), &wanted, &leave, now) {
                    Ok(drawn) => return Turn::Granted { pick, first, own: drawn, picked_for: Some(index) },
                    Err(Availability::At(at)) => Some(at),
                    Err(_) => None,
                },
                Some(Availability::At(at)) => Some(at),
                _ => None,
            };
            self.note_held_back(&pick.id, Some(index), now);
            ready_at = [ready_at, at].into_iter().flatten().min();
        }
        Turn::Wait(ready_at)
    }

    pub(super) fn place_of(&self, request: &Request) -> (Option<usize>, Tokens) {
        (self.partition_of(&request.client, request.tier), request.home_amount())
    }

    /// Counts a grant that is not a promoted request's on its turn. (One that it has by its score counts as any: of two that
    /// refuse each other, each promoted and before the other in its home, one's turn comes in both pools.) What
    /// a partition grants out of a share that it lends counts for all: otherwise a large request of somebody else might
    /// never see the pool without that share's claim.
    pub(super) fn count_turn(&mut self, picked_for: Option<usize>, promoted: bool) {
        if promoted {
            return;
        }
        let partition = picked_for.and_then(|index| self.config.partitions.get(index));
        if let Some(partition) = partition {
            let turns = self.state.turns.entry(partition.name.clone()).or_default();
            *turns = turns.saturating_add(1);
        }
        if partition.is_none_or(|partition| partition.lends) {
            self.state.since_promoted = self.state.since_promoted.saturating_add(1);
        }
    }

    /// A grant came to nothing: if it was on a turn of the promoted ones, that is still theirs. One that is promoted and goes
    /// first by its score takes none: where all that goes first is promoted, the oldest would never have one.
    pub(super) fn turn_came_to_nothing(&mut self, request: &Request) {
        if request.on_turn {
            self.turn_comes_back(self.partition_of(&request.client, request.tier).filter(|_| request.by_share));
        }
    }

    /// A promoted one has had its turn: among the members of a partition, out of its share, or among all.
    pub(super) fn turn_was_used(&mut self, of_share: Option<usize>) {
        match of_share.and_then(|index| self.config.partitions.get(index)) {
            Some(partition) => self.state.turns.insert(partition.name.clone(), 0),
            None => Some(std::mem::take(&mut self.state.since_promoted)),
        };
        self.changes.state = true;
    }

    /// A turn of a promoted one came to nothing: it is still theirs.
    pub(super) fn turn_comes_back(&mut self, of_share: Option<usize>) {
        let since = match of_share.and_then(|index| self.config.partitions.get(index)) {
            Some(partition) => self.state.turns.entry(partition.name.clone()).or_default(),
            None => &mut self.state.since_promoted,
        };
        *since = PROMOTED_ONE_IN.max(*since);
        self.changes.state = true;
    }

    /// How many grants have gone to others since a promoted one had its turn.
    pub(super) const fn grants_since_promoted(&self) -> u32 {
        self.state.since_promoted
    }

    pub(super) fn is_promoted_turn(&self, partition: Option<usize>) -> bool {
        let since = match partition.and_then(|index| self.config.partitions.get(index)) {
            None => self.state.since_promoted,
            Some(partition) => self.state.turns.get(&partition.name).copied().unwrap_or(0),
        };
        since.saturating_add(1) >= PROMOTED_ONE_IN
    }

    /// Whether it is the turn of the promoted ones, and one waits for tokens: the next one here, or one of another pool. What
    /// is lent does not come back before it.
    pub(super) fn is_turn_of_one_that_waits(&self, head: Option<&Pick>, now: Instant) -> bool {
        self.is_promoted_turn(None) && (head.is_some_and(|head| head.promoted) || self.is_old_one_ordered(now))
    }

    fn begin_acquiring(
        &mut self,
        id: &RequestId,
        own: Tokens,
        by_share: bool,
        on_turn: bool,
        slot_of: Option<&RequestId>,
        now: Instant,
    ) {
        let Some(mut request) = self.take(id) else { return };
        request.standing = Some(self.fairness.millipoints(&request.client)).filter(|_| !request.others().is_empty());
        self.fairness.record(&request.client, weight_of(&request), now);
        request.grants = request.grants.saturating_add(1);
        request.own = own;
        request.by_share = by_share;
        request.on_turn = on_turn;
        (request.refused_by, request.left_alone) = (None, false);
        if let Some(worker) = &request.worker {
            self.tries_worker(worker, id, request.grants);
        }
        request.phase = Phase::Acquiring { since: now, slot: slot_of == Some(id), leased: 0, woken: false };
        let client = request.client.clone();
        self.acquire_next(request, now);
        self.note_question(&client, now);
    }

    /// Which flows' requests could be granted now, were their tokens there.
    pub(super) fn eligible(&self, now: Instant) -> impl Fn(&Flow) -> bool {
        // Looked for once, and not for each flow again: it looks at all flows itself.
        let has_choice = |(_, breaker): &(_, &Breaker)| breaker.first_choice_until().is_some_and(|until| now < until);
        let left_alone = self.state.breakers.iter().filter(has_choice).map(|(worker, _)| worker);
        let tried_first: BTreeSet<_> = left_alone.filter(|worker| self.another_one_probes(worker, now)).collect();
        move |flow| {
            let another_one_probes = || flow.worker.as_ref().is_some_and(|worker| tried_first.contains(worker));
            self.may_go(flow, now) && !(flow.has_failed && another_one_probes())
        }
    }

    /// Whether nothing holds up a flow's requests but what holds up those of `own` as well: a slot of the same client, the
    /// same worker, the same window. Once that is over it is their rank that tells who goes first.
    pub(super) fn is_held_up_by_nothing_else(&self, flow: &Flow, own: &Flow, now: Instant) -> bool {
        let same_client = flow.client == own.client && own.needs_slot;
        let same_worker = flow.worker == own.worker;
        // One that has not failed yet tries a worker that is left alone before those that have.
        let tries_later = flow.has_failed && self.tries_first(own, now);
        (same_client || self.may_take_slot(flow, now))
            && (same_worker && !tries_later || self.worker_lets_through(flow, now))
            && (same_worker && own.has_failed || !self.is_tried_by_another_one(flow, now))
            && (flow.off_peak == own.off_peak || self.is_open_for(flow.off_peak.as_ref(), now).is_ok())
    }

    /// Whether one that has not failed yet is to try the worker of these that have.
    pub(super) fn is_tried_by_another_one(&self, flow: &Flow, now: Instant) -> bool {
        flow.has_failed && flow.worker.as_ref().is_some_and(|worker| self.another_one_probes(worker, now))
    }

    /// Whether one that has not failed yet is to try a worker: of those that fail whatever the worker does, nothing would be
    /// learnt of it. It has a moment for that, for its tokens may not be there.
    fn another_one_probes(&self, worker: &WorkerBinding, now: Instant) -> bool {
        let could = |other: &Flow| {
            other.worker.as_ref() == Some(worker) && self.tries_first(other, now) && self.may_go(other, now)
        };
        self.queue.has(could) || self.free.has(could)
    }

    /// Whether these are the first to try their worker, which is left alone, once it may be: they have not failed, and have the
    /// choice, and nothing else holds them up.
    pub(super) fn tries_first(&self, flow: &Flow, now: Instant) -> bool {
        let breaker = flow.worker.as_ref().and_then(|worker| self.state.breakers.get(worker));
        let has_choice = breaker.and_then(Breaker::first_choice_until).is_some_and(|until| now < until);
        has_choice
            && !flow.has_failed
            && self.may_take_slot(flow, now)
            && self.is_open_for(flow.off_peak.as_ref(), now).is_ok()
    }

    fn may_go(&self, flow: &Flow, now: Instant) -> bool {
        self.may_take_slot(flow, now)
            && self.worker_lets_through(flow, now)
            && self.is_open_for(flow.off_peak.as_ref(), now).is_ok()
    }

    fn may_take_slot(&self, flow: &Flow, now: Instant) -> bool {
        let is_passed = || self.asks_enough(&flow.client) && !self.keeps_turn(&flow.client, now);
        !flow.needs_slot || !(self.blocked.contains_key(&flow.client) || is_passed())
    }

    fn worker_lets_through(&self, flow: &Flow, now: Instant) -> bool {
        flow.worker.as_ref().is_none_or(|worker| self.lets_through(worker, now))
    }

    pub(super) fn lets_through(&self, worker: &WorkerBinding, now: Instant) -> bool {
        self.state.breakers.get(worker).is_none_or(|breaker| breaker.lets_through(now))
    }

    /// Whether what waits for these windows may run now; if not, when it may.
    pub(super) fn is_open_for(&self, windows: Option<&WaitsFor>, now: Instant) -> Result<(), Option<Instant>> {
        self.windows(windows).map_or(Ok(()), |windows| off_peak::is_open(windows, now))
    }

    /// The coming windows; `None` if there are no rules for them, so that nobody has to wait.
    pub(super) fn windows(&self, which: Option<&WaitsFor>) -> Option<&Vec<Window>> {
        match which {
            None | Some(WaitsFor::Nothing) => None,
            Some(WaitsFor::Pool) => self.config.off_peak.as_ref(),
            Some(WaitsFor::Template(name)) => self.config.template_windows.get(name),
        }
    }

    /// When something that waits becomes eligible by itself: a window opens, a worker may be tried again.
    fn eligible_at(&self, now: Instant) -> Option<Instant> {
        let has = |wanted: &dyn Fn(&Flow) -> bool| self.queue.has(wanted) || self.free.has(wanted);
        let templates = self.config.template_windows.keys().map(|name| WaitsFor::Template(name.clone()));
        let windows = templates.chain([WaitsFor::Pool]).filter_map(|which| {
            let opens_at = self.is_open_for(Some(&which), now).err()?;
            opens_at.filter(|_| has(&|flow| flow.off_peak.as_ref() == Some(&which)))
        });
        let breakers = self.state.breakers.iter().filter_map(|(worker, breaker)| {
            let until = [breaker.opens_until(), breaker.first_choice_until()];
            let until = until.into_iter().flatten().find(|until| *until > now)?;
            has(&|flow| flow.worker.as_ref() == Some(worker)).then_some(until)
        });
        breakers.chain(windows).min()
    }

    /// Who is next among all, or among the members of a partition.
    pub(super) fn next_in_turn(&self, partition: Option<usize>, now: Instant) -> Option<Pick> {
        let promoted_turn = self.is_promoted_turn(partition);
        let limits = self.limits();
        // One that wants more than its share can hold waits for what is shared, and not for the share: others may have that.
        let fits = |index: usize, id: &RequestId| {
            let share = self.config.partitions.get(index).map(|partition| partition.limits(&limits).capacity);
            share.is_some_and(|share| self.requests.get(id).is_some_and(|request| request.home_amount() <= share))
        };
        let is_eligible = self.eligible(now);
        let eligible = |flow: &Flow, tier: Tier, first: &RequestId| {
            let own = || partition::index_of(&self.config.partitions, &flow.client, tier);
            partition.is_none_or(|index| own() == Some(index) && fits(index, first)) && is_eligible(flow)
        };
        self.queue.pick(&self.config.weights, &self.fairness, promoted_turn, now, eligible)
    }

    fn pick_free(&self, now: Instant) -> Option<Pick> {
        let is_eligible = self.eligible(now);
        let eligible =
            |flow: &Flow, _, _: &RequestId| is_eligible(flow) && !(flow.needs_slot && self.asks_enough(&flow.client));
        self.free.pick(&self.config.weights, &self.fairness, true, now, eligible)
    }

    /// The pool was made smaller than what this request needs.
    fn finish_refused(&mut self, id: &RequestId, now: Instant) {
        if let Some(request) = self.take(id) {
            self.order_nothing_more(&request);
            let failure = Failure {
                code: "unsatisfiable".into(),
                message: format!("it needs more than the pool `{}` can give it now", self.config.pool),
            };
            self.finish(request, Finish::unused(Status::Failed, Some(failure)), now);
        }
    }
}

/// What a request's grant weighs in its client's share of the pool.
pub(super) fn weight_of(request: &Request) -> i64 {
    let cost = request.demands.first().and_then(crate::request::Demand::estimated_cost).unwrap_or(NanoUsd::ZERO);
    weight(cost, request.home_amount())
}
