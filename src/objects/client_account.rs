//! `ClientAccount`: one client's money and slots, its store, its outbox to D1 and its alarm.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rm_core::account::{Account, AccountEffect, AccountView, HoldRefusal, SlotAnswer};
use rm_core::id::{ClientId, RequestId};
use rm_core::period::Period;
use rm_core::units::Instant;
use wasm_bindgen_futures::spawn_local;
use worker::{DurableObject, Env, Error, Request, Response, Result, State, durable_object};

use crate::host::alarm::Alarm;
use crate::host::object::{NAME_HEADER, Operation, answer, read};
use crate::host::time_zone::TimeZone;
use crate::host::{clock, log};
use crate::store::account_store::AccountStore;
use crate::store::catalog;
use crate::store::record::UsageEvent;
use crate::wire::account::{
    AbandonCall, AcquireSlotCall, CloseAnswer, CloseCall, ConfigureCall, FindKeyCall, HoldAnswer, HoldCall,
    Idempotency, PurgeCall, PurgedAtCall, RaiseHoldCall, ReleaseSlotCall, SettleCall, TickCall, ViewCall,
};

/// How long charges are gathered before they are sent to D1 together.
const SEND_AFTER_MS: i64 = 500;
/// How many holds one event asks after at most: each is a call.
const ASK_MAX: usize = 16;

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
    account: RefCell<Option<Account>>,
    alarm: Alarm,
    /// When the outbox is sent; none while it is empty.
    pub(super) send_at: Cell<Option<Instant>>,
    pub(super) send_failures: Cell<u32>,
    /// The client was deleted.
    pub(super) closed: Cell<bool>,
    /// How often it was told so: a look at D1 that began before the last time says nothing.
    closings: Cell<u32>,
    /// The month that it is for the client, and the time zone that this was found with.
    period: RefCell<Option<(String, Period)>>,
    /// What the record knows of the budget: the month, and the highest mark that an alert is open for.
    pub(super) alerted: Cell<Option<(Instant, u8)>>,
}

/// What is stored together with the changes of an event.
#[derive(Default)]
struct Extra<'a> {
    key: Option<(&'a Idempotency, &'a RequestId, Instant)>,
    charge: Option<UsageEvent>,
    forget_key_of: Option<&'a RequestId>,
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
    fn period_of(&self, at: Instant) -> Period {
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
    async fn load(self: &Rc<Self>, name: Option<&str>) -> Result<bool> {
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
    fn apply<'a, T>(
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

    async fn go_on(self: &Rc<Self>, effects: Vec<AccountEffect>) {
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

    async fn handle(self: &Rc<Self>, name: &str, path: &str, body: &str) -> Result<Response> {
        if path == CloseCall::PATH {
            self.closings.set(self.closings.get().wrapping_add(1));
        }
        // A charge may come for a client that was deleted: what it has used it has used.
        let known = self.load(Some(name)).await? && (path == SettleCall::PATH || self.is_open(name).await?);
        match path {
            HoldCall::PATH if !known => answer::<HoldCall>(&HoldAnswer::UnknownClient),
            FindKeyCall::PATH if !known => answer::<FindKeyCall>(&None),
            ViewCall::PATH if !known => answer::<ViewCall>(&None),
            AcquireSlotCall::PATH if !known => answer::<AcquireSlotCall>(&SlotAnswer::NoHold),
            ConfigureCall::PATH | TickCall::PATH if !known => answer::<TickCall>(&()),
            CloseCall::PATH if !known => answer::<CloseCall>(&CloseAnswer::Closed),
            _ if !known => Response::error("there is no such client", 404),
            FindKeyCall::PATH => answer::<FindKeyCall>(&self.find_key(&read::<FindKeyCall>(body)?.idempotency)?),
            HoldCall::PATH => answer::<HoldCall>(&self.hold(&read(body)?).await?),
            AbandonCall::PATH => answer::<AbandonCall>(&self.abandon(&read(body)?).await?),
            AcquireSlotCall::PATH => {
                let call: AcquireSlotCall = read(body)?;
                let acquire = |account: &mut Account, now| {
                    account.raise_hold(&call.id, call.least_hold);
                    account.acquire_slot(&call.id, call.grant, &call.pool, now)
                };
                answer::<AcquireSlotCall>(&self.event(acquire).await?)
            }
            RaiseHoldCall::PATH => {
                let call: RaiseHoldCall = read(body)?;
                answer::<RaiseHoldCall>(&self.event(|account, _| account.raise_hold(&call.id, call.least_hold)).await?)
            }
            ReleaseSlotCall::PATH => {
                let call: ReleaseSlotCall = read(body)?;
                let release = |account: &mut Account, _| match call.ended {
                    true => account.cancelled(&call.id, call.grant),
                    false => account.release_slot(&call.id, call.grant),
                };
                answer::<ReleaseSlotCall>(&self.event(release).await?)
            }
            SettleCall::PATH => answer::<SettleCall>(&self.settle(read(body)?).await?),
            ViewCall::PATH => answer::<ViewCall>(&self.view()),
            ConfigureCall::PATH => {
                let call: ConfigureCall = read(body)?;
                self.event(|account, _| account.configure(call.config)).await?;
                spawn_local(Rc::clone(self).watch_budget_owned());
                answer::<ConfigureCall>(&())
            }
            PurgeCall::PATH => answer::<PurgeCall>(&self.store()?.set_purged_at(clock::now())?),
            PurgedAtCall::PATH => answer::<PurgedAtCall>(&self.store()?.purged_at()?),
            TickCall::PATH => answer::<TickCall>(&self.tick().await?),
            CloseCall::PATH => answer::<CloseCall>(&self.close(&read(body)?)?),
            _ => Response::error("no such operation", 404),
        }
    }

    /// The answer to a key that was used before.
    fn find_key(&self, key: &Idempotency) -> Result<Option<HoldAnswer>> {
        let Some(used) = self.store()?.key_use(&key.key, clock::now())? else { return Ok(None) };
        let known = |account: &Account| (account.config().tier, account.held_for(&used.id).map(|hold| hold.amount));
        let known = self.account.borrow().as_ref().map(known);
        Ok(Some(match known {
            Some((tier, amount)) if used.fingerprint == key.fingerprint => {
                HoldAnswer::Replayed { id: used.id, at: used.at, open: amount.is_some(), amount, tier }
            }
            _ => HoldAnswer::Mismatch,
        }))
    }

    async fn hold(self: &Rc<Self>, call: &HoldCall) -> Result<HoldAnswer> {
        if let Some(kept_at) = call.kept_at
            && self.store()?.purged_at()?.is_some_and(|purged_at| kept_at <= purged_at)
        {
            return Ok(HoldAnswer::Purged);
        }
        if let Some(key) = &call.idempotency
            && let Some(answer) = self.find_key(key)?
        {
            return Ok(answer);
        }
        let tier = |account: &Account| account.config().tier;
        let period = self.period();
        let is_kept = call.kept_at.is_some();
        let choices = || std::iter::once((&call.id, call.amount)).chain(call.or.iter().map(|or| (&or.id, or.amount)));
        let (outcome, effects) = self.apply(
            |account, now| {
                let mut first = None;
                for (id, amount) in choices() {
                    let held = match is_kept {
                        true => account.hold_nothing(id, period, now),
                        false => account.hold(id, amount, call.kind, period, now),
                    };
                    match held {
                        Ok(held) => return (Ok((id, held)), tier(account)),
                        Err(refusal) => first = first.or(Some(refusal)),
                    }
                }
                (Err(first.unwrap_or(HoldRefusal::Suspended)), tier(account))
            },
            |(held, _), now| Extra {
                key: call.idempotency.as_ref().zip(held.as_ref().ok()).map(|(key, (id, _))| (key, *id, now)),
                ..Extra::default()
            },
        )?;
        spawn_local(Rc::clone(self).go_on_owned(effects));
        Ok(match outcome {
            (Ok((id, held)), tier) => HoldAnswer::Held {
                other: Some(id).filter(|id| **id != call.id).cloned(),
                at: held.at,
                slot: held.slot,
                slots: Some(held.slots),
                tier,
            },
            (Err(HoldRefusal::Budget { remaining, next_period }), _) => {
                HoldAnswer::BudgetExceeded { remaining, next_period }
            }
            (Err(HoldRefusal::Suspended), _) => HoldAnswer::Suspended,
        })
    }

    async fn go_on_owned(self: Rc<Self>, effects: Vec<AccountEffect>) {
        self.go_on(effects).await;
    }

    async fn abandon(self: &Rc<Self>, call: &AbandonCall) -> Result<()> {
        let ((), effects) = self.apply(
            |account, _| account.abandon(&call.id),
            |(), _| Extra { forget_key_of: Some(&call.id), ..Extra::default() },
        )?;
        self.go_on(effects).await;
        Ok(())
    }

    async fn settle(self: &Rc<Self>, call: SettleCall) -> Result<()> {
        if self.store()?.is_charged(&call.settlement.event)? {
            return Ok(());
        }
        let SettleCall { settlement, template, worker, model, baseline, created_at, .. } = call;
        let made_in = self.period_of(created_at);
        let (_, effects) = self.apply(
            |account, _| account.settle(&settlement, made_in),
            |period_start, _| Extra {
                charge: Some(UsageEvent {
                    event: settlement.event.clone(),
                    request_id: settlement.request.clone(),
                    client_id: settlement.client.clone(),
                    kind: settlement.kind,
                    status: settlement.status,
                    template_id: template,
                    worker,
                    model,
                    created_at,
                    at: settlement.at,
                    period_start: *period_start,
                    cost: settlement.cost,
                    baseline,
                    uncertain: settlement.uncertain,
                    lines: settlement.lines.clone(),
                    urgency: call.urgency,
                    attempts: call.attempts,
                    started_at: call.started_at,
                    estimated: call.estimated,
                    failure: call.failure,
                    optimizations: call.optimizations,
                    same: call.same,
                }),
                ..Extra::default()
            },
        )?;
        spawn_local(Rc::clone(self).go_on_owned(effects));
        Ok(())
    }

    async fn tick(self: &Rc<Self>) -> Result<()> {
        self.alarm.went_off();
        if self.send_at.get().is_some() {
            self.send_charges().await;
        }
        self.store()?.sweep(clock::now())?;
        self.watch_budget().await;
        self.event(|account, now| account.on_wakeup(now, ASK_MAX)).await
    }
    /// Lets go of the account, unless it holds anything.
    fn close(&self, call: &CloseCall) -> Result<CloseAnswer> {
        let holds = self.account.borrow().as_ref().map_or(0, Account::holds_open);
        let store = self.store()?;
        let charges = u64::try_from(store.charges_to_send()?.len()).unwrap_or(u64::MAX);
        if !call.force && (holds > 0 || charges > 0) {
            return Ok(CloseAnswer::Busy { holds, charges });
        }
        store.set_closed(true)?;
        // A client of this name that is made anew is another one.
        store.set_purged_at(clock::now())?;
        self.closed.set(true);
        Ok(CloseAnswer::Closed)
    }

    /// Whether there is such a client: one that was deleted may be there again.
    async fn is_open(self: &Rc<Self>, name: &str) -> Result<bool> {
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
