//! `ClientAccount`: one client's money and slots, its store, its outbox to D1 and its alarm.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rm_core::account::{Account, AccountEffect, AccountView};
use rm_core::id::{ClientId, RequestId};
use rm_core::period::Period;
use rm_core::units::Instant;
use worker::{DurableObject, Env, Error, Request, Response, Result, State, durable_object};

use crate::host::alarm::Alarm;
use crate::host::object::NAME_HEADER;
use crate::host::time_zone::TimeZone;
use crate::host::{clock, log};
use crate::store::account_store::AccountStore;
use crate::store::catalog;
use crate::store::record::UsageEvent;
use crate::wire::account::Idempotency;

/// How long charges are gathered before they are sent to D1 together.
const SEND_AFTER_MS: i64 = 500;
/// How many holds one event asks after at most: each is a call.
pub(super) const ASK_MAX: usize = 16;

/// The Durable Object.
#[durable_object]
pub struct ClientAccount {
    object: Rc<AccountObject>,
}

impl DurableObject for ClientAccount {
    fn new(state: State, env: Env) -> Self {
        let object = AccountObject {
            state,
            env,
            store: RefCell::default(),
            account: RefCell::default(),
            alarm: Alarm::default(),
            send_at: Cell::default(),
            send_failures: Cell::default(),
            closed: Cell::default(),
            closings: Cell::default(),
            period: RefCell::default(),
            alerted: Cell::default(),
        };
        Self { object: Rc::new(object) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let name = request.headers().get(NAME_HEADER)?.unwrap_or_default();
        let path = request.path();
        let body = request.text().await?;
        self.object.handle(&name, &path, &body).await
    }

    async fn alarm(&self) -> Result<Response> {
        self.object.alarm.went_off();
        if self.object.load(None).await? {
            self.object.wake_up().await?;
        }
        Response::empty()
    }
}

/// What the object consists of; shared with the work that it starts.
pub(super) struct AccountObject {
    state: State,
    pub(super) env: Env,
    store: RefCell<Option<Rc<AccountStore>>>,
    pub(super) account: RefCell<Option<Account>>,
    pub(super) alarm: Alarm,
    /// When the outbox is sent; none while it is empty.
    pub(super) send_at: Cell<Option<Instant>>,
    pub(super) send_failures: Cell<u32>,
    /// The client was deleted.
    pub(super) closed: Cell<bool>,
    /// How often it was told so: a look at D1 that began before the last time says nothing.
    pub(super) closings: Cell<u32>,
    /// The month that it is for the client, and the time zone that this was found with.
    period: RefCell<Option<(String, Period)>>,
    /// What the record knows of the budget: the month, and the highest mark that an alert is open for.
    pub(super) alerted: Cell<Option<(Instant, u8)>>,
}

/// What is stored together with the changes of an event.
#[derive(Default)]
pub(super) struct Extra<'a> {
    pub(super) key: Option<(&'a Idempotency, &'a RequestId, Instant)>,
    pub(super) charge: Option<UsageEvent>,
    pub(super) forget_key_of: Option<&'a RequestId>,
}

impl AccountObject {
    pub(super) fn store(&self) -> Result<Rc<AccountStore>> {
        if let Some(store) = self.store.borrow().as_ref() {
            return Ok(Rc::clone(store));
        }
        let store = Rc::new(AccountStore::open(self.state.storage())?);
        *self.store.borrow_mut() = Some(Rc::clone(&store));
        Ok(store)
    }

    pub(super) fn client(&self) -> Option<ClientId> {
        self.account.borrow().as_ref().map(|account| account.config().client.clone())
    }

    /// The month that it is where the client is.
    pub(super) fn period(&self) -> Period {
        self.period_of(clock::now())
    }

    /// The month that `at` is in where the client is.
    pub(super) fn period_of(&self, at: Instant) -> Period {
        let name = self.account.borrow().as_ref().map(|account| account.config().time_zone.clone()).unwrap_or_default();
        if let Some((zone, period)) = self.period.borrow().as_ref()
            && *zone == name
            && (period.start..period.end).contains(&at)
        {
            return *period;
        }
        let period = match TimeZone::named(&name) {
            Some(zone) => Period::month_in(at, |at| zone.offset_ms(at)),
            None => {
                log::error("time_zone_unknown", "account", &name);
                Period::month_of(at)
            }
        };
        *self.period.borrow_mut() = Some((name, period));
        period
    }

    pub(super) fn view(&self) -> Option<AccountView> {
        let period = self.period();
        self.account.borrow().as_ref().map(|account| account.view(period))
    }

    pub(super) fn has_charges(&self) -> bool {
        self.store().and_then(|store| store.charges_to_send()).is_ok_and(|charges| !charges.is_empty())
    }

    /// Brings the account into memory; `false` if there is no such client. The first time, its configuration comes from
    /// D1.
    pub(super) async fn load(self: &Rc<Self>, name: Option<&str>) -> Result<bool> {
        if self.account.borrow().is_some() {
            return Ok(true);
        }
        let store = self.store()?;
        let config = match (store.config()?, name) {
            (Some(config), _) => config,
            (None, Some(name)) => {
                let Ok(id) = name.parse::<ClientId>() else { return Ok(false) };
                let Some(record) = catalog::client(&self.env, &id).await? else { return Ok(false) };
                let config = record.account_config();
                store.set_config(&config)?;
                config
            }
            (None, None) => return Ok(false),
        };
        if self.account.borrow().is_none() {
            let (periods, holds) = store.load()?;
            self.closed.set(store.is_closed()?);
            *self.account.borrow_mut() = Some(Account::restore(config, periods, holds));
            if !store.charges_to_send()?.is_empty() {
                self.send_at.set(Some(clock::now().plus(SEND_AFTER_MS)));
            }
            self.arm().await;
        }
        Ok(true)
    }

    /// Lets one event happen, and stores what it changed. If it cannot be stored it has not happened: the memory is
    /// dropped, and the next event starts from what is stored.
    pub(super) fn apply<'a, T>(
        &self,
        event: impl FnOnce(&mut Account, Instant) -> T,
        extra: impl FnOnce(&T, Instant) -> Extra<'a>,
    ) -> Result<(T, Vec<AccountEffect>)> {
        let now = clock::now();
        let store = self.store()?;
        let mut memory = self.account.borrow_mut();
        let Some(account) = memory.as_mut() else { return Err(Error::RustError("the account is not loaded".into())) };
        let outcome = event(account, now);
        let changes = account.take_changes();
        let effects = account.take_effects();
        let extra = extra(&outcome, now);
        if let Err(error) = store.save(account, &changes, extra.key, extra.charge.as_ref(), extra.forget_key_of) {
            *memory = None;
            return Err(error);
        }
        if extra.charge.is_some() && self.send_at.get().is_none() {
            self.send_at.set(Some(now.plus(SEND_AFTER_MS)));
        }
        Ok((outcome, effects))
    }

    pub(super) async fn event<T>(self: &Rc<Self>, event: impl FnOnce(&mut Account, Instant) -> T) -> Result<T> {
        let (outcome, effects) = self.apply(event, |_, _| Extra::default())?;
        self.go_on(effects).await;
        Ok(outcome)
    }

    pub(super) async fn go_on(self: &Rc<Self>, effects: Vec<AccountEffect>) {
        self.arm().await;
        self.perform(effects);
    }

    async fn arm(&self) {
        let next = self.account.borrow().as_ref().and_then(Account::next_wakeup);
        let wanted = [next, self.send_at.get()].into_iter().flatten().min();
        if let Err(error) = self.alarm.arm(&self.state.storage(), wanted, clock::now()).await {
            log::error("alarm_not_set", "account", &error.to_string());
        }
    }

    async fn wake_up(self: &Rc<Self>) -> Result<()> {
        self.event(|account, now| account.on_wakeup(now, ASK_MAX)).await?;
        if self.send_at.get().is_some_and(|at| at <= clock::now()) {
            self.send_charges().await;
            self.arm().await;
        }
        Ok(())
    }

    /// Whether there is such a client: one that was deleted may be there again.
    pub(super) async fn is_open(self: &Rc<Self>, name: &str) -> Result<bool> {
        if !self.closed.get() {
            return Ok(true);
        }
        let Ok(id) = name.parse::<ClientId>() else { return Ok(false) };
        let closings = self.closings.get();
        let Some(record) = catalog::client(&self.env, &id).await? else { return Ok(false) };
        if self.closings.get() != closings {
            return Ok(false);
        }
        self.event(|account, _| account.reopen(record.account_config())).await?;
        self.store()?.set_closed(false)?;
        self.closed.set(false);
        Ok(true)
    }
}
