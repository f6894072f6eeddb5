//! The operations of a `ClientAccount`, one function each.

use std::rc::Rc;

use rm_core::account::{Account, AccountEffect, HoldRefusal, SlotAnswer};
use rm_core::request::Kind;
use wasm_bindgen_futures::spawn_local;
use worker::{Response, Result};

use crate::host::clock;
use crate::host::object::{Operation, answer, read};
use crate::objects::client_account::{ASK_MAX, AccountObject, Extra};
use crate::store::record::UsageEvent;
use crate::wire::account::{
    AbandonCall, AcquireSlotCall, CloseAnswer, CloseCall, ConfigureCall, FindKeyCall, HoldAnswer, HoldCall,
    Idempotency, PurgeCall, PurgedAtCall, RaiseHoldCall, ReleaseSlotCall, SettleCall, TickCall, ViewCall,
};

impl AccountObject {
    /// Answers one operation.
    pub(super) async fn handle(self: &Rc<Self>, name: &str, path: &str, body: &str) -> Result<Response> {
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
                    account.acquire_slot(&call.id, call.grant, &call.pool, call.rank.unwrap_or(now), now)
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
        // Who else has the key may have gone on before: then that is the request.
        let goes_on = |answer: &HoldAnswer| match (answer, &call.instead_of) {
            (HoldAnswer::Replayed { id, .. }, Some(before)) => id == before,
            _ => false,
        };
        if let Some(key) = &call.idempotency
            && let Some(answer) = self.find_key(key)?.filter(|answer| !goes_on(answer))
        {
            return Ok(answer);
        }
        let tier = |account: &Account| account.config().tier;
        let period = self.period();
        let is_kept = call.kept_at.is_some();
        let choices = || std::iter::once((&call.id, call.amount)).chain(call.or.iter().map(|or| (&or.id, or.amount)));
        let (outcome, effects) = self.apply(
            |account, now| {
                if let Some(before) = &call.instead_of {
                    account.abandon(before);
                }
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
                forget_key_of: call.instead_of.as_ref(),
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
                purged_at: if call.kind == Kind::Execution { self.store()?.purged_at()? } else { None },
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
                    deadline: call.deadline,
                    tried: call.tried,
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
}
