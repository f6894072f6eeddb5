//! What is kept: the objects' SQLite, D1 (the configuration, and the record of what was used) and KV (snapshots).

pub mod account_store;
pub mod catalog;
pub mod pool_store;
pub mod record;
pub mod snapshot;
