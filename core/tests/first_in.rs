//! First in, first out within a client's lane, also of those that need several pools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::RequestId;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Blocked, Effect, LeaseAnswer, Pool, PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::network::Network;
use support::{at, config, demand, id_of, pool, queue, request, started_ids};

fn of(n: u64, client: &str, now: Instant) -> Submission {
    Submission { slots: Some(100), ..request(n, client, Tier::Standard, Urgency::Normal, now) }
}

#[test]
fn requests_that_need_the_same_pools_start_in_the_order_in_which_they_came() {
    for late in 0..8 {
        let mut net = Network::new(&["a", "b"], 30, 3);
        net.sent_before(late * 1_000);
        let (mut one, mut two): (Vec<RequestId>, Vec<RequestId>) = (vec![], vec![]);
        for (n, ms) in (0..12).zip((0..).step_by(40)) {
            net.run(at(ms));
            one.push(net.send(&[("a", 10), ("b", 5)], of(n, "one", at(ms)), at(ms)));
            two.push(net.send(&[("b", 10), ("a", 5)], of(100 + n, "two", at(ms)), at(ms)));
        }
        net.run(at(60_000));
        for ids in [&one, &two] {
            let starts: Vec<Instant> = ids.iter().map(|id| net.starts[id]).collect();
            assert!(starts.is_sorted(), "{starts:?}");
        }
    }
}

fn of_two_pools(n: u64, client: &str) -> Submission {
    Submission { demands: vec![demand("home", 1), demand("other", 1)], has_slot: true, ..of(n, client, at(0)) }
}

/// Lets `other` refuse what it is asked.
fn refuse(pool: &mut Pool, now: Instant) -> usize {
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(4_000)), ready_at: Some(at(4_000)) };
    let effects = pool.take_effects();
    let asks = |effect: &Effect| match effect {
        Effect::AcquireLease { id, grant, .. } => Some((id.clone(), *grant)),
        _ => None,
    };
    let asked: Vec<_> = effects.iter().filter_map(asks).collect();
    for effect in effects {
        if let Effect::AcquireSlot { id, grant, .. } = effect {
            pool.slot_answered(&id, grant, Some(SlotAnswer::Granted), now);
        }
    }
    for (id, grant) in &asked {
        pool.lease_answered(id, *grant, &id_of("other"), not_now, now);
    }
    asked.len()
}

#[test]
fn one_that_waits_for_another_pool_holds_back_those_of_its_flow_and_nobody_else() {
    let mut pool = pool(config(100, 0));
    let first = queue(&mut pool, of_two_pools(1, "client"), at(0));
    assert_eq!(refuse(&mut pool, at(1)), 1);
    let second = queue(&mut pool, Submission { has_slot: false, ..of_two_pools(2, "client") }, at(2));
    assert_eq!(refuse(&mut pool, at(2)), 0, "what was refused to the first is not asked for the second");
    let place = |pool: &Pool| pool.position(&second, at(3)).unwrap();
    let told = place(&pool);
    let expected = (Some(Blocked::SecondaryPool), 1, Some(at(4_000)));
    assert_eq!((told.blocked_by, told.ahead, told.estimated_start_at), expected, "as the first, at the earliest");
    // Of its client's lane, but of this pool alone; and of another client.
    let plain = queue(&mut pool, of(3, "client", at(3)), at(3));
    assert_eq!(started_ids(&mut pool, at(3)), [plain]);
    let another = queue(&mut pool, of_two_pools(4, "another"), at(4));
    assert_eq!(started_ids(&mut pool, at(4)), [another]);
    // Once the first has its tokens the second goes by itself.
    pool.lease_free(&id_of("other"), false, support::units(5), at(5));
    assert_eq!(started_ids(&mut pool, at(5)), [first, second]);
}

#[test]
fn one_that_wants_more_than_its_share_holds_is_not_passed_over_by_one_that_needs_other_pools() {
    let share =
        Partition { name: "own".into(), member: Member::Client("client".parse().unwrap()), percent: 30, lends: false };
    let mut pool = pool(PoolConfig { partitions: vec![share], ..config(10, 0) });
    let all = queue(&mut pool, Submission { demands: vec![demand("home", 7)], ..of(1, "all", at(0)) }, at(0));
    assert_eq!(started_ids(&mut pool, at(0)), [all]);
    let large = Submission { demands: vec![demand("home", 8), demand("other", 1)], ..of(2, "client", at(1)) };
    queue(&mut pool, large, at(1));
    let small = queue(&mut pool, Submission { demands: vec![demand("home", 3)], ..of(3, "client", at(2)) }, at(2));
    assert!(started_ids(&mut pool, at(2)).is_empty(), "the share is there for the first of the two");
    assert_eq!(pool.position(&small, at(2)).unwrap().ahead, 1);
}
