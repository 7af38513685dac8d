//! The queue on Redis.

pub mod connection;
