//! The rows of the matrix, by what is hit.

mod clock;
mod corrupt;
mod disk;
mod failover;
mod killed;
pub mod poison;
mod postgres;
mod server;
mod starved;
mod stopped;
mod versions;
mod wire;
mod zombie;

use crate::row::Row;

/// All rows, in the order of the matrix.
pub const ROWS: &[Row] = &[
    killed::WORKER,
    zombie::STOPPED,
    zombie::RELEASED,
    postgres::ZOMBIE,
    wire::CUT,
    wire::HALF_OPEN,
    wire::STORM,
    server::KILLED,
    failover::FAILOVER,
    server::FROZEN,
    wire::SLOW,
    server::OUT_OF_MEMORY,
    disk::FULL,
    server::READ_ONLY,
    clock::JUMPED,
    poison::POISON,
    server::FLUSHED,
    postgres::SERVER,
    stopped::TERMINATED,
    versions::MIXED,
    starved::STARVED,
    corrupt::CORRUPT,
];

/// The row of this number.
pub fn row(number: u8) -> &'static Row {
    let found = ROWS.iter().find(|row| row.number == number);
    found.unwrap_or_else(|| panic!("there is no row {number}"))
}
