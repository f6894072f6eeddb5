//! What its window means for a request that waits for one.

use crate::off_peak::{is_open, open_until};
use crate::optimizer::{Applied, Strategy};
use crate::pool::Pool;
use crate::request::Request;
use crate::units::Instant;

impl Pool {
    /// Since when a request has waited for its window, in which it was started at `at`; that is noted with it, and holds for all
    /// of its steps. `None` if it did not, or the window was open when it came. That its deadline would not have let it wait any
    /// longer takes nothing from that.
    pub(super) fn waited_for_window(&self, request: &mut Request, at: Instant) -> Option<Instant> {
        let window = request.waited_for()?;
        if !request.applied.iter().any(|applied| applied.strategy == Strategy::OffPeak) {
            let was_open = |at| self.is_open_for(Some(&window), at).is_ok();
            if !was_open(at) || was_open(request.enqueued_at) {
                return None;
            }
            let detail = "it waited for its window".to_owned();
            request.applied.push(Applied { strategy: Strategy::OffPeak, detail, saved_bytes: 0 });
        }
        Some(request.enqueued_at)
    }

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
