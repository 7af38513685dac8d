//! Private Redis and Postgres servers, started from the programs installed on this machine.
//!
//! `tidegate dev`, `tidegate bench`, the demo and the tests run against these. This module owns finding the
//! programs, starting them on free loopback ports, waiting until they are ready, freezing and killing them, and the
//! promise that none outlives the process that started it, however that process ends. It never connects to a server
//! it did not start, and it knows nothing of jobs, queues or the project's configuration.
//!
//! In reading order: [`Scratch`] is the temporary folder, `program` finds what is installed, `spawn` ties a child's
//! life to ours, `server` signals it, and [`PrivateRedis`] and [`PrivatePostgres`] are what others use.
//!
//! Everything here blocks; call it from a plain thread or `tokio::task::spawn_blocking`. Linux only: the promise above
//! rests on the kernel's parent-death signal.

mod cluster;
mod error;
mod port;
mod private_postgres;
mod private_redis;
mod program;
mod scratch;
mod server;
mod spawn;
mod wait;

pub use error::StackError;
pub use private_postgres::{PostgresOptions, PrivatePostgres};
pub use private_redis::{Listen, PrivateRedis, RedisOptions};
pub use scratch::Scratch;
pub use spawn::spawn_command;
