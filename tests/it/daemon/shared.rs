//! Daemons that share their breakers: they open and recover together, and one that is sick by itself opens nobody else.

use super::process::{Process, Site, events};
use crate::support::{DEADLINE, wait_until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tidegate::stack::{PrivateRedis, RedisOptions};

const SETTINGS: &str = "[breaker]\nopen = \"1s\"\nopen_max = \"2s\"\nprobe_lease = \"2s\"\n[daemon]\nconcurrency = 4\npoll = \"100ms\"\n";

/// A kind whose dependency is a folder: it is down while `dead` is there, and hangs while `hang` is. A daemon with `sick`
/// in its own folder can't reach it. Every call leaves a line.
fn job(at: &Path, again: &str) -> String {
    let at = at.display();
    let script = format!(
        "echo x >> {at}/calls; [ -e {at}/hang ] && exec sleep 60; [ -e {at}/dead ] && exit 69; [ -e sick ] && exit 69; exec sleep 0.02"
    );
    format!(
        "kind = \"app.call\"\nhandler = \"exec\"\nresources = [\"other:thing\"]\n[retry]\nmax_attempts = 1000\nstrategy = \"fixed\"\nbase = \"{again}\"\njitter = \"none\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']"
    )
}

struct Bed {
    site: Site,
    at: tempfile::TempDir,
    daemons: Vec<Daemon>,
}

struct Daemon {
    name: &'static str,
    process: Process,
}

impl Bed {
    fn new(redis_url: &str, names: &[&'static str]) -> Self {
        Self::with(SETTINGS, "200ms", redis_url, names)
    }

    /// `again`: a job that failed comes again after so long.
    fn with(settings: &str, again: &str, redis_url: &str, names: &[&'static str]) -> Self {
        let at = tempfile::tempdir().unwrap();
        let site = Site::on(redis_url, settings, &[&job(at.path(), again)]);
        let mut bed = Self {
            site,
            at,
            daemons: Vec::new(),
        };
        for name in names {
            let folder = bed.at.path().join(name);
            fs::create_dir(&folder).unwrap();
            let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            program.current_dir(&folder);
            let process = bed.site.start_as(name, &mut program);
            bed.daemons.push(Daemon { name, process });
        }
        bed
    }

    fn on_shared_redis(names: &[&'static str]) -> Self {
        Self::new(&crate::support::redis_url(), names)
    }

    fn make(&self, file: &str) {
        fs::write(self.at.path().join(file), "").unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.at.path().join(file)).unwrap();
    }

    fn calls(&self) -> usize {
        let text = fs::read_to_string(self.at.path().join("calls")).unwrap_or_default();
        text.lines().count()
    }

    async fn push(&self, count: usize) {
        let jobs: Vec<String> = (0..count)
            .map(|n| format!(r#"{{"kind":"app.call","id":"c{n}"}}"#))
            .collect();
        self.site.push(&jobs).await;
    }

    fn log(&self, name: &str) -> Vec<Value> {
        events(&self.site.path(&format!("{name}.log")), "breaker")
    }

    /// Waits until each daemon logged such a change.
    async fn all(&self, what: &str, is: impl Fn(&Value) -> bool) {
        wait_until(what, DEADLINE, || {
            let has = |d: &Daemon| self.log(d.name).iter().any(&is);
            std::future::ready(self.daemons.iter().all(has))
        })
        .await;
    }

    /// All are open, by what they saw together.
    async fn opened(&self) {
        self.all("all open together", |e| {
            e["to"] == "open" && e["scope"] == "fleet"
        })
        .await;
    }

    async fn recovered(&self) {
        self.all("all recovered together", |e| {
            e["to"] == "closed" && e["scope"] == "fleet"
        })
        .await;
    }

    fn count(&self, is: impl Fn(&Value) -> bool) -> usize {
        let each = self.daemons.iter().map(|d| self.log(d.name));
        each.map(|log| log.iter().filter(|e| is(e)).count()).sum()
    }

    fn trials(&self) -> usize {
        self.count(|e| e["to"] == "half_open")
    }
}

fn text(event: &Value, field: &str) -> String {
    event[field].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_open_together_one_tries_and_all_recover_together() {
    let bed = Bed::on_shared_redis(&["a", "b", "c"]);
    bed.make("dead");
    bed.push(5_000).await;
    bed.opened().await;
    let log = bed.log("a");
    let reason = log.iter().find(|e| e["scope"] == "fleet");
    let reason = reason.map(|e| text(e, "reason"));
    assert!(
        reason
            .as_ref()
            .is_some_and(|r| r.contains("daemons see it fail") || r.contains("trial")),
        "{reason:?}"
    );
    // Calls of before they opened may end still; from the next trial on there are only trials.
    let trials = bed.trials();
    wait_until("a trial of one for all", DEADLINE, || {
        std::future::ready(bed.trials() > trials)
    })
    .await;
    let (trials, calls) = (bed.trials(), bed.calls());
    wait_until("two more trials", DEADLINE, || {
        std::future::ready(bed.trials() >= trials + 2)
    })
    .await;
    let called = bed.calls() - calls;
    let tried = bed.trials() - trials;
    assert!(called <= tried + 1, "{called} calls in {tried} trials");

    bed.remove("dead");
    bed.recovered().await;
    let counts = bed.site.queue("default").await.counts().await.unwrap();
    assert_eq!(counts.dead, 0);
}

/// Whoever failed comes again in an hour, and the others are paused: an alert until then would be of no use. Who comes
/// later is tried alone.
#[tokio::test(flavor = "multi_thread")]
async fn breakers_that_no_job_needs_any_more_count_as_closed_and_try_the_next_one_alone() {
    let settings = SETTINGS.replace("[daemon]", "rest = \"3s\"\n[daemon]");
    let bed = Bed::with(&settings, "1h", &crate::support::redis_url(), &["a", "b"]);
    bed.make("dead");
    bed.push(1_000).await;
    bed.opened().await;
    crate::cli::json_at(&bed.site, &["pause", "default"]).ok();
    bed.all("all rest", |e| {
        let of_all = e["to"] == "closed" && e["scope"] == "fleet";
        of_all && text(e, "reason").contains("no job of any daemon needs it any more")
    })
    .await;
    let (trials, calls) = (bed.trials(), bed.calls());
    crate::cli::json_at(&bed.site, &["resume", "default"]).ok();
    wait_until("all try, and are open again", DEADLINE, || {
        let last = |d: &Daemon| bed.log(d.name).pop().is_some_and(|e| e["to"] == "open");
        std::future::ready(bed.trials() >= trials + 2 && bed.daemons.iter().all(last))
    })
    .await;
    let called = bed.calls() - calls;
    let tried = bed.trials() - trials;
    assert!(called <= tried, "{called} calls in {tried} trials");
    bed.remove("dead");
    wait_until("all are closed", DEADLINE, || {
        let last = |d: &Daemon| bed.log(d.name).pop().is_some_and(|e| e["to"] == "closed");
        std::future::ready(bed.daemons.iter().all(last))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sick_daemon_opens_its_own_breaker_and_no_other() {
    let bed = Bed::on_shared_redis(&["sick-one", "well-a", "well-b"]);
    bed.make("sick-one/sick");
    bed.push(1_500).await;
    wait_until("the sick one protects itself", DEADLINE, || {
        let opened = |e: &Value| e["to"] == "open" && e["scope"] == "local";
        std::future::ready(bed.log("sick-one").iter().any(opened))
    })
    .await;
    bed.site
        .wait_for_stat("completed", 1_500, 2 * DEADLINE)
        .await;
    for name in ["well-a", "well-b"] {
        assert!(bed.log(name).is_empty(), "{name}: {:?}", bed.log(name));
    }
    assert_eq!(bed.count(|e| e["scope"] == "fleet"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_killed_prober_ends_and_another_tries() {
    let mut bed = Bed::on_shared_redis(&["a", "b"]);
    bed.make("dead");
    bed.push(5_000).await;
    bed.opened().await;
    bed.make("hang");
    bed.remove("dead");
    let trying =
        |bed: &Bed, name: &str| bed.log(name).last().is_some_and(|e| e["to"] == "half_open");
    let calls = bed.calls();
    wait_until("one of them hangs in its trial", DEADLINE, || {
        let hangs = bed.calls() > calls && bed.daemons.iter().any(|d| trying(&bed, d.name));
        std::future::ready(hangs)
    })
    .await;
    let place = bed.daemons.iter().position(|d| trying(&bed, d.name));
    let prober = bed.daemons.remove(place.unwrap());
    prober.process.kill9();
    bed.remove("hang");
    bed.recovered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_frozen_each_decides_alone_and_then_they_are_one_again() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let mut redis = PrivateRedis::start(RedisOptions::new(dir.path().join("redis"))).unwrap();
    let bed = Bed::new(&redis.url(), &["a", "b"]);
    bed.make("dead");
    bed.push(5_000).await;
    bed.opened().await;
    redis.pause().unwrap();
    let shared = |daemon: &Daemon, shared: bool| {
        let log = bed.site.path(&format!("{}.log", daemon.name));
        let told = events(&log, "breakers_shared");
        told.last().is_some_and(|e| e["shared"] == shared)
    };
    wait_until("all decide alone", DEADLINE, || {
        std::future::ready(bed.daemons.iter().all(|d| shared(d, false)))
    })
    .await;
    let closed = bed.count(|e| e["to"] == "closed");
    redis.resume().unwrap();
    wait_until("they decide together again", DEADLINE, || {
        std::future::ready(bed.daemons.iter().all(|d| shared(d, true)))
    })
    .await;
    assert_eq!(bed.count(|e| e["to"] == "closed"), closed, "no jump");
    bed.remove("dead");
    bed.all("all are closed", |e| e["to"] == "closed").await;
}
