//! A workload: pools, clients, and what they send. As a JSON file, in which an unknown or senseless field is an error.

use std::collections::{BTreeMap, BTreeSet};

use rm_core::id::{ClientId, PoolId};
use rm_core::partition::{Member, Partition};
use rm_core::priority::{Tier, Urgency};
use rm_core::units::{NanoUsd, Tokens};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// The longest time that is simulated: 28 days, so that a budget's month never ends within it.
pub const SECONDS_MAX: u32 = 2_419_200;
/// The longest that a run may take, as in the service.
pub const RUN_MS_MAX: u32 = 600_000;
/// The most pools of one request, as in the service.
pub const POOLS_MAX: usize = 8;
/// The most requests of a workload.
pub const REQUESTS_MAX: u32 = 2_000_000;
/// How many may wait at a pool, unless the workload says otherwise; as in the service.
const QUEUE_CAP: u32 = 10_000;

/// What is wrong with a file or a change, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct Senseless {
    /// Which field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Senseless {
    /// Says that.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// What a capacity question is about.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// For how long requests arrive. What is waiting then is still let run to its end.
    pub seconds: u32,
    /// The pools by name.
    pub pools: BTreeMap<PoolId, PoolSpec>,
    /// Who sends.
    pub clients: Vec<ClientSpec>,
    /// What is sent.
    #[serde(default)]
    pub arrivals: Vec<Arrivals>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
    /// The most that it holds; it begins full.
    pub capacity: Tokens,
    /// What it gains in a second.
    pub refill_per_second: Tokens,
    /// What a unit costs.
    pub unit_price_usd: NanoUsd,
    /// Never more than the capacity in any minute.
    #[serde(default)]
    pub window_cap: bool,
    /// How many may wait.
    #[serde(default = "queue_cap")]
    pub queue_cap: u32,
    /// The parts that are set aside, as the service's pools have them.
    #[serde(default, deserialize_with = "partitions")]
    pub partitions: Vec<Partition>,
}

/// A part of a pool, as an operator writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PartitionSpec {
    name: String,
    kind: PartitionKind,
    #[serde(default)]
    tier: Option<Tier>,
    #[serde(default)]
    client_id: Option<ClientId>,
    percent: u8,
    #[serde(default)]
    lend: Option<bool>,
}

#[derive(PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PartitionKind {
    Reserved,
    Dedicated,
}

fn partitions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Partition>, D::Error> {
    let specs = Vec::<PartitionSpec>::deserialize(deserializer)?;
    let whole: u32 = specs.iter().map(|spec| u32::from(spec.percent)).sum();
    if whole > 100 || specs.iter().any(|spec| spec.percent == 0) {
        return Err(D::Error::custom("the percent of each partition must be at least 1, and that of all 100 at most"));
    }
    let partition = |spec: PartitionSpec| {
        let member = match (spec.tier, spec.client_id) {
            (Some(tier), None) => Member::Tier(tier),
            (None, Some(client)) => Member::Client(client),
            _ => return Err(D::Error::custom(format!("partition `{}` must name a tier or a clientId", spec.name))),
        };
        let lends = spec.kind == PartitionKind::Reserved && spec.lend.unwrap_or(true);
        Ok(Partition { name: spec.name, member, percent: spec.percent, lends })
    };
    specs.into_iter().map(partition).collect()
}

const fn queue_cap() -> u32 {
    QUEUE_CAP
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSpec {
    /// Who.
    pub client: ClientId,
    /// Its tier.
    pub tier: Tier,
    /// What it may spend; the simulated time is within one month.
    pub monthly_budget_usd: NanoUsd,
    /// How many of its requests may run at once.
    pub max_concurrent: u32,
}

/// A stream of requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arrivals {
    /// Who sends them.
    pub client: ClientId,
    /// How many a minute on average, at random moments (a Poisson process).
    pub per_minute: f64,
    /// The lane.
    pub urgency: Urgency,
    /// What each needs.
    pub needs: Vec<Need>,
    /// How long each runs, in milliseconds.
    pub run_ms: Between<u32>,
    /// Not finished so long after its arrival, a request expires.
    #[serde(default)]
    pub deadline_seconds: Option<u32>,
    /// So many more, all at one moment.
    #[serde(default)]
    pub burst: Option<Burst>,
}

/// What a request needs of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Which pool.
    pub pool: PoolId,
    /// How much.
    pub amount: Between<Tokens>,
}

/// Requests that come at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Burst {
    /// When.
    pub at_second: u32,
    /// How many.
    pub count: u32,
}

/// A number, or any from one to another, all equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between<T> {
    /// The least.
    pub min: T,
    /// The most.
    pub max: T,
}

impl<'de, T: DeserializeOwned + Copy> Deserialize<'de> for Between<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Both<T> {
            min: T,
            max: T,
        }
        // Not an untagged enum: that would read the number by way of a float.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let both = if raw.get().starts_with('{') {
            serde_json::from_str::<Both<T>>(raw.get())
        } else {
            serde_json::from_str(raw.get()).map(|one| Both { min: one, max: one })
        };
        let without_place = |error: serde_json::Error| {
            let text = error.to_string();
            text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_owned())
        };
        let both = both.map_err(|error| D::Error::custom(without_place(error)))?;
        Ok(Self { min: both.min, max: both.max })
    }
}

/// Reads JSON, and names the field that is wrong.
///
/// # Errors
/// What is wrong, and where.
pub fn read_json<T: DeserializeOwned>(text: &str) -> Result<T, Senseless> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| Senseless::new(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| Senseless::new(".", error.to_string()))?;
    Ok(value)
}

impl Workload {
    /// Reads a workload, and refuses what makes no sense.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(text: &str) -> Result<Self, Senseless> {
        let workload: Self = read_json(text)?;
        workload.check()?;
        workload.check_that_needs_fit()?;
        Ok(workload)
    }

    /// Refuses numbers out of range, and names that are unknown or doubled.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), Senseless> {
        in_range("seconds", self.seconds, 1, SECONDS_MAX)?;
        for (name, pool) in &self.pools {
            let field = |field| format!("pools.{name}.{field}");
            require(pool.capacity > Tokens::ZERO, &field("capacity"), "must be more than zero")?;
            not_negative(&field("unitPriceUsd"), pool.unit_price_usd)?;
            in_range(&field("queueCap"), pool.queue_cap, 1, REQUESTS_MAX)?;
        }
        require(!self.pools.is_empty(), "pools", "must name at least one")?;
        let mut known = BTreeSet::new();
        for (index, client) in self.clients.iter().enumerate() {
            let field = |field| format!("clients[{index}].{field}");
            require(known.insert(&client.client), &field("client"), &format!("`{}` is there twice", client.client))?;
            not_negative(&field("monthlyBudgetUsd"), client.monthly_budget_usd)?;
            in_range(&field("maxConcurrent"), client.max_concurrent, 1, 100_000)?;
        }
        for (index, arrivals) in self.arrivals.iter().enumerate() {
            self.check_arrivals(&format!("arrivals[{index}]"), arrivals)?;
        }
        let expected = self.arrivals.iter().map(|arrivals| arrivals.expected(self.seconds)).sum::<f64>();
        let many = format!("about {expected:.0} requests would arrive; {REQUESTS_MAX} are the most");
        require(expected <= f64::from(REQUESTS_MAX), "arrivals", &many)
    }

    fn check_arrivals(&self, at: &str, arrivals: &Arrivals) -> Result<(), Senseless> {
        let field = |field: &str| format!("{at}.{field}");
        self.check_client(&field("client"), &arrivals.client)?;
        let rate = arrivals.per_minute;
        require(rate.is_finite() && rate >= 0.0, &field("perMinute"), "must not be negative")?;
        self.check_needs(&field("needs"), arrivals.needs.iter().map(|need| &need.pool))?;
        for (index, need) in arrivals.needs.iter().enumerate() {
            let Between { min, max } = need.amount;
            let amount = field(&format!("needs[{index}].amount"));
            require(min > Tokens::ZERO && min <= max, &amount, "must be more than zero, and min at most max")?;
        }
        let Between { min, max } = arrivals.run_ms;
        require(min <= max, &field("runMs"), "min must be at most max")?;
        in_range(&field("runMs"), max, 0, RUN_MS_MAX)?;
        if let Some(seconds) = arrivals.deadline_seconds {
            in_range(&field("deadlineSeconds"), seconds, 1, SECONDS_MAX)?;
        }
        if let Some(burst) = arrivals.burst {
            in_range(&field("burst.atSecond"), burst.at_second, 0, self.seconds.saturating_sub(1))?;
            in_range(&field("burst.count"), burst.count, 1, REQUESTS_MAX)?;
        }
        Ok(())
    }

    /// That a client is one of those that the workload names.
    pub(super) fn check_client(&self, field: &str, client: &ClientId) -> Result<(), Senseless> {
        let known = self.clients.iter().any(|known| known.client == *client);
        require(known, field, &format!("there is no client `{client}`"))
    }

    /// That pools are some of those that the workload names, and each is named once.
    pub(super) fn check_needs<'a>(
        &self,
        field: &str,
        pools: impl Iterator<Item = &'a PoolId>,
    ) -> Result<(), Senseless> {
        let mut named = BTreeSet::new();
        for (index, pool) in pools.enumerate() {
            let field = format!("{field}[{index}].pool");
            require(self.pools.contains_key(pool), &field, &format!("there is no pool `{pool}`"))?;
            require(named.insert(pool), &field, &format!("`{pool}` is there twice"))?;
        }
        require((1..=POOLS_MAX).contains(&named.len()), field, &format!("must name from 1 to {POOLS_MAX} pools"))
    }

    /// Refuses a request that its pool could never grant.
    fn check_that_needs_fit(&self) -> Result<(), Senseless> {
        for (index, arrivals) in self.arrivals.iter().enumerate() {
            for (place, need) in arrivals.needs.iter().enumerate() {
                self.check_amount(&format!("arrivals[{index}].needs[{place}].amount"), &need.pool, need.amount.max)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_amount(&self, field: &str, pool: &PoolId, amount: Tokens) -> Result<(), Senseless> {
        let capacity = self.pools.get(pool).map_or(Tokens::ZERO, |pool| pool.capacity);
        let (most, wanted) = (capacity.units(), amount.units());
        let problem = format!("`{pool}` can hold {most} at most, and {wanted} may be needed");
        require(amount <= capacity, field, &problem)
    }
}

impl Arrivals {
    /// How many requests are to be expected.
    #[must_use]
    pub fn expected(&self, seconds: u32) -> f64 {
        let burst = self.burst.map_or(0, |burst| burst.count);
        self.per_minute * f64::from(seconds) / 60.0 + f64::from(burst)
    }
}

pub(super) fn require(holds: bool, field: &str, problem: &str) -> Result<(), Senseless> {
    if holds { Ok(()) } else { Err(Senseless::new(field, problem)) }
}

pub(super) fn in_range(field: &str, number: u32, least: u32, most: u32) -> Result<(), Senseless> {
    require((least..=most).contains(&number), field, &format!("must be from {least} to {most}, not {number}"))
}

fn not_negative(field: &str, money: NanoUsd) -> Result<(), Senseless> {
    require(money >= NanoUsd::ZERO, field, "must not be negative")
}
