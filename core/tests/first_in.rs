//! First in, first out within a client's lane, also of those that need several pools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use rm_core::id::RequestId;
use rm_core::pool::Submission;
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::network::Network;
use support::{at, request};

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
