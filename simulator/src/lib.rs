//! What runs the core without the Worker around it. `invariants` drives it through random histories, in which everything
//! goes wrong that can, and checks what must hold.

pub mod invariants;
pub mod rng;
pub mod setup;
