//! Runs the probes, judges what they find and publishes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::probe::{Probe, Reading};
use super::{HealthView, History, ResourceView};
use crate::clock;
use crate::config::GateConfig;
use crate::policy::gate::{Orders, ResourceGauge, Signal, Target, Thresholds, Transition, Tuning};

/// Is told the resource and its change of state.
type OnChange = Box<dyn FnMut(&str, &Transition) + Send>;

/// Samples all probes at an interval, each by itself: one that hangs delays no other.
pub struct Monitor {
    /// Those that are not being sampled.
    idle: Vec<Probe>,
    gauges: BTreeMap<String, ResourceGauge>,
    histories: Arc<BTreeMap<String, History>>,
    interval: Duration,
    states: Thresholds,
    origin: Instant,
    published: watch::Sender<Arc<HealthView>>,
    on_change: OnChange,
    /// What operators ordered, as far as it holds now.
    orders: watch::Receiver<Arc<Orders>>,
}

impl Monitor {
    /// A monitor, and where it publishes after every interval and every change.
    ///
    /// `on_change` is told each resource that changed its state, and must not block. Before the first samples
    /// every resource is `ok`.
    pub fn new(
        gate: &GateConfig,
        probes: Vec<Probe>,
        on_change: impl FnMut(&str, &Transition) + Send + 'static,
    ) -> (Self, watch::Receiver<Arc<HealthView>>) {
        let (published, view) = watch::channel(Arc::new(HealthView::default()));
        let monitor = Self {
            gauges: gauges(gate, &probes),
            histories: Arc::default(),
            idle: probes,
            interval: gate.sample,
            states: Thresholds::from(&gate.states),
            origin: clock::monotonic(),
            published,
            on_change: Box::new(on_change),
            orders: watch::channel(Arc::default()).1,
        };
        monitor.publish();
        (monitor, view)
    }

    /// The same, publishing the states that operators ordered in place of the measured ones. What is measured goes on
    /// being judged beneath them.
    #[must_use]
    pub fn obeying(mut self, orders: watch::Receiver<Arc<Orders>>) -> Self {
        self.orders = orders;
        self.publish();
        self
    }

    /// Samples until `stop` is cancelled. Should it ever end otherwise, the last view must not be trusted.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sampling: FuturesUnordered<_> = self.idle.drain(..).map(sampled).collect();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((probe, readings)) = sampling.next() => {
                    self.take(&probe, &readings);
                    self.idle.push(probe);
                }
                Ok(()) = self.orders.changed() => self.publish(),
                _ = interval.tick() => {
                    self.judge_all();
                    let now = clock::monotonic();
                    let all = self.idle.drain(..);
                    let (due, idle) = all.partition(|probe| probe.is_due(now, self.interval));
                    self.idle = idle;
                    let due: Vec<Probe> = due;
                    sampling.extend(due.into_iter().map(sampled));
                }
            }
        }
    }

    /// Judges its resource by a probe's readings.
    fn take(&mut self, probe: &Probe, readings: &[Reading]) {
        let now_ms = self.now_ms();
        let Some(gauge) = self.gauges.get_mut(&probe.resource) else {
            return;
        };
        for (signal, reading) in probe.signals.iter().zip(readings) {
            gauge.sample(now_ms, signal.name, reading.as_ref().ok().copied());
        }
        if let Some(transition) = gauge.tick(now_ms) {
            (self.on_change)(&probe.resource, &transition);
            self.publish();
        }
    }

    /// Judges every resource, also those whose samples do not come, and publishes.
    fn judge_all(&mut self) {
        let now_ms = self.now_ms();
        let histories = Arc::make_mut(&mut self.histories);
        for (resource, gauge) in &mut self.gauges {
            if let Some(transition) = gauge.tick(now_ms) {
                (self.on_change)(resource, &transition);
            }
            let history = histories.entry(resource.clone()).or_default();
            history.note(now_ms, gauge.state(), gauge.badness(now_ms));
        }
        self.publish();
    }

    fn publish(&self) {
        let now_ms = self.now_ms();
        let views = self.gauges.iter();
        let resources = views.map(|(resource, gauge)| (resource.clone(), gauge.snapshot(now_ms)));
        let mut resources: BTreeMap<String, ResourceView> = resources.collect();
        let at_ms = clock::unix_ms();
        obey(&self.orders.borrow(), &mut resources, &self.states, at_ms);
        self.published.send_replace(Arc::new(HealthView {
            at_ms,
            resources,
            histories: Arc::clone(&self.histories),
        }));
    }

    /// Milliseconds since this monitor was made.
    fn now_ms(&self) -> u64 {
        millis(clock::monotonic().duration_since(self.origin))
    }
}

/// Puts ordered states in the place of measured ones; a resource that nobody probes can have one too.
fn obey(
    orders: &Orders,
    resources: &mut BTreeMap<String, ResourceView>,
    states: &Thresholds,
    now_ms: u64,
) {
    for order in orders.iter() {
        let Target::Resource(name) = &order.target else {
            continue;
        };
        if let Some(forced) = order.applied(resources.get(name), states, now_ms) {
            resources.insert(name.clone(), forced);
        }
    }
}

async fn sampled(mut probe: Probe) -> (Probe, Vec<Reading>) {
    let readings = probe.sample().await;
    (probe, readings)
}

/// One gauge per resource, of the signals of all its probes.
fn gauges(gate: &GateConfig, probes: &[Probe]) -> BTreeMap<String, ResourceGauge> {
    let tuning = Tuning::from(gate);
    let mut signals: BTreeMap<&str, Vec<Signal>> = BTreeMap::new();
    for probe in probes {
        let of_resource = signals.entry(&probe.resource).or_default();
        of_resource.extend(&probe.signals);
    }
    let gauges = signals.into_iter();
    gauges
        .map(|(resource, signals)| (resource.to_owned(), ResourceGauge::new(0, tuning, signals)))
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
