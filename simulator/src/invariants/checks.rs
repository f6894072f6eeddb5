//! The invariants: what must hold after each step, and what must hold in the end.

use rm_core::id::ClientId;
use rm_core::optimizer::Strategy;
use rm_core::pool::{Blocked, Pool};
use rm_core::request::{Kind, Phase, Request};
use rm_core::units::{NanoUsd, Tokens};

use super::shell::PoolObject;
use super::world::World;

/// Something that must hold. It panics where it does not.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What must hold, in words.
    pub name: &'static str,
    /// Looks whether it does.
    pub holds: fn(&World),
}

/// What a history is checked for. The numbers in the names are those of the list in ARCHITECTURE.md.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// After each step.
    pub always: &'static [Check],
    /// When everything has run out.
    pub at_the_end: &'static [Check],
}

/// All that the core promises.
pub const ALL: Checks = Checks {
    always: &[
        Check { name: "1: tokens granted in any window", holds: tokens_never_exceed_capacity_and_refill },
        Check { name: "2: spent and held within the budget", holds: budgets },
        Check { name: "2: what a run has taken and will take is held", holds: runs_are_held_for },
        Check { name: "3: running within the client's limit", holds: slots },
        Check { name: "6: the ledger adds up", holds: the_ledger_adds_up },
        Check { name: "7: no token idles while somebody waits for it", holds: no_token_idles },
        Check { name: "7: what can be granted is granted", holds: nothing_is_left_to_grant },
        Check { name: "8: one grant in four is a promoted request's", holds: promoted_ones_have_their_turn },
    ],
    at_the_end: &[
        Check { name: "4: nothing is left in any pool", holds: pools_are_as_new },
        Check { name: "2: nothing is held for any client", holds: accounts_are_even },
        Check { name: "5: every request has its end", holds: every_request_ended },
        Check { name: "5: every end is charged once", holds: every_end_is_charged_once },
        Check { name: "10: what was saved is what was not paid", holds: savings_add_up },
    ],
};

/// 1: reserved in any window ≤ capacity + refill × window + what was given back in it.
fn tokens_never_exceed_capacity_and_refill(world: &World) {
    for (name, object) in &world.pools {
        let limits = object.pool.config().limits;
        let Some(history) = world.history.get(name) else { continue };
        let Some((now, net)) = history.last().copied() else { continue };
        let (capacity, refill) = world.most_limits[name];
        for (then, before) in history.iter().rev().take(60) {
            let window = now.since(*then);
            let refilled = i128::from(refill.micros()) * i128::from(window) / 1_000 + 1;
            let allowed = i128::from(capacity.micros()) + refilled;
            assert!(i128::from(net - before) <= allowed, "{name} granted {} millionths in {window} ms", net - before);
            if limits.window_cap && window < 60_000 {
                assert!(
                    net - before <= capacity.micros(),
                    "{name} granted more in {window} ms than its window cap allows"
                );
            }
        }
    }
}

/// 2: only real use beyond a hold exceeds the budget.
fn budgets(world: &World) {
    for (name, object) in &world.accounts {
        let most = world.most_budget[name] + world.beyond_holds[name];
        assert!(object.spent() + object.held() <= most, "{name}: {} + {} > {most}", object.spent(), object.held());
        let held: i64 = object.holds.values().map(|hold| hold.amount.nanos()).sum();
        assert_eq!(held, object.held(), "{name}: holds and their sum");
    }
}

/// 2: what the past steps of a run have really cost is held, besides what the rest may cost.
fn runs_are_held_for(world: &World) {
    let requests = world.pools.values().flat_map(|object| object.pool.requests());
    let running =
        |request: &&Request| request.kind == Kind::Execution && matches!(request.phase, Phase::Running { .. });
    for request in requests.filter(running) {
        let Some(hold) = world.accounts[&request.client].holds.get(&request.id) else { continue };
        assert!(hold.amount >= request.least_hold(), "{}: {:?} are held", request.id, hold.amount);
    }
}

/// 3: across all pools.
fn slots(world: &World) {
    for (name, object) in &world.accounts {
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
        let backlog = object.pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1));
        // What others have a claim on does not idle.
        let view = object.pool.view(now);
        let claims = view.partitions.iter().fold(Tokens::ZERO, |sum, partition| sum.saturating_add(partition.claimed));
        let paused = view.paused_until.is_some();
        let needed = request.home_amount().saturating_add(claims).saturating_add(view.promised);
        if object.pool.wait_for(needed, None, now) == Ok(0) && !paused && !backlog {
            panic!("{name}: {} waits although its tokens are there", request.id);
        }
    }
}

/// 7: an event leaves nothing behind that it could have granted, whatever shares there are.
fn nothing_is_left_to_grant(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        if object.pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1)) {
            continue;
        }
        let mut again = object.pool.clone();
        again.on_wakeup(now);
        let reserved = |pool: &Pool| pool.ledger().reserved;
        assert_eq!(reserved(&again), reserved(&object.pool), "{name} had more to grant");
    }
}

/// 8: while a promoted request waits for tokens, no more than three grants in a row go to others. What dedicated
/// partitions grant of their own is not counted.
fn promoted_ones_have_their_turn(world: &World) {
    for (name, passed_over) in &world.passed_over {
        assert!(*passed_over <= 3, "{name}: {passed_over} grants in a row passed a promoted request over");
    }
}

/// How many of a client's grants wait for its account: with four of them it is granted nothing more.
pub(crate) fn acquiring(object: &PoolObject, client: &ClientId) -> usize {
    let acquires = |phase: &Phase| matches!(phase, Phase::Acquiring { .. });
    object.pool.requests().filter(|request| request.client == *client && acquires(&request.phase)).count()
}

/// 4 and 6: what was taken for several pools is given back in all of them.
fn pools_are_as_new(world: &World) {
    for (name, object) in &world.pools {
        assert_eq!(object.pool.requests().count(), 0, "{name}: requests are left");
        assert_eq!(object.lease_count(), 0, "{name}: leases are left");
        assert!(object.settlements.is_empty(), "{name}: settlements are left");
        let view = object.pool.view(world.now);
        assert_eq!((view.available, view.reserved), (view.capacity, Tokens::ZERO), "{name}: the bucket is not full");
    }
}

fn accounts_are_even(world: &World) {
    for (name, object) in &world.accounts {
        assert!(object.holds.is_empty(), "{name}: holds are left: {:?}", object.holds);
        assert_eq!(object.held(), 0, "{name}: money is held");
    }
}

fn every_request_ended(world: &World) {
    for id in &world.accepted {
        let home = id.home().expect("an id names its home");
        assert!(world.pools[&home].ended.contains_key(id), "{id} has no end");
    }
}

fn every_end_is_charged_once(world: &World) {
    for (name, object) in &world.accounts {
        let charged: i64 = object.charges.values().map(|cost| cost.nanos()).sum();
        assert_eq!(object.spent(), charged, "{name}: spent and charged");
        let ends = world.pools.values().flat_map(|pool| &pool.ended);
        let own = ends.filter(|(id, _)| world.owners.get(*id) == Some(name));
        let ended: i64 = own.map(|(_, end)| end.cost.nanos()).sum();
        assert_eq!(ended, charged, "{name}: what its requests cost and what it was charged");
    }
}

/// 10: a bill is the sum of its lines, no line costs more than its use by its price, and none has saved less than nothing.
fn savings_add_up(world: &World) {
    for (id, end) in world.pools.values().flat_map(|pool| &pool.ended) {
        let costs = end.lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.cost));
        assert_eq!(costs, end.cost, "{id}: the bill and its lines");
        for line in &end.lines {
            let saved = Strategy::ALL.map(|strategy| line.saved.by(strategy));
            assert!(saved.iter().all(|saved| *saved >= NanoUsd::ZERO), "{id} saved less than nothing");
            let full = line.unit_price.times(line.actual).unwrap();
            assert!(line.cost <= full, "{id} costs more than its use");
            // What was not used itself would have cost what another one used.
            if line.actual.is_zero() {
                continue;
            }
            assert!(line.cost.saturating_add(line.saved.off_peak) <= full, "{id} saved more than its window gave");
            let used = line.actual.saturating_add(line.estimated);
            let dearest = NanoUsd::from_nanos(3_000).unwrap().times(used).unwrap();
            assert!(line.baseline() <= dearest, "{id} saved what nothing could have cost");
        }
    }
}
