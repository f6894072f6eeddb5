//! A circuit breaker for a downstream worker (Nygard, *Release It!*): one that keeps failing is left alone for a while,
//! and then tried with one request at a time, so that those that wait do not burn their attempts on it.
//!
//! ```text
//! Closed ──five failures in a row──► Open ──its time is over──► HalfOpen ──the probe succeeds──► Closed
//!                                     ▲                            │
//!                                     └────── the probe fails ─────┘   (open for twice as long, at most five minutes)
//! ```

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::units::Instant;

/// So many failures in a row open it.
pub const FAILURES_MAX: u32 = 5;
/// How long it is open at first.
pub const OPEN_FIRST_MS: i64 = 10_000;
/// How long it is open at most.
pub const OPEN_MAX_MS: i64 = 300_000;

/// For so long only those that have not failed yet may be the probe, if any waits.
pub const FIRST_CHOICE_MS: i64 = 2_000;

/// What an attempt says of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sign {
    /// It answered, be it that it refused the request.
    Alive,
    /// It failed, or did not answer.
    Failed,
    /// Neither: it was busy, or the attempt was cancelled.
    #[default]
    Neither,
}

impl Sign {
    /// Whether it says nothing of the worker.
    #[must_use]
    pub const fn is_neither(&self) -> bool {
        matches!(self, Self::Neither)
    }
}

/// The breaker of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Breaker {
    /// Requests go through.
    Closed {
        /// How many failed in a row.
        failures: u32,
    },
    /// None goes through until then.
    Open {
        /// When a probe may go.
        until: Instant,
        /// How long it was opened for.
        for_ms: i64,
    },
    /// One goes through at a time.
    HalfOpen {
        /// The one that is under way, with its grant.
        probe: Option<(RequestId, u32)>,
        /// How long it was open before.
        for_ms: i64,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request may go through now.
    #[must_use]
    pub fn lets_through(&self, now: Instant) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until, .. } => *until <= now,
            Self::HalfOpen { probe, .. } => probe.is_none(),
        }
    }

    /// Until when only those that have not failed yet may be the probe.
    #[must_use]
    pub fn first_choice_until(&self) -> Option<Instant> {
        self.opens_until().map(|until| until.plus(FIRST_CHOICE_MS))
    }

    /// Whether what goes through is a probe.
    #[must_use]
    pub const fn probes(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// The probe that is under way, with its grant.
    #[must_use]
    pub const fn probe(&self) -> Option<&(RequestId, u32)> {
        match self {
            Self::HalfOpen { probe, .. } => probe.as_ref(),
            Self::Closed { .. } | Self::Open { .. } => None,
        }
    }

    /// When it may let a probe through, if that is a matter of time.
    #[must_use]
    pub const fn opens_until(&self) -> Option<Instant> {
        match self {
            Self::Open { until, .. } => Some(*until),
            Self::Closed { .. } | Self::HalfOpen { .. } => None,
        }
    }

    /// A request is granted: it may be the probe. `true` if that changed anything.
    pub fn granted(&mut self, id: &RequestId, grant: u32) -> bool {
        let for_ms = match self {
            Self::Closed { .. } => return false,
            Self::Open { for_ms, .. } | Self::HalfOpen { for_ms, .. } => *for_ms,
        };
        *self = Self::HalfOpen { probe: Some((id.clone(), grant)), for_ms };
        true
    }

    /// What became of an attempt. `true` if that changed anything.
    pub fn ended(&mut self, id: &RequestId, grant: u32, sign: Sign, now: Instant) -> bool {
        let before = self.clone();
        match self {
            Self::Closed { failures } => match sign {
                Sign::Alive => *failures = 0,
                Sign::Neither => {}
                Sign::Failed => {
                    *failures = failures.saturating_add(1);
                    if *failures >= FAILURES_MAX {
                        *self = Self::Open { until: now.plus(OPEN_FIRST_MS), for_ms: OPEN_FIRST_MS };
                    }
                }
            },
            // What was under way when it opened, and answers well after all.
            Self::Open { .. } if sign == Sign::Alive => *self = Self::default(),
            Self::Open { .. } => {}
            Self::HalfOpen { probe, for_ms } => {
                let is_probe = probe.as_ref().is_some_and(|(of, number)| of == id && *number == grant);
                match sign {
                    Sign::Alive => *self = Self::default(),
                    Sign::Failed if is_probe => {
                        let for_ms = for_ms.saturating_mul(2).min(OPEN_MAX_MS);
                        *self = Self::Open { until: now.plus(for_ms), for_ms };
                    }
                    Sign::Neither if is_probe => *probe = None,
                    Sign::Failed | Sign::Neither => {}
                }
            }
        }
        *self != before
    }

    /// Whether it is as if nothing had ever failed.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Its state's name, as in JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "halfOpen",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, FAILURES_MAX, OPEN_FIRST_MS, OPEN_MAX_MS, Sign};
    use crate::id::RequestId;
    use crate::units::Instant;

    fn id(n: u8) -> RequestId {
        RequestId::new(Instant::from_millis(1), [n; 10], &"p".parse().unwrap())
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        (0..FAILURES_MAX).for_each(|_| {
            breaker.ended(&id(1), 1, Sign::Failed, Instant::from_millis(0));
        });
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::default();
        for n in 0..4 * FAILURES_MAX {
            let sign = if n % FAILURES_MAX == 0 { Sign::Alive } else { Sign::Failed };
            breaker.ended(&id(1), 1, sign, Instant::from_millis(0));
        }
        assert!(breaker.lets_through(Instant::from_millis(0)));
        assert!(!open().lets_through(Instant::from_millis(OPEN_FIRST_MS - 1)));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let later = Instant::from_millis(OPEN_FIRST_MS);
        let mut breaker = open();
        assert!(breaker.lets_through(later));
        breaker.granted(&id(2), 7);
        assert!(!breaker.lets_through(later), "one is under way");
        breaker.ended(&id(3), 1, Sign::Failed, later);
        assert!(!breaker.lets_through(later), "it was not the probe");
        let mut other = breaker.clone();
        breaker.ended(&id(2), 7, Sign::Failed, later);
        assert_eq!(breaker.opens_until(), Some(later.plus(2 * OPEN_FIRST_MS)));
        other.ended(&id(2), 7, Sign::Neither, later);
        assert!(other.lets_through(later), "the next is the probe");
        other.ended(&id(9), 1, Sign::Alive, later);
        assert!(other.is_default());
    }

    #[test]
    fn stays_open_five_minutes_at_most() {
        let mut breaker = open();
        let mut now = Instant::from_millis(0);
        for grant in 0..10 {
            now = breaker.opens_until().unwrap();
            breaker.granted(&id(2), grant);
            breaker.ended(&id(2), grant, Sign::Failed, now);
        }
        assert_eq!(breaker.opens_until(), Some(now.plus(OPEN_MAX_MS)));
    }
}
