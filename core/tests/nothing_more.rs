//! A request that cannot use what it has asked of another pool says so there, and asks for nothing meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use rm_core::account::SlotAnswer;
use rm_core::id::{PoolId, RequestId};
use rm_core::off_peak::Window;
use rm_core::pool::{Effect, LeaseAnswer, Pool, PoolConfig, Submission};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::Instant;
use support::{at, config, demand, id_of, pool, queue, request};

const NOT_NOW: LeaseAnswer = LeaseAnswer::NotNow { retry_at: None, ready_at: None };

/// One that `other` has refused in the pool's first event; it has asked with its first grant.
fn refused(pool: &mut Pool, urgency: Urgency) -> RequestId {
    let demands = vec![demand("home", 1), demand("other", 3)];
    let submission = Submission { demands, has_slot: true, ..request(1, "one", Tier::Basic, urgency, at(0)) };
    let id = queue(pool, submission, at(0));
    pool.lease_answered(&id, 1, &id_of("other"), NOT_NOW, at(10));
    pool.take_effects();
    id
}

/// What has been asked and told until then.
fn effects_until(pool: &mut Pool, from: Instant, until: Instant) -> Vec<Effect> {
    let mut effects = pool.take_effects();
    let mut now = from;
    while let Some(next) = pool.next_wakeup(now).filter(|next| *next <= until) {
        now = next.max(now.plus(1));
        pool.on_wakeup(now);
        effects.extend(pool.take_effects());
    }
    effects
}

fn asks(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::AcquireLease { .. }))
}

/// How often another pool was told that nothing more is asked of it.
fn told(effects: &[Effect]) -> Vec<(PoolId, Vec<String>)> {
    let told = |effect: &Effect| match effect {
        Effect::OrdersOver { pool, keys } => Some((pool.clone(), keys.clone())),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

#[test]
fn one_that_is_refused_a_slot_says_so_once_to_the_pool_that_it_has_asked() {
    let mut pool = pool(config(10, 0));
    let id = refused(&mut pool, Urgency::Normal);
    pool.on_wakeup(at(1_010));
    assert!(asks(&pool.take_effects()));
    pool.lease_answered(&id, 1, &id_of("other"), LeaseAnswer::Ready, at(1_020));
    pool.slot_answered(&id, 2, Some(SlotAnswer::Full), at(1_030));
    assert_eq!(told(&pool.take_effects()), [(id_of("other"), vec![format!("{id}#2")])]);
    pool.client_woken(&"one".parse().unwrap(), at(2_000));
    pool.slot_answered(&id, 3, Some(SlotAnswer::Full), at(2_010));
    assert_eq!(told(&pool.take_effects()), [], "it has not asked since");
    pool.client_woken(&"one".parse().unwrap(), at(3_000));
    pool.slot_answered(&id, 4, Some(SlotAnswer::Granted), at(3_010));
    assert!(asks(&pool.take_effects()));
}

#[test]
fn one_whose_client_has_no_slot_free_does_not_inquire() {
    let mut pool = pool(config(10, 0));
    let id = refused(&mut pool, Urgency::Normal);
    let other =
        Submission { demands: vec![demand("home", 1)], ..request(2, "one", Tier::Basic, Urgency::Normal, at(20)) };
    let other = queue(&mut pool, other, at(20));
    pool.slot_answered(&other, 1, Some(SlotAnswer::Full), at(30));
    pool.take_effects();
    pool.on_wakeup(at(1_010));
    let effects = pool.take_effects();
    assert!(!asks(&effects));
    assert_eq!(told(&effects), [(id_of("other"), vec![format!("{id}#1")])]);
    pool.client_woken(&"one".parse().unwrap(), at(2_000));
    let slot = |effect: &Effect| matches!(effect, Effect::AcquireSlot { id: of, grant: 2, .. } if *of == id);
    assert!(pool.take_effects().iter().any(slot), "it has its turn as soon as one is");
}

#[test]
fn one_whose_window_has_closed_says_so_and_inquires_when_it_opens() {
    let windows = vec![Window { start: at(-1_000), end: at(500) }, Window { start: at(62_500), end: at(90_000) }];
    let mut pool = pool(PoolConfig { off_peak: Some(windows), ..config(10, 0) });
    let id = refused(&mut pool, Urgency::Deferred);
    let effects = effects_until(&mut pool, at(10), at(62_499));
    assert!(!asks(&effects), "{effects:?}");
    assert_eq!(told(&effects), [(id_of("other"), vec![format!("{id}#1")])]);
    pool.on_wakeup(at(62_500));
    assert!(asks(&pool.take_effects()));
}
