//! When a daemon is ready: every claim loop has looked at its queue of late, and Redis answers. Pure.
//!
//! An old backlog does not make a daemon unready (it is what the daemon is there for), but it is told.

use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// How things stand, as the daemon knows it.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Whether Redis answered when it was last asked.
    pub redis_answers: bool,
    /// Whether the daemon is stopping and takes no new work.
    pub stopping: bool,
    /// A claim loop that has not looked for longer than this is stuck: three polls and the deadline of a command.
    pub look_limit: Duration,
    /// The queues this daemon serves.
    pub queues: Vec<QueueReadiness>,
}

/// One queue.
#[derive(Debug, Clone)]
pub struct QueueReadiness {
    /// Its name.
    pub name: Arc<str>,
    /// How long ago its claim loop last looked; none if it never did.
    pub last_look: Option<Duration>,
    /// How long its oldest waiting job has waited; none if nothing waits.
    pub oldest_age: Option<Duration>,
    /// The age at which somebody is alerted.
    pub objective: Duration,
}

/// The body of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    /// Why it is not.
    reasons: Vec<String>,
    queues: Vec<QueueReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct QueueReport {
    name: Arc<str>,
    last_look_ms_ago: Option<u64>,
    oldest_age_ms: Option<u64>,
    objective_ms: u64,
    late: bool,
}

impl Readiness {
    pub(super) fn judge(&self) -> Report {
        let mut reasons = Vec::new();
        if self.stopping {
            reasons.push("stopping".to_owned());
        }
        if !self.redis_answers {
            reasons.push("redis does not answer".to_owned());
        }
        if self.queues.is_empty() {
            reasons.push("no queue is served yet".to_owned());
        }
        for queue in &self.queues {
            match queue.last_look {
                None => reasons.push(format!("{}: not looked at yet", queue.name)),
                Some(ago) if ago > self.look_limit => reasons.push(format!(
                    "{}: last looked at {} ms ago, the limit is {}",
                    queue.name,
                    whole_ms(ago),
                    whole_ms(self.look_limit)
                )),
                Some(_) => {}
            }
        }
        Report {
            ready: reasons.is_empty(),
            reasons,
            queues: self.queues.iter().map(QueueReadiness::report).collect(),
        }
    }
}

impl QueueReadiness {
    fn report(&self) -> QueueReport {
        QueueReport {
            name: Arc::clone(&self.name),
            last_look_ms_ago: self.last_look.map(whole_ms),
            oldest_age_ms: self.oldest_age.map(whole_ms),
            objective_ms: whole_ms(self.objective),
            late: self.oldest_age.is_some_and(|age| age > self.objective),
        }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn with(last_look: Option<Duration>) -> Readiness {
        Readiness {
            redis_answers: true,
            stopping: false,
            look_limit: LIMIT,
            queues: vec![QueueReadiness {
                name: "mail".into(),
                last_look,
                oldest_age: Some(Duration::from_secs(61)),
                objective: Duration::from_secs(60),
            }],
        }
    }

    #[test]
    fn a_recent_look_is_ready_even_with_an_old_backlog() {
        let report = with(Some(LIMIT)).judge();
        assert!(report.ready, "{report:?}");
        assert!(report.queues[0].late);
        assert_eq!(report.queues[0].last_look_ms_ago, Some(5_000));
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        let stuck = with(Some(LIMIT + Duration::from_millis(1))).judge();
        assert_eq!(
            stuck.reasons,
            ["mail: last looked at 5001 ms ago, the limit is 5000"]
        );
        assert!(!with(None).judge().ready);
        let mut both = with(Some(Duration::ZERO));
        both.redis_answers = false;
        both.stopping = true;
        assert_eq!(both.judge().reasons, ["stopping", "redis does not answer"]);
        both.queues.clear();
        assert!(
            both.judge()
                .reasons
                .contains(&"no queue is served yet".to_owned())
        );
    }
}
