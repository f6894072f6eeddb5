//! What makes a request cheaper: which strategies there are, what a caller allows of them, and what each has saved.

mod canonical;
mod choice;
mod downgrade;
mod history;
mod savings;
mod shares;

pub use canonical::canonical;
pub use choice::{Allowed, Choice, Level};
pub use downgrade::{DOWNGRADE_MARGIN_MS, PriceInTime, allowed_by, is_never_dearer, waits_too_long};
pub use history::{Past, WouldHave, would_have_saved};
pub use savings::{Applied, Savings, Strategy};
pub use shares::shares;
