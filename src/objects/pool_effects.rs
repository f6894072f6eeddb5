//! What a pool asks for, done: slots, leases, runs, settlements. Each answer is an event of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use futures_util::future::join_all;
use rm_core::id::{ClientId, PoolId, RequestId};
use rm_core::pool::{Effect, LeaseAnswer, LeaseOrder, Pool, Report, Retry};
use rm_core::priority::Urgency;
use rm_core::request::{Failure, Request};
use rm_core::units::{Instant, Tokens};
use wasm_bindgen_futures::spawn_local;
use worker::Result;

use crate::dispatch;
use crate::host::object::call;
use crate::host::{log, random};
use crate::objects::resource_pool::{PoolObject, Unclaimed};
use crate::objects::starts::Start;
use crate::objects::waiters::Wake;
use crate::store::pool_store::Extra;
use crate::views::{baseline_of, optimizations};
use crate::wire::account::{AcquireSlotCall, RaiseHoldCall, ReleaseSlotCall, SettleCall};
use crate::wire::pool::{
    ANSWERS, HeldBackCall, LeaseCall, LeaseFreeCall, OrdersOverCall, SettleLeaseCall, StandingsCall,
};

/// How often a release is tried before it is left to the lease's own end.
const RELEASE_TRIES: u32 = 3;

impl PoolObject {
    /// Starts everything that is asked for. The future that comes back is done when the accounts have been told of what
    /// ended, and those who waited for it are woken; the rest goes on by itself.
    pub(super) fn perform(self: &Rc<Self>, effects: Vec<Effect>) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut settlements: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        let mut finished = Vec::new();
        for effect in effects {
            let object = Rc::clone(self);
            match effect {
                Effect::Settle { event } => settlements.push(Box::pin(object.settle(event))),
                Effect::Finished { id } => finished.push(id),
                Effect::Reserved { id, expires_at } => self.waiters.wake(&id, Wake::Reserved { expires_at }),
                Effect::ReservationRefused { id, retry_at } => self.waiters.wake(&id, Wake::Refused { retry_at }),
                Effect::Start { id, grant, limit_ms, .. } => {
                    if let Some(start) = self.starts.admit(Start { id, grant, limit_ms, with: Vec::new() }) {
                        spawn_local(object.start(start));
                    }
                }
                Effect::StartBatch { mut items, limit_ms } => {
                    let with = items.split_off(1.min(items.len()));
                    let first = items.pop().map(|(id, grant)| Start { id, grant, limit_ms, with });
                    if let Some(start) = first.and_then(|start| self.starts.admit(start)) {
                        spawn_local(object.start(start));
                    }
                }
                Effect::AcquireSlot { id, grant, client, least_hold, rank } => {
                    let Some(pool) = id.home() else { continue };
                    let slot = AcquireSlotCall { id, grant, pool, least_hold, rank: Some(rank) };
                    spawn_local(object.acquire_slot(slot, client.as_str().to_owned()));
                }
                Effect::RaiseHold { id, client, least_hold } => {
                    let raise = RaiseHoldCall { id, least_hold };
                    settlements.push(Box::pin(object.raise_hold(raise, client.as_str().to_owned())));
                }
                Effect::ReleaseSlot { id, grant, client, ended } => {
                    let release = ReleaseSlotCall { id, grant, ended };
                    spawn_local(object.release_slot(release, client.as_str().to_owned()));
                }
                Effect::AcquireLease { id, grant, pool, order } => {
                    spawn_local(object.acquire_lease(id, grant, pool, order));
                }
                Effect::LeaseFree { home, came_to_nothing, available } => {
                    spawn_local(object.tell_lease_free(home, came_to_nothing, available));
                }
                Effect::OrdersOver { pool, keys } => spawn_local(object.tell_orders_over(pool, keys)),
                Effect::TellStandings { pool, standings, stood_at } => {
                    spawn_local(object.tell_standings(pool, standings, stood_at));
                }
                Effect::TellHeldBack { pool, waiting } => spawn_local(object.tell_held_back(pool, waiting)),
                Effect::SettleLease { pool, key, used, end, signal } => {
                    spawn_local(object.settle_lease(pool, SettleLeaseCall::new(key, used, end, signal)));
                }
            }
        }
        let object = Rc::clone(self);
        Box::pin(async move {
            join_all(settlements).await;
            for id in finished {
                // Those that are run together with it are still to be claimed by its name.
                object.secrets.borrow_mut().retain(|of, unclaimed| *of != id || !unclaimed.with.is_empty());
                object.waiters.wake(&id, Wake::Finished);
            }
        })
    }

    /// Hands over what earlier events put off.
    pub(super) fn start_put_off(self: &Rc<Self>) {
        for start in self.starts.take_put_off() {
            spawn_local(Rc::clone(self).start(start));
        }
    }

    /// Lets an event happen that nobody waits for.
    async fn happen(self: &Rc<Self>, event: impl FnOnce(&mut Pool, rm_core::units::Instant)) {
        match self.apply(event, |()| Extra::default()) {
            Ok(applied) => self.go_on(applied.effects).await,
            Err(error) => log::error("event_not_stored", "pool", &error.to_string()),
        }
    }

    /// Has one attempt run by a Worker of its own, through the `SELF` binding.
    async fn start(self: Rc<Self>, start: Start) {
        let Start { id, grant, limit_ms, with } = start;
        let Some(secret) = random::hex::<16>() else { return };
        let unclaimed = Unclaimed { grant, secret: secret.clone(), with: with.clone() };
        self.secrets.borrow_mut().insert(id.clone(), unclaimed);
        if let Err(error) = dispatch::hand_over(&self.env, &id, grant, &secret, limit_ms).await {
            log::warn("run_not_handed_over", id.as_str(), &error.to_string());
            let failure =
                Failure { code: "dispatch_failed".into(), message: "the attempt could not be started".into() };
            // If it did start and reported, this changes nothing.
            let report = Report::Failed { failure, retry: Retry::Backoff };
            self.happen(|pool, now| {
                for (id, grant) in std::iter::once((id, grant)).chain(with) {
                    pool.report(&id, grant, report.clone(), now);
                }
            })
            .await;
        }
    }

    async fn acquire_slot(self: Rc<Self>, slot: AcquireSlotCall, client: String) {
        let answer = call(&self.env, &client, &slot).await;
        let granted = answer.map_err(|error| log::warn("account_unreachable", &client, &error.to_string())).ok();
        self.happen(|pool, now| pool.slot_answered(&slot.id, slot.grant, granted, now)).await;
    }

    /// If this gets lost, the account learns it with the next slot that is asked for, or when the pool is loaded again.
    async fn raise_hold(self: Rc<Self>, raise: RaiseHoldCall, client: String) {
        for _ in 0..RELEASE_TRIES {
            match call(&self.env, &client, &raise).await {
                Ok(()) => return,
                Err(error) => log::warn("hold_not_raised", raise.id.as_str(), &error.to_string()),
            }
        }
    }

    async fn release_slot(self: Rc<Self>, release: ReleaseSlotCall, client: String) {
        for _ in 0..RELEASE_TRIES {
            match call(&self.env, &client, &release).await {
                Ok(()) => return,
                Err(error) => log::warn("slot_not_released", release.id.as_str(), &error.to_string()),
            }
        }
    }

    async fn acquire_lease(self: Rc<Self>, id: RequestId, grant: u32, pool: PoolId, order: LeaseOrder) {
        let answer = match call(&self.env, pool.as_str(), &LeaseCall { order, answers: ANSWERS }).await {
            Ok(reply) => reply.answer(),
            Err(error) => {
                log::warn("pool_unreachable", pool.as_str(), &error.to_string());
                LeaseAnswer::Unreachable
            }
        };
        self.happen(|home, now| home.lease_answered(&id, grant, &pool, answer, now)).await;
    }

    async fn tell_lease_free(self: Rc<Self>, home: PoolId, came_to_nothing: bool, available: Tokens) {
        let Ok(pool) = self.look(|pool, _| pool.config().pool.clone()) else { return };
        // If this gets lost, that pool asks again by itself.
        if let Err(error) =
            call(&self.env, home.as_str(), &LeaseFreeCall { pool, came_to_nothing, available: Some(available) }).await
        {
            log::warn("pool_not_told", home.as_str(), &error.to_string());
        }
    }

    async fn tell_orders_over(self: Rc<Self>, pool: PoolId, keys: Vec<String>) {
        // If this gets lost, that pool keeps tokens for them until they do not ask in time: for a promoted one that is long.
        let over = OrdersOverCall { keys };
        for _ in 0..RELEASE_TRIES {
            match call(&self.env, pool.as_str(), &over).await {
                Ok(()) => return,
                Err(error) => log::warn("pool_not_told", pool.as_str(), &error.to_string()),
            }
        }
    }

    async fn tell_held_back(self: Rc<Self>, pool: PoolId, waiting: BTreeSet<PoolId>) {
        let Ok(keeper) = self.look(|pool, _| pool.config().pool.clone()) else { return };
        // If this gets lost, it is told again.
        if let Err(error) = call(&self.env, pool.as_str(), &HeldBackCall { keeper, waiting }).await {
            log::warn("pool_not_told", pool.as_str(), &error.to_string());
        }
    }

    async fn tell_standings(self: Rc<Self>, pool: PoolId, standings: BTreeMap<ClientId, i64>, stood_at: Instant) {
        let Ok(home) = self.look(|pool, _| pool.config().pool.clone()) else { return };
        // If this gets lost, that pool keeps tokens for one of this home until it does not ask in time.
        if let Err(error) =
            call(&self.env, pool.as_str(), &StandingsCall { home, standings, stood_at: Some(stood_at) }).await
        {
            log::warn("pool_not_told", pool.as_str(), &error.to_string());
        }
    }

    async fn settle_lease(self: Rc<Self>, pool: PoolId, settle: SettleLeaseCall) {
        for _ in 0..RELEASE_TRIES {
            match call(&self.env, pool.as_str(), &settle).await {
                Ok(()) => return,
                Err(error) => log::warn("lease_not_settled", &settle.key, &error.to_string()),
            }
        }
    }

    /// Delivers a settlement. If that fails, the core's timer has it sent again.
    async fn settle(self: Rc<Self>, event: String) {
        match self.deliver(&event).await {
            Ok(()) => match self.apply(|pool, now| pool.settlement_confirmed(&event, now), |()| Extra::default()) {
                Ok(applied) => spawn_local(Rc::clone(&self).go_on_owned(applied.effects)),
                Err(error) => log::error("event_not_stored", &event, &error.to_string()),
            },
            Err(error) => log::warn("settlement_not_delivered", &event, &error.to_string()),
        }
    }

    async fn deliver(&self, event: &str) -> Result<()> {
        let store = self.store()?;
        let Some(settlement) = store.settlement(event)? else { return Ok(()) };
        let stored = store.execution(&settlement.request)?;
        let ended = stored.as_ref().and_then(|stored| stored.ended.as_ref());
        let (request, end) = (ended.map(|ended| &ended.request), ended.map(|ended| &ended.end));
        let spec = stored.as_ref().map(|stored| &stored.spec);
        let client = settlement.client.as_str().to_owned();
        let settle = SettleCall {
            template: spec.and_then(|spec| Some(spec.template_id.as_ref()?.as_str().to_owned())),
            worker: spec.and_then(|spec| Some(spec.worker.as_ref()?.as_str().to_owned())),
            model: spec.and_then(|spec| spec.model.clone()),
            baseline: baseline_of(&settlement.lines),
            same: spec.and_then(|spec| spec.same.clone()),
            deadline: request.and_then(|request| request.deadline),
            tried: spec.map_or_else(Vec::new, |spec| spec.tried.clone()),
            optimizations: request.map_or_else(Vec::new, |request| optimizations(request, &settlement.lines)),
            created_at: spec.map_or(settlement.at, |spec| spec.created_at),
            urgency: request.map_or(Urgency::Normal, |request| request.urgency),
            attempts: request.map_or(0, Request::attempts_in_all),
            started_at: request.and_then(|request| request.first_started_at),
            estimated: spec.map_or(settlement.cost, |spec| spec.estimated),
            failure: end.and_then(|end| end.failure.clone()),
            settlement,
        };
        call(&self.env, &client, &settle).await.map_err(|error| worker::Error::RustError(error.to_string()))
    }
}
