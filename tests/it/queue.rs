//! The queue's scripts, through the calls a daemon makes, on a real Redis.

mod admission;
mod audit;
mod cost;
mod depth;
mod fleet;
mod hostile;
mod kept;
mod lease;
mod limiters;
mod limits;
mod load_history;
pub mod model;
mod operators;
mod order;
mod overwritten;
mod pages;
mod progress;
mod retries;
pub mod rig;
mod schedules;
mod settlement;
mod strangers;
mod ties;
mod trouble;
