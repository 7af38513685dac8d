//! `tidegate explain`: what holds work back, with the measured values, and every other limit with what is used of it.
//!
//! Everything here is read from Redis: queues, signs of life, the health and the pages that daemons publish, orders.

mod gate;
mod job;
mod lift;
mod limits;
mod live;
mod operation;
mod queue;
mod reason;
mod resource;
mod retries;
mod schedules;
mod slots;
mod supply;
mod workers;

use super::fleet::Fleet;
use super::store::OnQueue;
use super::{CliError, Global, Report};

const EXAMPLES: &str = "\
What holds back most comes first; limits that have room stand below.

Examples:
  tidegate explain                              every queue
  tidegate explain default                      one queue
  tidegate explain redis:main                   how a resource fares: every signal, and the last hour
  tidegate explain http@http:app.example:443    a handler on a resource: breaker and limiter
  tidegate explain mail-7 --json                why a job does not run";

/// Flags of `tidegate explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A queue, a resource, an operation, or the id of a job [default: every queue]
    #[arg(value_name = "QUEUE|RESOURCE|HANDLER@RESOURCE|JOB")]
    target: Option<String>,
    #[command(flatten)]
    on: OnQueue,
}

/// Explains all queues, one, a resource, an operation, or a job.
///
/// # Errors
/// There is no such thing, or configuration or Redis.
pub async fn run(args: Args, global: &Global) -> Result<Report, CliError> {
    let store = args.on.open(global).await?;
    let fleet = Fleet::read(&store).await?;
    let Some(target) = args.target else {
        return queue::explain(&store, &store.names, &fleet).await;
    };
    if store.names.contains(&target) {
        return queue::explain(&store, &[target], &fleet).await;
    }
    if let Some((handler, resource)) = target.split_once('@') {
        return operation::explain(&store, &fleet, handler, resource);
    }
    if resource::is_one(&target, &fleet) {
        return resource::explain(&store, &target, &fleet).await;
    }
    job::explain(&store, &target, &fleet).await
}
