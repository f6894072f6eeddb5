//! How long the program itself takes: the only place of the simulator that reads a clock.

use std::time::{Duration, Instant};

/// A stopwatch that runs.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[allow(clippy::disallowed_methods, reason = "nothing that is simulated depends on it")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has run.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
