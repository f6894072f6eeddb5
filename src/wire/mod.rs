//! Types that cross a boundary, and nothing else: the HTTP interface, the calls to each object, the downstream
//! protocol. A caller and a callee share them, so that they cannot drift.

pub mod account;
pub mod admin;
pub mod alert;
pub mod api;
pub mod downstream;
pub mod execution;
pub mod payload;
pub mod pool;
pub mod problem;
pub mod strict;
pub mod time;
pub mod usage;
