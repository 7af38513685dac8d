//! Compares the counts of a queue at an interval, and has it swept when they do not fit twice in a row. One daemon at a time
//! does it. Whatever it repairs is a bug, and told of as one.

use crate::clock;
use crate::queue::QueueError;
use crate::queue::audit::{Findings, KnownFlows, Options};
use crate::runner::{QueueContext, heal};
use crate::telemetry::events;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The pause between two steps of a sweep, so that jobs have the server.
const PACE: Duration = Duration::from_millis(2);
/// Intervals after which another daemon takes over from one that went silent.
const LEASE_INTERVALS: u32 = 3;
/// Looks after which a difference that no sweep explained is swept for again, or that could not be counted in one instant.
const PATIENCE: u32 = 30;
/// How often a queue is swept even if its counts fit: two faults may make up for each other.
const FULL: Duration = Duration::from_secs(86_400);
/// How often what is kept beside jobs is gone through: no count tells of ties, groups and slots.
const BONDS: Duration = Duration::from_secs(3_600);

/// Audits one queue until `stop`.
pub async fn run(context: Arc<QueueContext>, interval: Duration, stop: CancellationToken) {
    let mut auditor = Auditor {
        who: uuid::Uuid::new_v4().to_string(),
        lease: interval * LEASE_INTERVALS,
        flows: KnownFlows::default(),
        seen: Seen::default(),
        swept: clock::monotonic(),
        // In good time after a start: whoever restarts more often is to be audited too.
        bonds_due: clock::monotonic() + interval,
        context,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            looked = auditor.look() => match looked {
                Ok(()) => {}
                // Nobody else may meet the key of a slot that is idle.
                Err(QueueError::WrongType(_)) => heal(&auditor.context).await,
                Err(e) => tracing::debug!(queue = &*auditor.context.queue.name, error = %e, "not audited"),
            }
        }
    }
}

/// What the looks until now showed.
#[derive(Default)]
struct Seen {
    /// Looks in a row that showed a difference, or could not be counted.
    wrong: u32,
    uncounted: u32,
    /// What was left when all had been repaired.
    residue: Option<i64>,
}

struct Auditor {
    context: Arc<QueueContext>,
    who: String,
    lease: Duration,
    flows: KnownFlows,
    seen: Seen,
    swept: Instant,
    bonds_due: Instant,
}

impl Auditor {
    async fn look(&mut self) -> Result<(), QueueError> {
        let queue = &self.context.queue;
        if !queue.lead_audit(&self.who, self.lease).await? {
            self.seen = Seen::default();
            return Ok(());
        }
        let registry = self.context.shared.registry.load_full();
        self.flows.add(&registry.catalog);
        let due = match queue.tally(&mut self.flows).await? {
            Some(tally) => self
                .seen
                .counted(tally.mismatch(), !tally.unlisted.is_empty()),
            None => {
                self.flows = KnownFlows::default();
                self.seen.not_counted()
            }
        };
        let options = Options {
            repair: true,
            pace: PACE,
        };
        let now = clock::monotonic();
        if !due && clock::since(self.swept) < FULL {
            if now < self.bonds_due {
                return Ok(());
            }
            let findings = queue.sweep_bonds(&registry.catalog, options).await?;
            // Once more at the next look if it failed.
            self.bonds_due = now + BONDS;
            self.tell(&findings);
            return Ok(());
        }
        self.swept = now;
        self.bonds_due = now + BONDS;
        let findings = queue.sweep(&registry.catalog, options).await?;
        self.tell(&findings);
        let left = queue.tally(&mut self.flows).await?;
        let left = left.map_or(0, |tally| tally.mismatch());
        self.seen = Seen {
            residue: (left != 0).then_some(left),
            ..Seen::default()
        };
        if left != 0 {
            tracing::warn!(
                event = "audit_residue",
                queue = &*queue.name,
                mismatch = left,
                "the counts of the queue do not fit, and a sweep did not find out why"
            );
        }
        Ok(())
    }

    fn tell(&self, findings: &Findings) {
        if !findings.is_empty() {
            self.context.nudge();
        }
        let shared = &self.context.shared;
        let name = &self.context.queue.name;
        for finding in findings.iter() {
            let examples = finding.examples.join(", ");
            let what = format!("{} ({examples})", finding.damage.words());
            let alert = events::audit_repair(name, &what, finding.count);
            shared.alerts.raise(alert);
            shared.metrics.audit_repairs(name, finding.count);
        }
    }
}

impl Seen {
    /// Whether a sweep is due now that the counts differ by so much.
    fn counted(&mut self, mismatch: i64, unlisted: bool) -> bool {
        self.uncounted = 0;
        let whole = mismatch == 0 && !unlisted;
        self.wrong = if whole { 0 } else { self.wrong + 1 };
        if whole {
            self.residue = None;
        }
        let known = !unlisted && self.residue == Some(mismatch);
        self.wrong >= if known { PATIENCE } else { 2 }
    }

    /// Whether a sweep is due now that there was too much to count in one instant.
    fn not_counted(&mut self) -> bool {
        self.uncounted += 1;
        self.uncounted >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn a_sweep_is_due_when_counts_differ_twice_in_a_row() {
        let mut seen = Seen::default();
        assert!(!seen.counted(3, false));
        assert!(!seen.counted(0, false));
        assert!(!seen.counted(-1, false));
        assert!(seen.counted(2, false));
        let mut seen = Seen::default();
        assert!(!seen.counted(0, true));
        assert!(seen.counted(0, true));
    }

    #[test]
    fn what_a_sweep_could_not_explain_is_swept_for_rarely() {
        let mut seen = Seen {
            residue: Some(1),
            ..Seen::default()
        };
        let due = (1..=60).find(|_| seen.counted(1, false));
        assert_eq!(due, Some(super::PATIENCE));
        let mut seen = Seen {
            residue: Some(1),
            ..Seen::default()
        };
        assert!(!seen.counted(1, false));
        assert!(seen.counted(2, false), "something else");
    }

    #[test]
    fn a_queue_too_large_to_count_is_swept_now_and_then() {
        let mut seen = Seen::default();
        let due = (1..=60).find(|_| seen.not_counted());
        assert_eq!(due, Some(super::PATIENCE));
    }
}
