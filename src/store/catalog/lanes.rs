//! Lanes: their points and limits.

use rm_core::priority::Urgency;
use wasm_bindgen::JsValue;
use worker::{Env, Result};

use crate::store::catalog::{forget, number};
use crate::wire::admin::LaneBody;

/// Stores a lane. The same again changes nothing.
pub async fn put_lane(env: &Env, lane: Urgency, body: &LaneBody) -> Result<()> {
    let optional = |value: Option<i64>| value.map_or(JsValue::NULL, number);
    env.d1("DB")?
        .prepare(
            "INSERT INTO urgencies (urgency, millipoints, max_wait_ms, queue_cap) VALUES (?, ?, ?, ?)
             ON CONFLICT (urgency) DO UPDATE SET millipoints = excluded.millipoints,
               max_wait_ms = excluded.max_wait_ms, queue_cap = excluded.queue_cap",
        )
        .bind(&[
            lane.as_str().into(),
            number(body.points.0),
            optional(body.max_wait_ms),
            optional(body.queue_cap.map(i64::from)),
        ])?
        .run()
        .await?;
    forget();
    Ok(())
}
