//! Runs: what they need, and what they report.

use std::rc::Rc;

use rm_core::id::RequestId;
use rm_core::optimizer;
use rm_core::pool::{Report, ReportOutcome, Retry};
use rm_core::request::{Phase, Request};
use worker::Result;

use crate::objects::resource_pool::{Applied, PoolObject};
use crate::store::pool_store::Extra;
use crate::wire::execution::ExecutionView;
use crate::wire::pool::{ClaimCall, Order, ReportBatchCall, ReportCall, Run, RunOutcome};

impl PoolObject {
    /// What a run needs, for who can prove that it may be made; each of several that are run together.
    pub(super) fn claim(&self, call: ClaimCall) -> Result<Vec<Order>> {
        let proven = self.secrets.borrow().get(&call.id).is_some_and(|unclaimed| {
            unclaimed.grant == call.grant && crate::host::secrets::equal(&call.secret, &unclaimed.secret)
        });
        // Whoever proves nothing changes nothing.
        let claimed = if proven { self.secrets.borrow_mut().remove(&call.id) } else { None };
        let Some(unclaimed) = claimed else { return Ok(Vec::new()) };
        let mut orders = Vec::new();
        for (id, grant) in std::iter::once((call.id, call.grant)).chain(unclaimed.with) {
            orders.extend(self.order(&id, grant)?);
        }
        Ok(orders)
    }

    /// What a run needs, if it is still to be made.
    fn order(&self, id: &RequestId, grant: u32) -> Result<Option<Order>> {
        let run = self.look(|pool, now| {
            let request = pool.request(id)?;
            let Phase::Running { lease_until, .. } = request.phase else { return None };
            let run = Run {
                id: id.clone(),
                grant,
                attempt: request.attempts,
                step: request.step(),
                limit_ms: request.attempt_limit_ms(now).min(lease_until.since(now)),
                deadline: request.deadline,
            };
            let reserved = request.demands.iter().map(|demand| (demand.pool.clone(), demand.amount));
            (request.started_grant == grant).then(|| (run, reserved.collect()))
        })?;
        let store = self.store()?;
        let Some((run, reserved)) = run else { return Ok(None) };
        // What a step is handed is what the one before it gave.
        let input = match run.step.checked_sub(1) {
            None => store.input(id)?,
            Some(before) => store.step_output(id, before)?,
        };
        let (Some(stored), Some(input)) = (store.execution(id)?, input) else { return Ok(None) };
        Ok(Some(Order { run, spec: stored.spec, input, reserved }))
    }

    /// The reports of several that were run together. All are stored before anything is done outside: one account that does not answer keeps no other item waiting.
    pub(super) async fn report_batch(self: &Rc<Self>, call: ReportBatchCall) -> Result<Vec<Option<ExecutionView>>> {
        let ids: Vec<RequestId> = call.items.iter().map(|item| item.id.clone()).collect();
        let mut effects = Vec::new();
        for item in call.items {
            effects.extend(self.take_report(item)?.effects);
        }
        self.go_on(effects).await;
        ids.iter().map(|id| self.execution(id)).collect()
    }

    /// The report of a run, and the execution as it stands then; after the wait, if it goes on.
    pub(super) async fn report(self: &Rc<Self>, call: ReportCall) -> Result<Option<ExecutionView>> {
        let (id, wait_ms) = (call.id.clone(), call.wait_ms);
        let waiter = (wait_ms > 0).then(|| self.waiters.announce(&id));
        let applied = self.take_report(call)?;
        self.go_on(applied.effects).await;
        if matches!(applied.outcome, ReportOutcome::Retrying | ReportOutcome::StepEnded { .. })
            && let Some(waiter) = waiter
        {
            let _woken = waiter.wait(wait_ms).await;
        }
        self.execution(&id)
    }

    fn take_report(&self, call: ReportCall) -> Result<Applied<ReportOutcome>> {
        let id = call.id.clone();
        let (report, result) = match call.run {
            RunOutcome::Succeeded { result, usage, remaining } => {
                (Report::Succeeded { usage, remaining }, Some(result))
            }
            RunOutcome::Failed { failure, retry } => (Report::Failed { failure, retry }, None),
            RunOutcome::TimedOut => (Report::TimedOut, None),
        };
        // Of a common call one tells.
        let tells = !matches!(report, Report::Failed { retry: Retry::Apart { tells: false, .. }, .. });
        if report.timed_out()
            && tells
            && let Some(stored) = self.stored(&id)?
            && let Some(worker) =
                stored.spec.worker_of(self.look(|pool, _| pool.request(&id).map(Request::step))?.unwrap_or(0)).0
        {
            let mut timeouts = self.timeouts.borrow_mut();
            let count = timeouts.entry(worker.as_str().to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        self.apply(
            |pool, now| {
                let is_current = pool.request(&id).is_some_and(|request| request.started_grant == call.grant);
                if let Some(applied) = optimizer::Applied::compression(call.saved_bytes).filter(|_| is_current) {
                    pool.note_applied(&id, applied);
                }
                pool.report(&id, call.grant, report, now)
            },
            |outcome| Extra {
                new: None,
                result: result.as_ref().filter(|_| *outcome == ReportOutcome::Ended).map(|result| (&id, result)),
                step_output: match (*outcome, &result) {
                    (ReportOutcome::StepEnded { step }, Some(output)) => Some((&id, step, output)),
                    _ => None,
                },
            },
        )
    }
}
