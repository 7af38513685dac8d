//! What an alert is: a stable name, what it is about, and what there is to say.

use crate::clock;
use serde::Serialize;

/// The alerts there are. The names are stable: rules of operators refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertName {
    /// A job failed for good.
    JobDead,
    /// A job is dead because it crashed its daemon too often.
    JobPoison,
    /// A breaker opened.
    BreakerOpen,
    /// A breaker closed.
    BreakerClosed,
    /// The gate changed a resource's state.
    GateState,
    /// Redis is configured so that jobs can be lost.
    RedisUnsafe,
    /// Redis does not answer.
    RedisLost,
    /// Redis answers again.
    RedisBack,
    /// Redis knows less than it did: a flush, a failover that lost writes, an old copy of its data.
    RedisRolledBack,
    /// A queue is older than its objective.
    QueueLag,
    /// Ticks of a schedule were missed, or served late.
    ScheduleMissed,
    /// The auditor repaired something.
    AuditRepair,
    /// Something an operator may have wanted to see gave way to others.
    RetentionDropped,
    /// A queue remembers more ids than it should.
    IdsMany,
    /// A reload was refused.
    ReloadFailed,
    /// Jobs can't be taken in from the outbox or over a bridge.
    IntakeLost,
    /// They can again.
    IntakeBack,
    /// What came from there can't be a job.
    IntakeRejected,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should know.
    Warn,
    /// Somebody should act.
    Error,
}

impl AlertName {
    /// The name in logs and in what is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobDead => "job_dead",
            Self::JobPoison => "job_poison",
            Self::BreakerOpen => "breaker_open",
            Self::BreakerClosed => "breaker_closed",
            Self::GateState => "gate_state",
            Self::RedisUnsafe => "redis_unsafe",
            Self::RedisLost => "redis_lost",
            Self::RedisBack => "redis_back",
            Self::RedisRolledBack => "redis_rolled_back",
            Self::QueueLag => "queue_lag",
            Self::ScheduleMissed => "schedule_missed",
            Self::AuditRepair => "audit_repair",
            Self::RetentionDropped => "retention_dropped",
            Self::IdsMany => "ids_many",
            Self::ReloadFailed => "reload_failed",
            Self::IntakeLost => "intake_lost",
            Self::IntakeBack => "intake_back",
            Self::IntakeRejected => "intake_rejected",
        }
    }

    /// The level of its log event.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::JobDead
            | Self::JobPoison
            | Self::RedisLost
            | Self::RedisRolledBack
            | Self::AuditRepair
            | Self::ReloadFailed
            | Self::IntakeLost
            | Self::IntakeRejected => Severity::Error,
            Self::BreakerOpen
            | Self::BreakerClosed
            | Self::GateState
            | Self::RedisUnsafe
            | Self::RedisBack
            | Self::IntakeBack
            | Self::QueueLag
            | Self::ScheduleMissed
            | Self::RetentionDropped
            | Self::IdsMany => Severity::Warn,
        }
    }
}

/// One alert. Made by the functions of [`crate::telemetry::events`], which have logged it; serializes as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    v: u8,
    /// RFC 3339.
    at: String,
    pub(super) alert: AlertName,
    severity: Severity,
    /// What it is about: a kind, a queue, a resource. Alerts of the same name and subject are alike.
    pub(super) subject: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// Alike alerts that were not sent since the last one that was.
    pub(super) suppressed: u64,
}

impl Alert {
    pub(in crate::telemetry) fn new(alert: AlertName, subject: &str, message: &str) -> Self {
        Self {
            v: 1,
            at: clock::rfc3339(clock::unix_ms()),
            alert,
            severity: alert.severity(),
            subject: subject.to_owned(),
            message: message.to_owned(),
            job_id: None,
            suppressed: 0,
        }
    }

    pub(in crate::telemetry) fn about_job(mut self, id: &str) -> Self {
        self.job_id = Some(id.to_owned());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> AlertName {
        self.alert
    }

    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}
