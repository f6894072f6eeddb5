//! Every call to something else has a time limit of its own: a panic in the callee, for one, leaves its caller hanging.

use std::future::Future;
use std::time::Duration;

use futures_util::future::{Either, select};
use worker::Delay;

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeUp;

/// Waits for `future`, at most `limit_ms`.
pub async fn within<F: Future>(limit_ms: i64, future: F) -> Result<F::Output, TimeUp> {
    let limit = Duration::from_millis(u64::try_from(limit_ms).unwrap_or(0));
    let future = std::pin::pin!(future);
    match select(future, Delay::from(limit)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(TimeUp),
    }
}
