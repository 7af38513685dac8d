//! What came of one run of a job.

use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What a handler says when it stops. Settlement is one exhaustive match over this.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The work is done. The value is the job's result, kept only if somebody asked for it.
    Done(Option<Value>),
    /// This attempt failed; the retry policy decides what next.
    Failed(Failure),
    /// Failed, and trying again cannot help: the job goes to the dead set.
    Fatal(Failure),
    /// Not now: run again after this long. Burns no attempt.
    Snooze {
        /// How long to wait.
        after: Duration,
        /// Why, for the log and `job show`.
        reason: String,
    },
    /// Stopped from outside (shutdown, lost lease): handed back at once. Burns no attempt.
    Interrupted {
        /// What stopped it.
        reason: String,
    },
    /// Ended at a safe point because the gate told it to make room: back to its place, to go on when its class may run
    /// again. Burns no attempt.
    Yielded {
        /// What the gate said.
        reason: String,
    },
    /// Cancelled by an operator or the app: ends here, without a retry.
    Cancelled,
}

impl Outcome {
    /// A failed attempt with no more to say than its message.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(message))
    }

    /// A fatal failure with no more to say than its message.
    #[must_use]
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::Fatal(Failure::new(message))
    }

    /// The same, laid to none but what a job of this kind touches: whoever lays a failure to something else is told so in its
    /// message, and it counts as the job's own.
    #[must_use]
    pub fn blaming_only(mut self, resources: &[Arc<str>]) -> Self {
        if let Self::Failed(failure) | Self::Fatal(failure) = &mut self
            && let Some(blame) = &failure.blame
            && !resources.iter().any(|own| **own == *blame.resource)
        {
            failure.message.push_str(&format!(
                " (laid to {:?}, which is not among the resources of its kind)",
                blame.resource
            ));
            failure.blame = None;
        }
        self
    }

    /// The word for this outcome in logs and metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Fatal(_) => "fatal",
            Self::Snooze { .. } => "snoozed",
            Self::Interrupted { .. } => "interrupted",
            Self::Yielded { .. } => "yielded",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people. Kept to 4 KiB when it is stored.
    pub message: String,
    /// A delay the other side asked for (`Retry-After`); it replaces the policy's delay.
    pub retry_after: Option<Duration>,
    /// The dependency at fault, if it was one: only these count for its breaker.
    pub blame: Option<Blame>,
}

impl Failure {
    /// A failure of the job itself.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retry_after: None,
            blame: None,
        }
    }

    /// The same failure, laid at a dependency's door.
    #[must_use]
    pub fn blaming(mut self, resource: impl Into<String>, connect: bool) -> Self {
        self.blame = Some(Blame {
            resource: resource.into(),
            connect,
        });
        self
    }
}

/// The dependency that made an attempt fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The resource as definitions name it, like `postgres:primary` or `http:app.example:443`.
    pub resource: String,
    /// It could not even be reached: stronger evidence than an error it answered with.
    pub connect: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_laid_to_what_its_kind_touches_or_to_nothing() {
        let own: [Arc<str>; 1] = ["http:bank.example:443".into()];
        let laid = |resource: &str| Failure::new("down").blaming(resource, false);
        let right = Outcome::Failed(laid("http:bank.example:443"));
        assert_eq!(right.clone().blaming_only(&own), right);
        let Outcome::Fatal(failure) = Outcome::Fatal(laid("http:bank")).blaming_only(&own) else {
            unreachable!("it stays what it is")
        };
        assert_eq!(failure.blame, None);
        assert!(failure.message.starts_with("down (laid to \"http:bank\""));
        assert_eq!(
            Outcome::failed("own").blaming_only(&[]),
            Outcome::failed("own")
        );
    }
}
