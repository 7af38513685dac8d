//! What a caller and its breaker say to each other: leave to call, and how the call ended.

/// Leave for one trial call while half-open. Hand it back by recording the result under its epoch,
/// or with [`super::Breaker::release`] if the call was never made or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The epoch to record the result under.
    pub epoch: u64,
    /// When another trial may start in its place, monotonic milliseconds.
    pub deadline_ms: u64,
}

/// The answer to a call that wants to start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Go; record the result under this epoch.
    Allow {
        /// The epoch to record the result under.
        epoch: u64,
        /// While ramping: the share of the usual limit that may run at once (at least one call).
        limit: Option<f64>,
    },
    /// Go, as the one trial.
    Trial(Permit),
    /// Do not call before this time, monotonic milliseconds.
    Refuse {
        /// When to ask again.
        retry_at_ms: u64,
    },
}

/// What [`super::Breaker::admit`] would answer, without taking anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outlook {
    /// Calls go through, up to this share of the usual limit.
    Allow {
        /// As in [`Verdict::Allow`].
        limit: Option<f64>,
    },
    /// One call would go through.
    Trial,
    /// None would before this time.
    Refuse {
        /// As in [`Verdict::Refuse`].
        retry_at_ms: u64,
    },
}

/// How a call ended, as far as the dependency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// It answered.
    Success {
        /// More slowly than the caller bears.
        slow: bool,
    },
    /// It failed, by the dependency's fault.
    DependencyFailure {
        /// Not even a connection was made.
        connect: bool,
    },
    /// The call failed for a reason of its own (bad arguments, a poison payload), or says nothing.
    NotDependency,
}
