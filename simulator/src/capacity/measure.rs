//! What is kept of a run, and the numbers that are told of it.

use std::collections::BTreeMap;

use rm_core::id::{ClientId, PoolId};
use rm_core::pool::{Ended, Ledger, PoolView};
use rm_core::priority::Tier;
use rm_core::request::Status;

use super::arrivals::Planned;
use super::workload::{PoolSpec, Workload};
use crate::numbers::real;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It ran to its end.
    Succeeded,
    /// It was not finished by its deadline, or within a day.
    Expired,
    /// Its client's budget had not got what it costs.
    OverBudget,
    /// Its pool's queue was full, or it needs more than a pool can hold.
    NotTaken,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Expired, Self::OverBudget, Self::NotTaken];
}

/// What is counted of a group of requests.
#[derive(Debug, Clone, Default)]
pub struct Group {
    outcomes: BTreeMap<Outcome, u64>,
    /// Milliseconds from arrival to start, of those that started.
    waits: Vec<i64>,
    /// In nano-dollars.
    cost: i128,
}

impl Group {
    fn count(&mut self, outcome: Outcome) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// How many requests there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// How many had that outcome.
    #[must_use]
    pub fn with(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// What they cost, in nano-dollars.
    #[must_use]
    pub const fn cost_nanos(&self) -> i128 {
        self.cost
    }

    /// The waits in milliseconds, the shortest first.
    #[must_use]
    pub fn waits(&self) -> &[i64] {
        &self.waits
    }

    /// The wait that so many in a hundred did not exceed (by nearest rank); `None` if none started.
    #[must_use]
    pub fn wait_ms(&self, percent: usize) -> Option<i64> {
        let rank = (self.waits.len() * percent).div_ceil(100).max(1);
        self.waits.get(rank - 1).copied()
    }

    fn add(&mut self, other: &Self) {
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        self.waits.extend(&other.waits);
        self.cost += other.cost;
    }
}

/// A pool at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many requests waited.
    pub queued: u64,
    /// What had been taken for good or was taken then, in millionths.
    pub taken: i64,
}

/// What is kept of a pool.
#[derive(Debug, Clone)]
pub struct PoolMeasured {
    /// As the workload has it.
    pub spec: PoolSpec,
    /// The requests that need it.
    pub group: Group,
    /// The most that waited at once, of those whose home it is.
    pub most_queued: u64,
    /// While requests arrived, at equal distances, both ends included.
    pub samples: Vec<Sample>,
}

/// What is kept of a run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// For how long requests arrived.
    pub seconds: u32,
    /// When the last one had ended, in milliseconds.
    pub ended_ms: i64,
    /// By tier.
    pub tiers: BTreeMap<Tier, Group>,
    /// By pool.
    pub pools: BTreeMap<PoolId, PoolMeasured>,
    clients: BTreeMap<ClientId, Tier>,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn new(workload: &Workload) -> Self {
        let pool = |spec: &PoolSpec| PoolMeasured {
            spec: spec.clone(),
            group: Group::default(),
            most_queued: 0,
            samples: Vec::new(),
        };
        let clients: BTreeMap<ClientId, Tier> =
            workload.clients.iter().map(|client| (client.client.clone(), client.tier)).collect();
        Self {
            seconds: workload.seconds,
            ended_ms: 0,
            tiers: clients.values().map(|tier| (*tier, Group::default())).collect(),
            pools: workload.pools.iter().map(|(name, spec)| (name.clone(), pool(spec))).collect(),
            clients,
        }
    }

    /// The tier of a client.
    #[must_use]
    pub fn tier(&self, client: &ClientId) -> Tier {
        self.clients.get(client).copied().unwrap_or(Tier::Basic)
    }

    /// All tiers together.
    #[must_use]
    pub fn all(&self) -> Group {
        let mut all = Group::default();
        self.tiers.values().for_each(|group| all.add(group));
        all.waits.sort_unstable();
        all
    }

    pub(super) fn refused(&mut self, planned: &Planned, outcome: Outcome) {
        self.each_group(planned, |group, _| group.count(outcome));
    }

    pub(super) fn ended(&mut self, planned: &Planned, ended: &Ended) {
        let outcome = match ended.end.status {
            Status::Succeeded => Outcome::Succeeded,
            Status::Expired => Outcome::Expired,
            // No worker fails here and nobody cancels: a pool that it needs can never hold as much.
            Status::Failed | Status::TimedOut | Status::Cancelled => Outcome::NotTaken,
        };
        let wait = ended.request.first_started_at.map(|at| at.since(ended.request.enqueued_at));
        self.each_group(planned, |group, pool| {
            group.count(outcome);
            group.waits.extend(wait);
            let lines = ended.end.lines.iter().filter(|line| pool.is_none_or(|pool| line.pool == *pool));
            group.cost += lines.map(|line| i128::from(line.cost.nanos())).sum::<i128>();
        });
    }

    /// The groups that a request belongs to: its tier's, and those of the pools that it needs.
    fn each_group(&mut self, planned: &Planned, mut change: impl FnMut(&mut Group, Option<&PoolId>)) {
        let tier = self.tier(&planned.client);
        change(self.tiers.entry(tier).or_default(), None);
        for (pool, _) in &planned.needs {
            if let Some(measured) = self.pools.get_mut(pool) {
                change(&mut measured.group, Some(pool));
            }
        }
    }

    pub(super) fn queued(&mut self, pool: &PoolId, queued: u64) {
        if let Some(measured) = self.pools.get_mut(pool) {
            measured.most_queued = measured.most_queued.max(queued);
        }
    }

    pub(super) fn sample(&mut self, pool: &PoolId, view: &PoolView, ledger: Ledger) {
        if let Some(measured) = self.pools.get_mut(pool) {
            let taken = ledger.reserved + ledger.overused - ledger.released - ledger.expired;
            measured.samples.push(Sample { queued: view.queued, taken });
        }
    }

    /// Puts the waits in order, once all are there.
    pub(super) fn finish(&mut self, ended_ms: i64) {
        self.ended_ms = ended_ms;
        let pools = self.pools.values_mut().map(|pool| &mut pool.group);
        self.tiers.values_mut().chain(pools).for_each(|group| group.waits.sort_unstable());
    }
}

impl PoolMeasured {
    /// Of what the pool could have given while requests arrived (the full bucket of the beginning, and all that was
    /// refilled), the share that was taken.
    #[must_use]
    pub fn utilisation(&self, seconds: u32) -> f64 {
        let refilled = real(self.spec.refill_per_second.micros()) * f64::from(seconds);
        let taken = self.samples.last().map_or(0, |sample| sample.taken);
        real(taken) / (real(self.spec.capacity.micros()) + refilled)
    }

    /// From sample to sample: what was taken, as a share of what was refilled. More than one where a burst came out of a
    /// full bucket.
    #[must_use]
    pub fn utilisation_over_time(&self, seconds: u32) -> Vec<f64> {
        let intervals = self.samples.len().saturating_sub(1).max(1);
        let refill = real(self.spec.refill_per_second.micros()) * f64::from(seconds)
            / real(i64::try_from(intervals).unwrap_or(i64::MAX));
        let share = |taken: i64| if refill > 0.0 { real(taken) / refill } else { 0.0 };
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs.map(|(before, after)| share(after.taken - before.taken)).collect()
    }
}
