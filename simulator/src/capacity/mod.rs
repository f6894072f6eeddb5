//! What a load would meet: the very same core, driven through a workload or a recorded trace in simulated time.
//!
//! `workload` is what is asked about, `trace` one request a line, `what_if` a change to it, `arrivals` the requests that
//! come of it, `engine` lets them happen, `measure` keeps what is to be told, `table` and `plot` tell it. Nothing fails
//! here, nothing is late, and an effect of the core is performed at once: what is left is waiting for tokens and slots.

// The numbers that go in are bounded (see `workload`), and an overflow would be an error of this program.
#![allow(clippy::arithmetic_side_effects)]

pub mod arrivals;
pub mod engine;
pub mod measure;
pub mod plot;
pub mod table;
pub mod trace;
pub mod what_if;
pub mod workload;
