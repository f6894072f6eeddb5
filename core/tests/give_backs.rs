//! A pool that is given tokens back wakes those of other homes that these are enough for, and no more.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::collections::BTreeSet;

use rm_core::id::RequestId;
use rm_core::pool::{Effect, LeaseAnswer, Pool, PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use support::network::Network;
use support::{at, config, demand, id_of, pool, queue, request, units};

/// What is asked for in the last event: the client, and whether it is more than a question.
fn asked(pool: &mut Pool) -> Vec<(RequestId, u32, bool)> {
    let asks = |effect| match effect {
        Effect::AcquireLease { id, grant, order, .. } => Some((id, grant, !order.inquires)),
        _ => None,
    };
    pool.take_effects().into_iter().filter_map(asks).collect()
}

/// A home where each of these waits for three tokens of `other`, which has refused them: one of a client and tier each.
fn refused(clients: &[(&str, Tier)], slots: u32) -> Pool {
    let mut pool = pool(config(1_000, 0));
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(9_000)), ready_at: None };
    for (n, (client, tier)) in (0..).zip(clients) {
        let demands = vec![demand("home", 1), demand("other", 3)];
        let submission = request(n, client, *tier, Urgency::Normal, at(0));
        queue(&mut pool, Submission { demands, has_slot: true, slots: Some(slots), ..submission }, at(0));
        for (id, grant, _) in asked(&mut pool) {
            pool.lease_answered(&id, grant, &id_of("other"), not_now, at(0));
        }
    }
    pool.take_changes();
    pool
}

/// The clients that come back to their place, in whatever order.
fn woken(pool: &mut Pool) -> BTreeSet<String> {
    let asks = |effect| match effect {
        Effect::AcquireSlot { client, .. } => Some(client.as_str().to_owned()),
        _ => None,
    };
    pool.take_effects().into_iter().filter_map(asks).collect()
}

#[test]
fn what_is_given_back_is_there_once_for_all_clients_in_the_order_of_their_rank() {
    let clients = [("a", Tier::Basic), ("b", Tier::Enterprise), ("c", Tier::Standard), ("d", Tier::Premium)];
    let mut pool = refused(&clients, 4);
    pool.lease_free(&id_of("other"), false, units(6), at(100));
    assert_eq!(woken(&mut pool), ["b", "d"].map(str::to_owned).into());
}

#[test]
fn no_more_of_a_client_are_woken_than_have_slots() {
    let mut pool = refused(&[("a", Tier::Basic); 9], 2);
    pool.lease_free(&id_of("other"), false, units(900), at(100));
    assert_eq!(pool.take_changes().requests.len(), 2);
}

#[test]
fn an_event_wakes_a_few_and_the_next_ones_as_these_are_granted() {
    let names: Vec<String> = (0..40).map(|n| format!("client-{n}")).collect();
    let clients: Vec<(&str, Tier)> = names.iter().map(|name| (name.as_str(), Tier::Basic)).collect();
    let mut pool = refused(&clients, 1);
    pool.lease_free(&id_of("other"), false, units(900), at(100));
    let first: Vec<(RequestId, u32)> = pool
        .take_effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::AcquireSlot { id, grant, .. } => Some((id, grant)),
            _ => None,
        })
        .collect();
    assert_eq!(first.len(), 16);
    let give_slot = |pool: &mut Pool, (id, grant): &(RequestId, u32)| {
        pool.slot_answered(id, *grant, Some(rm_core::account::SlotAnswer::Granted), at(101));
        pool.take_effects();
    };
    give_slot(&mut pool, &first[0]);
    pool.lease_answered(&first[0].0, first[0].1, &id_of("other"), LeaseAnswer::Granted { regain_ms: 0 }, at(102));
    assert_eq!(woken(&mut pool).len(), 2, "two for each one");
    give_slot(&mut pool, &first[1]);
    let not_now = LeaseAnswer::NotNow { retry_at: Some(at(9_000)), ready_at: None };
    pool.lease_answered(&first[1].0, first[1].1, &id_of("other"), not_now, at(103));
    give_slot(&mut pool, &first[2]);
    pool.lease_answered(&first[2].0, first[2].1, &id_of("other"), LeaseAnswer::Granted { regain_ms: 0 }, at(104));
    assert_eq!(woken(&mut pool).len(), 0, "one that needs as much was refused");
}

/// A pool that is given everything back each second, for one of very many.
#[test]
fn a_give_back_costs_what_it_starts_and_not_what_waits() {
    let of = |name: &str, capacity, refill| PoolConfig { pool: id_of(name), ..config(capacity, refill) };
    let mut net = Network::of([of("home", 1_000_000, 1_000), of("other", 1_000, 0)].into_iter());
    (net.run_ms, net.unused) = (1_000, vec![id_of("other")]);
    for i in 0..1_000 {
        let now = at(i);
        net.run(now);
        let submission = request(0, &format!("client-{i}"), Tier::Standard, Urgency::Normal, now);
        net.send(&[("home", 1), ("other", 1_000)], submission, now);
    }
    net.run(at(10_000));
    (net.most_rows, net.rows) = (0, 0);
    let before = net.starts.len();
    net.run(at(40_000));
    let starts = net.starts.len() - before;
    assert!(starts >= 28, "{starts}");
    assert!(net.most_rows <= 40 && net.rows <= 100 * starts, "{} at most, {} for {starts}", net.most_rows, net.rows);
}
