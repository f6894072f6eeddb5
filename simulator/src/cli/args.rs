//! Arguments that are numbers.

use lexopt::{Parser, ValueExt};

use super::Refused;

/// The value of an option that is a whole number of at least `least`.
pub fn number(parser: &mut Parser, option: &str, least: u64) -> Result<u64, Refused> {
    let text = parser.value()?.string()?;
    let number = text.replace('_', "").parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| Refused::new(format!("{option} takes a whole number of at least {least}, not `{text}`")))
}
