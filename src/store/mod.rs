//! What is kept: the objects' SQLite, D1 (the configuration, and the record of what was used), KV (snapshots) and R2
//! (large inputs and results).

pub mod account_store;
pub mod alerts;
pub mod catalog;
pub mod estimates;
pub mod payloads;
pub mod pool_store;
pub mod record;
pub mod results;
pub mod savings;
pub mod snapshot;
pub mod tiers;
pub mod totals;
pub mod usage;
