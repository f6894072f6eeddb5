//! Every decision of the Resource Manager, and nothing else: no clock, no randomness, no I/O.
//!
//! Time comes in as an argument, effects go out as values. [`pool`] is supply: a token bucket, a queue and the requests
//! whose home the pool is. [`account`] is demand: one client's money and slots. Each is a state machine with one
//! contract, which the text of [`pool`] states.

#![warn(missing_docs)]

pub mod account;
pub mod alert;
pub mod bill;
pub mod breaker;
pub mod decimal;
pub mod demand;
pub mod estimate;
pub mod fair_share;
pub mod id;
pub mod lane;
pub mod off_peak;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod optimizer;
pub mod partition;
pub mod period;
pub mod pipeline;
pub mod pool;
pub mod pricing;
pub mod priority;
pub mod queue;
pub mod request;
pub mod retry;
pub mod run_time;
pub mod sorted_list;
pub mod throttle;
pub mod token_bucket;
pub mod units;
pub mod window_cap;
