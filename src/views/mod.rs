//! What a caller sees of a request, made from what is stored of it: in its pool while that keeps it, in the record after.

mod bill;
mod execution;
mod optimizations;
mod recorded;

pub use bill::{bill_view, estimate_lines, price_version};
pub use execution::execution_view;
pub use optimizations::{baseline_of, expected_optimizations, optimizations};
pub use recorded::{recorded_bill, recorded_execution};
