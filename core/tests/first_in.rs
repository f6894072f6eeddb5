//! First in, first out within a client's lane, also of those that need several pools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::lane::Lanes;
use rm_core::pool::{Effect, LeaseAnswer, Mode, Pool, PoolConfig, Submission, Submitted};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::network::Network;
use support::{at, config, demand, id_of, pool, queue, request, started_ids};

fn of(n: u64, client: &str, now: Instant) -> Submission {
    Submission { slots: Some(100), ..request(n, client, Tier::Standard, Urgency::Normal, now) }
}

#[test]
fn requests_that_need_the_same_pools_start_in_the_order_in_which_they_came() {
    for (late, spread) in (0..20).zip([0, 5].into_iter().cycle()) {
        let mut net = Network::new(&["a", "b"], 30, 3);
        net.sent_before(late * 1_000);
        let (mut one, mut two): (Vec<RequestId>, Vec<RequestId>) = (vec![], vec![]);
        for (n, ms) in (0..12).zip((0..).step_by(40)) {
            net.run(at(ms));
            // All the same, or each of other amounts.
            let (more, less) = if spread == 0 { (10, 5) } else { (8 + n % spread, 3 + n * 7 % spread) };
            one.push(net.send(&[("a", more), ("b", less)], of(n, "one", at(ms)), at(ms)));
            two.push(net.send(&[("b", more), ("a", less)], of(100 + n, "two", at(ms)), at(ms)));
        }
        net.run(at(60_000));
        for ids in [&one, &two] {
            let starts: Vec<Instant> = ids.iter().map(|id| net.starts[id]).collect();
            assert!(starts.is_sorted(), "{starts:?}");
        }
    }
}

/// A first request that the pool `other` has refused, a second one of its lane, and what the second was told.
fn two_of_one_lane(needed: u64, second: Submission) -> (Pool, RequestId, Submitted) {
    let mut home = pool(PoolConfig { lanes: Lanes::default(), ..config(1_000, 1) });
    let taken = queue(&mut home, Submission { demands: vec![demand("home", 500)], ..of(1, "somebody", at(0)) }, at(0));
    assert_eq!(started_ids(&mut home, at(0)), [taken]);
    let needs = |amount| vec![demand("home", amount), demand("other", 1)];
    let first = Submission { has_slot: true, urgency: second.urgency, demands: needs(200), ..of(2, "client", at(0)) };
    let first = queue(&mut home, first, at(0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(4_000)), ready_at: Some(at(4_000)) };
    home.lease_answered(&first, 1, &id_of("other"), not_now, at(1));
    home.take_effects();
    let submitted = home.submit(Submission { demands: needs(needed), ..second }, Mode::Queue, at(2));
    (home, first, submitted)
}

fn is_parked(pool: &Pool, id: &RequestId) -> bool {
    pool.request(id).unwrap().parked_until().is_some()
}

#[test]
fn the_older_goes_in_the_turn_of_the_younger_and_nobody_before_that() {
    let younger = of(3, "client", at(2));
    let id = younger.id.clone();
    let (mut home, first, submitted) = two_of_one_lane(300, younger.clone());
    assert_eq!(submitted, Submitted::Accepted);
    assert_eq!((is_parked(&home, &first), is_parked(&home, &id)), (false, true), "it waits in the older one's stead");
    let effects = home.take_effects();
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireSlot { id, .. } if *id == first);
    assert!(effects.iter().any(asks), "{effects:?}");
    let (home, first, _) = two_of_one_lane(900, younger);
    assert_eq!((is_parked(&home, &first), is_parked(&home, &id)), (true, false), "its turn has not come");
}

#[test]
fn one_that_has_its_slot_goes_itself_or_gives_it_back() {
    let younger = Submission { has_slot: true, ..of(3, "client", at(2)) };
    let id = younger.id.clone();
    let (mut home, first, _) = two_of_one_lane(300, younger.clone());
    assert!(is_parked(&home, &first));
    let effects = home.take_effects();
    let asks = |effect: &Effect| matches!(effect, Effect::AcquireLease { id: asking, .. } if *asking == id);
    assert!(effects.iter().any(asks), "{effects:?}");
    let (mut home, _, _) = two_of_one_lane(900, younger);
    let effects = home.take_effects();
    let frees = |effect: &Effect| matches!(effect, Effect::ReleaseSlot { id: of, grant: 0, .. } if *of == id);
    assert!(effects.iter().any(frees), "{effects:?}");
}

#[test]
fn one_that_would_start_too_late_is_refused_though_an_older_one_of_its_lane_waits_elsewhere() {
    for has_slot in [true, false] {
        let immediate = Submission { has_slot, urgency: Urgency::Immediate, ..of(3, "client", at(2)) };
        let (home, first, submitted) = two_of_one_lane(900, immediate);
        assert!(matches!(submitted, Submitted::Refused(_)), "{submitted:?}");
        assert_eq!(home.requests().filter(|request| request.client.as_str() == "client").count(), 1);
        assert!(home.request(&first).is_some());
    }
}
