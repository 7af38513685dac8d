//! What is to become of a job, from what its handler said: the one exhaustive match over outcomes. Pure.

use crate::job::ties::outcome as outcome_json;
use crate::job::{Failure, History, Outcome};
use crate::policy::retry::{Decision, MAX_DELAY};
use crate::queue::Delivery;
use crate::queue::settle::{Ending, Record};
use crate::queue::ties::{Notice, next_step};
use std::time::Duration;

/// The ending of a delivery. `now_ms` is for records; `unit` is random in [0, 1), for jitter.
#[must_use]
pub fn ending_of(
    delivery: &Delivery,
    outcome: &Outcome,
    took: Duration,
    now_ms: u64,
    unit: f64,
) -> Ending {
    match outcome {
        Outcome::Done(_) => finished(delivery, "done", "completed", took, now_ms),
        Outcome::Cancelled => finished(delivery, "cancelled", "cancelled", took, now_ms),
        Outcome::Failed(failure) => failed(delivery, failure, now_ms, unit),
        Outcome::Fatal(failure) => Ending::Dead {
            history: with_failure(delivery, failure, now_ms),
            given: delivery.given,
            counter: "dead",
        },
        Outcome::Snooze { after, .. } => {
            let mut history = delivery.history.clone().unwrap_or_default();
            history.snoozes = history.snoozes.saturating_add(1);
            Ending::Later {
                delay: (*after).min(MAX_DELAY),
                history,
                counter: "snoozed",
            }
        }
        Outcome::Interrupted { .. } => Ending::HandedBack {
            flow: delivery.flow(),
            history: None,
            counter: "handed_back",
        },
    }
}

/// What others are told of a delivery that ended like this: who waits for it, and what follows it.
#[must_use]
pub fn notice_of(delivery: &Delivery, outcome: &Outcome, ending: &Ending, now_ms: u64) -> Notice {
    let follows = delivery.then.as_deref();
    if !delivery.tied && follows.is_none() {
        return Notice::default();
    }
    let job = &delivery.job;
    let tell =
        |state, result, error| outcome_json(&job.id, &job.kind, state, now_ms, result, error);
    let (text, follow) = match (outcome, ending) {
        (Outcome::Done(result), Ending::Finished { .. }) => {
            let text = tell("done", result.as_ref(), None);
            let workflow = delivery.workflow.as_ref();
            let follow = follows.map(|then| next_step(then, &job.id, workflow, &text));
            (text, follow)
        }
        (_, Ending::Finished { .. }) => (tell("cancelled", None, None), None),
        (_, Ending::Dead { history, .. }) => {
            let error = history.errors.last().map(|e| e.error.as_str());
            (tell("dead", None, error), None)
        }
        _ => return Notice::default(),
    };
    Notice {
        outcome: delivery.tied.then_some(text),
        result: delivery.keeps_result,
        follow,
    }
}

fn failed(delivery: &Delivery, failure: &Failure, now_ms: u64, unit: f64) -> Ending {
    let decision = delivery.spec.retry.decide(
        delivery.job.attempt,
        Some(delivery.job.max_attempts),
        &failure.message,
        failure.retry_after,
        unit,
    );
    let history = with_failure(delivery, failure, now_ms);
    match decision {
        Decision::RetryIn(delay) => Ending::Later {
            delay,
            history,
            counter: "retried",
        },
        Decision::Dead { .. } => Ending::Dead {
            history,
            given: delivery.given,
            counter: "dead",
        },
    }
}

fn with_failure(delivery: &Delivery, failure: &Failure, now_ms: u64) -> History {
    let mut history = delivery.history.clone().unwrap_or_default();
    history.fail(now_ms, &failure.message);
    history
}

fn finished(
    delivery: &Delivery,
    state: &'static str,
    counter: &'static str,
    took: Duration,
    now_ms: u64,
) -> Ending {
    let job = &delivery.job;
    let record = Record {
        id: job.id.as_str(),
        kind: &job.kind,
        priority: job.priority,
        state,
        attempts: job.attempt,
        at_ms: now_ms,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    Ending::Finished {
        record: record.encode(delivery.history.as_ref()),
        counter,
        given: delivery.given,
        history: delivery.history.is_some(),
    }
}
