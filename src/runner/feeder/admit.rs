//! Taking new jobs in.

use super::Feeder;
use crate::clock::{self, ServerClock};
use crate::job::JobId;
use crate::queue::admit::{PEEK_ENTRIES, judge};
use crate::queue::{Admission, Peeked, QueueError, Verdict};
use crate::runner::context::QueueContext;
use crate::telemetry::events;
use crate::telemetry::metrics::UNKNOWN_KIND;
use std::sync::Arc;

impl Feeder {
    /// Admits what was peeked, claims, and peeks again, all in one round trip.
    pub(super) async fn admit_and_claim(
        &mut self,
        incarnation: &Arc<str>,
        peeked: Peeked,
    ) -> Result<(), QueueError> {
        self.redis_clock = ServerClock::at(peeked.now_ms);
        let registry = self.context.shared.registry.load_full();
        let verdicts: Vec<Verdict> = peeked
            .entries
            .iter()
            .map(|raw| {
                judge(
                    raw,
                    &self.context.queue.name,
                    &registry.catalog,
                    peeked.now_ms,
                    rand::random(),
                )
            })
            .collect();
        self.learn(&verdicts, peeked.now_ms);
        let context = Arc::clone(&self.context);
        let more = peeked.entries.len() >= PEEK_ENTRIES;
        let (admitted, claimed, next) = tokio::join!(
            context.queue.admit(incarnation, &peeked, &verdicts),
            self.claim(incarnation),
            async {
                if more {
                    context.queue.peek().await.map(Some)
                } else {
                    Ok(None)
                }
            }
        );
        match admitted? {
            Admission::Done {
                duplicates,
                set_aside,
                ..
            } => {
                self.claim_came_first(&verdicts, peeked.now_ms);
                report_admission(&self.context, &verdicts, &duplicates, &set_aside)
            }
            Admission::Moved => self.next_look = clock::monotonic(),
        }
        claimed?;
        self.inbox = next?.filter(|peeked| !peeked.entries.is_empty());
        Ok(())
    }

    /// The two calls may overtake each other, when a script had to be sent anew: then the claim found flows empty that
    /// hold jobs since.
    fn claim_came_first(&mut self, verdicts: &[Verdict], now_ms: u64) {
        for verdict in verdicts {
            if let Verdict::Ready { flow, .. } = verdict
                && self.found_empty.contains(flow)
            {
                self.heads.arrived(flow, now_ms);
            }
        }
    }

    /// What the verdicts say about flows and due times, before Redis confirms it: a claim that finds less does no harm.
    fn learn(&mut self, verdicts: &[Verdict], now_ms: u64) {
        for verdict in verdicts {
            match verdict {
                Verdict::Ready { flow, .. } => self.heads.arrived(flow, now_ms),
                Verdict::Delayed { due_ms, .. } => {
                    self.next_due_ms = Some(self.next_due_ms.map_or(*due_ms, |d| d.min(*due_ms)));
                }
                Verdict::Rejected { .. } => {}
            }
        }
    }
}

fn report_admission(
    context: &QueueContext,
    verdicts: &[Verdict],
    duplicates: &[usize],
    set_aside: &[usize],
) {
    // What can't be a job has no kind of the catalogue to be counted under.
    let unknown = context.telemetry(&UNKNOWN_KIND.into());
    for (index, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Verdict::Rejected { reject, id, .. } => {
                let id = id.as_ref().map_or("", JobId::as_str);
                events::job_quarantined(&context.queue.name, id, &reject.to_string());
                unknown.metrics.quarantined(1);
            }
            Verdict::Ready { id, flow, .. } | Verdict::Delayed { id, flow, .. } => {
                let metrics = &context.telemetry(&flow.kind).metrics;
                if !duplicates.contains(&index) {
                    metrics.enqueued(1);
                } else if set_aside.contains(&index) {
                    let why = "its group, or its id, can't be had: `tidegate quarantine list`";
                    events::job_quarantined(&context.queue.name, id.as_str(), why);
                    metrics.quarantined(1);
                } else {
                    tracing::debug!(queue = &*context.queue.name, job_id = %id, "another job stands for it, not admitted");
                }
            }
        }
    }
}
