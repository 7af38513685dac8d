//! Why one job does not run.

use super::super::fleet::Fleet;
use super::super::job::{view, view_around, view_text, waits_since, when};
use super::super::store::Store;
use super::super::{CliError, Report};
use super::gate::gates;
use super::live::Live;
use super::operation::operations;
use super::reason::{Binds, Reason, Reasons};
use super::retries::{budgets, reserves};
use super::workers::Workers;
use super::{limits, slots, supply};
use crate::catalog::JobSpec;
use crate::job::{Envelope, Priority};
use crate::queue::home::home_of;
use crate::queue::inspect::{Counts, Found};
use crate::queue::{Flow, Queue};
use serde_json::json;

/// Explains the job `id`.
///
/// # Errors
/// There is no such job, or Redis failed.
pub(super) async fn explain(store: &Store, id: &str, fleet: &Fleet) -> Result<Report, CliError> {
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
    let fleet = &fleet.serving(&queue.name);
    let counts = queue.counts().await?;
    let scene = Scene {
        live: Live::of(&queue, &counts.control, counts.now_ms).await?,
        counts,
        workers: Workers::of(&queue, store).await?,
        store,
        fleet,
        queue,
        found,
    };
    let reasons = match scene.found.state.as_str() {
        "pending" => scene.pending(id).await?,
        "delayed" => scene.delayed(id),
        "running" => scene.running(),
        _ => scene.over(),
    };
    let reasons: Reasons = reasons.into_iter().collect();
    let mut text = view_text(&view);
    text.push_str(&reasons.text("nothing holds it back: it should start at once"));
    let mut json = json!({"job": view});
    reasons.write(&mut json);
    Ok(Report::new(json, text))
}

/// A job and what is around it.
struct Scene<'a> {
    store: &'a Store,
    fleet: &'a Fleet,
    queue: Queue,
    found: Found,
    counts: Counts,
    live: Live,
    workers: Workers,
}

impl Scene<'_> {
    async fn pending(&self, id: &str) -> Result<Vec<Reason>, CliError> {
        let (store, counts) = (self.store, &self.counts);
        let mut reasons: Vec<Reason> = self.workers.missing(&self.queue.name).into_iter().collect();
        let envelope = Envelope::parse(&self.found.raw).unwrap_or_default();
        let history = Some(&self.found.history);
        let flow = home_of(&envelope, &store.catalog, &self.found.ties, history);
        let kind = Some(&*envelope.kind);
        reasons.extend(limits::pauses(&self.queue.name, counts, kind));
        match store.catalog.get(&envelope.kind) {
            None => {
                let message = format!(
                    "{} is not defined here; a daemon needs its definition",
                    envelope.kind
                );
                let lift = "its definition, and a reload".to_owned();
                reasons.push(Reason::stop("unknown_kind", message).lifted_by([lift]));
            }
            Some(spec) => reasons.extend(self.of_kind(spec, &flow).await?),
        }
        let (queue, fleet) = (&self.queue, self.fleet);
        let mut slots = slots::slots(store, &queue.name, counts, &self.workers, fleet);
        self.live.of_queue(&counts.control, &mut slots);
        reasons.extend(slots);
        let fair = store.catalog.get(&envelope.kind).is_some_and(|s| s.fair);
        if fair && let Some(before) = queue.place_in_line(&flow).await?.filter(|n| *n > 0) {
            reasons.push(limits::turn(&flow, before));
        }
        let ahead = queue.ahead_of(&flow, id).await?;
        reasons.extend(before(ahead, flow.priority, counts));
        Ok(reasons)
    }

    /// What its definition binds it to: health, breakers and limiters of its resources, limits of its kind.
    async fn of_kind(&self, spec: &JobSpec, flow: &Flow) -> Result<Vec<Reason>, CliError> {
        let mut reasons = Vec::new();
        if !spec.is_never_shed() {
            let resources: Vec<&str> = spec.resources.iter().map(|r| &**r).collect();
            let rules = self.fleet.rules(self.store);
            reasons.extend(gates(self.fleet, &rules, &resources, Some(flow.priority)));
            reasons.extend(reserves(self.fleet, Some(flow.priority)));
        }
        reasons.extend(self.operations(spec));
        reasons.extend(supply::forecasts(self.fleet));
        let control = &self.counts.control;
        let mut own = limits::of_flow(&self.queue, flow, spec, control).await?;
        own.extend(limits::per_daemon(spec, control, self.fleet));
        self.live.of_kind(control, &spec.kind, &mut own);
        reasons.extend(own);
        Ok(reasons)
    }

    /// Breakers and limiters of what it touches, and the connections it shares.
    fn operations(&self, spec: &JobSpec) -> Vec<Reason> {
        let (fleet, breaker) = (self.fleet, &self.store.config.breaker);
        let pool = supply::pool(fleet, &spec.handler, &spec.resources);
        let all = operations(fleet, breaker, &spec.handler, &spec.resources);
        all.into_iter().chain(pool).collect()
    }

    fn delayed(&self, id: &str) -> Vec<Reason> {
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
        let details = json!({"due_at": self.found.at_ms, "debounced": debounced});
        let message = format!("{why} {due}");
        let left = self.found.at_ms.unwrap_or(0);
        let left = left.saturating_sub(self.counts.now_ms);
        let delayed = Reason::new("delayed", Binds::Stops, message, details)
            .measured(left, 0, Some(0))
            .lifted_by([format!("its time; `tidegate job retry {id}` runs it now")]);
        let missing = self.workers.missing(&self.queue.name);
        let held = self.waits_for_budget();
        [delayed].into_iter().chain(held).chain(missing).collect()
    }

    /// What made a retry wait longer than it was to.
    fn waits_for_budget(&self) -> Vec<Reason> {
        let envelope = Envelope::parse(&self.found.raw).unwrap_or_default();
        let spec = self.store.catalog.get(&envelope.kind);
        match (spec, waits_since(&self.found)) {
            (Some(spec), Some(since)) if since < self.counts.now_ms => {
                let resources: Vec<&str> = spec.resources.iter().map(|r| &**r).collect();
                let history = Some(&self.found.history);
                let flow = home_of(&envelope, &self.store.catalog, &self.found.ties, history);
                let rules = self.fleet.rules(self.store);
                let mut reasons = budgets(self.fleet, &spec.resources);
                // What may not start now is not let go either.
                reasons.extend(gates(self.fleet, &rules, &resources, Some(flow.priority)));
                reasons.extend(self.operations(spec));
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
            let message = format!("it runs in daemon {worker}");
            return vec![Reason::stop("running", message)];
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
        vec![Reason::stop("orphaned", message)]
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
        vec![Reason::stop(code, message)]
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
    let message = format!("{own} before it in its flow, {higher} in higher classes");
    let details = json!({"in_flow": ahead, "in_higher_classes": higher});
    let before = ahead.map(|n| n as u64 + higher);
    let reason = Reason::new("ahead", Binds::Waits, message, details);
    let reason = reason.measured(json!(before), 0, Some(0));
    Some(reason.lifted_by(["they start first".to_owned()]))
}

/// Where a job that is not known may still be: what waits for admission, and what was refused it.
async fn whereabouts(store: &Store) -> Result<String, CliError> {
    let mut hints = Vec::new();
    for queue in store.queues() {
        let counts = queue.counts().await?;
        if counts.inbox + counts.quarantine == 0 {
            continue;
        }
        let workers = Workers::of(&queue, store).await?;
        hints.push(format!(
            "{} has {} in its inbox, {} in quarantine, daemons: {}",
            queue.name,
            counts.inbox,
            counts.quarantine,
            workers.alive.len()
        ));
    }
    Ok(hints.join("; "))
}
