//! What runs the core without the Worker around it.
//!
//! [`invariants`] drives it through random histories, in which everything goes wrong that can, and checks what must hold.
//! [`capacity`] drives it through a workload in which nothing goes wrong, and measures who waits for how long. [`cli`] is
//! the program `simulate`, which does either.

pub mod capacity;
pub mod cli;
pub mod invariants;
pub mod numbers;
pub mod rng;
pub mod setup;
