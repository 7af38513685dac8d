//! What runs beside the jobs for as long as the daemon does: each service is one `run(…, stop)` that ends when `stop`
//! is cancelled, and never fails the daemon.

pub mod auditor;
pub mod bell;
pub mod bridge;
pub mod fleet;
pub mod forecast;
pub mod intake;
pub mod lag;
pub mod limiter;
pub mod limiter_store;
pub mod merge;
pub mod notify;
pub mod orders;
pub mod outbox;
pub mod page;
pub mod publish;
pub mod scheduler;
pub mod server;
pub mod stuck;
pub mod upkeep;
