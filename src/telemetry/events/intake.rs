//! What happens to the outbox and to bridges. A source is `outbox` or `bridge <name>`.

use super::whole_ms;
use crate::telemetry::alerts::{Alert, AlertName};
use crate::telemetry::clip;
use std::time::Duration;
use tracing::{error, warn};

/// A source could not be read, or its jobs not be handed over. It is tried again.
pub fn intake_failed(source: &str, error: &str) {
    let error = clip(error);
    warn!(
        event = "intake_failed",
        source, error, "jobs can't be taken in now: nothing is lost, it is tried again"
    );
}

/// A source has been failing for a while.
#[must_use = "hand the alert to Alerts::raise"]
pub fn intake_lost(source: &str, error: &str) -> Alert {
    let error = clip(error);
    alerting!(
        error,
        "intake_lost",
        IntakeLost,
        source,
        error,
        source,
        error,
        "jobs can't be taken in"
    )
}

/// A source works again.
#[must_use = "hand the alert to Alerts::raise"]
pub fn intake_back(source: &str, down: Duration) -> Alert {
    let down_ms = whole_ms(down);
    warn!(
        event = "intake_back",
        source, down_ms, "jobs are taken in again"
    );
    let message = format!("was failing for {down_ms} ms");
    Alert::new(AlertName::IntakeBack, source, &message)
}

/// A task of a bridge has no payload any more: somebody removed it, and there is nothing to hand over.
pub fn intake_orphan(source: &str, task: &str) {
    let task = clip(task);
    warn!(
        event = "intake_orphan",
        source, task, "a task without a payload, dropped"
    );
}

/// What came from a source can't be a job and is set aside there.
#[must_use = "hand the alert to Alerts::raise"]
pub fn intake_rejected(source: &str, count: u64, first: &str) -> Alert {
    let first = clip(first);
    let message = format!("{count} set aside; the first: {first}");
    alerting!(
        error,
        "intake_rejected",
        IntakeRejected,
        source,
        &message,
        source,
        count,
        first,
        "can't be jobs, set aside"
    )
}
