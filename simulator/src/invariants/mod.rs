//! The core under random histories: pools, accounts, a shell that performs their effects as messages, downstream workers
//! that fail, hang and lie. Messages are delayed, doubled and lost wherever the real shell may lose them; objects crash
//! and come back from what they stored. After each step the invariants are checked; in the end everything is let run out,
//! and nothing may be left.
//!
//! `world` is what there is, `steps` what is done in it, `delivery` how messages arrive, `alarms` how time passes, `events`
//! how an object changes, `shell` what the Worker does with changes and effects, `checks` what must hold, and `turns` and
//! `ranks` who is granted before whom; `history` runs one seed, `campaign` many, and `shrink` makes a history that fails
//! short enough to be read.

// A broken invariant is a panic here, as in any test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod alarms;
mod bills;
pub mod campaign;
pub mod caught;
pub mod checks;
mod delivery;
mod events;
pub mod history;
pub mod log;
mod orders;
mod ranks;
pub mod shell;
pub mod shrink;
mod steps;
mod turns;
mod words;
pub mod world;
