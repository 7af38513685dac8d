//! What is done once before a known peak: connections are opened, and jobs that asked for it are enqueued.

use super::Forecaster;
use crate::catalog::JobSpec;
use crate::clock;
use crate::policy::forecast::{Peak, slot_at, slot_start_ms};
use crate::queue::operate::Enqueued;
use crate::queue::schedules::peak_id;
use crate::runner::QueueContext;
use crate::telemetry::events::{self, WarmUp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long opening connections ahead may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// Peaks that begin within an hour of each other are the same one. All daemons of a fleet must say so.
const SAME: u64 = 12;
/// How long it waits after something failed.
const RETRY_MS: u64 = 15_000;
/// How often the pool is looked at until the peak is over: connections that nobody uses are closed after a while.
const LOOK_MS: u64 = 60_000;

/// What was prepared for.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The last peak.
    peak: Option<Peak>,
    /// By our own clock.
    not_before_ms: u64,
}

impl Prepared {
    fn is_new(&self, peak: &Peak) -> bool {
        let same = |last: Peak| last.start.abs_diff(peak.start) <= SAME;
        !self.peak.is_some_and(same)
    }

    /// Whether the pool is to be looked at for a peak that was prepared for.
    fn is_looked_after(&self, now_ms: u64) -> bool {
        let lasts = |peak: Peak| slot_at(now_ms) < peak.end;
        self.peak.is_some_and(lasts)
    }
}

impl Forecaster {
    /// Prepares for a peak that is near, once, and only while all is well.
    pub(super) async fn prepare(&mut self, now_ms: u64) {
        if self.epoch.now_ms() < self.prepared.not_before_ms {
            return;
        }
        let peak = self
            .outlook
            .as_ref()
            .and_then(|o| o.near_peak(slot_at(now_ms)));
        let peak = peak.filter(|p| self.prepared.is_new(p));
        let looks = self.acts() && self.prepared.is_looked_after(now_ms);
        if (peak.is_none() && !looks) || self.unwell().is_some() {
            return;
        }
        let done = match &peak {
            Some(peak) => self.prepare_for(peak, now_ms).await,
            None => self.open_connections(now_ms).await.map(drop),
        };
        match done {
            Ok(()) => {
                self.prepared.peak = peak.or(self.prepared.peak);
                self.prepared.not_before_ms = self.epoch.now_ms() + LOOK_MS;
            }
            Err(e) => {
                events::forecast_failed("before a known peak", &e);
                self.prepared.not_before_ms = self.epoch.now_ms() + RETRY_MS;
            }
        }
    }

    async fn prepare_for(&self, peak: &Peak, now_ms: u64) -> Result<(), String> {
        let mut start = peak.start;
        if self.acts() {
            let agreed = self.desk.history.agree_on_peak(start).await;
            start = agreed.map_err(|e| e.to_string())?;
        }
        let peak_ms = slot_start_ms(start);
        self.warm(peak_ms).await?;
        if let Some(open) = self.open_connections(now_ms).await? {
            events::forecast_pool(open, peak_ms, !self.acts());
        }
        Ok(())
    }

    /// Opens as many connections as slots will want one; how many there are then, if there were fewer.
    async fn open_connections(&self, now_ms: u64) -> Result<Option<u32>, String> {
        let Some(database) = &self.desk.database else {
            return Ok(None);
        };
        let pool = database.gauges();
        let most = self.wanted(now_ms).unwrap_or(0).min(self.stance.slots());
        let wanted = u32::try_from(most).unwrap_or(u32::MAX).min(pool.max);
        if wanted <= pool.size {
            return Ok(None);
        }
        if !self.acts() {
            return Ok(Some(wanted));
        }
        // What is open by then stays; a slow server must not keep slots raised that health wants back.
        let open = tokio::time::timeout(OPEN_DEADLINE, database.open_ahead(wanted)).await;
        match open {
            Ok(open) => open
                .map(Some)
                .map_err(|e| format!("opening connections: {e}")),
            Err(_) => Err("opening connections takes too long".to_owned()),
        }
    }

    /// Enqueues a job of each kind that is to run before a peak. The id is the same for all daemons, so there is one.
    async fn warm(&self, peak_ms: u64) -> Result<(), String> {
        let registry = self.desk.shared.registry.load_full();
        for context in &self.desk.queues {
            let its = |spec: &&Arc<JobSpec>| spec.before_peak && spec.queue == context.queue.name;
            for spec in registry.catalog.iter().filter(its) {
                self.warm_by(context, spec, peak_ms).await?;
            }
        }
        Ok(())
    }

    async fn warm_by(
        &self,
        context: &QueueContext,
        spec: &JobSpec,
        peak_ms: u64,
    ) -> Result<(), String> {
        let id = peak_id(&spec.kind, peak_ms);
        let mut created = false;
        if self.acts() {
            let envelope = json!({
                "kind": spec.kind, "id": id, "queue": spec.queue, "enqueued_at": clock::unix_ms(),
                "ttl_ms": self.desk.config.forecast.warm_ttl.as_millis() as u64, "meta": {"before_peak": clock::rfc3339(peak_ms)},
            });
            let envelope = envelope.to_string().into_bytes();
            let answer = context.queue.enqueue(&[(&id, envelope)]).await;
            let answer = answer.map_err(|e| format!("enqueueing {}: {e}", spec.kind))?;
            created = answer.first().is_some_and(|a| *a == Enqueued::Created);
        }
        events::forecast_warm(WarmUp {
            kind: &spec.kind,
            queue: &spec.queue,
            job_id: &id,
            peak_ms,
            created,
            shadow: !self.acts(),
        });
        Ok(())
    }
}
