//! What looks after a `ResourcePool`: the scheduler's tick, and letting go of a pool that is to be deleted.

use std::rc::Rc;

use rm_core::pool::Pool;
use wasm_bindgen_futures::spawn_local;
use worker::{Env, Result};

use crate::host::log;
use crate::objects::resource_pool::PoolObject;
use crate::store::payloads;
use crate::store::pool_store::{Extra, first_id_at};
use crate::wire::payload::StoredPayload;
use crate::wire::pool::{CloseAnswer, TickAnswer, TickCall};

/// How many old executions are deleted at once, and how often at most in a tick: more than a pool can take in a minute.
const SWEEP_MAX: i64 = 1_000;
const SWEEPS_MAX: u32 = 50;
/// How long executions are kept when nothing is set.
const RETENTION_DEFAULT_HOURS: i64 = 24;

/// How long ended executions, their inputs and results are kept.
pub fn retention_ms(env: &Env) -> i64 {
    let hours = env.var("RETENTION_HOURS").ok().and_then(|hours| hours.to_string().parse::<i64>().ok());
    hours.unwrap_or(RETENTION_DEFAULT_HOURS).max(0).saturating_mul(3_600_000)
}

impl PoolObject {
    pub(super) async fn tick(self: &Rc<Self>, tick: TickCall) -> Result<TickAnswer> {
        // An alarm that was lost is found here: setting it again costs a row a minute.
        self.alarm.went_off();
        let applied = self.apply(
            |pool, now| {
                pool.configure(tick.config, now);
                pool.on_wakeup(now);
            },
            |()| Extra::default(),
        )?;
        let kept_since = applied.now.plus(retention_ms(&self.env).saturating_neg());
        let (pool, fairness) = self.look(|pool, _| (pool.config().pool.clone(), pool.fairness().clone()))?;
        let store = self.store()?;
        for _ in 0..SWEEPS_MAX {
            let (count, payloads) = store.sweep(kept_since, &first_id_at(kept_since, &pool), SWEEP_MAX)?;
            if !payloads.is_empty() {
                spawn_local(Rc::clone(self).delete_payloads(payloads));
            }
            if i64::try_from(count).unwrap_or(0) < SWEEP_MAX {
                break;
            }
        }
        store.sweep_use_keys(applied.now)?;
        store.save_fairness(&fairness)?;
        self.go_on(applied.effects).await;
        let timeouts = self.timeouts.take().into_iter().collect();
        let seen = |pool: &Pool, now| (pool.view(now), pool.queue_view(now).depth, pool.oldest_wait_ms(now));
        let (pool, depth, oldest_wait_ms) = self.look(seen)?;
        Ok(TickAnswer { pool, depth, oldest_wait_ms, timeouts })
    }

    async fn delete_payloads(self: Rc<Self>, swept: Vec<StoredPayload>) {
        let keys = swept.into_iter().map(|stored| stored.key).collect();
        // What is left behind is found by its age.
        if let Err(error) = payloads::delete(&self.env, keys).await {
            log::warn("payloads_not_deleted", "r2", &error.to_string());
        }
    }

    /// Lets go of the pool, unless it holds work.
    pub(super) fn close(&self) -> Result<CloseAnswer> {
        let (requests, others) = self.look(|pool, _| pool.work_held())?;
        if requests > 0 || others > 0 {
            return Ok(CloseAnswer::Busy { requests, others });
        }
        self.store()?.forget_config()?;
        self.forget();
        Ok(CloseAnswer::Closed)
    }
}
