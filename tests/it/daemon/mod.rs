//! The daemon as a whole, on real servers.

mod attack;
mod crash;
mod gate;
mod life;
pub mod process;
mod purge;
