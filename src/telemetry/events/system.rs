//! What happens to queues, dependencies and the daemon itself.

use super::whole_ms;
use crate::telemetry::alerts::{Alert, AlertName};
use crate::telemetry::clip;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// This daemon was given up for dead: its work of this queue is stopped, and belongs to others.
pub fn lease_lost(queue: &str, incarnation: &str, running: usize) {
    error!(
        event = "lease_lost",
        queue, incarnation, running, "lease lost: running jobs are stopped"
    );
}

/// Jobs of a dead daemon were returned to their queue.
pub fn recovered(queue: &str, incarnation: &str, jobs: usize) {
    warn!(
        event = "recovered",
        queue, incarnation, jobs, "jobs of a dead daemon returned"
    );
}

/// What a circuit breaker did.
#[derive(Debug, Clone, Copy)]
pub struct BreakerChange<'a> {
    /// The handler whose calls it watches.
    pub handler: &'a str,
    /// The resource it guards.
    pub resource: &'a str,
    /// The state left: closed, open, half_open, ramping.
    pub from: &'a str,
    /// The state entered.
    pub to: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Who decided: this daemon alone (`local`), all together (`fleet`), or an `operator`.
    pub scope: &'a str,
}

/// A circuit breaker changed its state; opening and closing are alerts, the steps between are not.
#[must_use = "hand the alert to Alerts::raise"]
pub fn breaker(change: BreakerChange<'_>) -> Option<Alert> {
    macro_rules! tell {
        ($level:ident $(, $alert:ident)?) => {
            telling!(
                $level,
                "breaker",
                change { handler, resource, from, to, reason, scope },
                $(alert = $alert.as_str(),)?
                "breaker"
            )
        };
    }
    let alert = match change.to {
        "open" => AlertName::BreakerOpen,
        "closed" => AlertName::BreakerClosed,
        _ => {
            tell!(info);
            return None;
        }
    };
    tell!(warn, alert);
    let subject = format!("{} {}", change.handler, change.resource);
    let message = format!("{} to {}: {}", change.from, change.to, change.reason);
    Some(Alert::new(alert, &subject, &message))
}

/// What a limiter did.
#[derive(Debug, Clone, Copy)]
pub struct LimiterChange<'a> {
    /// The handler of the operation.
    pub handler: &'a str,
    /// Its resource.
    pub resource: &'a str,
    /// The limit there was.
    pub from: usize,
    /// The limit there is.
    pub to: usize,
    /// Why.
    pub reason: &'a str,
    /// The wait each job seems to have had within the resource, milliseconds, if it was that.
    pub wait_ms: Option<f64>,
    /// Whether it is in force, or only what would be done.
    pub shadow: bool,
    /// Whether it holds jobs back; that a limit rises, or is low for a moment to measure, is for who looks closely.
    pub holds_back: bool,
}

/// A limiter changed the limit of an operation.
pub fn limiter(change: LimiterChange<'_>) {
    macro_rules! tell {
        ($level:ident) => {
            telling!(
                $level,
                "limiter",
                change {
                    handler,
                    resource,
                    from,
                    to,
                    reason,
                    wait_ms,
                    shadow
                },
                "limiter"
            )
        };
    }
    if change.holds_back {
        tell!(info);
    } else {
        tell!(debug);
    }
}

/// The breakers of this daemon decide by themselves while Redis can't be reached, or together with others again.
pub fn breakers_shared(shared: bool) {
    let message = match shared {
        true => "breakers are shared with other daemons again",
        false => "Redis does not answer: breakers decide by what this daemon sees alone",
    };
    info!(event = "breakers_shared", shared, "{message}");
}

/// What the gate did.
#[derive(Debug, Clone, Copy)]
pub struct GateChange<'a> {
    /// The resource under pressure, or relieved.
    pub resource: &'a str,
    /// The state left: ok, elevated, overloaded, critical.
    pub from: &'a str,
    /// The state entered.
    pub to: &'a str,
    /// The signal that decided.
    pub signal: &'a str,
    /// Its value, in the signal's unit; none if it is missing.
    pub value: Option<f64>,
    /// Whether the gate acts on it, or only says what it would do.
    pub shadow: bool,
}

/// The gate changed a resource's state.
#[must_use = "hand the alert to Alerts::raise"]
pub fn gate(change: GateChange<'_>) -> Alert {
    let value = change
        .value
        .map_or_else(|| "missing".to_owned(), |v| v.to_string());
    let message = format!(
        "{} to {}: {} is {value}",
        change.from, change.to, change.signal
    );
    alerting!(
        warn,
        "gate",
        GateState,
        change.resource,
        &message,
        resource = change.resource,
        from = change.from,
        to = change.to,
        signal = change.signal,
        value = change.value,
        shadow = change.shadow,
        "gate"
    )
}

/// A queue's oldest waiting job is older than its objective.
#[must_use = "hand the alert to Alerts::raise"]
pub fn queue_lag(queue: &str, oldest_age: Duration, objective: Duration) -> Alert {
    let (oldest_age_ms, objective_ms) = (whole_ms(oldest_age), whole_ms(objective));
    let message =
        format!("oldest job waits for {oldest_age_ms} ms, the objective is {objective_ms} ms");
    alerting!(
        warn,
        "queue_lag",
        QueueLag,
        queue,
        &message,
        queue,
        oldest_age_ms,
        objective_ms,
        "the oldest waiting job is older than the queue's objective"
    )
}

/// Ticks of a schedule that were missed, and what became of them.
#[derive(Debug, Clone, Copy)]
pub struct MissedTicks<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The schedule.
    pub schedule: &'a str,
    /// The oldest of them, unix ms.
    pub oldest_ms: u64,
    /// How late that one is.
    pub late: Duration,
    /// How many are served.
    pub served: u64,
    /// How many are not served.
    pub passed_over: u64,
}

/// Ticks of a schedule were missed: served late, or not at all.
#[must_use = "hand the alert to Alerts::raise"]
pub fn schedule_missed(missed: MissedTicks<'_>) -> Alert {
    let late_ms = whole_ms(missed.late);
    let oldest = crate::clock::rfc3339(missed.oldest_ms);
    let message = format!(
        "missed since {oldest}, {late_ms} ms ago: {} served, {} passed over",
        missed.served, missed.passed_over
    );
    alerting!(
        warn,
        "schedule_missed",
        ScheduleMissed,
        missed.schedule,
        &message,
        queue = missed.queue,
        schedule = missed.schedule,
        oldest,
        late_ms,
        served = missed.served,
        passed_over = missed.passed_over,
        "ticks of a schedule were missed"
    )
}

/// Redis is configured so that jobs can be lost.
#[must_use = "hand the alert to Alerts::raise"]
pub fn redis_unsafe(setting: &str, problem: &str) -> Alert {
    alerting!(
        warn,
        "redis_unsafe",
        RedisUnsafe,
        setting,
        problem,
        setting,
        problem,
        "Redis can lose jobs"
    )
}

/// Redis does not answer any more.
#[must_use = "hand the alert to Alerts::raise"]
pub fn redis_lost(error: &str) -> Alert {
    let error = clip(error);
    alerting!(
        error,
        "redis_lost",
        RedisLost,
        "redis",
        error,
        error,
        "Redis does not answer"
    )
}

/// Redis answers again.
#[must_use = "hand the alert to Alerts::raise"]
pub fn redis_back(down: Duration) -> Alert {
    let down_ms = whole_ms(down);
    let message = format!("was away for {down_ms} ms");
    alerting!(
        warn,
        "redis_back",
        RedisBack,
        "redis",
        &message,
        down_ms,
        "Redis answers again"
    )
}

/// Redis counts fewer entries taken in than it did: what came between is gone, and so may be more.
#[must_use = "hand the alert to Alerts::raise"]
pub fn redis_rolled_back(queue: &str, known: u64, found: u64) -> Alert {
    let message = format!("{known} entries had been taken in, and Redis counts {found}");
    alerting!(
        error,
        "redis_rolled_back",
        RedisRolledBack,
        queue,
        &message,
        queue,
        known,
        found,
        "Redis lost writes: jobs may be gone"
    )
}

/// The auditor put something right that should never go wrong: a bug.
#[must_use = "hand the alert to Alerts::raise"]
pub fn audit_repair(queue: &str, what: &str, count: u64) -> Alert {
    alerting!(
        error,
        "audit_repair",
        AuditRepair,
        queue,
        &format!("{what}: {count}"),
        queue,
        what,
        count,
        "the auditor repaired a queue"
    )
}

/// Dead jobs or quarantined entries gave way before an operator may have seen them: a cap was reached.
#[must_use = "hand the alert to Alerts::raise"]
pub fn retention_dropped(queue: &str, what: &'static str, count: u64) -> Alert {
    let message = format!("{count} of the oldest {what} gave way to newer ones");
    alerting!(
        warn,
        "retention_dropped",
        RetentionDropped,
        queue,
        &message,
        queue,
        what,
        count,
        "more than the cap: the oldest gave way"
    )
}

/// Groups were forgotten that were not complete: members they waited for had not come for long, or there were too many.
pub fn groups_dropped(queue: &str, count: u64, first: &str) {
    let first = clip(first);
    warn!(
        event = "groups_dropped",
        queue, count, first, "incomplete groups forgotten: what would follow them never will"
    );
}

/// A queue remembers more ids than it should. None is forgotten for that.
#[must_use = "hand the alert to Alerts::raise"]
pub fn ids_many(queue: &str, ids: u64, limit: u64) -> Alert {
    let message = format!("{ids} ids are remembered, the limit is {limit}");
    alerting!(
        warn,
        "ids_many",
        IdsMany,
        queue,
        &message,
        queue,
        ids,
        limit,
        "more remembered ids than the limit: a shorter dedupe.window needs less memory"
    )
}

/// New configuration or job definitions were refused; the old ones stay.
#[must_use = "hand the alert to Alerts::raise"]
pub fn reload_failed(error: &str) -> Alert {
    let error = clip(error);
    alerting!(
        error,
        "reload_failed",
        ReloadFailed,
        "configuration",
        error,
        error,
        "reload refused, the old configuration stays"
    )
}
