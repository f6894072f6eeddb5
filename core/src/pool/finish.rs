//! How a request ends: its tokens go back, its bill is made, its account is to be told.

use crate::id::PoolId;
use crate::pipeline::{merged, total};
use crate::pool::lease::lease_key;
use crate::pool::{Effect, Ended, LeaseEnd, Pool, Remaining, Signal};
use crate::request::{Demand, End, Failure, Line, Phase, Request, Settlement, Status, Usage};
use crate::units::{Instant, NanoUsd, Tokens};

/// How to end a request.
pub(super) struct Finish {
    pub status: Status,
    pub failure: Option<Failure>,
    pub used: Vec<Usage>,
    /// A pool that `used` does not name was used as reserved; else it was not used.
    pub as_reserved: bool,
    pub uncertain: bool,
    pub expired: bool,
    pub remaining: Vec<Remaining>,
}

/// What a run has used of its pools.
pub(super) struct Used<'a> {
    pub usage: &'a [Usage],
    /// A pool that `usage` does not name was used as reserved; else it was not used.
    pub as_reserved: bool,
    /// It was not settled in time.
    pub expired: bool,
    /// What the worker says is left.
    pub remaining: &'a [Remaining],
}

impl Used<'_> {
    pub(super) const NOTHING: Self = Self { usage: &[], as_reserved: false, expired: false, remaining: &[] };
}

impl Finish {
    /// An end without any use.
    pub(super) const fn unused(status: Status, failure: Option<Failure>) -> Self {
        Self {
            status,
            failure,
            used: Vec::new(),
            as_reserved: false,
            uncertain: false,
            expired: false,
            remaining: Vec::new(),
        }
    }

    /// The worker has answered after the deadline: what it used is charged all the same.
    pub(super) fn used_late(usage: Vec<Usage>, why: &str) -> Self {
        let failure = Failure { code: "expired".into(), message: why.into() };
        Self { status: Status::Expired, failure: Some(failure), ..Self::used(usage) }
    }

    pub(super) fn used(usage: Vec<Usage>) -> Self {
        Self {
            status: Status::Succeeded,
            failure: None,
            used: usage,
            as_reserved: true,
            uncertain: false,
            expired: false,
            remaining: Vec::new(),
        }
    }
}

/// The bill of a request: a line for each pool, and their sum.
pub(super) fn bill(request: &Request, used: &[Usage], as_reserved: bool) -> (Vec<Line>, NanoUsd) {
    let line = |demand: &Demand| Line::of(demand, used.iter().find(|usage| usage.pool == demand.pool), as_reserved);
    // A step that needs nothing of its home has not used it, whatever its worker says: it has no price there.
    let needed = request.demands.iter().filter(|demand| !demand.amount.is_zero());
    let lines: Vec<Line> = needed.map(line).collect();
    let cost = total(&lines);
    (lines, cost)
}
impl Pool {
    /// Settles the tokens of a run, here and in the other pools.
    pub(super) fn release_run(&mut self, request: &Request, used: &Used<'_>, now: Instant) {
        let used_of = |pool: &PoolId, reserved: Tokens| {
            let otherwise = if used.as_reserved { reserved } else { Tokens::ZERO };
            used.usage.iter().find(|usage| usage.pool == *pool).map_or(otherwise, |usage| usage.amount)
        };
        let signal_of = |pool: &PoolId| {
            let said = used.remaining.iter().find(|remaining| remaining.pool == *pool);
            said.map_or(Signal::default(), |said| Signal {
                remaining: Some(said.left),
                resets_in_ms: said.resets_in_ms,
                ..Signal::default()
            })
        };
        let (reserved, since) = match request.phase {
            Phase::Running { since, .. } => (request.home_amount(), since),
            _ => (Tokens::ZERO, now),
        };
        let home = self.config.pool.clone();
        let needs_home = !request.home_amount().is_zero();
        let home_used = if needs_home { used_of(&home, request.home_amount()) } else { Tokens::ZERO };
        if !reserved.is_zero() || !home_used.is_zero() {
            self.settle_tokens(self.taken_by(request, reserved, since), home_used, used.expired, now);
            if home_used < reserved {
                self.note_gave_back(false);
            }
        }
        self.heed(&signal_of(&home), now);
        let was_started = request.started_grant > 0;
        for demand in request.others() {
            let amount = used_of(&demand.pool, demand.amount);
            let holds = matches!(request.phase, Phase::Running { .. });
            if was_started && (holds || !amount.is_zero()) {
                let (pool, key) = (demand.pool.clone(), lease_key(&request.id, request.started_grant));
                let signal = Signal { sign: request.sign, ..signal_of(&pool) };
                self.effects.push(Effect::SettleLease { pool, key, used: amount, end: LeaseEnd::Ran, signal });
            }
        }
    }

    /// Ends a request that is out of every index: the tokens go back, the end is recorded, the account is told.
    pub(super) fn finish(&mut self, mut request: Request, finish: Finish, now: Instant) {
        let used = Used {
            usage: &finish.used,
            as_reserved: finish.as_reserved,
            expired: finish.expired,
            remaining: &finish.remaining,
        };
        self.release_run(&request, &used, now);
        let (mut lines, mut cost) = bill(&request, &finish.used, finish.as_reserved);
        if request.is_pipeline() {
            request.close_last_step(finish.status, lines, now);
            lines = merged(request.past.iter().flat_map(|step| step.lines.iter().cloned()));
            cost = total(&lines);
        }
        let end = End {
            status: finish.status,
            failure: finish.failure,
            finished_at: now,
            lines: lines.clone(),
            cost,
            uncertain: finish.uncertain,
        };
        let event = request.id.as_str().to_owned();
        self.settle(&request, event, &end, now);
        self.effects.push(Effect::Finished { id: request.id.clone() });
        self.changes.requests.remove(&request.id);
        let (id, ended) = (request.id.clone(), end.clone());
        self.changes.ended.push(Ended { request, end, result_of: None });
        // Those that wait for the same may have the answer, though it came too late for this one.
        let answered = finish.as_reserved;
        self.end_followers(&id, &ended, answered, now);
    }

    pub(super) fn settle(&mut self, request: &Request, event: String, end: &End, now: Instant) {
        self.changes.settlements.push(Settlement {
            event: event.clone(),
            request: request.id.clone(),
            client: request.client.clone(),
            status: end.status,
            kind: request.kind,
            at: now,
            lines: end.lines.clone(),
            cost: end.cost,
            uncertain: end.uncertain,
        });
        self.unsettled.insert(event.clone(), (0, now));
        self.send_settlement(event, now);
    }
}
