//! The daemon as a whole, on real servers.

mod crash;
mod gate;
mod life;
mod process;
mod purge;
