//! The invariants.

use rm_core::pool::Blocked;
use rm_core::request::{Kind, Phase};
use rm_core::units::Tokens;

use super::world::World;

/// What must hold after each step.
pub fn always(world: &mut World) {
    tokens_never_exceed_capacity_and_refill(world);
    budgets_and_slots(world);
    the_ledger_adds_up(world);
    no_token_idles(world);
}

/// 1: reserved in any window ≤ capacity + refill × window + what was given back in it.
fn tokens_never_exceed_capacity_and_refill(world: &mut World) {
    let now = world.now;
    for (name, object) in &world.pools {
        let ledger = object.pool.ledger();
        let net = ledger.reserved - ledger.released - ledger.expired;
        let limits = object.pool.config().limits;
        let history = world.history.entry(name.clone()).or_default();
        if history.last().is_none_or(|(at, last)| *at != now || *last != net) {
            history.push((now, net));
        }
        let most = world.most_limits[name];
        for (then, before) in history.iter().rev().take(60) {
            let window = now.since(*then);
            let refilled = i128::from(most.1.micros()) * i128::from(window) / 1_000 + 1;
            let allowed = i128::from(most.0.micros()) + refilled;
            assert!(i128::from(net - before) <= allowed, "{name} granted {} in {window} ms", net - before);
            if limits.window_cap && window < 60_000 {
                assert!(net - before <= most.0.micros(), "{name}: the window cap");
            }
        }
    }
}

/// 2 and 3.
fn budgets_and_slots(world: &World) {
    for (name, object) in &world.accounts {
        let most = world.most_budget[name] + world.beyond_holds[name];
        assert!(object.spent() + object.held() <= most, "{name}: {} + {} > {most}", object.spent(), object.held());
        let held: i64 = object.holds.values().map(|hold| hold.amount.nanos()).sum();
        assert_eq!(held, object.held(), "{name}: holds and their sum");
        let slots = object.holds.values().filter(|hold| hold.slot.is_some()).count();
        assert!(slots <= world.most_slots[name], "{name}: {slots} slots");
        let running = world
            .pools
            .values()
            .flat_map(|pool| pool.pool.requests())
            .filter(|request| {
                request.client == *name
                    && request.kind == Kind::Execution
                    && matches!(request.phase, Phase::Running { .. })
            })
            .count();
        assert!(running <= world.most_slots[name], "{name}: {running} run");
    }
}

/// 6: reserved = consumed + released + expired + reserved now.
fn the_ledger_adds_up(world: &World) {
    for (name, object) in &world.pools {
        let ledger = object.pool.ledger();
        let taken = |phase: &Phase| matches!(phase, Phase::Acquiring { .. } | Phase::Running { .. });
        let own: i64 =
            object.pool.requests().filter(|r| taken(&r.phase)).map(|request| request.home_amount().micros()).sum();
        let outstanding = own + object.leased();
        assert_eq!(
            ledger.reserved,
            ledger.consumed + ledger.released + ledger.expired + outstanding,
            "{name}: {ledger:?}, outstanding {outstanding}"
        );
        let view = object.pool.view(world.now);
        assert_eq!(view.reserved, Tokens::clamped(outstanding));
        assert!(view.available <= view.capacity, "{name} holds more than it can");
    }
}

/// 7: after an event, the one whose turn it is waits for its tokens, or there is a wake-up at once.
fn no_token_idles(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        let waiting = object.pool.requests().filter(|request| request.phase == Phase::Waiting);
        let mut first = None;
        for request in waiting {
            let Some(position) = object.pool.position(&request.id, now) else { continue };
            if position.promoted || acquiring(object, &request.client) >= 4 {
                first = None;
                break;
            }
            if position.blocked_by == Some(Blocked::Tokens)
                && first.as_ref().is_none_or(|(ahead, _)| position.ahead < *ahead)
            {
                first = Some((position.ahead, request));
            }
        }
        let Some((_, request)) = first else { continue };
        let paused = world.paused_until.get(name).is_some_and(|until| *until > now);
        let backlog = object.pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1));
        if object.pool.wait_for(request.home_amount(), now) == Ok(0) && !paused && !backlog {
            panic!("{name}: {} waits although its tokens are there", request.id);
        }
    }
}

fn acquiring(object: &super::shell::PoolObject, client: &rm_core::id::ClientId) -> usize {
    let acquires = |phase: &Phase| matches!(phase, Phase::Acquiring { .. });
    object.pool.requests().filter(|request| request.client == *client && acquires(&request.phase)).count()
}

/// What must hold when everything has run out: 4, 5 and the rest of 6, and that nothing waits for ever.
pub fn at_the_end(world: &World) {
    for (name, object) in &world.pools {
        assert_eq!(object.pool.requests().count(), 0, "{name}: requests are left");
        assert_eq!(object.lease_count(), 0, "{name}: leases are left");
        assert!(object.settlements.is_empty(), "{name}: settlements are left");
        let view = object.pool.view(world.now);
        assert_eq!((view.available, view.reserved), (view.capacity, Tokens::ZERO), "{name}: the bucket is not full");
    }
    for (name, object) in &world.accounts {
        assert!(object.holds.is_empty(), "{name}: holds are left: {:?}", object.holds);
        assert_eq!(object.held(), 0, "{name}: money is held");
        let charged: i64 = object.charges.values().map(|cost| cost.nanos()).sum();
        assert_eq!(object.spent(), charged, "{name}: spent and charged");
        let ended: i64 = world
            .pools
            .values()
            .flat_map(|pool| &pool.ended)
            .filter(|(id, _)| world.owners.get(*id) == Some(name))
            .map(|(_, end)| end.cost.nanos())
            .sum();
        assert_eq!(ended, charged, "{name}: what its requests cost and what it was charged");
    }
    for id in &world.accepted {
        let home = id.home().expect("an id names its home");
        assert!(world.pools[&home].ended.contains_key(id), "{id} has no end");
    }
}
