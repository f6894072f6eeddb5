//! How long a downstream worker takes: a smoothed mean and mean deviation, as TCP keeps them of its round trips (Jacobson
//! 1988; RFC 6298, section 2): each run moves the mean by an eighth of its difference, and the deviation by a quarter.

use serde::{Deserialize, Serialize};

/// The mean moves by one part in this many.
const MEAN_SHIFT: u32 = 3;
/// The deviation moves by one part in this many.
const DEVIATION_SHIFT: u32 = 2;

/// What is known of a worker's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunTime {
    /// Eight times the mean, in milliseconds, so that small differences are not lost.
    mean_by_8: i64,
    /// Four times the mean deviation, in milliseconds.
    deviation_by_4: i64,
}

impl RunTime {
    /// After a first run.
    #[must_use]
    pub fn first(ms: i64) -> Self {
        let ms = ms.max(0);
        Self { mean_by_8: ms.saturating_mul(1 << MEAN_SHIFT), deviation_by_4: ms.saturating_mul(2) }
    }

    /// Takes another run into account.
    pub fn observe(&mut self, ms: i64) {
        let off = ms.max(0).saturating_sub(self.mean_ms());
        self.mean_by_8 = self.mean_by_8.saturating_add(off).max(0);
        let deviation = self.deviation_by_4 >> DEVIATION_SHIFT;
        self.deviation_by_4 = self.deviation_by_4.saturating_add(off.saturating_abs().saturating_sub(deviation)).max(0);
    }

    /// Takes into account that a run had not ended after so long: that some take longer, if it is longer than they do on
    /// average. How long it would have taken nobody knows, so that the mean stays.
    pub fn observe_unended(&mut self, ms: i64) {
        let deviation = self.deviation_by_4 >> DEVIATION_SHIFT;
        let longer = ms.saturating_sub(self.mean_ms()).saturating_sub(deviation);
        self.deviation_by_4 = self.deviation_by_4.saturating_add(longer.max(0));
    }

    /// How long a run takes on average, in milliseconds.
    #[must_use]
    pub const fn mean_ms(&self) -> i64 {
        self.mean_by_8 >> MEAN_SHIFT
    }

    /// How long hardly any run takes, in milliseconds: the mean and four deviations.
    #[must_use]
    pub const fn bound_ms(&self) -> i64 {
        self.mean_ms().saturating_add(self.deviation_by_4)
    }
}

#[cfg(test)]
mod tests {
    use super::RunTime;

    #[test]
    fn one_run_is_taken_with_a_deviation_of_half() {
        let once = RunTime::first(100);
        assert_eq!((once.mean_ms(), once.bound_ms()), (100, 300));
    }

    #[test]
    fn equal_runs_are_known_exactly() {
        let mut time = RunTime::first(100);
        for _ in 0..100 {
            time.observe(100);
        }
        assert_eq!(time.mean_ms(), 100);
        assert!(time.bound_ms() <= 103, "{}", time.bound_ms());
    }

    #[test]
    fn a_change_is_followed_and_one_exception_is_not() {
        let mut time = RunTime::first(100);
        (0..40).for_each(|_| time.observe(100));
        time.observe(900);
        assert_eq!(time.mean_ms(), 200);
        assert!(time.bound_ms() >= 900, "but it is heeded where it matters");
        (0..60).for_each(|_| time.observe(900));
        assert!((890..=900).contains(&time.mean_ms()), "{}", time.mean_ms());
    }

    #[test]
    fn one_that_does_not_end_tells_only_that_some_take_longer() {
        let mut time = RunTime::first(100);
        (0..40).for_each(|_| time.observe(100));
        let before = time;
        (0..40).for_each(|_| time.observe_unended(50));
        assert_eq!(time, before, "those were not waited for");
        (0..40).for_each(|_| time.observe_unended(900));
        assert_eq!(time.mean_ms(), 100);
        assert!((900..=3_300).contains(&time.bound_ms()), "{}", time.bound_ms());
    }

    #[test]
    fn nonsense_stays_in_range() {
        let mut time = RunTime::first(-5);
        assert_eq!((time.mean_ms(), time.bound_ms()), (0, 0));
        time.observe(i64::MAX);
        time.observe(i64::MIN);
        time.observe_unended(i64::MAX);
        time.observe_unended(i64::MIN);
        assert!(time.mean_ms() >= 0 && time.bound_ms() >= time.mean_ms());
    }
}
