//! Partitions: what is set aside is there for its members, what is idle is lent, and no token idles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use proptest::prelude::*;
use rm_core::id::RequestId;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{LeaseOrder, Mode, Pool, PoolConfig, Refusal, Stored, Submission, Submitted};
use rm_core::priority::{STARVATION_BOUND_MS, Tier, Urgency};
use rm_core::units::{Instant, Tokens};
use support::{
    at, config, demand, id_of, lease_order, pool, queue, request, run_until, started, started_ids, stored, units, used,
};

fn of_tier(tier: Tier, percent: u8, lends: bool) -> Partition {
    Partition { name: tier.as_str().into(), member: Member::Tier(tier), percent, lends }
}

fn with(partitions: Vec<Partition>, config: PoolConfig) -> PoolConfig {
    PoolConfig { partitions, ..config }
}

fn order(n: u64, tier: Tier, amount: u64, now: Instant) -> Submission {
    Submission {
        demands: vec![demand("home", amount)],
        ..request(n, &format!("{tier}-{}", n % 4), tier, Urgency::Normal, now)
    }
}

/// Enterprise work that never ends: more than the pool can grant in a minute.
fn flood(pool: &mut Pool, from: u64, count: u64, now: Instant) -> Vec<RequestId> {
    (from..from + count).map(|n| queue(pool, order(n, Tier::Enterprise, 1, now), now)).collect()
}

fn let_run(pool: &mut Pool, runs: bool, now: Instant) {
    let before = pool.config().clone();
    pool.configure(PoolConfig { scheduler_running: runs, revision: before.revision + 1, ..before }, now);
}

/// The claim that a partition has left.
fn left(pool: &Pool, now: Instant) -> Tokens {
    pool.view(now).partitions[0].available
}

#[test]
fn a_share_that_is_lent_out_is_back_as_soon_as_the_pool_has_refilled_as_much() {
    let mut pool = pool(with(vec![of_tier(Tier::Basic, 30, true)], config(100, 10)));
    flood(&mut pool, 0, 400, at(0));
    let lent = run_until(&mut pool, at(0), at(5_000));
    assert_eq!(lent.len(), 150, "what nobody asks for is lent");
    assert_eq!(pool.view(at(5_000)).lent, units(30));
    let members: Vec<RequestId> =
        (1_000..1_030).map(|n| queue(&mut pool, order(n, Tier::Basic, 1, at(5_000)), at(5_000))).collect();
    let next = run_until(&mut pool, at(5_000), at(8_000));
    let theirs = next.iter().filter(|(_, id)| members.contains(id)).count();
    assert_eq!((theirs, next.len()), (30, 30), "three seconds refill the thirty that were lent");
    queue(&mut pool, order(2_000, Tier::Basic, 1, at(8_000)), at(8_000));
    // From then on its members have their share of the refill, and the stream has the rest.
    for n in 2_001..2_060 {
        queue(&mut pool, order(n, Tier::Basic, 1, at(8_000)), at(8_000));
    }
    let later = run_until(&mut pool, at(8_000), at(18_000));
    let theirs = later.iter().filter(|(_, id)| id.as_str() >= order(2_000, Tier::Basic, 1, at(0)).id.as_str()).count();
    assert!((37..=40).contains(&theirs), "{theirs} of {} were theirs", later.len());
}

#[test]
fn a_dedicated_share_is_never_lent() {
    let mut pool = pool(with(vec![of_tier(Tier::Basic, 30, false)], config(100, 10)));
    flood(&mut pool, 0, 1_000, at(0));
    let others = run_until(&mut pool, at(0), at(60_000));
    assert_eq!(others.len(), 70 + 60 * 10, "the others have the rest, and what a full share cannot hold");
    assert_eq!(left(&pool, at(60_000)), units(30));
    let member = queue(&mut pool, order(1_000, Tier::Basic, 30, at(60_001)), at(60_001));
    assert_eq!(started_ids(&mut pool, at(60_001)), [member], "it is there at once");
}

#[test]
fn a_dedicated_share_is_not_lent_to_a_promoted_request_either() {
    let mut pool = pool(with(vec![of_tier(Tier::Premium, 50, false)], config(10, 0)));
    queue(&mut pool, order(1, Tier::Enterprise, 5, at(0)), at(0));
    let old = queue(&mut pool, order(2, Tier::Basic, 2, at(0)), at(0));
    assert_eq!(run_until(&mut pool, at(0), at(0)).len(), 1);
    let now = at(STARVATION_BOUND_MS);
    // After the second of these it is the promoted one's turn.
    let member = |n| Submission { urgency: Urgency::Immediate, ..order(n, Tier::Premium, 1, now) };
    let members: Vec<RequestId> = (3..8).map(|n| queue(&mut pool, member(n), now)).collect();
    let order: Vec<RequestId> = run_until(&mut pool, now, now.plus(1_000)).into_iter().map(|(_, id)| id).collect();
    assert!(!order.contains(&old));
    assert_eq!(order, members, "all of the share is its members'");
}

#[test]
fn nobody_can_ask_for_more_than_dedicated_shares_leave() {
    let mut pool = pool(with(vec![of_tier(Tier::Basic, 30, false)], config(100, 10)));
    let refused = pool.submit(order(1, Tier::Enterprise, 71, at(0)), Mode::Queue, at(0));
    assert_eq!(refused, Submitted::Refused(Refusal::Never));
    let all = queue(&mut pool, order(2, Tier::Enterprise, 70, at(0)), at(0));
    assert_eq!(started_ids(&mut pool, at(0)), [all]);
    let own = queue(&mut pool, order(3, Tier::Basic, 100, at(0)), at(0));
    assert_eq!(run_until(&mut pool, at(0), at(7_000)), [(at(7_000), own)], "a member may borrow all the rest");
}

#[test]
fn a_request_larger_than_its_share_keeps_nobody_waiting_for_ever() {
    let mut pool = pool(with(vec![of_tier(Tier::Basic, 10, true)], config(100, 10)));
    queue(&mut pool, order(1, Tier::Enterprise, 100, at(0)), at(0));
    queue(&mut pool, order(2, Tier::Basic, 50, at(0)), at(0));
    flood(&mut pool, 10, 300, at(0));
    assert_eq!(run_until(&mut pool, at(0), at(20_000)).len(), 201, "the stream has all of the refill");
}

#[test]
fn what_a_member_did_not_use_is_its_own_again_and_what_it_borrowed_goes_back_first() {
    let dedicated = with(vec![of_tier(Tier::Basic, 20, false)], config(100, 0));
    let mut pool = pool(dedicated.clone());
    queue(&mut pool, order(1, Tier::Basic, 20, at(0)), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    assert_eq!(left(&pool, at(0)), Tokens::ZERO);
    pool.report(&id, grant, used(5), at(1));
    assert_eq!(left(&pool, at(1)), units(15));
    queue(&mut pool, order(2, Tier::Basic, 25, at(1)), at(1));
    let (id, grant) = started(&mut pool, at(1)).remove(0);
    pool.report(&id, grant, used(15), at(2));
    assert_eq!(left(&pool, at(2)), Tokens::ZERO, "the ten that it borrowed are what it did not use");
    queue(&mut pool, order(3, Tier::Basic, 80, at(2)), at(2));
    assert_eq!(started_ids(&mut pool, at(2)).len(), 1);
}

#[test]
fn what_a_member_uses_beyond_its_reservation_is_of_its_own_share() {
    let mut pool = pool(with(vec![of_tier(Tier::Basic, 20, false)], config(100, 0)));
    queue(&mut pool, order(1, Tier::Basic, 5, at(0)), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, used(12), at(1));
    assert_eq!((left(&pool, at(1)), pool.view(at(1)).available), (units(8), units(88)));
}

#[test]
fn what_is_left_of_a_share_outlives_a_crash() {
    let dedicated = with(vec![of_tier(Tier::Basic, 20, false)], config(100, 0));
    let mut before = pool(dedicated.clone());
    queue(&mut before, order(1, Tier::Enterprise, 80, at(0)), at(0));
    queue(&mut before, order(2, Tier::Basic, 5, at(0)), at(0));
    started(&mut before, at(0));
    let state = Some(before.state().clone());
    let after = Pool::restore(Stored { state, ..stored(dedicated) }, at(1));
    assert_eq!((left(&before, at(1)), left(&after, at(1))), (units(15), units(15)));
}

#[test]
fn lent_shares_stand_back_for_a_promoted_request_that_needs_the_whole_pool() {
    let mut pool = pool(with(vec![of_tier(Tier::Premium, 50, true)], config(10, 1)));
    let mut now = at(0);
    let mut n = 100;
    let mut stream = |pool: &mut Pool, now: Instant| {
        for _ in 0..3 {
            n += 1;
            queue(pool, order(n, Tier::Premium, 1, now), now);
        }
    };
    stream(&mut pool, now);
    let old = queue(&mut pool, order(1, Tier::Basic, 10, now), now);
    let mut since_promoted = 0;
    while now.since(at(0)) < STARVATION_BOUND_MS + 60_000 {
        now = now.plus(1_000);
        pool.on_wakeup(now);
        let started = started_ids(&mut pool, now);
        stream(&mut pool, now);
        if started.contains(&old) {
            assert!(now.since(at(0)) >= STARVATION_BOUND_MS);
            return;
        }
        if now.since(at(0)) > STARVATION_BOUND_MS {
            since_promoted += started.len();
        }
        assert!(since_promoted <= 3, "{since_promoted} grants passed it over");
    }
    panic!("it starved");
}

#[test]
fn the_grants_of_a_share_have_promoted_turns_of_their_own() {
    let mut pool = pool(with(vec![of_tier(Tier::Premium, 50, false)], config(100, 1)));
    queue(&mut pool, order(1, Tier::Enterprise, 50, at(0)), at(0));
    assert_eq!(started_ids(&mut pool, at(0)).len(), 1);
    let_run(&mut pool, false, at(0));
    let deferred = Submission { urgency: Urgency::Deferred, ..order(2, Tier::Premium, 1, at(0)) };
    let old = queue(&mut pool, deferred, at(0));
    let now = at(STARVATION_BOUND_MS);
    // The second of these waits for a long time, and the members go on.
    for n in 10..12 {
        let large = Submission { urgency: Urgency::Immediate, ..order(n, Tier::Enterprise, 50, now) };
        queue(&mut pool, large, now);
    }
    for n in 100..120 {
        let member = Submission { urgency: Urgency::Immediate, ..order(n, Tier::Premium, 1, now) };
        queue(&mut pool, member, now);
    }
    let_run(&mut pool, true, now);
    let order: Vec<RequestId> = run_until(&mut pool, now, now.plus(5_000)).into_iter().map(|(_, id)| id).collect();
    let place = order.iter().position(|id| *id == old).expect("it starved");
    assert_eq!(place, 4, "the fourth grant of the share, after one of the pool");
}

/// A pool of a hundred tokens that are all there, and of which forty are kept for a member's request of another pool.
fn keeps_for_a_member(share: Option<Partition>, refill: u64) -> (Pool, LeaseOrder) {
    let own = share.as_ref().map_or(50, |share| u64::from(share.percent));
    let mut pool = pool(with(share.into_iter().collect(), config(100, refill)));
    queue(&mut pool, order(1, Tier::Enterprise, own, at(0)), at(0));
    queue(&mut pool, order(2, Tier::Standard, 100 - own, at(0)), at(0));
    let runs = started(&mut pool, at(0));
    assert_eq!(runs.len(), 2);
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let asked = lease_order(&id, "gold", Tier::Enterprise, Urgency::Fast);
    let asked = LeaseOrder { amount: units(40), regain_ms: 60_000, ..asked };
    assert!(!pool.acquire_lease(asked.clone(), at(0)).is_granted());
    for (id, grant) in runs {
        pool.report(&id, grant, used(0), at(0));
    }
    assert_eq!((pool.view(at(0)).available, pool.view(at(0)).kept), (units(100), units(40)));
    (pool, asked)
}

#[test]
fn what_is_kept_for_a_member_is_not_claimed_by_its_share_again() {
    let shares = [(50, true, 0), (50, true, 1), (50, false, 0), (40, false, 1)];
    let shares = shares.map(|(percent, lends, refill)| (Some(of_tier(Tier::Enterprise, percent, lends)), refill));
    for (share, refill) in shares.into_iter().chain([(None, 0)]) {
        let (mut pool, asked) = keeps_for_a_member(share.clone(), refill);
        let head = order(3, Tier::Basic, 30, at(0));
        assert_eq!(pool.foretell(head.clone(), at(0)), Ok(Some(at(0))), "{share:?}");
        let head = queue(&mut pool, head, at(0));
        assert_eq!(started_ids(&mut pool, at(0)), [head], "{share:?}");
        // The other thirty are not all free: a member's request, here or elsewhere, has its forty.
        queue(&mut pool, order(4, Tier::Basic, 31, at(0)), at(0));
        assert!(started(&mut pool, at(0)).is_empty(), "{share:?}");
        assert!(pool.acquire_lease(LeaseOrder { key: asked.key.replace("#1", "#2"), ..asked }, at(1)).is_granted());
    }
}

#[test]
fn a_lease_leaves_what_is_kept_for_a_member_once() {
    for lends in [true, false] {
        let (mut pool, asked) = keeps_for_a_member(Some(of_tier(Tier::Enterprise, 50, lends)), 0);
        let id = RequestId::new(at(0), [2; 10], &id_of("elsewhere"));
        let of = |grant, amount| LeaseOrder {
            key: format!("{id}#{grant}"),
            amount: units(amount),
            returns: false,
            ..lease_order(&id, "other", Tier::Basic, Urgency::Normal)
        };
        let free = if lends { 60 } else { 50 };
        assert!(!pool.acquire_lease(of(1, free + 1), at(0)).is_granted());
        assert!(pool.acquire_lease(of(2, free), at(0)).is_granted());
        assert!(pool.acquire_lease(LeaseOrder { key: asked.key.replace("#1", "#2"), ..asked }, at(1)).is_granted());
    }
}

#[test]
fn what_is_kept_for_a_member_beyond_its_dedicated_share_is_kept() {
    let mut pool = pool(with(vec![of_tier(Tier::Enterprise, 20, false)], config(100, 0)));
    queue(&mut pool, order(1, Tier::Standard, 80, at(0)), at(0));
    let (holder, grant) = started(&mut pool, at(0)).remove(0);
    let id = RequestId::new(at(0), [1; 10], &id_of("elsewhere"));
    let asked = LeaseOrder { amount: units(50), ..lease_order(&id, "gold", Tier::Enterprise, Urgency::Fast) };
    assert!(!pool.acquire_lease(asked.clone(), at(0)).is_granted());
    pool.report(&holder, grant, used(0), at(0));
    queue(&mut pool, order(2, Tier::Basic, 51, at(0)), at(0));
    assert!(started(&mut pool, at(0)).is_empty(), "twenty of the fifty are of its share");
    queue(&mut pool, Submission { urgency: Urgency::Immediate, ..order(3, Tier::Basic, 50, at(0)) }, at(0));
    assert_eq!(started(&mut pool, at(0)).len(), 1);
    assert!(pool.acquire_lease(LeaseOrder { key: asked.key.replace("#1", "#2"), ..asked }, at(1)).is_granted());
}

/// A pool whose halves are dedicated to two tiers. A member of the first one, which reserved ten, has used so much.
fn halves(overuse: u64) -> Pool {
    let halves = vec![of_tier(Tier::Enterprise, 50, false), of_tier(Tier::Premium, 50, false)];
    let mut pool = pool(with(halves, config(100, 10)));
    queue(&mut pool, order(1, Tier::Enterprise, 10, at(0)), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, used(overuse), at(0));
    pool
}

#[test]
fn dedicated_shares_gain_nothing_while_the_pool_pays_back_what_it_owes() {
    let mut pool = halves(150);
    let view = |pool: &Pool, ms| {
        let view = pool.view(at(ms));
        (view.available, view.partitions[0].available, view.partitions[1].available)
    };
    let nothing = (Tokens::ZERO, Tokens::ZERO, Tokens::ZERO);
    assert_eq!([0, 2_500, 5_000].map(|ms| view(&pool, ms)), [nothing; 3]);
    assert_eq!(view(&pool, 6_000), (units(10), units(5), units(5)), "looked at once");
    for ms in [1_000, 4_900, 5_100, 5_900] {
        pool.on_wakeup(at(ms));
    }
    assert_eq!(view(&pool, 6_000), (units(10), units(5), units(5)), "and often");
    let member = queue(&mut pool, order(2, Tier::Premium, 10, at(6_000)), at(6_000));
    assert_eq!(run_until(&mut pool, at(6_000), at(10_000)), [(at(7_000), member)], "its half of two seconds' refill");
}

#[test]
fn what_goes_back_while_the_pool_owes_something_is_no_share_of_anybodys() {
    let mut pool = halves(10);
    queue(&mut pool, order(2, Tier::Premium, 50, at(0)), at(0));
    queue(&mut pool, order(3, Tier::Enterprise, 40, at(0)), at(0));
    let mut runs = started(&mut pool, at(0));
    let (large, small) = (runs.remove(1), runs.remove(0));
    let (large, small) = if large.0 == order(2, Tier::Premium, 50, at(0)).id { (large, small) } else { (small, large) };
    pool.report(&small.0, small.1, used(90), at(0));
    pool.report(&large.0, large.1, used(10), at(0));
    let view = pool.view(at(0));
    assert_eq!((view.debt, view.available), (units(10), Tokens::ZERO), "forty came back, and fifty were owed");
    assert_eq!(view.partitions.iter().map(|share| share.available).collect::<Vec<_>>(), [Tokens::ZERO; 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Everybody waits, and the pool's own alarms alone make it go on: what is left is less than what a request needs,
    /// but for fractions that belong to one share or another.
    #[test]
    fn no_token_idles_while_somebody_waits(
        percents in prop::collection::vec((5_u8..33, any::<bool>()), 0..4), refill in 1_u64..20, members in 1_usize..5,
    ) {
        let partitions: Vec<Partition> = percents
            .into_iter()
            .zip(Tier::ALL.into_iter().rev())
            .map(|((percent, lends), tier)| of_tier(tier, percent, lends))
            .collect();
        let shares = u64::try_from(partitions.len()).unwrap();
        let mut pool = pool(with(partitions, config(40, refill)));
        let mut n = 0;
        for _ in 0..300 {
            for tier in Tier::ALL.into_iter().take(members) {
                n += 1;
                queue(&mut pool, order(n, tier, 1, at(0)), at(0));
            }
        }
        let mut now = at(0);
        started(&mut pool, now);
        while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= at(8_000)) {
            now = next.max(now.plus(1));
            pool.on_wakeup(now);
            started(&mut pool, now);
            let view = pool.view(now);
            if next > now.plus(-1) && pool.next_wakeup(now).is_some_and(|at| at > now.plus(1)) {
                let idle: Vec<_> = view.partitions.iter().map(|p| (p.name.clone(), p.available, p.lends)).collect();
                let dedicated = view.partitions.iter().filter(|p| !p.lends && p.wanted.is_zero());
                let apart = dedicated.fold(Tokens::ZERO, |sum, p| sum.saturating_add(p.available));
                prop_assert!(
                    view.available < units(1 + shares).saturating_add(apart),
                    "{:?} of {idle:?} idle after {} ms", view.available, now.since(at(0))
                );
            }
        }
    }
}
