//! A Durable Object's alarm. The binding takes integers as offsets, drops an alarm that is set to the present from
//! within an alarm, and may never fire one set in the past: this is the one place that sets one.

use std::cell::Cell;

use rm_core::units::Instant;
use wasm_bindgen::JsValue;
use worker::{Result, ScheduledTime, Storage};

/// The alarm of one object, and what it is set to.
#[derive(Default)]
pub struct Alarm {
    set_to: Cell<Option<Instant>>,
}

impl Alarm {
    /// The alarm went off: it is not set any more.
    pub fn went_off(&self) {
        self.set_to.set(None);
    }

    /// Sees to it that the object is woken at `wanted` at the latest. Each setting is billed as a written row, so an
    /// alarm that goes off earlier is left alone: the object then sets the next.
    pub async fn arm(&self, storage: &Storage, wanted: Option<Instant>, now: Instant) -> Result<()> {
        let Some(wanted) = wanted else { return Ok(()) };
        let wanted = wanted.max(now.plus(1));
        if self.set_to.get().is_some_and(|set_to| set_to <= wanted && set_to > now.plus(-60_000)) {
            return Ok(());
        }
        self.set_to.set(Some(wanted));
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
        let millis = wanted.millis() as f64;
        let date = js_sys::Date::new(&JsValue::from_f64(millis));
        let armed = storage.set_alarm(ScheduledTime::new(date)).await;
        if armed.is_err() {
            self.set_to.set(None);
        }
        armed
    }
}
