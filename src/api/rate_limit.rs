//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): what a pool allows and what is left of it.

use rm_core::id::PoolId;
use rm_core::request::Demand;
use rm_core::units::Tokens;

use crate::api::Call;
use crate::api::reply::Reply;
use crate::host::clock;
use crate::store::snapshot;
use crate::wire::pool::{RateLimit, ViewCall};

/// The window of a pool with a window cap, in seconds.
const CAP_WINDOW: u64 = 60;

/// Adds the headers. The quota is the bucket's capacity and its window the time that the bucket takes to fill; a pool
/// that is never refilled has no window.
pub fn with_headers(reply: Reply, limit: &RateLimit) -> Reply {
    let fills_in = |amount: Tokens| {
        let rate = limit.refill_per_second.micros();
        let seconds = i128::from(amount.micros()).checked_add(i128::from(rate.saturating_sub(1)))?;
        u64::try_from(seconds.checked_div(i128::from(rate))?).ok()
    };
    let window = if limit.window_cap { Some(CAP_WINDOW) } else { fills_in(limit.capacity) };
    let left = limit.available.units();
    let mut policy = format!("\"{}\";q={}", limit.pool, limit.capacity.units());
    if let Some(window) = window {
        policy.push_str(&format!(";w={window}"));
    }
    let mut state = format!("\"{}\";r={left}", limit.pool);
    if let Some(seconds) = fills_in(limit.capacity.saturating_sub(limit.available)) {
        state.push_str(&format!(";t={seconds}"));
    }
    reply.with("ratelimit-policy", policy).with("ratelimit", state)
}

/// An answer that no pool was asked for, about what these demands need: if that is one pool, its snapshot says near enough
/// how it is. A pool that was never used has none, and is asked.
pub async fn note(call: &Call, demands: impl Iterator<Item = &Demand>) {
    let mut pools: Vec<&PoolId> = demands.map(|demand| &demand.pool).collect();
    pools.dedup();
    let [pool] = pools.as_slice() else { return };
    match snapshot::read(&call.env, pool, clock::now()).await {
        Ok(Some(view)) => {
            call.notes.rate_limit.replace(Some(RateLimit::of(&view)));
        }
        // The answer notes it by itself; one that does not come is missed by nobody.
        _ => drop(call.pool(pool, &ViewCall { amount: None, for_whom: None }, 0).await),
    }
}
