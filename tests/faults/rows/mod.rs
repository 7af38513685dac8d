//! The rows of the matrix, by what is hit.

mod corrupt;
mod failover;
mod killed;
mod server;
mod stopped;
mod wire;
mod zombie;

use crate::row::Row;

/// All rows, in the order of the matrix.
pub const ROWS: &[Row] = &[
    killed::WORKER,
    zombie::STOPPED,
    zombie::RELEASED,
    zombie::POSTGRES,
    wire::CUT,
    wire::HALF_OPEN,
    wire::STORM,
    server::KILLED,
    failover::FAILOVER,
    server::FROZEN,
    wire::SLOW,
    server::OUT_OF_MEMORY,
    server::READ_ONLY,
    server::FLUSHED,
    stopped::TERMINATED,
    corrupt::CORRUPT,
];
