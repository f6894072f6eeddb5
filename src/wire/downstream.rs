//! What is said to a downstream worker, and what it answers.

use rm_core::id::{ClientId, RequestId, TemplateId};
use rm_core::units::{Instant, Tokens};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// `POST https://{binding}/execute`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkOrder<'a> {
    pub request_id: &'a RequestId,
    pub attempt: u32,
    pub client_id: &'a ClientId,
    pub template_id: Option<&'a TemplateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    /// Which step of a pipeline this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<WorkStep<'a>>,
    /// The request's input; of a later step, what the step before it gave.
    pub input: &'a RawValue,
    pub parameters: &'a RawValue,
    #[serde(with = "super::time::optional")]
    pub deadline: Option<Instant>,
}

/// A step of a pipeline.
#[derive(Debug, Serialize)]
pub struct WorkStep<'a> {
    /// From 0.
    pub index: usize,
    pub name: &'a str,
    /// How many there are.
    pub of: usize,
}

/// The same for several requests at once.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkBatch<'a> {
    pub template_id: Option<&'a TemplateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    pub batch: Vec<WorkItem<'a>>,
}

/// One of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkItem<'a> {
    pub request_id: &'a RequestId,
    pub attempt: u32,
    pub client_id: &'a ClientId,
    pub input: &'a RawValue,
    pub parameters: &'a RawValue,
    #[serde(with = "super::time::optional")]
    pub deadline: Option<Instant>,
}

/// A good answer to several: the results in the order of the requests, and what they used together.
#[derive(Debug, Deserialize)]
pub struct WorkResults {
    pub results: Vec<Box<RawValue>>,
    #[serde(default)]
    pub usage: Option<Box<RawValue>>,
    #[serde(default)]
    pub limits: Option<Box<RawValue>>,
}

/// One of the results: a result, with what it used if that is known by itself; or why there is none.
#[derive(Debug, Deserialize)]
pub struct ItemResult {
    #[serde(default, deserialize_with = "present")]
    pub result: Option<Box<RawValue>>,
    #[serde(default)]
    pub usage: Option<Box<RawValue>>,
    #[serde(default)]
    pub error: Option<Box<RawValue>>,
    /// As an answer of its own would have it: another attempt may help from 500 on, and with 429.
    #[serde(default)]
    pub status: Option<u16>,
}

/// What a worker says is left of a pool's limit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitLeft {
    #[serde(deserialize_with = "rest")]
    pub remaining: Tokens,
    #[serde(default)]
    pub reset_seconds: Option<ResetIn>,
}

/// In how many milliseconds a limit is reset; it is said in seconds. A moment that is past is now.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ResetIn(#[serde(deserialize_with = "milliseconds")] pub i64);

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    rounded(deserializer, 3)
}

/// A limit that is overdrawn has nothing left.
fn rest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tokens, D::Error> {
    rounded(deserializer, 6).map(Tokens::clamped)
}

/// A number as its worker has reckoned it, with whatever decimals: in steps of `10^-scale`, from nothing to the most.
fn rounded<'de, D: Deserializer<'de>>(deserializer: D, scale: u8) -> Result<i64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let steps = number.max(0.0) * 10_f64.powi(i32::from(scale));
    // Up to there every whole number is a float, and is written without an exponent.
    let text = format!("{:.0}", steps.min(9_007_199_254_740_991.0));
    text.parse().map_err(D::Error::custom)
}

/// A good answer.
#[derive(Debug, Deserialize)]
pub struct WorkResult {
    pub result: Box<RawValue>,
    /// Units by pool, as the worker wrote it.
    #[serde(default)]
    pub usage: Option<Box<RawValue>>,
    /// What is left of the limits, by pool.
    #[serde(default)]
    pub limits: Option<Box<RawValue>>,
}

/// A result that is there may be `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
