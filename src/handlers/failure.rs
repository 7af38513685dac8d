//! What an error of a handler in code means for its job.
//!
//! Owns: the errors by which such a handler asks for something else than the retry policy, our own and those of apalis,
//! wherever in the chain of causes they stand.

use crate::job::{Blame, Failure, Outcome};
use apalis_core::error::{AbortError, BoxDynError, DeferredError, RetryAfterError};
use apalis_core::task::data::MissingDataError;
use std::error::Error;
use std::time::Duration;

/// How long a job waits that apalis' `DeferredError` puts off: "at once" would be a loop without a rest.
const DEFERRED: Duration = Duration::from_secs(1);

/// An error that says what is to become of the job. Any other error is a failed attempt, for the retry policy to decide.
///
/// ```
/// use std::time::Duration;
/// use tidegate::embed::JobError;
///
/// async fn charge(amount: u64) -> Result<(), JobError> {
///     match amount {
///         0 => Err(JobError::abort("nothing to charge")),
///         1..100 => Err(JobError::retry_after(Duration::from_secs(30), "the bank is busy")),
///         _ => Ok(()),
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Trying again can't help: the job goes to the dead set.
    #[error("{0}")]
    Abort(#[source] BoxDynError),
    /// A failed attempt, to be tried again after this long instead of what the retry policy says.
    #[error("{error}")]
    RetryAfter {
        /// How long to wait. At most a day, unless the definition's `retry.max` is longer.
        after: Duration,
        /// What went wrong.
        #[source]
        error: BoxDynError,
    },
    /// A dependency failed, not the job: a failed attempt, and evidence for the breaker between this kind and the
    /// dependency. Inside [`JobError::abort`] or [`JobError::retry_after`] it is that evidence as well.
    #[error("{error}")]
    Dependency {
        /// The dependency: one of the `resources` of the kind, as it is written there.
        resource: String,
        /// It could not even be reached: five of these in a row are enough, where they are rare.
        unreachable: bool,
        /// What went wrong.
        #[source]
        error: BoxDynError,
    },
    /// Not now: again after this long. Burns no attempt.
    #[error("{reason}")]
    Snooze {
        /// How long to wait.
        after: Duration,
        /// Why, for the log.
        reason: String,
    },
    /// The gate told the job to make room: it ended at a safe point, and goes on when its class may run again. Burns no
    /// attempt. See [`Context::pace`](super::Context::pace).
    #[error("made room: {reason}")]
    Yield {
        /// What the gate said.
        reason: String,
    },
    /// The job saw its cancel token and ended: handed back, or cancelled if that was asked for. Burns no attempt.
    #[error("stopped when asked to")]
    Stopped,
}

impl JobError {
    /// Trying again can't help.
    pub fn abort(error: impl Into<BoxDynError>) -> Self {
        Self::Abort(error.into())
    }

    /// To be tried again after this long.
    pub fn retry_after(after: Duration, error: impl Into<BoxDynError>) -> Self {
        Self::RetryAfter {
            after,
            error: error.into(),
        }
    }

    /// This resource of the kind failed: an error of its own, or no answer in time.
    pub fn dependency(resource: impl Into<String>, error: impl Into<BoxDynError>) -> Self {
        Self::Dependency {
            resource: resource.into(),
            unreachable: false,
            error: error.into(),
        }
    }

    /// This resource of the kind can't be reached: no connection.
    pub fn unreachable(resource: impl Into<String>, error: impl Into<BoxDynError>) -> Self {
        Self::Dependency {
            resource: resource.into(),
            unreachable: true,
            error: error.into(),
        }
    }

    /// Not now; burns no attempt.
    pub fn snooze(after: Duration, reason: impl Into<String>) -> Self {
        Self::Snooze {
            after,
            reason: reason.into(),
        }
    }
}

/// What an error means: the first in its chain of causes that says so decides, and the first that lays it to a dependency
/// says to which.
pub(super) fn outcome_of(error: &BoxDynError) -> Outcome {
    let message = message_of(&**error);
    let mut outcome = chain(&**error)
        .find_map(|cause| asked_for(cause, &message))
        .unwrap_or_else(|| Outcome::failed(message));
    if let Outcome::Failed(failure) | Outcome::Fatal(failure) = &mut outcome {
        failure.blame = chain(&**error).find_map(blame);
    }
    outcome
}

fn blame(cause: &(dyn Error + 'static)) -> Option<Blame> {
    match cause.downcast_ref::<JobError>()? {
        JobError::Dependency {
            resource,
            unreachable,
            ..
        } => Some(Blame {
            resource: resource.clone(),
            connect: *unreachable,
        }),
        _ => None,
    }
}

fn asked_for(cause: &(dyn Error + 'static), message: &str) -> Option<Outcome> {
    if let Some(ours) = cause.downcast_ref::<JobError>() {
        return Some(match ours {
            // What is beneath it may say more of what is to become of the job.
            JobError::Dependency { .. } => return None,
            JobError::Abort(_) => Outcome::fatal(message),
            JobError::RetryAfter { after, .. } => failed_for(*after, message),
            JobError::Snooze { after, reason } => snoozed(*after, reason),
            JobError::Yield { reason } => Outcome::Yielded {
                reason: reason.clone(),
            },
            JobError::Stopped => Outcome::Interrupted {
                reason: message.to_owned(),
            },
        });
    }
    if cause.is::<AbortError>() || cause.is::<MissingDataError>() {
        return Some(Outcome::fatal(message));
    }
    if let Some(retry) = cause.downcast_ref::<RetryAfterError>() {
        return Some(failed_for(retry.get_duration(), message));
    }
    cause
        .is::<DeferredError>()
        .then(|| snoozed(DEFERRED, message))
}

fn failed_for(after: Duration, message: &str) -> Outcome {
    let mut failure = Failure::new(message);
    failure.retry_after = Some(after);
    Outcome::Failed(failure)
}

fn snoozed(after: Duration, reason: &str) -> Outcome {
    Outcome::Snooze {
        after,
        reason: reason.to_owned(),
    }
}

fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> + 'a {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// All causes in one line. Many errors already say what their cause says: nothing is said twice.
fn message_of(error: &(dyn Error + 'static)) -> String {
    let mut message = String::new();
    for cause in chain(error) {
        let words = cause.to_string();
        if message.contains(&words) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&words);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("sending a mail")]
    struct Wrapped(#[source] BoxDynError);

    fn outcome(error: impl Into<BoxDynError>) -> Outcome {
        outcome_of(&error.into())
    }

    #[test]
    fn an_error_says_what_becomes_of_its_job_wherever_it_stands() {
        let wait = Duration::from_secs(7);
        let mut after = Failure::new("sending a mail: busy");
        after.retry_after = Some(wait);
        let after = Outcome::Failed(after);
        let wrapped = |error: BoxDynError| outcome(Wrapped(error));
        assert_eq!(
            wrapped("no route".into()),
            Outcome::failed("sending a mail: no route")
        );
        assert_eq!(
            wrapped(JobError::abort("no such user").into()),
            Outcome::fatal("sending a mail: no such user")
        );
        assert_eq!(wrapped(JobError::retry_after(wait, "busy").into()), after);
        assert_eq!(
            outcome(JobError::snooze(wait, "closed at night")),
            snoozed(wait, "closed at night")
        );
        let reason = "postgres:primary is critical".to_owned();
        assert_eq!(
            wrapped(
                JobError::Yield {
                    reason: reason.clone()
                }
                .into()
            ),
            Outcome::Yielded { reason }
        );
        assert!(matches!(
            outcome(JobError::Stopped),
            Outcome::Interrupted { .. }
        ));
    }

    #[test]
    fn an_error_may_lay_the_failure_to_a_dependency_wherever_it_stands() {
        let bank = || JobError::unreachable("http:bank.example:443", "no route");
        let laid = |outcome: Outcome| match outcome {
            Outcome::Failed(failure) | Outcome::Fatal(failure) => failure.blame,
            _ => None,
        };
        let expected = Some(Blame {
            resource: "http:bank.example:443".to_owned(),
            connect: true,
        });
        assert_eq!(laid(outcome(bank())), expected);
        assert_eq!(laid(outcome(Wrapped(bank().into()))), expected);
        let Outcome::Fatal(failure) = outcome(JobError::abort(bank())) else {
            unreachable!("it is given up")
        };
        assert_eq!(
            (failure.message.as_str(), failure.blame),
            ("no route", expected)
        );
        let wait = Duration::from_secs(7);
        for error in [
            JobError::retry_after(wait, JobError::dependency("other:a", "busy")),
            JobError::dependency("other:a", JobError::retry_after(wait, "busy")),
        ] {
            let Outcome::Failed(failure) = outcome(error) else {
                unreachable!("a failed attempt")
            };
            let blame = failure.blame.map(|blame| (blame.resource, blame.connect));
            assert_eq!(blame, Some(("other:a".to_owned(), false)));
            assert_eq!(failure.retry_after, Some(wait));
        }
        assert_eq!(laid(outcome("its own")), None);
        assert_eq!(
            laid(outcome(JobError::snooze(wait, bank().to_string()))),
            None
        );
    }

    #[test]
    fn the_errors_of_apalis_mean_what_they_mean_there() {
        assert_eq!(
            outcome(AbortError::new("no")),
            Outcome::fatal("AbortError: no")
        );
        let wait = Duration::from_secs(7);
        let Outcome::Failed(failure) = outcome(RetryAfterError::new("busy", wait)) else {
            unreachable!("a failed attempt")
        };
        assert_eq!(failure.retry_after, Some(wait));
        assert_eq!(
            outcome(DeferredError::new("later")),
            snoozed(DEFERRED, "DeferredError: later")
        );
        let missing = MissingDataError::NotFound("Pool".to_owned());
        assert!(matches!(outcome(missing), Outcome::Fatal(f) if f.message.contains("Pool")));
    }
}
