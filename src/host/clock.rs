//! The clock. In a Worker it stands still while code runs: read it once per event and pass it on.

use rm_core::units::Instant;

/// Now.
pub fn now() -> Instant {
    let millis = worker::Date::now().as_millis();
    Instant::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
