//! Bodies and answers of `/admin`.

use rm_core::account::ClientStatus;
use rm_core::estimate::Rate;
use rm_core::id::{ClientId, PoolId, TemplateId, WorkerBinding};
use rm_core::off_peak::OffPeakRule;
use rm_core::partition::Member;
use rm_core::priority::{Points, Tier, Urgency};
use rm_core::units::{NanoUsd, Tokens};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT /admin/pools/{pool}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolBody {
    #[schema(min_length = 1, max_length = 200)]
    pub unit: String,
    #[schema(value_type = f64, minimum = 0.000001, maximum = 9_007_199_254_i64)]
    pub capacity: Tokens,
    pub refill_per_second: Tokens,
    /// Left out: what the model costs by the price table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub unit_price_usd: Option<NanoUsd>,
    /// Left out: the same as any unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub cached_input_price_usd: Option<NanoUsd>,
    /// Left out: the same as any unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub output_price_usd: Option<NanoUsd>,
    /// The models that it serves: a cheaper model of a template's chain is taken from the pool that has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 50)]
    pub models: Vec<String>,
    #[serde(default = "PoolBody::low_water", deserialize_with = "super::strict::whole")]
    #[schema(maximum = 100)]
    pub low_water_percent: u8,
    #[serde(default = "PoolBody::queue_cap", deserialize_with = "super::strict::whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub queue_cap: u32,
    #[serde(default)]
    pub window_cap: bool,
    /// Parts that are set aside; what no partition claims is shared.
    #[serde(default, deserialize_with = "super::strict::list")]
    #[schema(max_items = 16)]
    pub partitions: Vec<Partition>,
    /// When deferred work may run. Left out: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional")]
    pub off_peak: Option<OffPeak>,
}

impl PoolBody {
    const fn low_water() -> u8 {
        10
    }

    const fn queue_cap() -> u32 {
        10_000
    }
}

/// A part of a pool that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partition {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    pub kind: PartitionKind,
    /// Whom it is for: a tier, or a client. One of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// Of the capacity and of the refill. All partitions of a pool have 100 at most.
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub percent: u8,
    /// Whether a reserved partition's idle share is lent; it is, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend: Option<bool>,
}

/// A rule for off-peak windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffPeak {
    /// On which days a window begins.
    #[schema(min_items = 1, max_items = 7)]
    pub days: Vec<Weekday>,
    /// When it begins, as the clocks there show.
    #[schema(example = "22:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub from: String,
    /// When it ends; on the next day, if that is not later than it begins.
    #[schema(example = "06:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub to: String,
    /// A name of the IANA time-zone database.
    #[serde(default = "ClientBody::utc")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// What is off the pool's price for what starts in a window, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 100)]
    pub discount_percent: Option<u8>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// From 0, which is Monday.
    pub const fn number(self) -> u8 {
        match self {
            Self::Mon => 0,
            Self::Tue => 1,
            Self::Wed => 2,
            Self::Thu => 3,
            Self::Fri => 4,
            Self::Sat => 5,
            Self::Sun => 6,
        }
    }
}

impl OffPeak {
    /// The rule; `None` if a time is none.
    pub fn rule(&self) -> Option<OffPeakRule> {
        let minute = |text: &str| {
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let (hours, minutes) = text.split_once(':').filter(|(h, m)| digits(h) && digits(m))?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours < 24 && minutes < 60).then(|| hours.saturating_mul(60).saturating_add(minutes))
        };
        Some(OffPeakRule {
            days: self.days.iter().map(|day| day.number()).collect(),
            from_minute: minute(&self.from)?,
            to_minute: minute(&self.to)?,
        })
    }
}

impl Partition {
    /// As the scheduler has it; `None` unless it is for just one tier or client.
    pub fn for_scheduler(&self) -> Option<rm_core::partition::Partition> {
        let member = match (self.tier, &self.client_id) {
            (Some(tier), None) => Member::Tier(tier),
            (None, Some(client)) => Member::Client(client.clone()),
            _ => return None,
        };
        let lends = self.kind == PartitionKind::Reserved && self.lend.unwrap_or(true);
        Some(rm_core::partition::Partition { name: self.name.clone(), member, percent: self.percent, lends })
    }
}

/// Whether an idle share is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PartitionKind {
    Reserved,
    Dedicated,
}

/// A pool as stored.
#[derive(Debug, Clone, Serialize)]
pub struct PoolRecord {
    pub pool: PoolId,
    #[serde(flatten)]
    pub body: PoolBody,
    #[serde(skip)]
    pub revision: i64,
}

/// `PUT /admin/lanes/{lane}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaneBody {
    /// What the lane adds to a request's score.
    #[schema(value_type = f64, minimum = 0, maximum = 30)]
    pub points: Points,
    /// A request that has not started by then expires; one that is not expected to start by then is refused at once. Left
    /// out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub max_wait_ms: Option<i64>,
    /// The most requests of the lane that may wait in one pool. Left out: as many as the pool's queue takes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub queue_cap: Option<u32>,
}

/// A lane as stored.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneRecord {
    pub urgency: Urgency,
    pub points: Points,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_cap: Option<u32>,
}

/// `PUT /admin/clients/{clientId}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientBody {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    pub tier: Tier,
    #[serde(default)]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    pub monthly_budget_usd: Option<NanoUsd>,
    #[serde(default, deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 4_294_967_295_u64)]
    pub max_concurrent: Option<u32>,
    /// A name of the IANA time-zone database.
    #[serde(default = "ClientBody::utc")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    #[serde(default = "ClientBody::active")]
    pub status: ClientStatus,
}

impl ClientBody {
    fn utc() -> String {
        "UTC".into()
    }

    const fn active() -> ClientStatus {
        ClientStatus::Active
    }
}

/// A client as stored, with what its tier adds.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientRecord {
    pub client_id: ClientId,
    pub name: String,
    pub tier: Tier,
    pub monthly_budget_usd: NanoUsd,
    pub max_concurrent: u32,
    pub time_zone: String,
    pub status: ClientStatus,
    #[serde(skip)]
    pub revision: i64,
}

/// `PUT /admin/templates/{templateId}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateBody {
    /// Left out, with `model` and `resources`, by a template with steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerBinding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "super::strict::list", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub resources: Vec<Rate>,
    /// A pipeline: what is run one after the other, each step with what the one before it gave.
    #[serde(default, deserialize_with = "super::strict::list", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub steps: Vec<StepRule>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
    /// Cheaper models that may do, in the order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub downgrade_to: Vec<String>,
    /// The last model of the chain that is taken where another one would do; those after it only where none of the others is
    /// within reach. Left out: the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub quality_floor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(maximum = 31_536_000)]
    pub cache_ttl_seconds: Option<u32>,
    /// Whether a request that is the same as one of its client's in flight has that one's result. Left out: yes, if results
    /// are kept or requests combined; else no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional")]
    pub batch: Option<BatchRule>,
    /// When deferred work of it may run. Left out: when its pool's may.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional")]
    pub off_peak: Option<OffPeak>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_urgency: Option<Urgency>,
}

/// A step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepRule {
    /// Left out: its number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    pub worker: WorkerBinding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub model: Option<String>,
    #[serde(deserialize_with = "super::strict::list")]
    #[schema(min_items = 1, max_items = 8)]
    pub resources: Vec<Rate>,
    /// Left out: the template's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: Option<u32>,
    /// Left out: the template's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::strict::optional_whole")]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<i64>,
}

impl TemplateBody {
    /// What is run: its steps, or what it is itself.
    pub fn all_steps(&self) -> Vec<StepRule> {
        match &self.worker {
            Some(worker) if self.steps.is_empty() => vec![StepRule {
                name: None,
                worker: worker.clone(),
                model: self.model.clone(),
                resources: self.resources.clone(),
                max_attempts: self.max_attempts,
                timeout_ms: self.timeout_ms,
            }],
            _ => self.steps.clone(),
        }
    }

    /// Whether it needs a pool.
    pub fn needs(&self, pool: &PoolId) -> bool {
        self.all_steps().iter().any(|step| step.resources.iter().any(|rate| rate.pool == *pool))
    }
}

/// How requests of a template may be combined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchRule {
    #[schema(minimum = 1, maximum = 100)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub max_size: u32,
    #[schema(maximum = 60_000)]
    #[serde(deserialize_with = "super::strict::whole")]
    pub window_ms: u32,
    /// Whose requests may be in one call. Left out: those of one client.
    #[serde(default, deserialize_with = "super::strict::or_default")]
    #[schema(value_type = Option<Isolation>)]
    pub isolation: Isolation,
}

/// Whose requests may be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// Those of one client.
    #[default]
    Client,
    /// Those of clients of one tier.
    Tier,
    /// Those of all clients.
    Shared,
}

/// A template as stored.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRecord {
    pub template_id: TemplateId,
    #[serde(flatten)]
    pub body: TemplateBody,
}

/// The answer of `GET /admin/pools` and its likes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// There are more: ask with this as `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
