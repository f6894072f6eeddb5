//! What a caller allows the optimiser.

use serde::{Deserialize, Serialize};

/// How far it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Level {
    /// Nothing is done.
    Off,
    /// What does not change the answer, and a cheaper model where the other one is out of reach.
    #[default]
    Standard,
    /// A cheaper model whenever the template allows it.
    Aggressive,
}

/// What a caller says; what it leaves out is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// The level; standard, if nothing is said.
    pub level: Option<Level>,
    /// A cheaper model.
    pub downgrade: Option<bool>,
    /// Being combined with others.
    pub batch: Option<bool>,
    /// A result that was there before.
    pub cache: Option<bool>,
    /// Compressed payloads.
    pub compress: Option<bool>,
    /// Waiting for a window.
    pub off_peak: Option<bool>,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// A cheaper model, at this level; `None` is not at all.
    pub downgrade: Option<Level>,
    /// Being combined with others.
    pub batch: bool,
    /// The caller asked for it by name: it may wait for others in any lane.
    pub batch_in_any_lane: bool,
    /// A result that was there before.
    pub cache: bool,
    /// Compressed payloads.
    pub compress: bool,
    /// Waiting for a window, in the lane of deferred work.
    pub off_peak: bool,
    /// The caller asked for it by name: also in the lane of batches.
    pub off_peak_in_batch: bool,
}

impl Choice {
    /// What may be done.
    #[must_use]
    pub fn allowed(self) -> Allowed {
        let level = self.level.unwrap_or_default();
        let on = |said: Option<bool>| level != Level::Off && said.unwrap_or(true);
        Allowed {
            downgrade: Some(level).filter(|_| on(self.downgrade)),
            batch: on(self.batch),
            batch_in_any_lane: on(self.batch) && self.batch == Some(true),
            cache: on(self.cache),
            compress: on(self.compress),
            off_peak: on(self.off_peak),
            off_peak_in_batch: on(self.off_peak) && self.off_peak == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Level};

    #[test]
    fn what_is_not_said_is_allowed_and_off_is_off() {
        let all = Choice::default().allowed();
        assert_eq!(all.downgrade, Some(Level::Standard));
        assert!(all.batch && all.cache && all.compress && all.off_peak);
        assert!(!all.batch_in_any_lane && !all.off_peak_in_batch, "nothing waits longer than its lane says unasked");
        let yes = Some(true);
        let off =
            Choice { level: Some(Level::Off), downgrade: yes, batch: yes, cache: yes, compress: yes, off_peak: yes };
        let none = off.allowed();
        assert_eq!(none.downgrade, None);
        assert!(!(none.batch || none.batch_in_any_lane || none.cache || none.compress));
        assert!(!(none.off_peak || none.off_peak_in_batch));
    }

    #[test]
    fn each_can_be_switched_off_by_itself() {
        let no = Some(false);
        assert_eq!(Choice { downgrade: no, ..Choice::default() }.allowed().downgrade, None);
        assert!(!Choice { batch: no, ..Choice::default() }.allowed().batch);
        assert!(!Choice { cache: no, ..Choice::default() }.allowed().cache);
        assert!(!Choice { compress: no, ..Choice::default() }.allowed().compress);
        assert!(!Choice { off_peak: no, ..Choice::default() }.allowed().off_peak);
        let asked = Choice { batch: Some(true), off_peak: Some(true), ..Choice::default() }.allowed();
        assert!(asked.batch_in_any_lane && asked.off_peak_in_batch);
    }
}
