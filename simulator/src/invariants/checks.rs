//! The invariants: what must hold after each step, and what must hold in the end.

use rm_core::id::{ClientId, RequestId};
use rm_core::partition;
use rm_core::pool::{Blocked, Pool, PositionView};
use rm_core::request::{Kind, Phase, Request, Status};
use rm_core::units::{Instant, Tokens};

use super::bills::savings_add_up;
use super::shell::{Message, PoolObject};
use super::turns::{PASSED_OVER_AT_MOST, is_old};
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

const NOBODY_OUTRANKED: Check =
    Check { name: "7: nobody is passed over by one of lower rank", holds: nobody_is_outranked };
const FIRST_IN_FIRST_OUT: Check =
    Check { name: "7: first in, first out within a client's lane", holds: first_in_first_out };

/// All that the core promises.
pub const ALL: Checks = Checks {
    always: &[
        Check { name: "1: tokens granted in any window", holds: tokens_never_exceed_capacity_and_refill },
        Check { name: "2: spent and held within the budget", holds: budgets },
        Check { name: "2: what a run has taken and will take is held", holds: runs_are_held_for },
        Check { name: "3: running within the client's limit", holds: slots },
        Check { name: "4: what runs has its tokens in every pool", holds: runs_have_their_leases },
        Check { name: "4: what is leased is wanted", holds: leases_are_wanted },
        Check { name: "5: nothing waits beyond its time", holds: nothing_waits_too_long },
        Check { name: "6: the ledger adds up", holds: the_ledger_adds_up },
        Check { name: "7: no token idles while somebody waits for it", holds: no_token_idles },
        Check { name: "7: no member's share idles while it waits for it", holds: no_share_idles },
        Check { name: "7: what can be granted is granted", holds: nothing_is_left_to_grant },
        FIRST_IN_FIRST_OUT,
        NOBODY_OUTRANKED,
        Check { name: "8: one grant in four is a promoted request's", holds: promoted_ones_have_their_turn },
    ],
    at_the_end: &[
        Check { name: "4: nothing is left in any pool", holds: pools_are_as_new },
        Check { name: "2: nothing is held for any client", holds: accounts_are_even },
        Check { name: "5: every request has its end", holds: every_request_ended },
        Check { name: "5: every end is charged once", holds: every_end_is_charged_once },
        Check { name: "5: nothing succeeds after its deadline", holds: nothing_succeeds_late },
        FIRST_IN_FIRST_OUT,
        NOBODY_OUTRANKED,
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

/// 4: all or nothing: nothing runs on tokens that were not given.
fn runs_have_their_leases(world: &World) {
    // Beyond its time it is only waited for that its home ends it.
    let running = |request: &&Request| match request.phase {
        Phase::Running { lease_until, .. } => world.now <= lease_until,
        _ => false,
    };
    for request in world.pools.values().flat_map(|object| object.pool.requests()).filter(running) {
        let key = format!("{}#{}", request.id, request.started_grant);
        for demand in request.others().iter().filter(|demand| !demand.amount.is_zero()) {
            let leased = world.pools[&demand.pool].leases.get(&key).map(|lease| lease.amount);
            assert_eq!(leased, Some(demand.amount), "{key} runs, with that of {}", demand.pool);
        }
    }
}

/// 4: a lease belongs to a grant that goes on, or its end is on its way, or was lost there: it does not wait to run out.
fn leases_are_wanted(world: &World) {
    for (name, object) in &world.pools {
        for key in object.leases.keys().filter(|key| !world.lost_ends.contains(*key)) {
            let (id, grant) = key.split_once('#').expect("a lease is named after a grant");
            let id: RequestId = id.parse().expect("a request");
            let home = &world.pools[&id.home().expect("an id names its home")];
            let goes_on = home.pool.request(&id).is_some_and(|request| {
                let grant_goes_on = matches!(request.phase, Phase::Acquiring { .. } | Phase::Running { .. });
                grant_goes_on && request.grants.to_string() == grant
            });
            let is_of = |of: &RequestId, at: u32| *of == id && at.to_string() == grant;
            let on_its_way = |message: &Message| match message {
                Message::SettleLease(_, of, ..) => of == key,
                Message::AcquireLease(pool, _, of, at, _) | Message::LeaseAnswer(_, of, at, pool, _) => {
                    pool == name && is_of(of, *at)
                }
                _ => false,
            };
            assert!(goes_on || world.messages.values().any(on_its_way), "{name}: {key} is leased for nobody");
        }
    }
}

/// 5: after an event of its pool, nothing waits that has waited for as long as it may, or until its deadline.
fn nothing_waits_too_long(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        if is_not_done(object, now) {
            continue;
        }
        let waits = |phase: &Phase| matches!(phase, Phase::Waiting | Phase::Parked { .. } | Phase::Following { .. });
        for request in object.pool.requests().filter(|request| waits(&request.phase)) {
            assert!(request.expires_at() > now, "{name}: {} waits since {:?}", request.id, request.enqueued_at);
        }
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

/// Those of a pool's requests that wait for nothing but its tokens, and where they stand.
fn waiting_for_tokens(object: &PoolObject, now: Instant) -> Vec<(&Request, PositionView)> {
    let waiting = object.pool.requests().filter(|request| request.phase == Phase::Waiting);
    let placed = waiting.filter_map(|request| Some((request, object.pool.position(&request.id, now)?)));
    placed.filter(|(_, position)| position.blocked_by == Some(Blocked::Tokens)).collect()
}

/// What is left for the next event is looked at very soon.
fn is_not_done(object: &PoolObject, now: Instant) -> bool {
    object.pool.next_wakeup(now).is_some_and(|at| at <= now.plus(1))
}

/// 7: after an event, the one whose turn it is waits for its tokens, and is woken when they are there.
fn no_token_idles(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        let waiting = waiting_for_tokens(object, now);
        let may_stand_back =
            |(request, position): &(&Request, PositionView)| position.promoted || may_be_kept(object, &request.client);
        if waiting.iter().any(may_stand_back) {
            continue;
        }
        let Some((request, _)) = waiting.iter().min_by_key(|(_, position)| position.ahead) else { continue };
        // What others have a claim on does not idle.
        let view = object.pool.view(now);
        if view.paused_until.is_some() || is_not_done(object, now) {
            continue;
        }
        let claims = view.partitions.iter().fold(Tokens::ZERO, |sum, partition| sum.saturating_add(partition.claimed));
        let needed = request.home_amount().saturating_add(claims).saturating_add(view.kept);
        let Ok(wait_ms) = object.pool.wait_for(needed, None, now) else { continue };
        assert!(wait_ms > 0, "{name}: {} waits although its tokens are there", request.id);
        // Claims grow while one waits, so that in a divided pool its tokens may be there later.
        let woken_at = object.pool.next_wakeup(now);
        let in_time = woken_at.is_some_and(|at| at <= now.plus(wait_ms));
        assert!(!view.partitions.is_empty() || in_time, "{name}: {} is woken at {woken_at:?} only", request.id);
    }
}

/// 7: a member of a partition whose share has what it needs is granted it, whoever else waits.
fn no_share_idles(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        let config = object.pool.config();
        let waiting = waiting_for_tokens(object, now);
        let view = object.pool.view(now);
        // On the turn of a promoted one, be it of another pool, what is lent does not come back before it. That one has ended
        // is not known here before its home has said so.
        let elsewhere = world.pools.values().flat_map(|other| other.pool.requests());
        let promoted = waiting.iter().any(|(_, position)| position.promoted)
            || object.pool.is_old_one_ordered(now)
            || elsewhere.filter(|one| is_old(one, now)).any(|one| one.others().iter().any(|of| of.pool == *name));
        if promoted || !config.scheduler_running || view.paused_until.is_some() || is_not_done(object, now) {
            continue;
        }
        // Within a client's lane the order is that of arrival: one that needs more than the share holds back those after it,
        // if it has not failed before.
        let flow = |request: &Request| {
            let has_failed = request.worker.is_some() && request.attempts > 0;
            let kind = (request.window(), request.kind, has_failed);
            (request.client.clone(), request.rank_urgency(), request.worker.clone(), kind)
        };
        let is_first = |(request, position): &&(&Request, PositionView)| {
            !waiting.iter().any(|(other, before)| before.ahead < position.ahead && flow(other) == flow(request))
        };
        for (index, share) in view.partitions.iter().enumerate() {
            let is_member = |request: &Request| {
                partition::index_of(&config.partitions, &request.client, request.tier) == Some(index)
                    && request.home_amount() <= share.capacity
            };
            let asks_enough = |(request, _): &(&Request, PositionView)| {
                let own = partition::index_of(&config.partitions, &request.client, request.tier);
                own == Some(index) && may_be_kept(object, &request.client)
            };
            if waiting.iter().any(asks_enough) {
                continue;
            }
            let members = waiting.iter().filter(is_first).filter(|(request, _)| is_member(request));
            let Some((first, _)) = members.min_by_key(|(_, position)| position.ahead) else { continue };
            let dedicated = view.partitions.iter().enumerate().filter(|(other, share)| *other != index && !share.lends);
            let claims = dedicated.fold(Tokens::ZERO, |sum, (_, share)| sum.saturating_add(share.available));
            // Requests of other pools are members too.
            let needed = first.home_amount().saturating_add(view.kept);
            let has = needed <= share.available && needed.saturating_add(claims) <= view.available;
            assert!(!has, "{name}: {} waits although its share `{}` has its tokens", first.id, share.name);
        }
    }
}

/// 7: an event leaves nothing behind that it could have granted, whatever shares there are.
fn nothing_is_left_to_grant(world: &World) {
    for (name, object) in &world.pools {
        let now = world.pool_time[name];
        if is_not_done(object, now) {
            continue;
        }
        let mut again = object.pool.clone();
        again.on_wakeup(now);
        let reserved = |pool: &Pool| pool.ledger().reserved;
        assert_eq!(reserved(&again), reserved(&object.pool), "{name} had more to grant");
    }
}

/// 7: of what an event grants, but on a turn of the promoted ones or out of a share, nothing has a lower score than one that
/// waits for the same tokens before it and after it.
fn nobody_is_outranked(world: &World) {
    assert_eq!(world.passed.by_lower, None);
}

/// 7: those of a client's lane that are eligible or not together are granted in the order of their age, on whosever turn.
fn first_in_first_out(world: &World) {
    assert_eq!(world.passed.by_younger, None);
}

/// 8: while a promoted request waits for tokens, no more than three grants in a row go to others. What dedicated
/// partitions grant of their own is not counted.
fn promoted_ones_have_their_turn(world: &World) {
    for (name, passed_over) in &world.passed_over {
        assert!(
            *passed_over <= PASSED_OVER_AT_MOST,
            "{name}: {passed_over} grants in a row passed a promoted request over"
        );
    }
}

/// Whether a client's turn may be kept: it has as many grants waiting for its account, four at least, as it may.
pub(crate) fn may_be_kept(object: &PoolObject, client: &ClientId) -> bool {
    let acquires = |phase: &Phase| matches!(phase, Phase::Acquiring { .. });
    let acquiring = object.pool.requests().filter(|request| request.client == *client && acquires(&request.phase));
    acquiring.count() >= 4 && object.pool.asks_enough(client)
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

/// 5: of a reservation the deadline is that of its grant; what its owner did with it is true whenever it is told.
fn nothing_succeeds_late(world: &World) {
    let ends = world.pools.values().flat_map(|pool| &pool.ended);
    for (id, ended) in ends.filter(|(_, ended)| ended.request.kind == Kind::Execution) {
        let in_time = ended.request.deadline.is_none_or(|deadline| ended.end.finished_at <= deadline);
        assert!(in_time || ended.end.status != Status::Succeeded, "{id} succeeded at {:?}", ended.end.finished_at);
    }
}

fn every_end_is_charged_once(world: &World) {
    for (name, object) in &world.accounts {
        let charged: i64 = object.charges.values().map(|cost| cost.nanos()).sum();
        assert_eq!(object.spent(), charged, "{name}: spent and charged");
        let ends = world.pools.values().flat_map(|pool| &pool.ended);
        let own = ends.filter(|(id, _)| world.owners.get(*id) == Some(name));
        let ended: i64 = own.map(|(_, ended)| ended.end.cost.nanos()).sum();
        assert_eq!(ended, charged, "{name}: what its requests cost and what it was charged");
    }
}
