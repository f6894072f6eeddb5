//! Turns of the promoted ones: the oldest starts within its bound, also where all that goes first is promoted too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::pool::{Effect, LeaseAnswer, LeaseOrder, Pool, Submission};
use rm_core::priority::{PROMOTED_ONE_IN, STARVATION_BOUND_MS, Tier, Urgency};
use rm_core::units::Instant;
use support::{at, config, demand, id_of, lease_order, pool, queue, request, started, used};

/// A pool of a token a second, with work for 700 seconds of those that go first, and one more a second.
struct Backlog {
    pool: Pool,
    tier: Tier,
    urgency: Urgency,
    sent: u64,
}

impl Backlog {
    fn new(capacity: u64, tier: Tier, urgency: Urgency) -> Self {
        let mut backlog = Self { pool: pool(config(capacity, 1)), tier, urgency, sent: 1 };
        for _ in 0..700 {
            backlog.send(at(10));
        }
        backlog
    }

    fn send(&mut self, now: Instant) {
        self.sent += 1;
        let client = format!("big-{}", self.sent % 20);
        queue(&mut self.pool, request(self.sent, &client, self.tier, self.urgency, now), now);
    }

    /// What starts in a second, which ends at once, while one more comes.
    fn second(&mut self, now: Instant) -> Vec<RequestId> {
        self.pool.on_wakeup(now);
        let mut runs = started(&mut self.pool, now);
        self.send(now);
        runs.extend(started(&mut self.pool, now));
        for (id, grant) in &runs {
            self.pool.report(id, *grant, used(1), now);
        }
        runs.into_iter().map(|(id, _)| id).collect()
    }
}

fn seconds(from: i64) -> impl Iterator<Item = Instant> {
    (from..).map(|second| at(1_000 * second + 20))
}

#[test]
fn the_oldest_one_has_its_turn_though_all_that_goes_first_is_promoted() {
    let first =
        [(Tier::Enterprise, Urgency::Normal), (Tier::Standard, Urgency::Normal), (Tier::Basic, Urgency::Immediate)];
    for ((tier, urgency), capacity) in first.into_iter().flat_map(|of| [1, 8].map(|capacity| (of, capacity))) {
        let mut backlog = Backlog::new(capacity, tier, urgency);
        for now in seconds(0).take(100) {
            backlog.second(now);
        }
        let mut times = seconds(100);
        let came = times.next().unwrap();
        let basic = queue(&mut backlog.pool, request(1, "basic", Tier::Basic, Urgency::Normal, came), came);
        let promoted_at = came.plus(STARVATION_BOUND_MS);
        while times.next().is_some_and(|now| now < promoted_at && !backlog.second(now).contains(&basic)) {}
        let older = backlog.pool.requests().filter(|one| one.enqueued_at < came).count();
        let bound = usize::try_from(PROMOTED_ONE_IN).unwrap() * (older + 1);
        let mut grants = 0;
        let starts = times.take(bound).any(|now| {
            let runs = backlog.second(now);
            grants += runs.len();
            runs.contains(&basic)
        });
        assert!(starts && grants <= bound, "{tier:?} {urgency:?}: {older} older ones, not in {grants} grants");
    }
}

#[test]
fn a_promoted_order_of_another_home_has_its_turn_though_all_that_goes_first_is_promoted() {
    let mut backlog = Backlog::new(1, Tier::Enterprise, Urgency::Normal);
    let id = RequestId::new(at(20), [9; 10], &id_of("elsewhere"));
    let order = |number: i64| LeaseOrder {
        key: format!("{id}#{number}"),
        enqueued_at: at(20),
        returns: true,
        regain_ms: 1_000,
        ..lease_order(&id, "basic", Tier::Basic, Urgency::Normal)
    };
    for (number, now) in (0..).zip(seconds(0).take(3_600)) {
        if matches!(backlog.pool.acquire_lease(order(number), now), LeaseAnswer::Granted { .. }) {
            assert!(now > at(STARVATION_BOUND_MS), "it has the lowest rank until it is promoted");
            return;
        }
        backlog.second(now);
    }
    panic!("it is passed over for an hour");
}

/// Whose slots are asked for, in the order of their grants.
fn granted(pool: &mut Pool) -> Vec<(RequestId, u32)> {
    let asks = |effect| match effect {
        Effect::AcquireSlot { id, grant, .. } => Some((id, grant)),
        _ => None,
    };
    pool.take_effects().into_iter().filter_map(asks).collect()
}

#[test]
fn of_what_is_there_at_once_every_fourth_grant_is_a_promoted_ones() {
    let mut pool = pool(config(12, 0));
    let all =
        Submission { demands: vec![demand("home", 12)], ..request(0, "all", Tier::Basic, Urgency::Normal, at(0)) };
    let all = queue(&mut pool, all, at(0));
    let (_, grant) = started(&mut pool, at(0)).remove(0);
    let now = at(STARVATION_BOUND_MS);
    let mut send = |n: u64, tier, held_at| {
        queue(&mut pool, request(n, &format!("client-{n}"), tier, Urgency::Normal, held_at), held_at)
    };
    let old: Vec<_> = (1..=12).map(|n| send(n, Tier::Basic, at(0))).collect();
    (13..=24).for_each(|n| drop(send(n, Tier::Enterprise, now)));
    pool.report(&all, grant, used(0), now);
    // No account has answered yet.
    let mut asked = granted(&mut pool);
    let is_old = |(id, _): &(RequestId, u32)| old.contains(id);
    let turns = asked.iter().filter(|one| is_old(one)).count();
    assert_eq!((asked.len(), turns), (12, 3));
    let (id, grant) = asked.remove(asked.iter().position(is_old).unwrap());
    assert_eq!(id, old[0], "the oldest first");
    pool.slot_answered(&id, grant, Some(SlotAnswer::Full), now);
    assert_eq!(granted(&mut pool), [(old[3].clone(), 1)], "its turn came to nothing: it is the next one's");
}

#[test]
fn a_promoted_one_is_told_when_its_turn_comes() {
    let mut pool = pool(config(1, 1));
    let basic = |n| request(n, "basic", Tier::Basic, Urgency::Deferred, at(0));
    let all = queue(
        &mut pool,
        Submission { slots: Some(9), ..request(0, "first", Tier::Basic, Urgency::Normal, at(0)) },
        at(0),
    );
    let (_, grant) = started(&mut pool, at(0))[0];
    let waiting =
        [queue(&mut pool, basic(1), at(0)), queue(&mut pool, Submission { slots: Some(9), ..basic(2) }, at(0))];
    pool.report(&all, grant, used(1), at(0));
    let mut foretold = Vec::new();
    for (second, now) in (0_i64..).zip(seconds(1).take(620)) {
        if foretold.is_empty() && now >= at(STARVATION_BOUND_MS) {
            let place = |id| pool.position(id, now).unwrap();
            foretold = waiting.iter().map(|id| (place(id).estimated_start_at.unwrap(), place(id).ahead)).collect();
            assert!(foretold[0].1 <= 3 && foretold[1].1 <= 7, "one grant in four: {foretold:?}");
        }
        for n in 0..2 {
            let n = 1_000 + 2 * u64::try_from(second).unwrap() + n;
            let client = format!("big-{}", n % 20);
            queue(&mut pool, request(n, &client, Tier::Enterprise, Urgency::Fast, now), now);
        }
        pool.on_wakeup(now);
        for (id, grant) in started(&mut pool, now) {
            if let Some(index) = waiting.iter().position(|one| *one == id) {
                let error = now.since(foretold[index].0).max(foretold[index].0.since(now));
                assert!(error <= 1_100, "{index}: {now:?} instead of {:?}", foretold[index]);
            }
            pool.report(&id, grant, used(1), now);
        }
    }
    assert!(waiting.iter().all(|id| pool.request(id).is_none()), "both had their turns");
}
