//! The configuration in D1: tiers, lanes, pools, prices, clients, templates, and whether the scheduler runs.

mod clients;
mod lanes;
mod pools;
mod prices;
mod settings;
mod templates;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rm_core::estimate::Learnt;
use rm_core::id::{ClientId, PoolId, TemplateId};
use rm_core::lane::{LaneLimits, Lanes};
use rm_core::off_peak::Window;
use rm_core::partition;
use rm_core::pool::PoolConfig;
use rm_core::pricing::Price;
use rm_core::priority::{Tier, Urgency, Weights};
use rm_core::token_bucket::BucketLimits;
use rm_core::units::{Instant, Tokens};
use serde::Deserialize;
use wasm_bindgen::JsValue;
use worker::{Env, Error, Result};

use crate::host::time_zone::TimeZone;
use crate::host::{clock, log};
use crate::store::estimates::FactorRow;
use crate::wire::admin::{OffPeak, Partition, PoolBody, PoolRecord, TemplateBody};
use pools::PoolRow;
use prices::{ModelOffPeak, PriceRow};
use templates::TemplateRow;

pub use clients::{client, clients_after, delete_client, put_client};
pub use lanes::put_lane;
pub use pools::{delete_pool, put_pool};
pub use settings::{set_scheduler, set_setting, setting};
pub use templates::{delete_template, purge_template, put_template};

/// The most rows of one kind that are read: an operator has tens of pools and templates, not thousands.
pub const ROWS_MAX: u32 = 1_000;
/// How long a copy in the Worker's memory is used without a look at D1.
const FRESH_MS: i64 = 10_000;

/// Everything but the clients, of which there may be many.
#[derive(Debug)]
pub struct Catalog {
    pub pools: BTreeMap<PoolId, PoolRecord>,
    pub templates: BTreeMap<TemplateId, TemplateBody>,
    /// When the results of templates were purged.
    pub purged: BTreeMap<TemplateId, Instant>,
    /// By model; those that some template names.
    pub prices: BTreeMap<String, Price>,
    /// Those of them that cost less at times.
    pub off_peak_models: BTreeMap<String, ModelOffPeak>,
    /// What was learnt of estimates.
    pub learnt: BTreeMap<(TemplateId, PoolId), Learnt>,
    pub weights: Weights,
    pub lanes: Lanes,
    pub scheduler_running: bool,
}

thread_local! {
    static COPY: RefCell<Option<(Instant, Rc<Catalog>)>> = const { RefCell::new(None) };
}

impl Catalog {
    /// The most that a client can ever be granted of a pool at once: what is dedicated to others is out of its reach.
    pub fn reach(&self, pool: &PoolId, client: &ClientId, tier: Tier) -> Option<Tokens> {
        let body = &self.pools.get(pool)?.body;
        let partitions: Vec<_> = body.partitions.iter().filter_map(Partition::for_scheduler).collect();
        let own = partition::index_of(&partitions, client, tier);
        Some(partition::reach(&partitions, &limits(body), own))
    }

    /// When deferred work of a template may run: in its own windows, else where its model costs less in a pool that leaves
    /// its price to that. `None`: when its pool's may.
    pub fn template_windows(&self, template: &TemplateBody, now: Instant) -> Option<Vec<Window>> {
        if let Some(off_peak) = &template.off_peak {
            return windows(off_peak, now);
        }
        let own = |pool: &PoolId| self.pools.get(pool).is_some_and(|pool| pool.body.off_peak.is_some());
        let priced = |pool: &PoolId| self.pools.get(pool).is_some_and(|pool| pool.body.unit_price_usd.is_none());
        let mut pools = template.resources.iter().map(|rate| &rate.pool);
        let of_model = self.off_peak_models.get(template.model.as_deref()?)?;
        (!pools.clone().any(own) && pools.any(priced)).then(|| of_model.windows(now))
    }

    /// A pool's configuration, as its object needs it.
    pub fn pool_config(&self, pool: &PoolId, now: Instant) -> Option<PoolConfig> {
        let PoolRecord { body, revision, .. } = self.pools.get(pool)?;
        let off_peak = body.off_peak.as_ref().and_then(|off_peak| windows(off_peak, now));
        let of_template = |(id, template): (&TemplateId, &TemplateBody)| {
            // By a cheaper model, or by the caller's own amounts, it may have any pool for its home.
            Some((id.as_str().to_owned(), self.template_windows(template, now)?))
        };
        Some(PoolConfig {
            pool: pool.clone(),
            unit: body.unit.clone(),
            limits: limits(body),
            low_water_percent: body.low_water_percent,
            queue_cap: body.queue_cap,
            weights: self.weights.clone(),
            lanes: self.lanes.clone(),
            partitions: body.partitions.iter().filter_map(Partition::for_scheduler).collect(),
            off_peak,
            template_windows: self.templates.iter().filter_map(of_template).collect(),
            scheduler_running: self.scheduler_running,
            revision: *revision,
        })
    }
}

/// The coming windows of a rule.
pub fn windows(off_peak: &OffPeak, now: Instant) -> Option<Vec<Window>> {
    let (rule, zone) = (off_peak.rule()?, TimeZone::named(&off_peak.time_zone)?);
    Some(rule.windows(now, |at| zone.offset_ms(at)))
}

const fn limits(body: &PoolBody) -> BucketLimits {
    BucketLimits { capacity: body.capacity, refill_per_second: body.refill_per_second, window_cap: body.window_cap }
}

/// The catalog: at most ten seconds old, or as old as the last time D1 answered.
pub async fn current(env: &Env) -> Result<Rc<Catalog>> {
    let now = clock::now();
    let copy = COPY.with_borrow(Clone::clone);
    if let Some((at, catalog)) = &copy
        && now.since(*at) < FRESH_MS
    {
        return Ok(Rc::clone(catalog));
    }
    match (load(env).await, copy) {
        (Ok(catalog), _) => Ok(catalog),
        (Err(error), Some((_, catalog))) => {
            log::warn("catalog_stale", "d1", &error.to_string());
            Ok(catalog)
        }
        (Err(error), None) => Err(error),
    }
}

/// The catalog as it is in D1 now.
pub async fn load(env: &Env) -> Result<Rc<Catalog>> {
    #[derive(Deserialize)]
    struct PointsRow {
        name: String,
        millipoints: i64,
    }
    #[derive(Deserialize)]
    struct LaneRow {
        name: String,
        millipoints: i64,
        max_wait_ms: Option<i64>,
        queue_cap: Option<u32>,
    }
    #[derive(Deserialize)]
    struct SettingRow {
        value: String,
    }
    let now = clock::now();
    let db = env.d1("DB")?;
    let answers = db
        .batch(vec![
            db.prepare("SELECT tier AS name, millipoints FROM tiers LIMIT 10"),
            db.prepare("SELECT urgency AS name, millipoints, max_wait_ms, queue_cap FROM urgencies LIMIT 10"),
            db.prepare(PoolRow::select()),
            db.prepare(TemplateRow::select()),
            db.prepare("SELECT value FROM settings WHERE key = ? LIMIT 1").bind(&[settings::SCHEDULER.into()])?,
            db.prepare(PriceRow::select()),
            db.prepare(FactorRow::select()),
        ])
        .await?;
    let [tiers, urgencies, pools, templates, settings, prices, learnt] = answers.as_slice() else {
        return Err(Error::RustError("D1 answered another number of statements".into()));
    };
    let mut weights = Weights::default();
    for row in tiers.results::<PointsRow>()? {
        weights.tiers.insert(row.name.parse::<Tier>().map_err(stored)?, row.millipoints);
    }
    let mut lanes = Lanes(BTreeMap::new());
    for row in urgencies.results::<LaneRow>()? {
        let lane = row.name.parse::<Urgency>().map_err(stored)?;
        weights.urgencies.insert(lane, row.millipoints);
        lanes.0.insert(lane, LaneLimits { max_wait_ms: row.max_wait_ms, queue_cap: row.queue_cap });
    }
    let pools = pools.results::<PoolRow>()?.into_iter().map(PoolRow::record).collect::<Result<Vec<_>>>()?;
    let rows = templates.results::<TemplateRow>()?.into_iter().map(TemplateRow::parsed);
    let (mut templates, mut purged) = (BTreeMap::new(), BTreeMap::new());
    for row in rows.collect::<Result<Vec<_>>>()? {
        let (id, body, purged_at) = row;
        purged.extend(purged_at.map(|at| (id.clone(), at)));
        templates.insert(id, body);
    }
    let prices = prices.results::<PriceRow>()?;
    let off_peak_models = prices.iter().filter_map(|row| row.off_peak().transpose()).collect::<Result<_>>()?;
    let prices = prices.into_iter().map(PriceRow::parsed);
    let learnt = learnt.results::<FactorRow>()?.into_iter().map(FactorRow::parsed);
    let scheduler = settings.results::<SettingRow>()?.into_iter().next();
    let catalog = Rc::new(Catalog {
        pools: pools.into_iter().map(|record| (record.pool.clone(), record)).collect(),
        templates,
        purged,
        prices: prices.collect::<Result<_>>()?,
        off_peak_models,
        learnt: learnt.collect::<Result<_>>()?,
        weights,
        lanes,
        scheduler_running: scheduler.is_none_or(|row| row.value == "running"),
    });
    COPY.set(Some((now, Rc::clone(&catalog))));
    Ok(catalog)
}

/// A value in D1 that cannot be one.
pub fn stored(error: impl std::fmt::Display) -> Error {
    Error::RustError(format!("D1 holds a value that is not valid: {error}"))
}

/// Forgets the copy: what was just written must be seen.
fn forget() {
    COPY.set(None);
}

/// A whole number below 2^53, as D1 takes it.
pub fn number(value: i64) -> JsValue {
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "all stored integers are below 2^53")]
    let number = value as f64;
    JsValue::from_f64(number)
}
