//! The operations of a `ResourcePool`, one function each.

use std::rc::Rc;

use rm_core::account::AtHome;
use rm_core::id::RequestId;
use rm_core::pool::{CancelOutcome, Effect, Mode, Pool, Refusal, ReportOutcome, Submission, Submitted};
use rm_core::request::{Demand, Kind, Line, Phase, Request, Status, Usage};
use rm_core::units::{Instant, NanoUsd, Tokens};
use wasm_bindgen_futures::spawn_local;
use worker::{Response, Result};

use crate::host::clock;
use crate::host::object::{Operation, answer, read};
use crate::objects::resource_pool::PoolObject;
use crate::objects::waiters::Wake;
use crate::store::pool_store::{Extra, NewExecution, StoredExecution};
use crate::views::{bill_view, execution_view};
use crate::wire::execution::{ExecutionStatus, ExecutionView};
use crate::wire::pool::{
    AtHomeCall, BillAnswer, BillCall, CancelAnswer, CancelCall, ClaimCall, CloseAnswer, CloseCall, ConfigureCall,
    ConsumeAnswer, ConsumeCall, ExecutionCall, ForetellAnswer, ForetellCall, HeldBackCall, LeaseCall, LeaseFreeCall,
    LeaseReply, OrdersOverCall, PingCall, PositionAnswer, PositionCall, ReportBatchCall, ReportCall, Run,
    SettleLeaseCall, StandingsCall, SubmitAnswer, SubmitCall, SubmitRefusal, TickCall, ViewAnswer, ViewCall, WakeCall,
};

/// How long a reservation over several pools may take to be decided.
const RESERVE_LIMIT_MS: i64 = 10_000;

impl PoolObject {
    /// Answers one operation.
    pub(super) async fn handle(self: &Rc<Self>, name: &str, path: &str, body: &str) -> Result<Response> {
        if path == PingCall::PATH {
            return answer::<PingCall>(&());
        }
        let known = self.load(Some(name)).await?;
        if !known {
            return unknown_pool(path, body);
        }
        match path {
            SubmitCall::PATH => answer::<SubmitCall>(&self.submit(read(body)?).await?),
            ClaimCall::PATH => answer::<ClaimCall>(&self.claim(read(body)?)?),
            ReportCall::PATH => answer::<ReportCall>(&self.report(read(body)?).await?),
            ReportBatchCall::PATH => answer::<ReportBatchCall>(&self.report_batch(read(body)?).await?),
            ExecutionCall::PATH => answer::<ExecutionCall>(&self.execution(&read::<ExecutionCall>(body)?.id)?),
            PositionCall::PATH => answer::<PositionCall>(&self.position(&read::<PositionCall>(body)?.id)?),
            BillCall::PATH => answer::<BillCall>(&self.bill(&read::<BillCall>(body)?.id)?),
            CancelCall::PATH => answer::<CancelCall>(&self.cancel(read(body)?).await?),
            WakeCall::PATH => {
                let wake: WakeCall = read(body)?;
                answer::<WakeCall>(&self.event(|pool, now| pool.client_woken(&wake.client, now)).await?)
            }
            LeaseCall::PATH => {
                let lease: LeaseCall = read(body)?;
                let answered = self.event(|pool, now| pool.acquire_lease(lease.order, now)).await?;
                answer::<LeaseCall>(&LeaseReply::of(answered, lease.answers))
            }
            LeaseFreeCall::PATH => {
                let free: LeaseFreeCall = read(body)?;
                let available = free.available.unwrap_or(Tokens::MAX);
                let told = self.event(|pool, now| pool.lease_free(&free.pool, free.came_to_nothing, available, now));
                answer::<LeaseFreeCall>(&told.await?)
            }
            OrdersOverCall::PATH => {
                let over: OrdersOverCall = read(body)?;
                answer::<OrdersOverCall>(&self.event(|pool, now| pool.orders_over(&over.keys, now)).await?)
            }
            StandingsCall::PATH => {
                let told: StandingsCall = read(body)?;
                answer::<StandingsCall>(
                    &self
                        .event(|pool, now| {
                            pool.standings_told(&told.home, &told.standings, told.stood_at.unwrap_or(now), now);
                        })
                        .await?,
                )
            }
            HeldBackCall::PATH => {
                let held: HeldBackCall = read(body)?;
                let told = self.event(|pool, now| pool.held_back_told(&held.keeper, held.waiting, now));
                answer::<HeldBackCall>(&told.await?)
            }
            SettleLeaseCall::PATH => {
                let settle: SettleLeaseCall = read(body)?;
                answer::<SettleLeaseCall>(
                    &self
                        .event(|pool, now| {
                            pool.settle_lease(&settle.key, settle.used, settle.end(), &settle.signal, now)
                        })
                        .await?,
                )
            }
            ConsumeCall::PATH => answer::<ConsumeCall>(&self.consume(read(body)?).await?),
            AtHomeCall::PATH => answer::<AtHomeCall>(&self.at_home(&read::<AtHomeCall>(body)?.id)?),
            ForetellCall::PATH => answer::<ForetellCall>(&self.foretell(read(body)?)?),
            ViewCall::PATH => answer::<ViewCall>(&Some(self.view(&read(body)?)?)),
            ConfigureCall::PATH => {
                let configure: ConfigureCall = read(body)?;
                answer::<ConfigureCall>(&self.event(|pool, now| pool.configure(configure.config, now)).await?)
            }
            TickCall::PATH => answer::<TickCall>(&Some(self.tick(read(body)?).await?)),
            CloseCall::PATH => answer::<CloseCall>(&self.close()?),
            _ => Response::error("no such operation", 404),
        }
    }

    /// An event whose effects nobody waits for.
    async fn event<T>(self: &Rc<Self>, event: impl FnOnce(&mut Pool, Instant) -> T) -> Result<T> {
        let applied = self.apply(event, |_| Extra::default())?;
        spawn_local(Rc::clone(self).go_on_owned(applied.effects));
        Ok(applied.outcome)
    }

    async fn submit(self: &Rc<Self>, call: SubmitCall) -> Result<SubmitAnswer> {
        let id = call.id.clone();
        // Sent again after its end: the answer is as it was.
        if let Some(stored) = self.stored(&id)?
            && let Some(ended) = &stored.ended
        {
            if let (Kind::Reservation, Phase::Running { lease_until, .. }) = (ended.request.kind, &ended.request.phase)
            {
                return Ok(SubmitAnswer::Reserved { expires_at: *lease_until });
            }
            let execution = self.look(|pool, now| execution_view(stored, pool.request(&id), now))??;
            return Ok(SubmitAnswer::Here { execution: Box::new(execution), position: None });
        }
        if call.only_known && self.look(|pool, _| pool.request(&id).is_none())? {
            return Ok(SubmitAnswer::Refused { refusal: SubmitRefusal::Stale });
        }
        if let Some(refusal) = self.turns_away(&call)? {
            return Ok(SubmitAnswer::Refused { refusal });
        }
        let waiter = self.waiters.announce(&id);
        let mode = if call.kind == Kind::Reservation { Mode::NowOrNever } else { Mode::Queue };
        let applied = self.apply(
            |pool, now| match &call.kept {
                Some(kept) => pool.serve(submission(&call), &kept.usage, kept.detail.clone(), now),
                None => pool.submit(submission(&call), mode, now),
            },
            |outcome| Extra {
                new: (*outcome == Submitted::Accepted).then_some(NewExecution {
                    id: &call.id,
                    spec: &call.spec,
                    input: &call.input,
                }),
                result: call.kept.as_ref().map(|kept| (&call.id, &kept.result)),
                ..Extra::default()
            },
        )?;
        let mut effects = applied.effects;
        if let Submitted::Refused(refusal) = applied.outcome {
            let refusal = refusal_of(refusal);
            self.remember_refusal(&call, refusal);
            self.go_on(effects).await;
            return Ok(SubmitAnswer::Refused { refusal });
        }
        if call.run_here
            && let Some(index) =
                effects.iter().position(|effect| matches!(effect, Effect::Start { id: of, .. } if *of == id))
        {
            let started = effects.remove(index);
            if let Effect::Start { id, grant, attempt, limit_ms } = started {
                spawn_local(Rc::clone(self).go_on_owned(effects));
                return Ok(SubmitAnswer::RunHere {
                    run: Run { id, grant, attempt, step: 0, limit_ms, deadline: call.deadline },
                });
            }
        }
        spawn_local(Rc::clone(self).go_on_owned(effects));
        if call.kind == Kind::Reservation {
            return self.reserved(&id, waiter).await;
        }
        if call.wait_ms > 0 {
            let _woken = waiter.wait(call.wait_ms).await;
        }
        let position = self.look(|pool, now| pool.position(&id, now))?;
        match self.execution(&id)? {
            Some(execution) => Ok(SubmitAnswer::Here { execution: Box::new(execution), position }),
            None => Ok(SubmitAnswer::Refused { refusal: SubmitRefusal::Stale }),
        }
    }

    /// What became of a reservation: known at once in one pool, after the other pools' answers in several.
    async fn reserved(&self, id: &RequestId, waiter: crate::objects::waiters::Waiter) -> Result<SubmitAnswer> {
        let running = |request: &Request| match request.phase {
            Phase::Running { lease_until, .. } => Some(lease_until),
            _ => None,
        };
        let granted = self.look(|pool, _| pool.request(id).and_then(running))?;
        let wake = match granted {
            Some(expires_at) => Some(Wake::Reserved { expires_at }),
            None => waiter.wait(RESERVE_LIMIT_MS).await,
        };
        let soon = clock::now().plus(1_000);
        Ok(match wake {
            Some(Wake::Reserved { expires_at }) => SubmitAnswer::Reserved { expires_at },
            Some(Wake::Refused { retry_at }) => {
                SubmitAnswer::Refused { refusal: SubmitRefusal::NotNow { retry_at: retry_at.unwrap_or(soon) } }
            }
            Some(Wake::Finished) | None => SubmitAnswer::Refused { refusal: SubmitRefusal::NotNow { retry_at: soon } },
        })
    }

    pub(super) fn stored(&self, id: &RequestId) -> Result<Option<StoredExecution>> {
        self.store()?.execution(id)
    }

    /// An execution as it stands; reservations are none.
    pub(super) fn execution(&self, id: &RequestId) -> Result<Option<ExecutionView>> {
        let Some(stored) = self.stored(id)?.filter(|stored| stored.spec.worker.is_some()) else { return Ok(None) };
        self.look(|pool, now| execution_view(stored, pool.request(id), now))?.map(Some)
    }

    fn at_home(&self, id: &RequestId) -> Result<AtHome> {
        if let Some(at_home) = self.look(|pool, _| pool.at_home(id))? {
            return Ok(at_home);
        }
        Ok(if self.store()?.knows(id)? { AtHome::Busy } else { AtHome::Unknown })
    }

    fn position(&self, id: &RequestId) -> Result<Option<PositionAnswer>> {
        self.look(|pool, now| {
            let request = pool.request(id).filter(|request| request.kind == Kind::Execution)?;
            if matches!(request.phase, Phase::Abandoned { .. }) {
                return None;
            }
            Some(PositionAnswer { client: request.client.clone(), position: pool.position(id, now)? })
        })
    }

    fn bill(&self, id: &RequestId) -> Result<Option<BillAnswer>> {
        let Some(stored) = self.stored(id)? else { return Ok(None) };
        let settled = self.store()?.settlement(id.as_str())?.is_none();
        let bill = self.look(|pool, _| bill_view(&stored, pool.request(id), settled))?;
        Ok(bill.map(|bill| BillAnswer { client: stored.spec.client_id, bill }))
    }

    async fn cancel(self: &Rc<Self>, call: CancelCall) -> Result<CancelAnswer> {
        let id = &call.id;
        let Some(before) = self.execution(id)? else { return Ok(CancelAnswer::Unknown) };
        if call.client.is_some_and(|client| client != before.client_id) {
            return Ok(CancelAnswer::Forbidden);
        }
        let applied = self.apply(|pool, now| pool.cancel(id, call.only_waiting, now), |_| Extra::default())?;
        self.go_on(applied.effects).await;
        let Some(after) = self.execution(id)? else { return Ok(CancelAnswer::Unknown) };
        Ok(match applied.outcome {
            CancelOutcome::Running => CancelAnswer::Conflict { status: ExecutionStatus::Running },
            CancelOutcome::Cancelled | CancelOutcome::Unknown if after.status == ExecutionStatus::Cancelled => {
                CancelAnswer::Cancelled { execution: Box::new(after) }
            }
            CancelOutcome::Cancelled | CancelOutcome::Unknown => CancelAnswer::Conflict { status: after.status },
        })
    }

    async fn consume(self: &Rc<Self>, call: ConsumeCall) -> Result<ConsumeAnswer> {
        let id = &call.id;
        let Some(stored) = self.stored(id)?.filter(|stored| stored.spec.worker.is_none()) else {
            return Ok(ConsumeAnswer::Unknown);
        };
        if call.client.as_ref().is_some_and(|client| *client != stored.spec.client_id) {
            return Ok(ConsumeAnswer::Forbidden);
        }
        let request = match &stored.ended {
            Some(ended) => Some(ended.request.clone()),
            None => self.look(|pool, _| pool.request(id).cloned())?,
        };
        let demands = request.as_ref().map(|request| request.demands.clone()).unwrap_or_default();
        let key = call.key.as_ref().map(|key| (format!("{} {}", stored.spec.client_id, key.key), &key.fingerprint));
        let store = self.store()?;
        if let Some((key, fingerprint)) = &key
            && let Some(used) = store.use_key(key, clock::now())?
        {
            return Ok(if used.fingerprint == **fingerprint {
                ConsumeAnswer::Replayed { answer: Box::new(used.answer) }
            } else {
                ConsumeAnswer::Mismatch
            });
        }
        if let Some(usage) = call.usage.iter().find(|usage| !demands.iter().any(|demand| demand.pool == usage.pool)) {
            return Ok(ConsumeAnswer::NotReserved { pool: usage.pool.clone() });
        }
        let usage = call.usage.clone();
        let applied = self.apply(
            |pool, now| if call.release { pool.release(id, now) } else { pool.consume(id, usage, call.last, now) },
            |_| Extra::default(),
        )?;
        let answer = self.consumed(&call, applied.outcome)?;
        // Nothing is waited for since the event was stored: both are stored, or neither is.
        if let (Some((key, fingerprint)), ConsumeAnswer::Consumed { .. }) = (&key, &answer) {
            store.put_use_key(key, fingerprint, &answer, applied.now)?;
        }
        self.go_on(applied.effects).await;
        Ok(answer)
    }

    /// What became of a report of use.
    fn consumed(&self, call: &ConsumeCall, outcome: ReportOutcome) -> Result<ConsumeAnswer> {
        let id = &call.id;
        if let Some(ended) = self.stored(id)?.and_then(|stored| stored.ended) {
            let closed_by_this = outcome == ReportOutcome::Ended;
            return Ok(match ended.end.status {
                Status::Cancelled => ConsumeAnswer::Released,
                Status::Expired => ConsumeAnswer::Expired,
                _ if call.release && !closed_by_this => ConsumeAnswer::Closed,
                _ if closed_by_this || same_use(&call.usage, &ended.end.lines) => {
                    ConsumeAnswer::Consumed { lines: ended.end.lines, cost: ended.end.cost, closed: true }
                }
                _ => ConsumeAnswer::Closed,
            });
        }
        let lines = self.look(|pool, _| pool.request(id).map(lines_so_far))?.unwrap_or_default();
        let cost = lines.iter().fold(NanoUsd::ZERO, |sum, line| sum.saturating_add(line.cost));
        Ok(ConsumeAnswer::Consumed { lines, cost, closed: false })
    }

    fn view(&self, call: &ViewCall) -> Result<ViewAnswer> {
        let amount = call.amount.unwrap_or(Tokens::ZERO);
        let for_whom = call.for_whom.as_ref().map(|(client, tier)| (client, *tier));
        self.look(|pool, now| ViewAnswer {
            pool: pool.view(now),
            queue: pool.queue_view(now),
            wait_ms: pool.wait_for(amount, for_whom, now).ok(),
            reach: Some(pool.reach_of(for_whom)),
            scheduler_running: pool.config().scheduler_running,
            foretold: pool.starts_foretold(),
        })
    }
}

/// The answers of a pool that does not exist.
fn unknown_pool(path: &str, body: &str) -> Result<Response> {
    match path {
        SubmitCall::PATH => answer::<SubmitCall>(&SubmitAnswer::Refused { refusal: SubmitRefusal::UnknownPool }),
        LeaseCall::PATH => answer::<LeaseCall>(&LeaseReply::Never),
        AtHomeCall::PATH => answer::<AtHomeCall>(&AtHome::Unknown),
        ViewCall::PATH => answer::<ViewCall>(&None),
        ForetellCall::PATH => answer::<ForetellCall>(&ForetellAnswer::Refused),
        ClaimCall::PATH => answer::<ClaimCall>(&Vec::new()),
        ReportBatchCall::PATH => answer::<ReportBatchCall>(&Vec::new()),
        ReportCall::PATH => answer::<ReportCall>(&None),
        ExecutionCall::PATH => answer::<ExecutionCall>(&None),
        PositionCall::PATH => answer::<PositionCall>(&None),
        BillCall::PATH => answer::<BillCall>(&None),
        CancelCall::PATH => answer::<CancelCall>(&CancelAnswer::Unknown),
        ConsumeCall::PATH => answer::<ConsumeCall>(&ConsumeAnswer::Unknown),
        WakeCall::PATH
        | LeaseFreeCall::PATH
        | OrdersOverCall::PATH
        | StandingsCall::PATH
        | HeldBackCall::PATH
        | SettleLeaseCall::PATH
        | ConfigureCall::PATH => answer::<WakeCall>(&()),
        TickCall::PATH => answer::<TickCall>(&None),
        CloseCall::PATH => answer::<CloseCall>(&CloseAnswer::Closed),
        _ => Response::error(format!("no such operation, or no such pool: {path}, {} bytes", body.len()), 404),
    }
}

pub(super) fn submission(call: &SubmitCall) -> Submission {
    Submission {
        id: call.id.clone(),
        client: call.spec.client_id.clone(),
        tier: call.tier,
        kind: call.kind,
        urgency: call.urgency,
        held_at: call.held_at,
        deadline: call.deadline,
        demands: call.demands.clone(),
        max_attempts: call.max_attempts,
        timeout_ms: call.timeout_ms,
        worker: call.spec.worker.clone(),
        later: call.later.clone(),
        has_slot: call.has_slot,
        slots: call.slots,
        applied: call.applied.clone(),
        twin: call.twin.clone(),
        batch: call.batch.clone(),
        waits_for: call.waits_for.clone(),
        work: call.spec.template_id.as_ref().map(|template| template.as_str().to_owned()),
    }
}

const fn refusal_of(refusal: Refusal) -> SubmitRefusal {
    match refusal {
        Refusal::Never => SubmitRefusal::Never,
        Refusal::NotNow { retry_at } => SubmitRefusal::NotNow { retry_at },
        Refusal::QueueFull { retry_at } => SubmitRefusal::QueueFull { retry_at },
        Refusal::Stale => SubmitRefusal::Stale,
    }
}

fn same_use(usage: &[Usage], lines: &[Line]) -> bool {
    lines.iter().all(|line| {
        let said = usage.iter().find(|usage| usage.pool == line.pool).map_or(Tokens::ZERO, |usage| usage.amount);
        said == line.actual
    })
}

fn lines_so_far(request: &Request) -> Vec<Line> {
    let line = |demand: &Demand| Line::of(demand, request.used.iter().find(|usage| usage.pool == demand.pool), false);
    request.demands.iter().map(line).collect()
}
