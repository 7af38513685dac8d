//! What retry budgets do.

use tracing::info;

/// A retry budget began to hold retries back, or ended.
#[derive(Debug, Clone, Copy)]
pub struct RetryBudgetChange<'a> {
    /// Whose budget it is.
    pub resource: &'a str,
    /// Whether retries wait from now on.
    pub holds: bool,
    /// The share of the last window's starts that were retries, 0 to 1.
    pub share: f64,
    /// The share that they may be.
    pub limit: f64,
    /// Retries a second that may be, as things are.
    pub per_second: f64,
    /// Times that a retry was told to wait since the daemon started.
    pub held: u64,
}

/// Retries of a resource wait for its budget, or do so no more.
pub fn retry_budget(change: RetryBudgetChange<'_>) {
    let reason = match change.holds {
        true => {
            "retries would be more than their share of the work, or may not start now: some wait"
        }
        false => "no retry waits any more",
    };
    telling!(
        info,
        "retry_budget",
        change {
            resource,
            holds,
            share,
            limit,
            per_second,
            held
        },
        reason,
        "retry budget"
    );
}
