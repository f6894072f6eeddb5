//! What an account asks for, done: pools are woken, homes are asked, charges are sent to D1.

use std::rc::Rc;

use rm_core::account::{AccountEffect, AtHome};
use rm_core::alert::budget_threshold;
use rm_core::id::{PoolId, RequestId};
use wasm_bindgen_futures::spawn_local;

use crate::alerts;
use crate::host::object::call;
use crate::host::{clock, log};
use crate::objects::client_account::{AccountObject, Extra};
use crate::store::account_store::SEND_MAX;
use crate::store::record;
use crate::wire::pool::{AtHomeCall, WakeCall};

/// The first wait after D1 did not take the charges; it doubles up to about a minute.
const RESEND_MS: i64 = 1_000;

impl AccountObject {
    /// Starts everything that is asked for.
    pub(super) fn perform(self: &Rc<Self>, effects: Vec<AccountEffect>) {
        for effect in effects {
            let object = Rc::clone(self);
            match effect {
                AccountEffect::WakePool { pool } => spawn_local(object.wake_pool(pool)),
                AccountEffect::AskHome { id, slot } => spawn_local(object.ask_home(id, slot)),
            }
        }
    }

    async fn wake_pool(self: Rc<Self>, pool: PoolId) {
        let Some(client) = self.client() else { return };
        // If this gets lost, the pool asks again by itself.
        if let Err(error) = call(&self.env, pool.as_str(), &WakeCall { client }).await {
            log::warn("pool_not_woken", pool.as_str(), &error.to_string());
        }
        if let Err(error) = self.event(|account, _| account.wake_next()).await {
            log::warn("next_pool_not_woken", pool.as_str(), &error.to_string());
        }
    }

    async fn ask_home(self: Rc<Self>, id: RequestId, slot: Option<u32>) {
        let Some(home) = id.home() else { return };
        match call(&self.env, home.as_str(), &AtHomeCall { id: id.clone() }).await {
            Ok(at_home) => {
                let is_unknown = at_home == AtHome::Unknown;
                if is_unknown {
                    log::warn("orphaned_hold", id.as_str(), "its pool never heard of it; the hold goes back");
                }
                let answered = self.apply(
                    |account, now| {
                        let was_held = account.held_for(&id).is_some();
                        account.home_answered(&id, slot, at_home, now);
                        was_held
                    },
                    // Its key is free again: who sends it once more sends a new request.
                    |was_held, _| Extra {
                        forget_key_of: Some(&id).filter(|_| is_unknown && *was_held),
                        ..Extra::default()
                    },
                );
                match answered {
                    Ok((_, effects)) => self.go_on(effects).await,
                    Err(error) => log::error("event_not_stored", id.as_str(), &error.to_string()),
                }
            }
            Err(error) => log::warn("home_unreachable", id.as_str(), &error.to_string()),
        }
    }

    /// Sends the outbox to D1. What D1 has is forgotten afterwards; if that is lost it is sent again, to no effect.
    pub(super) async fn send_charges(self: &Rc<Self>) {
        let sent = async {
            let store = self.store()?;
            let events = store.charges_to_send()?;
            if !events.is_empty() {
                record::send(&self.env, &events).await?;
                store.sent(&events)?;
            }
            Ok::<_, worker::Error>(events.len())
        };
        let now = clock::now();
        match sent.await {
            Ok(count) => {
                self.send_failures.set(0);
                // A charge that was made while D1 was writing is still there.
                let more = count >= SEND_MAX || self.has_charges();
                self.send_at.set(more.then(|| now.plus(RESEND_MS)));
                self.watch_budget().await;
            }
            Err(error) => {
                let failures = self.send_failures.get().saturating_add(1);
                self.send_failures.set(failures);
                let wait = RESEND_MS.saturating_mul(1_i64.checked_shl(failures.min(6)).unwrap_or(64));
                self.send_at.set(Some(now.plus(wait)));
                log::warn("record_unreachable", "d1", &error.to_string());
            }
        }
    }

    pub(super) async fn watch_budget_owned(self: Rc<Self>) {
        self.watch_budget().await;
    }

    /// Opens and resolves the alerts of the budget's marks, if another mark is reached than the last time.
    pub(super) async fn watch_budget(self: &Rc<Self>) {
        let Some(view) = self.view().filter(|_| !self.closed.get()) else { return };
        let reached = (view.period.month, budget_threshold(view.spent, view.budget));
        if self.alerted.get() == Some(reached) {
            return;
        }
        match alerts::tell_budget(&self.env, &view, reached.1).await {
            Ok(()) => self.alerted.set(Some(reached)),
            Err(error) => log::warn("budget_alert_not_recorded", view.client.as_str(), &error.to_string()),
        }
    }
}
