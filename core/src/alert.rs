//! When operators are alerted. Each condition has a bound where it begins and another where it is over, so that a value
//! that swings around one bound does not open an alert again and again.

use serde::{Deserialize, Serialize};

use crate::priority::STARVATION_BOUND_MS;
use crate::units::{NanoUsd, Tokens};

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A pool has less than its low-water mark left.
    PoolLow,
    /// A client has spent most of its budget, or all.
    BudgetExceeded,
    /// Too many requests wait at a pool.
    QueueBackup,
    /// A request has waited for longer than the starvation bound.
    RequestStarvation,
    /// A downstream worker did not answer in time.
    WorkerTimeout,
    /// A request was refused because its price is unknown.
    UnknownPrice,
}

impl AlertKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PoolLow,
        Self::BudgetExceeded,
        Self::QueueBackup,
        Self::RequestStarvation,
        Self::WorkerTimeout,
        Self::UnknownPrice,
    ];

    /// The kind's name, as in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolLow => "pool_low",
            Self::BudgetExceeded => "budget_exceeded",
            Self::QueueBackup => "queue_backup",
            Self::RequestStarvation => "request_starvation",
            Self::WorkerTimeout => "worker_timeout",
            Self::UnknownPrice => "unknown_price",
        }
    }
}

/// How a condition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds: an alert is to be open.
    Raised,
    /// It is over: an open alert is to be resolved.
    Over,
    /// In between: an open alert stays, and none is opened.
    Unchanged,
}

/// More requests than this waiting at a pool are a backup; it is over at half of that.
pub const QUEUE_BACKUP: u64 = 1_000;

/// Whether a pool is low: below its mark; it is over at twice the mark, or with a full pool.
#[must_use]
pub fn pool_low(available: Tokens, capacity: Tokens, low_water_percent: u8) -> Verdict {
    let percent = i128::from(low_water_percent);
    let left = i128::from(available.micros()).saturating_mul(100);
    let mark = i128::from(capacity.micros()).saturating_mul(percent);
    if left < mark {
        Verdict::Raised
    } else if left >= mark.saturating_mul(2) || available >= capacity {
        Verdict::Over
    } else {
        Verdict::Unchanged
    }
}

/// Whether a pool's queue is backed up.
#[must_use]
pub const fn queue_backup(depth: u64) -> Verdict {
    if depth > QUEUE_BACKUP {
        Verdict::Raised
    } else if depth <= QUEUE_BACKUP / 2 {
        Verdict::Over
    } else {
        Verdict::Unchanged
    }
}

/// Whether a request has waited too long.
#[must_use]
pub const fn request_starvation(oldest_wait_ms: i64) -> Verdict {
    if oldest_wait_ms > STARVATION_BOUND_MS { Verdict::Raised } else { Verdict::Over }
}

/// The shares of a budget, in per cent, that are worth an alert each.
pub const BUDGET_THRESHOLDS: [u8; 3] = [80, 95, 100];

/// The highest of [`BUDGET_THRESHOLDS`] that is reached; 0 is none. A client without a budget that has spent nothing
/// has reached none.
#[must_use]
pub fn budget_threshold(spent: NanoUsd, budget: NanoUsd) -> u8 {
    if spent <= NanoUsd::ZERO {
        return 0;
    }
    let spent = i128::from(spent.nanos()).saturating_mul(100);
    let reached = |threshold: &u8| spent >= i128::from(budget.nanos()).saturating_mul(i128::from(*threshold));
    BUDGET_THRESHOLDS.into_iter().filter(reached).max().unwrap_or(0)
}

/// The wait before a delivery that failed is tried again; `None` after the last try. Doubles from a minute to an hour:
/// a receiver may be away for most of a day.
#[must_use]
pub fn delivery_retry_ms(tries: u32) -> Option<i64> {
    const TRIES_MAX: u32 = 20;
    let minutes = 1_i64.checked_shl(tries.saturating_sub(1).min(6)).unwrap_or(60).min(60);
    (tries < TRIES_MAX).then(|| minutes.saturating_mul(60_000))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, budget_threshold, delivery_retry_ms, pool_low, queue_backup, request_starvation};
    use crate::units::{NanoUsd, Tokens};

    #[test]
    fn a_pool_is_low_below_its_mark_and_well_again_far_above_it() {
        let low = |available| pool_low(Tokens::from_units(available).unwrap(), Tokens::from_units(100).unwrap(), 10);
        assert_eq!(
            [low(0), low(9), low(10), low(19), low(20)],
            [Verdict::Raised, Verdict::Raised, Verdict::Unchanged, Verdict::Unchanged, Verdict::Over]
        );
        let full = Tokens::from_units(5).unwrap();
        assert_eq!(pool_low(full, full, 100), Verdict::Over);
        assert_eq!(pool_low(Tokens::ZERO, full, 0), Verdict::Over, "a mark of 0 is no mark");
    }

    #[test]
    fn a_queue_is_backed_up_above_a_thousand() {
        assert_eq!(
            [queue_backup(1_001), queue_backup(1_000), queue_backup(500)],
            [Verdict::Raised, Verdict::Unchanged, Verdict::Over]
        );
        assert_eq!([request_starvation(600_001), request_starvation(600_000)], [Verdict::Raised, Verdict::Over]);
    }

    #[test]
    fn budgets_have_three_marks() {
        let at =
            |spent, budget| budget_threshold(NanoUsd::from_nanos(spent).unwrap(), NanoUsd::from_nanos(budget).unwrap());
        assert_eq!(
            [
                at(0, 0),
                at(0, 100),
                at(79, 100),
                at(80, 100),
                at(94, 100),
                at(95, 100),
                at(99, 100),
                at(100, 100),
                at(250, 100)
            ],
            [0, 0, 0, 80, 80, 95, 95, 100, 100]
        );
        assert_eq!(at(1, 0), 100);
    }

    #[test]
    fn deliveries_are_tried_for_most_of_a_day() {
        let waits: Vec<i64> = (1..).map_while(delivery_retry_ms).collect();
        assert_eq!(waits[..7], [60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000]);
        assert!((12 * 3_600_000..24 * 3_600_000).contains(&waits.iter().sum::<i64>()));
    }
}
