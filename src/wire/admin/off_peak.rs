//! Off-peak windows, as an admin sets them.

use rm_core::off_peak::OffPeakRule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::admin::ClientBody;

/// A rule for off-peak windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffPeak {
    /// On which days a window begins.
    #[schema(min_items = 1, max_items = 7)]
    pub days: Vec<Weekday>,
    /// When it begins, as the clocks there show.
    #[schema(example = "22:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub from: String,
    /// When it ends; on the next day, if that is not later than it begins.
    #[schema(example = "06:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub to: String,
    /// A name of the IANA time-zone database.
    #[serde(default = "ClientBody::utc")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// What is off the pool's price for what starts in a window, in per cent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::wire::strict::optional_whole"
    )]
    #[schema(minimum = 1, maximum = 100)]
    pub discount_percent: Option<u8>,
}

impl OffPeak {
    /// The rule; `None` if a time is none.
    pub fn rule(&self) -> Option<OffPeakRule> {
        let minute = |text: &str| {
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let (hours, minutes) = text.split_once(':').filter(|(h, m)| digits(h) && digits(m))?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours < 24 && minutes < 60).then(|| hours.saturating_mul(60).saturating_add(minutes))
        };
        Some(OffPeakRule {
            days: self.days.iter().map(|day| day.number()).collect(),
            from_minute: minute(&self.from)?,
            to_minute: minute(&self.to)?,
        })
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// From 0, which is Monday.
    pub const fn number(self) -> u8 {
        match self {
            Self::Mon => 0,
            Self::Tue => 1,
            Self::Wed => 2,
            Self::Thu => 3,
            Self::Fri => 4,
            Self::Sat => 5,
            Self::Sun => 6,
        }
    }
}
