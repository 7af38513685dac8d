//! Long jobs under a gate that a test opens and closes: they make room at a batch, and go on where they were.

use super::process::{Process, Site};
use crate::support::{self, DEADLINE, wait_until};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidegate::embed::{Advice, Context, Daemon, JobError, Kind};
use tidegate::job::{Priority, What};
use tokio_util::sync::CancellationToken;

/// How long a state may take to be entered or left, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Settings with a probe that reads its number from a file, 0 to 100. Everything else that is measured holds nothing back.
fn gated(more: &str, knob: &std::path::Path) -> String {
    gated_on("other:knob", more, knob)
}

/// The same, where the number tells of some resource.
fn gated_on(resource: &str, more: &str, knob: &std::path::Path) -> String {
    let knob = knob.display();
    format!(
        "[gate]\nsample = \"100ms\"\nhold = \"100ms\"\n\
         [gate.limits]\nredis_rtt = [\"20s\", \"30s\"]\nruntime_lag = [\"20s\", \"30s\"]\npsi_memory_some = [98.0, 100.0]\n\
         psi_memory_full = [98.0, 100.0]\nmemory = [98.0, 100.0]\nredis_memory = [98.0, 100.0]\n\
         postgres_acquire = [\"20s\", \"30s\"]\npostgres_rtt = [\"20s\", \"30s\"]\npostgres_active = [90000.0, 100000.0]\n\
         postgres_waiting = [90000.0, 100000.0]\npostgres_sessions = [98.0, 100.0]\npostgres_wal = [90000.0, 100000.0]\n\
         postgres_slowdown = [900.0, 1000.0]\n\
         [[probe]]\nname = \"knob\"\nresource = \"{resource}\"\nlo = 0.0\nhi = 100.0\nevery = \"1s\"\ntimeout = \"1s\"\n\
         command = [\"/bin/sh\", \"-c\", \"echo >> {knob}.asked; cat {knob}\"]\n{more}"
    )
}

/// How often the probe was asked.
fn asked(knob: &std::path::Path) -> usize {
    let asked = std::fs::read(knob.with_extension("asked"));
    asked.map_or(0, |lines| lines.len())
}

async fn wait_for_state(daemon: &Process, resource: &str, state: &str) {
    wait_until(state, PATIENCE, || {
        let events = daemon.events("gate");
        let ours = |event: &&Value| event["resource"] == resource;
        let last = events.iter().rfind(ours).map(|event| event["to"].clone());
        std::future::ready(last == Some(json!(state)))
    })
    .await;
}

/// A purge of a table with 30,000 old rows, under way.
struct Purging {
    pool: PgPool,
    site: Site,
    daemon: Process,
    folder: tempfile::TempDir,
}

impl Purging {
    async fn begin() -> Self {
        let url = support::fresh_database();
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql(
            "create table sessions (id bigint primary key, old boolean not null);
             insert into sessions select n, n % 2 = 0 from generate_series(1, 60000) n;
             analyze sessions;",
        )
        .execute(&pool)
        .await
        .unwrap();
        let job = "kind = \"db.tidy\"\nhandler = \"db.purge\"\npriority = \"bulk\"\ntimeout = \"5m\"\n\
            resources = [\"postgres:primary\", \"other:knob\"]\n[db.purge]\ntable = \"public.sessions\"\nkey = [\"id\"]\n\
            where = \"old\"\npause = \"50ms\"\nbatch = { start = 100, min = 100, max = 100 }\n";
        let folder = tempfile::tempdir().unwrap();
        let knob = folder.path().join("knob");
        std::fs::write(&knob, "0").unwrap();
        let database = format!("[database]\nurl = \"{url}\"\n");
        let site = Site::new(&gated(&database, &knob), &[job]);
        let migrated = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["migrate", "--config"])
            .arg(site.path("tidegate.toml"))
            .status()
            .unwrap();
        assert!(migrated.success());
        let daemon = site.start("a");
        site.push(&[r#"{"kind":"db.tidy","id":"tidy"}"#.to_owned()])
            .await;
        let begun = Self {
            pool,
            site,
            daemon,
            folder,
        };
        wait_until("rows go", DEADLINE, || async { begun.old().await < 29_800 }).await;
        begun
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let counting = sqlx::query_scalar::<_, i64>(sql);
        counting.fetch_one(&self.pool).await.unwrap()
    }

    async fn old(&self) -> i64 {
        self.count("select count(*) from sessions where old").await
    }

    fn knob(&self) -> std::path::PathBuf {
        self.folder.path().join("knob")
    }

    /// It is over: every old row is gone, no other one, and nothing was held against the job.
    async fn is_done_after_yields(&self, yields: u64) {
        self.site.wait_for_stat("completed", 1, PATIENCE).await;
        assert_eq!(self.old().await, 0);
        assert_eq!(self.count("select count(*) from sessions").await, 30_000);
        let queue = self.site.queue("default").await;
        let found = queue.find("tidy").await.unwrap().unwrap();
        let history = &found.history;
        assert_eq!(
            (found.state.as_str(), history.attempts, history.crashes),
            ("done", 0, 0)
        );
        assert_eq!(queue.counts().await.unwrap().stats["yielded"], yields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_makes_room_when_its_breaker_is_opened_and_goes_on_when_it_is_released() {
    let purging = Purging::begin().await;
    let gate = |args: &[&str]| {
        let told = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("gate")
            .args(args)
            .arg("--config")
            .arg(purging.site.path("tidegate.toml"))
            .arg("--jobs")
            .arg(purging.site.path("jobs"))
            .output()
            .unwrap();
        assert!(told.status.success(), "{told:?}");
    };
    let operation = "db.purge@postgres:primary";
    gate(&["force", operation, "open", "--why", "a restore runs"]);
    purging.daemon.wait_for_event("job_yielded").await;
    let yielded = purging.daemon.events("job_yielded").remove(0);
    assert_eq!(
        yielded["reason"],
        "the breaker of db.purge on postgres:primary is open"
    );
    let left = purging.old().await;
    assert!(left > 0, "there is something to go on with");
    let before = asked(&purging.knob());
    wait_until("more samples", PATIENCE, || {
        std::future::ready(asked(&purging.knob()) > before + 2)
    })
    .await;
    assert_eq!(purging.old().await, left, "it stays where it is");

    gate(&["release", operation]);
    purging.is_done_after_yields(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_makes_room_within_a_batch_and_goes_on_when_the_gate_opens() {
    let purging = Purging::begin().await;
    let (knob, daemon) = (purging.knob(), &purging.daemon);
    let queue = purging.site.queue("default").await;

    std::fs::write(&knob, "100").unwrap();
    daemon.wait_for_event("job_yielded").await;
    let yielded = daemon.events("job_yielded").remove(0);
    assert_eq!(
        yielded["reason"],
        "other:knob is overloaded: bulk jobs wait"
    );
    let left = purging.old().await;
    assert!(left > 0, "there is something to go on with");
    let found = queue.find("tidy").await.unwrap().unwrap();
    assert_eq!(
        (found.state.as_str(), found.history.attempts),
        ("pending", 0)
    );
    let last = found.history.events.last().unwrap();
    assert_eq!(
        (last.event, last.note.as_deref()),
        (What::HandedBack, yielded["reason"].as_str())
    );

    // It stays where it is as long as the gate is closed.
    let before = asked(&knob);
    wait_until("more samples", PATIENCE, || {
        std::future::ready(asked(&knob) > before + 2)
    })
    .await;
    assert_eq!(purging.old().await, left);
    assert_eq!(daemon.events("job_yielded").len(), 1);

    std::fs::write(&knob, "0").unwrap();
    purging.is_done_after_yields(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowed_job_rests_on_top_of_its_timeout_and_critical_ones_do_not() {
    const BATCH: Duration = Duration::from_millis(400);
    static BATCHES: AtomicU32 = AtomicU32::new(0);
    async fn walk(_: Value, ctx: Context) -> Result<(), JobError> {
        // Nine batches take longer than the timeout, if the rests between them count.
        for _ in 0..9 {
            tokio::time::sleep(BATCH).await;
            BATCHES.fetch_add(1, Ordering::SeqCst);
            assert_eq!(ctx.advice(), Advice::Slow(0.5));
            ctx.pace(BATCH).await?;
        }
        Ok(())
    }
    async fn hurry(_: Value, ctx: Context) -> String {
        format!("{:?}", ctx.advice())
    }
    let folder = tempfile::tempdir().unwrap();
    let knob = folder.path().join("knob");
    std::fs::write(&knob, "60").unwrap();
    let site = Site::new(&gated("", &knob), &[]);
    let kind = |kind: Kind, class| {
        kind.priority(class)
            .resources(["other:knob"])
            .max_attempts(1)
    };
    let daemon = Daemon::builder()
        .config(site.config.clone())
        .kind(kind(Kind::new("app.walk", walk), Priority::Bulk).timeout(Duration::from_secs(6)))
        .kind(kind(Kind::new("app.hurry", hurry), Priority::High))
        .start()
        .await
        .unwrap();
    wait_until("it is elevated", PATIENCE, || {
        std::future::ready(daemon.health()["resources"]["other:knob"]["state"] == "elevated")
    })
    .await;
    let begun = std::time::Instant::now();
    site.push(&[
        r#"{"kind":"app.walk","id":"walk"}"#.to_owned(),
        r#"{"kind":"app.hurry","id":"hurry","result_ttl_ms":60000}"#.to_owned(),
    ])
    .await;
    let queue = site.queue("default").await;
    wait_until("both are over", PATIENCE, || async {
        let counts = queue.counts().await.unwrap();
        counts.running == 0 && counts.lanes.iter().sum::<u64>() == 0 && counts.inbox == 0
    })
    .await;
    let found = queue.find("walk").await.unwrap().unwrap();
    assert_eq!(found.state, "done", "{:?}", found.history);
    assert_eq!(BATCHES.load(Ordering::SeqCst), 9);
    assert!(
        begun.elapsed() >= 18 * BATCH,
        "it rested as long as it worked"
    );
    assert_eq!(queue.find("hurry").await.unwrap().unwrap().state, "done");
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_lifts_no_job_over_urgent_ones_while_what_it_touches_is_overloaded() {
    let folder = tempfile::tempdir().unwrap();
    let [knob, log, go] = ["knob", "log", "go"].map(|name| folder.path().join(name));
    std::fs::write(&knob, "85").unwrap();
    let job = |kind: &str, more: &str, script: String| {
        format!(
            "kind = \"app.{kind}\"\nhandler = \"exec\"\n{more}\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n"
        )
    };
    let gone = |kind: &str| format!("echo {kind} >> {}", log.display());
    let held = format!("until rm {}; do sleep 0.05; done", go.display());
    let jobs = [
        job(
            "aged",
            "priority = \"low\"\nresources = [\"other:knob\"]",
            gone("aged"),
        ),
        job(
            "urgent",
            "priority = \"high\"\nresources = [\"other:knob\"]",
            gone("urgent"),
        ),
        job("hold", "", held),
    ];
    let settings = "[daemon]\nconcurrency = 1\n[aging]\nafter = \"1s\"\n";
    let site = Site::new(
        &gated(settings, &knob),
        &jobs.each_ref().map(String::as_str),
    );
    let daemon = site.start("a");
    let queue = site.queue("default").await;
    for (state, order) in [("overloaded", "urgent\naged\n"), ("ok", "aged\nurgent\n")] {
        wait_for_state(&daemon, "other:knob", state).await;
        site.push(&[r#"{"kind":"app.hold"}"#.to_owned()]).await;
        wait_until("the slot is taken", DEADLINE, || async {
            queue.counts().await.unwrap().running == 1
        })
        .await;
        site.push(&[r#"{"kind":"app.aged"}"#.to_owned()]).await;
        wait_until("it has waited for three steps", DEADLINE, || async {
            let counts = queue.counts().await.unwrap();
            counts
                .oldest_ready_ms
                .is_some_and(|ready| counts.now_ms > ready + 3_000)
        })
        .await;
        site.push(&[r#"{"kind":"app.urgent"}"#.to_owned()]).await;
        wait_until("both wait", DEADLINE, || async {
            queue.counts().await.unwrap().lanes.iter().sum::<u64>() == 2
        })
        .await;
        std::fs::write(&go, "").unwrap();
        wait_until("both ran", PATIENCE, || {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            std::future::ready(lines.lines().count() == 2)
        })
        .await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), order, "{state}");
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&knob, "0").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidations_run_whatever_fares_badly() {
    let folder = tempfile::tempdir().unwrap();
    let knob = folder.path().join("knob");
    std::fs::write(&knob, "100").unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/cache.invalidate.toml");
    let invalidate = std::fs::read_to_string(shipped)
        .unwrap()
        .replace("priority = \"high\"", "priority = \"bulk\"");
    let other = "kind = \"app.other\"\nhandler = \"exec\"\npriority = \"high\"\n[exec]\ncommand = [\"/bin/true\"]\n";
    let site = Site::new(&gated_on("redis:main", "", &knob), &[&invalidate, other]);
    let daemon = site.start("a");
    wait_for_state(&daemon, "redis:main", "critical").await;
    site.push(&[
        r#"{"kind":"app.other","id":"other"}"#.to_owned(),
        r#"{"kind":"cache.invalidate","id":"forget","args":{"tags":["product:7"]}}"#.to_owned(),
    ])
    .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let queue = site.queue("default").await;
    let state = async |id| queue.find(id).await.unwrap().unwrap().state;
    assert_eq!(state("forget").await, "done");
    assert_eq!(state("other").await, "pending");
}
