//! What its window means for a request that waits for one.

use crate::off_peak::{is_open, open_until};
use crate::pool::Pool;
use crate::request::Request;
use crate::units::Instant;

impl Pool {
    /// How long a request may wait for others at most, if its window closes meanwhile: half of the time for which that is open,
    /// for it must have its turn in the other half. `None` if it waits for no window, or the next one begins after `until`.
    pub(super) fn gathers_in_window_until(&self, request: &Request, until: Instant, now: Instant) -> Option<Instant> {
        let windows = self.windows(request.window().as_ref())?;
        let opens_at = match is_open(windows, now) {
            Ok(()) => now,
            Err(opens_at) => opens_at.filter(|at| *at <= until)?,
        };
        let closes_at = open_until(windows, opens_at)?;
        Some(opens_at.plus(closes_at.since(opens_at) >> 1))
    }
}
