//! A daemon under steady load of several classes, and what its log says of a trouble: the times in it are the daemon's
//! own, so that a busy machine that runs the test late changes nothing.

use crate::daemon::process::{Process, Site};
use crate::support::{DEADLINE, wait_until};
use std::collections::{BTreeMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// Jobs at once in the daemon.
pub const SLOTS: usize = 8;
/// From the onset of a trouble to the last start of what it is to stop.
pub const SOON_MS: u64 = 5_000;
/// How long a trouble lasts at least.
const LASTS_MS: u64 = SOON_MS + 1_500;
/// How long a job of the load runs, at the least.
const RUN_MS: u64 = 200;
/// So many starts show that a kind goes on.
const GOES_ON: usize = 3;

/// The start of every job in the log, few slots, and nothing else than the defaults.
pub const DEFAULTS: &str = "level = \"info,tidegate::telemetry::events::job=debug\"\n[daemon]\nconcurrency = 8\npoll = \"100ms\"\n";
/// The same, but sampled more often and held for less long, so that a test sees the whole way back.
pub const QUICK: &str = "level = \"info,tidegate::telemetry::events::job=debug\"\n[daemon]\nconcurrency = 8\npoll = \"100ms\"\n\
     [gate]\nsample = \"250ms\"\nhold = \"2s\"\nfailure_hold = \"1s\"\n";

/// The load: `bulk` takes what the others leave, and `free` needs nothing that is going to be in trouble.
pub const KINDS: [&str; 4] = ["bulk", "normal", "critical", "free"];
/// More of each than a test can run.
const BACKLOG: [usize; 4] = [2_500, 700, 700, 700];

/// Definitions of the load on a resource. `run` is its handler with the section.
pub fn kinds_on(resource: &str, run: &str) -> Vec<String> {
    let on = format!("resources = [\"{resource}\"]");
    let one = "[concurrency]\nper_daemon = 1";
    vec![
        kind("bulk", &format!("priority = \"bulk\"\n{on}\n{run}")),
        kind(
            "normal",
            &format!("priority = \"normal\"\n{on}\n{run}\n{one}"),
        ),
        kind(
            "critical",
            &format!("priority = \"critical\"\n{on}\n{run}\n{one}"),
        ),
        kind("free", &format!("priority = \"low\"\n{SLEEP}\n{one}")),
    ]
}

/// A command that runs for [`RUN_MS`].
pub const SLEEP: &str = "handler = \"exec\"\nexec.command = [\"/bin/sleep\", \"0.2\"]";

pub fn kind(name: &str, rest: &str) -> String {
    format!("kind = \"app.{name}\"\n{rest}\n")
}

/// A job that began.
#[derive(Debug)]
pub struct Start {
    pub at_ms: u64,
    pub kind: String,
    pub id: String,
    pub attempt: u64,
}

/// A change of state of a resource, or of the breaker of one.
#[derive(Debug)]
pub struct Change {
    pub at_ms: u64,
    pub from: String,
    pub to: String,
}

/// When a trouble began and when it was over, unix ms.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    pub onset_ms: u64,
    pub end_ms: u64,
}

/// A site under load.
pub struct Scene {
    pub site: Site,
    pub daemon: Process,
}

impl Scene {
    /// Fills the queue, starts the daemon, and returns when every kind has run a few times.
    pub async fn begin(site: Site) -> Self {
        for (kind, jobs) in KINDS.into_iter().zip(BACKLOG) {
            let jobs: Vec<String> = (0..jobs).map(|n| job(kind, n)).collect();
            site.push(&jobs).await;
        }
        let daemon = site.start("a");
        let scene = Self { site, daemon };
        for kind in KINDS {
            scene.until_started(kind, 0).await;
        }
        scene
    }

    /// Waits until a trouble has lasted long enough to tell who stopped in time and who went on; answers its end.
    pub async fn outlast(&self, onset_ms: u64) -> Trouble {
        wait_until("it lasts", DEADLINE, || {
            std::future::ready(now_ms() >= onset_ms + LASTS_MS)
        })
        .await;
        Trouble {
            onset_ms,
            end_ms: now_ms(),
        }
    }

    /// Every start so far.
    pub fn starts(&self) -> Vec<Start> {
        let each = self
            .daemon
            .events("job_started")
            .into_iter()
            .map(|e| Start {
                at_ms: at_ms(&e),
                kind: text(&e, "kind").trim_start_matches("app.").to_owned(),
                id: text(&e, "job_id"),
                attempt: e["attempt"].as_u64().unwrap(),
            });
        each.collect()
    }

    /// The changes of state of a resource so far.
    pub fn changes(&self, resource: &str) -> Vec<Change> {
        changes(self.daemon.events("gate"), resource)
    }

    /// The changes of state of the breakers on a resource so far.
    pub fn breaker_changes(&self, resource: &str) -> Vec<Change> {
        changes(self.daemon.events("breaker"), resource)
    }

    /// Waits until a resource entered a state at or after a time.
    pub async fn until_state(&self, resource: &str, state: &str, since_ms: u64) {
        wait_until(&format!("{resource} is {state}"), DEADLINE, || {
            let entered = |c: &Change| c.at_ms >= since_ms && c.to == state;
            std::future::ready(self.changes(resource).iter().any(entered))
        })
        .await;
    }

    /// Waits until a kind was started a few times at or after a time.
    pub async fn until_started(&self, kind: &str, since_ms: u64) {
        wait_until(&format!("{kind} jobs start"), DEADLINE, || {
            std::future::ready(self.count(kind, since_ms, u64::MAX) >= GOES_ON)
        })
        .await;
    }

    /// How often a kind was started from one time until before another.
    pub fn count(&self, kind: &str, from_ms: u64, to_ms: u64) -> usize {
        let starts = self.starts();
        let within = |s: &&Start| s.kind == kind && (from_ms..to_ms).contains(&s.at_ms);
        starts.iter().filter(within).count()
    }

    /// A kind started for the last time soon after the onset, and jobs of it wait with all their attempts.
    pub async fn assert_stopped(&self, kind: &str, trouble: Trouble) {
        let Trouble { onset_ms, end_ms } = trouble;
        let late = self.count(kind, onset_ms + SOON_MS, end_ms);
        assert_eq!(late, 0, "{kind} jobs started: {:#?}", self.last(kind));
        let queue = self.site.queue("default").await;
        let id = last_id(kind);
        let held = queue.find(&id).await.unwrap().unwrap();
        assert_eq!(
            (held.state.as_str(), held.history.attempts),
            ("pending", 0),
            "{id}: the backlog lasts, and what is held back is not burned"
        );
    }

    /// A kind went on once everything that was to stop had stopped.
    pub fn assert_went_on(&self, kind: &str, trouble: Trouble) {
        let count = self.count(kind, trouble.onset_ms + SOON_MS, trouble.end_ms);
        assert!(count >= GOES_ON, "{kind} jobs started {count} times");
    }

    fn last(&self, kind: &str) -> Option<Start> {
        self.starts().into_iter().rfind(|s| s.kind == kind)
    }

    /// After the trouble a resource got better step by step until all was well, without a relapse, and mass work came
    /// back only then: none before `elevated`, half of the slots then.
    pub fn assert_recovered(&self, resource: &str, trouble: Trouble) {
        let since = self.changes(resource).into_iter();
        let steps: Vec<Change> = since.filter(|c| c.at_ms >= trouble.end_ms).collect();
        let rank = |state: &str| {
            ["ok", "elevated", "overloaded", "critical"]
                .iter()
                .position(|s| *s == state)
        };
        let better = |c: &Change| rank(&c.from).unwrap() == rank(&c.to).unwrap() + 1;
        assert!(
            steps.iter().all(better),
            "it only gets better, a step at a time: {steps:#?}"
        );
        let entered = |state: &str| steps.iter().find(|c| c.to == state).map(|c| c.at_ms);
        let well_ms = entered("ok").expect("all is well again");
        let elevated_ms = entered("elevated").expect("it was worse than elevated");
        assert_eq!(
            self.count("bulk", trouble.onset_ms + SOON_MS, elevated_ms),
            0
        );
        let starts = self.starts();
        let ramping = |s: &&Start| s.kind == "bulk" && (elevated_ms..well_ms).contains(&s.at_ms);
        for start in starts.iter().filter(ramping) {
            let since_ms = start.at_ms.saturating_sub(RUN_MS - 1).max(elevated_ms);
            let running =
                |s: &&Start| s.kind == "bulk" && (since_ms..=start.at_ms).contains(&s.at_ms);
            let at_once = starts.iter().filter(running).count();
            assert!(
                at_once <= SLOTS / 2,
                "{at_once} at once while elevated, with {start:?}"
            );
        }
    }

    /// Every state was left for the next one in exactly one event, each with the signal and value that decided; so it was
    /// with the breakers, each with its reason.
    pub fn assert_told(&self) {
        let mut states: BTreeMap<String, String> = BTreeMap::new();
        for event in self.daemon.events("gate") {
            let resource = text(&event, "resource");
            let state = states.entry(resource).or_insert_with(|| "ok".to_owned());
            assert_eq!(text(&event, "from"), *state, "{event}");
            *state = text(&event, "to");
            assert_ne!(text(&event, "from"), *state, "{event}");
            assert!(!text(&event, "signal").is_empty(), "{event}");
            assert!(
                event["value"].is_number(),
                "the reason has a value: {event}"
            );
        }
        let mut breakers: BTreeMap<(String, String), String> = BTreeMap::new();
        for event in self.daemon.events("breaker") {
            let of = (text(&event, "handler"), text(&event, "resource"));
            let state = breakers.entry(of).or_insert_with(|| "closed".to_owned());
            assert_eq!(text(&event, "from"), *state, "{event}");
            *state = text(&event, "to");
            assert!(!text(&event, "reason").is_empty(), "{event}");
        }
    }

    /// Nothing of the load ever failed, was run twice or was taken from this daemon.
    pub fn assert_nothing_burned(&self) {
        for event in [
            "job_failed",
            "job_dead",
            "job_poison",
            "recovered",
            "lease_lost",
        ] {
            let told = self.daemon.events(event);
            assert!(told.is_empty(), "{event}: {}", told[0]);
        }
        let mut ids = HashSet::new();
        let starts = self.starts().into_iter();
        for start in starts.filter(|s| KINDS.contains(&s.kind.as_str())) {
            assert_eq!(start.attempt, 1, "{start:?}");
            assert!(ids.insert(start.id.clone()), "started twice: {start:?}");
        }
    }
}

/// A job of the load.
fn job(kind: &str, n: usize) -> String {
    format!(r#"{{"kind":"app.{kind}","id":"{kind}-{n}"}}"#)
}

/// The id of the job of the load that is the last of its kind to start.
pub fn last_id(kind: &str) -> String {
    let last = KINDS.into_iter().zip(BACKLOG).find(|(k, _)| *k == kind);
    format!("{kind}-{}", last.unwrap().1 - 1)
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn changes(events: Vec<serde_json::Value>, resource: &str) -> Vec<Change> {
    let of_resource = events.into_iter().filter(|e| e["resource"] == resource);
    let each = of_resource.map(|e| Change {
        at_ms: at_ms(&e),
        from: text(&e, "from"),
        to: text(&e, "to"),
    });
    each.collect()
}

fn text(event: &serde_json::Value, field: &str) -> String {
    event[field].as_str().unwrap_or_default().to_owned()
}

fn at_ms(event: &serde_json::Value) -> u64 {
    let at = chrono::DateTime::parse_from_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
    u64::try_from(at.timestamp_millis()).unwrap()
}
