//! The only places that read the clock, randomness and bindings.

pub mod alarm;
pub mod clock;
pub mod gzip;
pub mod log;
pub mod object;
pub mod random;
pub mod secrets;
pub mod sqlite;
pub mod stream;
pub mod time_limit;
pub mod time_zone;
