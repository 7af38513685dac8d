//! Why one job does not run.

use super::super::job::{view, view_around, view_text, waits_since, when};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::Health;
use super::{Reason, Workers, bullets, limits, slots, whereabouts};
use crate::job::{Envelope, Priority};
use crate::queue::Queue;
use crate::queue::home::home_of;
use crate::queue::inspect::{Counts, Found};
use serde_json::json;

/// Explains the job `id`.
///
/// # Errors
/// There is no such job, or Redis failed.
pub(super) async fn explain(store: &Store, id: &str, health: &Health) -> Result<Report, CliError> {
    let (queue, found) = match store.find(id).await {
        Err(CliError::NotFound(message)) => {
            let hints = whereabouts(store).await?;
            return Err(CliError::NotFound(
                format!("{message}\n{hints}").trim_end().to_owned(),
            ));
        }
        other => other?,
    };
    let mut view = view(store, &queue, id, &found, false);
    view_around(&mut view, &queue, id, &found).await?;
    let scene = Scene {
        counts: queue.counts().await?,
        workers: Workers::of(&queue, store).await?,
        store,
        queue,
        found,
    };
    let reasons = match scene.found.state.as_str() {
        "pending" => scene.pending(id, health).await?,
        "delayed" => scene.delayed(health),
        "running" => scene.running(),
        _ => scene.over(),
    };
    let mut text = view_text(&view);
    text.push_str(&bullets(
        &reasons,
        "nothing holds it back: it should start at once",
    ));
    let reasons: Vec<_> = reasons.iter().map(Reason::to_json).collect();
    Ok(Report::new(json!({"job": view, "reasons": reasons}), text))
}

/// A job and what is around it.
struct Scene<'a> {
    store: &'a Store,
    queue: Queue,
    found: Found,
    counts: Counts,
    workers: Workers,
}

impl Scene<'_> {
    async fn pending(&self, id: &str, health: &Health) -> Result<Vec<Reason>, CliError> {
        let mut reasons: Vec<Reason> = self.workers.missing(&self.queue.name).into_iter().collect();
        let envelope = Envelope::parse(&self.found.raw).unwrap_or_default();
        let history = Some(&self.found.history);
        let flow = home_of(&envelope, &self.store.catalog, &self.found.ties, history);
        let control = &self.counts.control;
        reasons.extend(limits::pauses(
            control,
            Some(&envelope.kind),
            self.counts.now_ms,
        ));
        match self.store.catalog.get(&envelope.kind) {
            None => reasons.push(Reason::new(
                "unknown_kind",
                format!(
                    "{} is not defined here; a daemon needs its definition",
                    envelope.kind
                ),
            )),
            Some(spec) => {
                let resources: Vec<&str> = spec.resources.iter().map(|r| &**r).collect();
                if !spec.is_never_shed() {
                    reasons.extend(health.gates(&resources, Some(flow.priority)));
                }
                reasons.extend(health.operations(&spec.handler, &spec.resources));
                if !spec.is_never_shed() {
                    reasons.extend(health.reserve(flow.priority));
                }
                let control = &self.counts.control;
                let found = limits::of_flow(&self.queue, &flow, spec, control).await?;
                reasons.extend(found);
            }
        }
        reasons.extend(slots(
            self.store,
            &self.queue.name,
            &self.counts,
            &self.workers,
        ));
        let fair = self
            .store
            .catalog
            .get(&envelope.kind)
            .is_some_and(|s| s.fair);
        if fair && let Some(before) = self.queue.place_in_line(&flow).await?.filter(|n| *n > 0) {
            reasons.push(limits::turn(&flow, before));
        }
        let ahead = self.queue.ahead_of(&flow, id).await?;
        reasons.extend(before(ahead, flow.priority, &self.counts));
        Ok(reasons)
    }

    fn delayed(&self, health: &Health) -> Vec<Reason> {
        let due = when(self.found.at_ms.unwrap_or(0), self.counts.now_ms);
        let debounced = self.debounced();
        let why = match (self.found.history.attempts, self.found.history.snoozes) {
            (0, 0) if debounced => {
                "unless another one of its lock takes its place, it is due".to_owned()
            }
            (0, 0) => "it was put off until".to_owned(),
            (0, n) => format!("it asked to be put off ({n} times), until"),
            (n, _) => format!("attempt {n} failed; the next one is due"),
        };
        let delayed = Reason {
            code: "delayed",
            message: format!("{why} {due}"),
            details: json!({"due_at": self.found.at_ms, "debounced": debounced}),
        };
        let missing = self.workers.missing(&self.queue.name);
        let held = self.waits_for_budget(health);
        [delayed].into_iter().chain(held).chain(missing).collect()
    }

    /// What made a retry wait longer than it was to.
    fn waits_for_budget(&self, health: &Health) -> Vec<Reason> {
        let envelope = Envelope::parse(&self.found.raw).unwrap_or_default();
        let spec = self.store.catalog.get(&envelope.kind);
        match (spec, waits_since(&self.found)) {
            (Some(spec), Some(since)) if since < self.counts.now_ms => {
                let resources: Vec<&str> = spec.resources.iter().map(|r| &**r).collect();
                let history = Some(&self.found.history);
                let flow = home_of(&envelope, &self.store.catalog, &self.found.ties, history);
                let mut reasons = health.budgets(&spec.resources);
                // What may not start now is not let go either.
                reasons.extend(health.gates(&resources, Some(flow.priority)));
                reasons.extend(health.operations(&spec.handler, &spec.resources));
                reasons
            }
            _ => Vec::new(),
        }
    }

    /// Whether it waits for others to take its place.
    fn debounced(&self) -> bool {
        let envelope = Envelope::parse(&self.found.raw).unwrap_or_default();
        let of_kind = || {
            let spec = self.store.catalog.get(&envelope.kind);
            envelope.unique.is_none() && spec.is_some_and(|spec| spec.debounce.is_some())
        };
        envelope.debounce.is_some() || of_kind()
    }

    fn running(&self) -> Vec<Reason> {
        let token = self.found.token.as_deref().unwrap_or_default();
        let worker = token.split(':').next().unwrap_or_default();
        if self.workers.alive.iter().any(|alive| alive == worker) {
            return vec![Reason::new(
                "running",
                format!("it runs in daemon {worker}"),
            )];
        }
        let last = self.workers.beats.workers.iter().find(|(w, _)| w == worker);
        let silence = match last {
            Some((_, at)) => format!(
                "its last sign of life: {}",
                when(*at, self.workers.beats.now_ms)
            ),
            None => "it is not registered any more".to_owned(),
        };
        let message = format!(
            "it was taken by daemon {worker}, which is gone ({silence}); another daemon will return it to the queue"
        );
        vec![Reason::new("orphaned", message)]
    }

    fn over(&self) -> Vec<Reason> {
        let last = self.found.history.errors.last();
        let words = last.map_or_else(String::new, |e| format!(": {}", e.error));
        let (code, message) = match self.found.state.as_str() {
            "dead" => (
                "dead",
                format!("it was given up{words}; `tidegate job retry` starts it afresh"),
            ),
            "expired" => ("expired", "it had not started by its time".to_owned()),
            "cancelled" => ("cancelled", "it was cancelled".to_owned()),
            _ => ("done", "it is done".to_owned()),
        };
        vec![Reason::new(code, message)]
    }
}

/// What stands before a job: in its own flow, and in higher classes.
fn before(ahead: Option<usize>, class: Priority, counts: &Counts) -> Option<Reason> {
    let higher: u64 = counts.lanes[..class.index()].iter().sum();
    if ahead == Some(0) && higher == 0 {
        return None;
    }
    let own = match ahead {
        Some(n) => n.to_string(),
        None => "more than 100000, or an unknown number,".to_owned(),
    };
    Some(Reason {
        code: "ahead",
        message: format!("{own} before it in its flow, {higher} in higher classes"),
        details: json!({"in_flow": ahead, "in_higher_classes": higher}),
    })
}
