//! The daemon as a whole, on real servers.

mod attack;
mod audited;
mod bell;
mod blame;
mod crash;
mod cron;
mod embedded;
mod fleet;
mod forecast;
mod herd;
mod kept;
mod life;
mod limiter;
mod orders;
mod paced;
pub mod process;
mod progress;
mod purge;
mod reload;
mod reserve;
mod retries;
mod shared;
mod upgrade;
mod workflows;
