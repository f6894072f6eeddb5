//! `ResourcePool`: one pool's state machine, its store and its alarm.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use rm_core::id::{PoolId, RequestId};
use rm_core::pool::{Effect, Pool};
use rm_core::units::Instant;
use wasm_bindgen_futures::spawn_local;
use worker::{DurableObject, Env, Error, Request, Response, Result, State, durable_object};

use crate::host::alarm::Alarm;
use crate::host::object::{NAME_HEADER, NOTE_HEADER};
use crate::host::{clock, log};
use crate::objects::pool_foretelling::TurnedAway;
use crate::objects::starts::Starts;
use crate::objects::waiters::Waiters;
use crate::store::pool_store::{Extra, PoolStore};
use crate::store::{catalog, snapshot};
use crate::wire::pool::RateLimit;

/// The most often that a pool's snapshot is written to KV, which takes one write a second and key.
const SNAPSHOT_EVERY_MS: i64 = 1_000;

/// The Durable Object.
#[durable_object]
pub struct ResourcePool {
    object: Rc<PoolObject>,
}

impl DurableObject for ResourcePool {
    fn new(state: State, env: Env) -> Self {
        Self { object: Rc::new(PoolObject::new(state, env)) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let name = request.headers().get(NAME_HEADER)?.unwrap_or_default();
        let path = request.path();
        let body = request.text().await?;
        self.object.starts.begin_event();
        let response = self.object.handle(&name, &path, &body).await?;
        if let Some(limit) = self.object.rate_limit() {
            response.headers().set(NOTE_HEADER, &serde_json::to_string(&limit)?)?;
        }
        Ok(response)
    }

    async fn alarm(&self) -> Result<Response> {
        self.object.alarm.went_off();
        self.object.starts.begin_event();
        self.object.start_put_off();
        if self.object.load(None).await? {
            let applied = self.object.apply(|pool, now| pool.on_wakeup(now), |()| Extra::default())?;
            // The next alarm waits for this one to return, so nothing that may take long is waited for.
            spawn_local(self.object.perform(applied.effects));
            self.object.arm().await;
        }
        Response::empty()
    }
}

/// What the object consists of; shared with the work that it starts.
pub(super) struct PoolObject {
    pub(super) state: State,
    pub(super) env: Env,
    store: RefCell<Option<Rc<PoolStore>>>,
    pool: RefCell<Option<Pool>>,
    pub(super) waiters: Waiters,
    /// Runs that were started and not claimed, by request.
    pub(super) secrets: RefCell<BTreeMap<RequestId, Unclaimed>>,
    /// Runs that were granted and are not handed over yet.
    pub(super) starts: Starts,
    pub(super) alarm: Alarm,
    /// Attempts that timed out since the last tick, by worker. Lost with the memory: an alert is not a ledger.
    pub(super) timeouts: RefCell<BTreeMap<String, u32>>,
    pub(super) turned_away: TurnedAway,
    snapshot_at: Cell<Instant>,
    snapshot_due: Cell<bool>,
}

/// A run that was started and not claimed.
pub(super) struct Unclaimed {
    pub grant: u32,
    pub secret: String,
    /// Those that are run together with it.
    pub with: Vec<(RequestId, u32)>,
}

/// An event that has happened and is stored.
pub(super) struct Applied<T> {
    pub outcome: T,
    pub effects: Vec<Effect>,
    pub now: Instant,
}

impl PoolObject {
    fn new(state: State, env: Env) -> Self {
        Self {
            state,
            env,
            store: RefCell::default(),
            pool: RefCell::default(),
            waiters: Waiters::default(),
            secrets: RefCell::default(),
            starts: Starts::default(),
            alarm: Alarm::default(),
            timeouts: RefCell::default(),
            turned_away: TurnedAway::default(),
            snapshot_at: Cell::default(),
            snapshot_due: Cell::default(),
        }
    }

    pub(super) fn store(&self) -> Result<Rc<PoolStore>> {
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let store = Rc::new(PoolStore::open(self.state.storage())?);
        *self.store.borrow_mut() = Some(Rc::clone(&store));
        Ok(store)
    }

    /// Brings the pool into memory; `false` if there is no such pool. The first time, its configuration comes from D1.
    pub(super) async fn load(self: &Rc<Self>, name: Option<&str>) -> Result<bool> {
        if self.pool.borrow().is_some() {
            return Ok(true);
        }
        let store = self.store()?;
        let config = match (store.config()?, name) {
            (Some(config), _) => config,
            (None, Some(name)) => {
                let Ok(id) = name.parse::<PoolId>() else { return Ok(false) };
                let catalog = catalog::load(&self.env).await?;
                let Some(config) = catalog.pool_config(&id, clock::now()) else { return Ok(false) };
                store.set_config(&config)?;
                // There is no snapshot yet, or it is that of a pool of this name that was deleted.
                self.snapshot_due.set(true);
                config
            }
            (None, None) => return Ok(false),
        };
        if self.pool.borrow().is_some() {
            return Ok(true);
        }
        let restored = Pool::restore(store.load(config)?, clock::now());
        *self.pool.borrow_mut() = Some(restored);
        let applied = self.apply(|pool, now| pool.on_wakeup(now), |()| Extra::default())?;
        spawn_local(Rc::clone(self).go_on_owned(applied.effects));
        Ok(true)
    }

    /// Lets one event happen, and stores what it changed. If it cannot be stored it has not happened: the memory is
    /// dropped, and the next event starts from what is stored.
    pub(super) fn apply<'a, T>(
        &self,
        event: impl FnOnce(&mut Pool, Instant) -> T,
        extra: impl FnOnce(&T) -> Extra<'a>,
    ) -> Result<Applied<T>> {
        let now = clock::now();
        let store = self.store()?;
        let mut memory = self.pool.borrow_mut();
        let Some(pool) = memory.as_mut() else { return Err(Error::RustError("the pool is not loaded".into())) };
        let outcome = event(pool, now);
        let changes = pool.take_changes();
        let effects = pool.take_effects();
        let extra = extra(&outcome);
        if let Err(error) = store.save(pool, &changes, &extra) {
            *memory = None;
            return Err(error);
        }
        if changes.state || !changes.requests.is_empty() || !changes.ended.is_empty() {
            self.snapshot_due.set(true);
        }
        Ok(Applied { outcome, effects, now })
    }

    /// Looks without changing anything.
    pub(super) fn look<T>(&self, question: impl FnOnce(&Pool, Instant) -> T) -> Result<T> {
        let memory = self.pool.borrow();
        let Some(pool) = memory.as_ref() else { return Err(Error::RustError("the pool is not loaded".into())) };
        Ok(question(pool, clock::now()))
    }

    /// The bucket as it is, for every answer about the pool.
    fn rate_limit(&self) -> Option<RateLimit> {
        self.look(Pool::view).ok().as_ref().map(RateLimit::of)
    }

    /// Drops the memory of a pool that was let go of.
    pub(super) fn forget(&self) {
        *self.pool.borrow_mut() = None;
    }

    /// Sets the alarm, and performs the effects; returns when the accounts have been told of what ended.
    pub(super) async fn go_on(self: &Rc<Self>, effects: Vec<Effect>) {
        let settled = self.perform(effects);
        self.arm().await;
        settled.await;
    }

    pub(super) async fn go_on_owned(self: Rc<Self>, effects: Vec<Effect>) {
        self.go_on(effects).await;
    }

    async fn arm(self: &Rc<Self>) {
        let now = clock::now();
        let mut wanted = self.look(Pool::next_wakeup).unwrap_or_default();
        if self.starts.are_put_off() {
            wanted = Some(now);
        }
        if self.snapshot_due.get() {
            let due = self.snapshot_at.get().plus(SNAPSHOT_EVERY_MS);
            if due <= now {
                self.snapshot_due.set(false);
                self.snapshot_at.set(now);
                spawn_local(Rc::clone(self).write_snapshot());
            } else {
                wanted = Some(wanted.map_or(due, |at| at.min(due)));
            }
        }
        if let Err(error) = self.alarm.arm(&self.state.storage(), wanted, now).await {
            log::error("alarm_not_set", "pool", &error.to_string());
        }
    }

    async fn write_snapshot(self: Rc<Self>) {
        let Ok(view) = self.look(Pool::view) else { return };
        if let Err(error) = snapshot::write(&self.env, &view).await {
            log::warn("snapshot_not_written", view.pool.as_str(), &error.to_string());
        }
    }
}
