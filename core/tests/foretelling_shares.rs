//! When something will start in a pool with partitions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::lane::Lanes;
use rm_core::partition::{Member, Partition};
use rm_core::pool::{Mode, Pool, PoolConfig, Refusal, Submission, Submitted};
use rm_core::priority::{Tier, Urgency};
use support::{at, config, demand, pool, queue, request, run_until, started, used};

fn of_tier(tier: Tier, percent: u8, lends: bool) -> Partition {
    Partition { name: tier.as_str().into(), member: Member::Tier(tier), percent, lends }
}

fn divided(refill: u64, partitions: Vec<Partition>) -> Pool {
    pool(PoolConfig { partitions, lanes: Lanes::default(), ..config(1_000, refill) })
}

fn order(n: u64, tier: Tier, amount: u64, urgency: Urgency) -> Submission {
    Submission { demands: vec![demand("home", amount)], ..request(n, &format!("client-{n}"), tier, urgency, at(0)) }
}

fn normal(n: u64, tier: Tier, amount: u64) -> Submission {
    order(n, tier, amount, Urgency::Normal)
}

/// Somebody has taken so much of it.
fn drained(mut pool: Pool, tier: Tier, amount: u64) -> Pool {
    queue(&mut pool, normal(0, tier, amount), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, used(amount), at(0));
    pool
}

/// When each of these starts: as it is foretold now, and as it does, in milliseconds.
fn foretold(pool: &mut Pool, ids: &[RequestId]) -> (Vec<i64>, Vec<i64>) {
    let estimate = |id| pool.position(id, at(0)).unwrap().estimated_start_at.unwrap().since(at(0));
    let foretold = ids.iter().map(estimate).collect();
    let starts = run_until(pool, at(0), at(300_000));
    let start = |id| starts.iter().find(|(_, started)| started == id).expect("it starts").0.since(at(0));
    (foretold, ids.iter().map(start).collect())
}

/// A pool whose shares are filling looks whether there is enough each twentieth of a second at the end.
fn are_close(foretold: &[i64], starts: &[i64]) -> bool {
    foretold.iter().zip(starts).all(|(foretold, start)| (0..=50).contains(&(start - foretold)))
}

#[test]
fn what_a_full_share_cannot_hold_is_everybodys() {
    let own =
        Partition { name: "own".into(), member: Member::Client("idle".parse().unwrap()), percent: 50, lends: false };
    for partitions in [vec![own], vec![of_tier(Tier::Premium, 50, false)], vec![of_tier(Tier::Premium, 50, true)]] {
        let lends = partitions[0].lends;
        let mut pool = drained(divided(20, partitions), Tier::Standard, if lends { 1_000 } else { 500 });
        let next = order(1, Tier::Standard, 400, Urgency::Immediate);
        assert_eq!(pool.foretell(next.clone(), at(0)), Ok(Some(at(20_000))));
        let id = queue(&mut pool, next, at(0));
        assert_eq!(foretold(&mut pool, &[id]), (vec![20_000], vec![20_000]));
    }
}

#[test]
fn a_share_that_is_not_full_takes_its_part_until_it_is() {
    let mut pool = drained(divided(20, vec![of_tier(Tier::Premium, 50, false)]), Tier::Premium, 900);
    // For fifty seconds half of the refill is dedicated; a hundred are left of what is shared.
    let ids = [(1, 100), (2, 250), (3, 450)].map(|(n, amount)| normal(n, Tier::Standard, amount));
    let ids = ids.map(|next| queue(&mut pool, next, at(0)));
    let (foretold, starts) = foretold(&mut pool, &ids[1..]);
    assert_eq!(foretold, [25_000, 60_000]);
    assert!(are_close(&foretold, &starts), "{starts:?}");
}

#[test]
fn what_is_lent_comes_back_before_what_is_shared() {
    let mut pool = drained(divided(10, vec![of_tier(Tier::Basic, 60, true)]), Tier::Standard, 1_000);
    let mut ids: Vec<_> = (1..=6).map(|n| queue(&mut pool, normal(n, Tier::Basic, 100), at(0))).collect();
    let hurried = order(7, Tier::Enterprise, 100, Urgency::Immediate);
    let refused = Submitted::Refused(Refusal::NotNow { retry_at: at(40_000) });
    assert_eq!(pool.submit(hurried, Mode::Queue, at(0)), refused, "its lane waits for thirty seconds");
    ids.push(queue(&mut pool, normal(8, Tier::Enterprise, 100), at(0)));
    let (foretold, starts) = foretold(&mut pool, &ids);
    assert_eq!(foretold, [10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000]);
    assert_eq!(foretold, starts);
}

#[test]
fn what_members_want_beyond_their_share_does_not_come_first() {
    let mut pool = drained(divided(10, vec![of_tier(Tier::Basic, 20, true)]), Tier::Basic, 1_000);
    let mut ids: Vec<_> = (1..=2).map(|n| queue(&mut pool, normal(n, Tier::Basic, 100), at(0))).collect();
    ids.push(queue(&mut pool, normal(3, Tier::Enterprise, 240), at(0)));
    let (foretold, starts) = foretold(&mut pool, &ids);
    // The share has gained sixty by then.
    assert_eq!(foretold, [34_000, 44_000, 30_000]);
    assert_eq!(foretold, starts);
}

#[test]
fn members_of_a_lent_share_have_what_a_full_dedicated_one_cannot_hold() {
    let partitions = vec![of_tier(Tier::Basic, 60, true), of_tier(Tier::Premium, 40, false)];
    let mut pool = drained(divided(20, partitions), Tier::Standard, 600);
    let ids: Vec<_> = (1..=4).map(|n| queue(&mut pool, normal(n, Tier::Basic, 100), at(0))).collect();
    let (foretold, starts) = foretold(&mut pool, &ids);
    assert_eq!(foretold, [5_000, 10_000, 15_000, 20_000]);
    assert_eq!(foretold, starts);
}

#[test]
fn of_two_lent_shares_the_one_that_needs_less_is_first() {
    let partitions = vec![of_tier(Tier::Basic, 30, true), of_tier(Tier::Premium, 30, true)];
    let mut pool = drained(divided(10, partitions), Tier::Standard, 1_000);
    let mut ids: Vec<_> = (1..=2).map(|n| queue(&mut pool, normal(n, Tier::Basic, 100), at(0))).collect();
    ids.extend((3..=4).map(|n| queue(&mut pool, normal(n, Tier::Premium, 50), at(0))));
    ids.push(queue(&mut pool, normal(5, Tier::Enterprise, 10), at(0)));
    let (foretold, starts) = foretold(&mut pool, &ids);
    assert_eq!(foretold, [20_000, 30_000, 5_000, 10_000, 31_000]);
    assert_eq!(foretold, starts);
}

#[test]
fn while_the_pool_pays_back_what_it_owes_nothing_is_dedicated() {
    let mut pool = divided(10, vec![of_tier(Tier::Premium, 50, false)]);
    queue(&mut pool, normal(0, Tier::Standard, 10), at(0));
    let (id, grant) = started(&mut pool, at(0)).remove(0);
    pool.report(&id, grant, used(1_100), at(0));
    let ids = [
        queue(&mut pool, normal(1, Tier::Standard, 100), at(0)),
        queue(&mut pool, normal(2, Tier::Premium, 50), at(0)),
    ];
    let (foretold, starts) = foretold(&mut pool, &ids);
    assert_eq!(foretold, [35_000, 15_000]);
    assert!(are_close(&foretold, &starts), "{starts:?}");
}
