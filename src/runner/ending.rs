//! What is to become of a job, from what its handler said: the one exhaustive match over outcomes. Pure.

use crate::job::ties::outcome as outcome_json;
use crate::job::{Event, Failure, History, Outcome, What};
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
        Outcome::Done(_) => finished(delivery, What::Done, took, now_ms),
        Outcome::Cancelled => finished(delivery, What::Cancelled, took, now_ms),
        Outcome::Failed(failure) => failed(delivery, failure, now_ms, unit),
        Outcome::Fatal(failure) => dead(delivery, with_failure(delivery, failure, now_ms), now_ms),
        Outcome::Snooze { after, reason } => {
            let delay = (*after).min(MAX_DELAY);
            let mut history = started(delivery);
            history.snooze(now_ms, after_ms(now_ms, delay), reason);
            Ending::Later {
                delay,
                history: Box::new(history),
                counter: "snoozed",
            }
        }
        Outcome::Interrupted { reason } => Ending::HandedBack {
            flow: delivery.flow.clone(),
            // Nothing is wrong with a job whose daemon was stopped.
            history: is_kept(delivery).then(|| {
                let mut history = started(delivery);
                history.push(Event::new(now_ms, What::HandedBack).note(reason));
                Box::new(history)
            }),
            counter: "handed_back",
        },
        // It may take days, so that people ask: this is always kept.
        Outcome::Yielded { reason } => {
            let mut history = started(delivery);
            history.push(Event::new(now_ms, What::HandedBack).note(reason));
            Ending::HandedBack {
                flow: delivery.flow.clone(),
                history: Some(Box::new(history)),
                counter: "yielded",
            }
        }
    }
}

/// What others are told of a delivery that ended like this: who waits for it, and what follows it.
#[must_use]
pub fn notice_of(delivery: &Delivery, outcome: &Outcome, ending: &Ending, now_ms: u64) -> Notice {
    let follows = delivery.then.as_deref();
    // Without a result its ending says it all to who asks while it runs.
    if !delivery.tied && follows.is_none() && !matches!(outcome, Outcome::Done(Some(_))) {
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
    let (outcome, late) = if delivery.tied {
        (Some(text), None)
    } else {
        (None, Some(text))
    };
    Notice {
        outcome,
        late,
        result: delivery.keeps_result,
        follow,
    }
}

/// Whether what happens to this job is kept even when all goes well.
fn is_kept(delivery: &Delivery) -> bool {
    delivery.history.is_some() || delivery.spec.history.full
}

/// The history up to the start of this delivery.
fn started(delivery: &Delivery) -> History {
    let job = &delivery.job;
    let mut history = delivery.history.clone().unwrap_or_else(|| {
        History::of(&job.kind, job.priority).begun(delivery.enqueued_ms, delivery.ready_ms)
    });
    history.key.clone_from(&delivery.flow.key);
    let daemon = job.token.split(':').next().unwrap_or_default();
    history.push(
        Event::new(delivery.claimed_ms, What::Started)
            .attempt(job.attempt)
            .by(daemon),
    );
    history
}

fn dead(delivery: &Delivery, mut history: History, now_ms: u64) -> Ending {
    history.push(Event::new(now_ms, What::Dead));
    Ending::Dead {
        history: Box::new(history),
        given: delivery.given,
        counter: "dead",
    }
}

fn after_ms(now_ms: u64, delay: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

fn failed(delivery: &Delivery, failure: &Failure, now_ms: u64, unit: f64) -> Ending {
    let decision = delivery.spec.retry.decide(
        delivery.job.attempt,
        Some(delivery.job.max_attempts),
        &failure.message,
        failure.retry_after,
        unit,
    );
    let mut history = with_failure(delivery, failure, now_ms);
    match decision {
        Decision::RetryIn(delay) => {
            history.retry_at(after_ms(now_ms, delay));
            Ending::Later {
                delay,
                history: Box::new(history),
                counter: "retried",
            }
        }
        Decision::Dead { .. } => dead(delivery, history, now_ms),
    }
}

fn with_failure(delivery: &Delivery, failure: &Failure, now_ms: u64) -> History {
    let mut history = started(delivery);
    history.fail(now_ms, &failure.message);
    history
}

fn finished(delivery: &Delivery, what: What, took: Duration, now_ms: u64) -> Ending {
    let job = &delivery.job;
    let (state, counter) = match what {
        What::Cancelled => ("cancelled", "cancelled"),
        _ => ("done", "completed"),
    };
    let kept = is_kept(delivery) || what == What::Cancelled;
    let history = kept.then(|| {
        let mut history = started(delivery);
        history.push(Event::new(now_ms, what));
        Box::new(history)
    });
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
        record: record.encode(),
        counter,
        given: delivery.given,
        history,
    }
}
