//! Connections that break, servers that freeze, and whether anybody can tell.

use super::private;
use crate::daemon::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The admin endpoints of a daemon process.
struct Endpoints {
    port: u16,
    client: reqwest::Client,
}

impl Endpoints {
    /// On a port that was free just now.
    fn new() -> Self {
        tidegate::tls::install();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE);
        Self {
            port: listener.local_addr().unwrap().port(),
            client: client.build().unwrap(),
        }
    }

    fn settings(&self) -> String {
        format!("[admin]\nlisten = \"127.0.0.1:{}\"\n", self.port)
    }

    /// Whether the answer is 200, and its body; none if nobody answers.
    async fn get(&self, path: &str) -> Option<(bool, Value)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = self.client.get(url).send().await.ok()?;
        let fine = answer.status().is_success();
        Some((fine, serde_json::from_str(&answer.text().await.ok()?).ok()?))
    }

    async fn wait_ready(&self, wanted: bool) {
        wait_until(&format!("ready: {wanted}"), DEADLINE, || async {
            self.get("/readyz")
                .await
                .is_some_and(|(ready, _)| ready == wanted)
        })
        .await;
    }
}

fn job(id: impl std::fmt::Display) -> String {
    format!(r#"{{"kind":"app.append","id":"{id}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn f01_alive_but_deaf_after_a_reconnect() {
    let mut server = private(|o| o.append_only = true);
    let out = tempfile::NamedTempFile::new().unwrap();
    let admin = Endpoints::new();
    let settings = format!("[daemon]\npoll = \"500ms\"\n{}", admin.settings());
    let site = Site::on(
        &server.redis.url(),
        &settings,
        &[&append_to(out.path(), "")],
    );
    let daemon = site.start("a");
    admin.wait_ready(true).await;
    // Every connection is cut, the blocked one and the subscriber included, again and again.
    for n in 1..=5 {
        for kind in ["normal", "pubsub"] {
            redis::cmd("CLIENT")
                .arg(&["KILL", "TYPE", kind, "SKIPME", "yes"])
                .query_async::<()>(&mut site.redis().await)
                .await
                .unwrap();
        }
        site.push(&[job(n)]).await;
        site.wait_for_stat("completed", n, Duration::from_secs(10))
            .await;
    }
    // The server goes and comes back; meanwhile nobody is told that all is well.
    server.redis.kill9().unwrap();
    admin.wait_ready(false).await;
    server.redis.restart().unwrap();
    admin.wait_ready(true).await;
    site.push(&[job("after")]).await;
    site.wait_for_stat("completed", 6, Duration::from_secs(10))
        .await;
    assert!(daemon.events("lease_lost").len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_jobs_lost_on_sigkill() {
    const JOBS: u64 = 60;
    let out = tempfile::NamedTempFile::new().unwrap();
    let nap = append_to(out.path(), "").replace("printf", "sleep 0.1; printf");
    let site = Site::new("[daemon]\nlease = \"1s\"\nconcurrency = 8\n", &[&nap]);
    // Recovery takes a lease and a heartbeat or two: thirty seconds with the default.
    assert!(site.config.daemon.lease <= Duration::from_secs(1));
    let default = tidegate::config::load(&tidegate::config::Sources::default()).unwrap();
    assert!(default.daemon.lease * 2 <= Duration::from_secs(30));
    let jobs: Vec<String> = (0..JOBS).map(job).collect();
    site.push(&jobs).await;
    let mut killed = Instant::now();
    for round in 0..3 {
        let daemon = site.start(&format!("victim{round}"));
        site.wait_for_stat("completed", 8 * (round + 1), DEADLINE)
            .await;
        daemon.kill9();
        killed = Instant::now();
    }
    let queue = site.queue("default").await;
    let held = queue.counts().await.unwrap().running;
    assert!(held > 0, "it was killed in the middle of its work");
    let _last = site.start("last");
    site.wait_for_stat("completed", JOBS, DEADLINE).await;
    assert!(killed.elapsed() <= Duration::from_secs(30));
    let mut runs: BTreeMap<String, u64> = BTreeMap::new();
    for line in fs::read_to_string(out.path()).unwrap().lines() {
        *runs
            .entry(line.split(' ').next().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(runs.len() as u64, JOBS, "each of them ran");
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.stats["completed"], JOBS, "each completed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_observability_lies() {
    let mut server = private(|o| o.append_only = true);
    let admin = Endpoints::new();
    let out = tempfile::NamedTempFile::new().unwrap();
    let told = format!(
        "kind = \"app.told\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo $TRACEPARENT >> {}\"]",
        out.path().display()
    );
    let fails = "kind = \"app.fail\"\nhandler = \"exec\"\n[retry]\nmax_attempts = 2\nstrategy = \"fixed\"\nbase = \"50ms\"\njitter = \"none\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo no luck >&2; exit 1\"]";
    let settings = format!(
        "[daemon]\npoll = \"200ms\"\nconcurrency = 1\n[queues]\nobjective = \"1s\"\n{}",
        admin.settings()
    );
    let site = Site::on(&server.redis.url(), &settings, &[&told, fails]);
    let daemon = site.start("a");
    admin.wait_ready(true).await;
    // The history of a job is there to be read, and its trace goes along with it.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = format!(r#"{{"kind":"app.told","id":"t","traceparent":"{trace}"}}"#);
    site.push(&[traced, r#"{"kind":"app.fail","id":"f"}"#.to_owned()])
        .await;
    site.wait_for_stat("dead", 1, DEADLINE).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    assert!(fs::read_to_string(out.path()).unwrap().contains(trace));
    let found = site
        .queue("default")
        .await
        .find("f")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.history.errors.len(), 2);
    assert!(found.history.errors[0].error.contains("no luck"));
    // Nothing is consumed: the age of the oldest job grows, and is told.
    daemon.signal(Signal::TSTP);
    daemon.wait_for_event("quiet").await;
    site.push(&[r#"{"kind":"app.told","id":"waits"}"#.to_owned()])
        .await;
    wait_until("the backlog is told to be late", DEADLINE, || async {
        let (_, report) = admin.get("/readyz").await.unwrap();
        report["queues"][0]["late"] == true
    })
    .await;
    // The process lives and fetches nothing: it does not say that it is ready, and says why.
    server.redis.pause().unwrap();
    admin.wait_ready(false).await;
    let (_, report) = admin.get("/readyz").await.unwrap();
    assert!(
        report["reasons"][0].as_str().unwrap().contains("redis"),
        "{report}"
    );
    server.redis.resume().unwrap();
    admin.wait_ready(true).await;
    daemon.signal(Signal::TSTP);
    site.wait_for_stat("completed", 2, DEADLINE).await;
}
