//! The two Durable Objects. They load, let the core decide, store, and do what the core asks for; they decide nothing.

mod account_effects;
mod account_operations;
mod client_account;
mod pool_effects;
mod pool_foretelling;
mod pool_operations;
mod pool_runs;
mod pool_upkeep;
mod resource_pool;
mod starts;
mod waiters;

pub use client_account::ClientAccount;
pub use pool_upkeep::retention_ms;
pub use resource_pool::ResourcePool;
