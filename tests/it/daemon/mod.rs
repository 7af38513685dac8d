//! The daemon as a whole, on real servers.

mod crash;
mod life;
mod process;
