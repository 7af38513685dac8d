#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::config::{Sources, load};
use crate::health::Source;
use crate::policy::gate::GateState;

const DEADLINE: Duration = Duration::from_secs(20);

/// Faster than a configuration may ask for, so that tests take no longer than they need.
fn gate() -> GateConfig {
    let mut gate = load(&Sources::default()).unwrap().gate;
    gate.sample = Duration::from_millis(10);
    gate.hold = Duration::from_millis(30);
    gate
}

/// A source whose answers the test decides on; none hangs.
#[derive(Clone)]
struct Dial {
    reading: Arc<Mutex<Option<Reading>>>,
    samples: Arc<AtomicUsize>,
}

impl Dial {
    fn at(reading: Option<Reading>) -> Self {
        Self {
            reading: Arc::new(Mutex::new(reading)),
            samples: Arc::default(),
        }
    }

    fn turn(&self, reading: Option<Reading>) {
        *self.reading.lock().unwrap() = reading;
    }
}

impl Source for Dial {
    fn sample(&mut self) -> BoxFuture<'_, Vec<Reading>> {
        self.samples.fetch_add(1, Ordering::Relaxed);
        match self.reading.lock().unwrap().clone() {
            Some(reading) => std::future::ready(vec![reading]).boxed(),
            None => std::future::pending().boxed(),
        }
    }
}

/// A running monitor.
struct Rig {
    view: watch::Receiver<Arc<HealthView>>,
    changes: Arc<Mutex<Vec<(String, GateState)>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(gate: &GateConfig, probes: Vec<Probe>) -> Self {
        let changes: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&changes);
        let (monitor, view) = Monitor::new(gate, probes, move |resource, transition| {
            log.lock()
                .unwrap()
                .push((resource.to_owned(), transition.to));
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(monitor.run(stop.clone()));
        Self {
            view,
            changes,
            stop,
            task,
        }
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&HealthView) -> bool) {
        let view = self.view.wait_for(|view| reached(view));
        let view = tokio::time::timeout(DEADLINE, view).await;
        assert!(view.is_ok_and(|view| view.is_ok()), "not reached: {what}");
    }

    async fn end(self) -> Vec<(String, GateState)> {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
        Arc::into_inner(self.changes).unwrap().into_inner().unwrap()
    }
}

fn probe(resource: &str, name: &'static str, dial: &Dial) -> Probe {
    Probe::new(resource, [Signal::new(name, 0.0, 10.0)], dial.clone())
}

fn state(view: &HealthView, resource: &str) -> GateState {
    view.resources[resource].state
}

#[tokio::test]
async fn trouble_is_published_told_once_per_state_and_left_step_by_step() {
    use GateState::{Critical, Elevated, Ok as Well, Overloaded};
    let dial = Dial::at(Some(Ok(100.0)));
    let calm = Dial::at(Some(Ok(1.0)));
    let probes = vec![probe("a", "x", &dial), probe("b", "x", &calm)];
    let mut rig = Rig::start(&gate(), probes);
    rig.until("critical", |view| state(view, "a") == Critical)
        .await;
    dial.turn(Some(Ok(0.0)));
    rig.until("ok again", |view| state(view, "a") == Well).await;
    let told: Vec<_> = rig.end().await;
    let expected = [Elevated, Overloaded, Critical, Overloaded, Elevated, Well];
    assert_eq!(told, expected.map(|state| ("a".to_owned(), state)));
}

#[tokio::test]
async fn a_hanging_probe_delays_no_other_of_its_resource_or_another() {
    let hanging = Dial::at(None);
    let (same, other) = (Dial::at(Some(Ok(0.0))), Dial::at(Some(Ok(0.0))));
    let probes = vec![
        probe("a", "hangs", &hanging).within(DEADLINE),
        probe("a", "works", &same),
        probe("b", "works", &other),
    ];
    let mut rig = Rig::start(&gate(), probes);
    let samples = |dial: &Dial| dial.samples.load(Ordering::Relaxed);
    rig.until("50 samples", |_| {
        samples(&same) >= 50 && samples(&other) >= 50
    })
    .await;
    assert_eq!(samples(&hanging), 1);
    rig.end().await;
}

#[tokio::test]
async fn failing_samples_keep_the_state_and_grow_stale() {
    let mut gate = gate();
    gate.stale_after = Duration::from_millis(300);
    let fails = || Some(Err("cannot measure".to_owned()));
    let lost = Dial::at(fails());
    let bad = Dial::at(Some(Ok(7.0)));
    let probes = vec![probe("lost", "x", &lost), probe("bad", "x", &bad)];
    let mut rig = Rig::start(&gate, probes);
    rig.until("7 of 10 is elevated", |view| {
        view.resources["bad"].badness > 0.69
    })
    .await;
    bad.turn(fails());
    rig.until("both are missing", |view| {
        view.resources.values().all(|view| view.signals[0].missing)
    })
    .await;
    // What is lost keeps its badness, and counts at least as elevated.
    rig.until("lost is elevated", |view| {
        let view = &view.resources["lost"];
        view.state == GateState::Elevated && view.badness == 0.5 && view.signals[0].value.is_none()
    })
    .await;
    assert!(rig.view.borrow().resources["bad"].badness > 0.69);
    lost.turn(Some(Ok(0.0)));
    rig.until("found again", |view| state(view, "lost") == GateState::Ok)
        .await;
    let told = rig.end().await;
    assert_eq!(told.iter().filter(|(name, _)| name == "bad").count(), 1);
}

/// The resource of the host, with the signals it has where the kernel measures all of them.
#[tokio::test]
async fn a_hog_of_the_host_cpu_never_goes_beyond_elevated() {
    let hog = Dial::at(Some(Ok(100.0)));
    let calm = Dial::at(Some(Ok(0.0)));
    let capped = |name| Signal::new(name, 20.0, 60.0).capped(GateState::Elevated);
    let probes = vec![
        Probe::new("host", [capped("psi_cpu_some")], hog.clone()),
        Probe::new("host", [capped("runtime_lag_p99_ms")], hog.clone()),
        probe("host", "psi_io_full", &calm),
    ];
    let mut rig = Rig::start(&gate(), probes);
    rig.until("entirely bad", |view| {
        view.resources["host"].badness > 0.999
    })
    .await;
    let told = rig.end().await;
    assert_eq!(told, [("host".to_owned(), GateState::Elevated)]);
}

#[tokio::test]
async fn nothing_to_probe_is_well_and_stops() {
    let rig = Rig::start(&gate(), Vec::new());
    assert!(rig.view.borrow().resources.is_empty());
    assert!(rig.end().await.is_empty());
}
