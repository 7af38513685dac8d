//! Limiters in force: as many jobs at once as a real server serves, kept over restarts, never in the way of `critical`.

use super::process::{Process, Site};
use crate::support::{DEADLINE, wait_until};
use axum::Router;
use axum::routing::post;
use rustix::process::Signal;
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate::queue::limiters;
use tokio::sync::Semaphore;

/// Requests the server serves at once; the others wait in line.
const CAPACITY: usize = 4;
const SERVICE: Duration = Duration::from_millis(40);
const HANDLER: &str = "http";

/// A web app of known capacity.
struct App {
    address: std::net::SocketAddr,
    inside: Arc<AtomicUsize>,
}

async fn app() -> App {
    let inside = Arc::new(AtomicUsize::new(0));
    let (count, servers) = (Arc::clone(&inside), Arc::new(Semaphore::new(CAPACITY)));
    let serve = move || {
        let (count, servers) = (Arc::clone(&count), Arc::clone(&servers));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let turn = servers.acquire().await.unwrap();
            tokio::time::sleep(SERVICE).await;
            drop(turn);
            count.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let router = Router::new().route("/jobs", post(serve));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    App { address, inside }
}

async fn published(site: &Site) -> Value {
    let key = tidegate::queue::board::health_key(&site.config.redis.prefix);
    let text: Option<String> = redis::cmd("GET")
        .arg(key)
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

/// Waits until the one limiter that is published is like this.
async fn wait_for_limiter(site: &Site, what: &str, like: impl Fn(&Value) -> bool) -> Value {
    let found = RefCell::new(Value::Null);
    wait_until(what, DEADLINE, || async {
        let shown = published(site).await["limiters"][0].clone();
        let done = like(&shown);
        found.replace(shown);
        done
    })
    .await;
    found.into_inner()
}

fn limit(shown: &Value) -> usize {
    usize::try_from(shown["limit"].as_u64().unwrap_or(0)).unwrap()
}

fn cuts(daemon: &Process) -> usize {
    let events = daemon.events("limiter");
    events
        .iter()
        .filter(|e| e["reason"] == "congestion" || e["reason"] == "no room")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_comes_to_rest_at_what_a_server_serves_and_is_known_after_a_restart() {
    let app = app().await;
    let host = app.address;
    let resource = format!("http:127.0.0.1:{}", host.port());
    let settings = format!(
        "[http]\nallow = [\"{host}\"]\nallow_private = true\n[daemon]\nconcurrency = 64\ndrain_timeout = \"1s\"\n\
         [gate]\nsample = \"100ms\"\n[limiter]\ninitial = 2\nbucket = \"250ms\"\nanchor_jobs = 20\n"
    );
    let job = format!(
        "kind = \"app.call\"\nhandler = \"{HANDLER}\"\nresources = [\"{resource}\"]\n[http]\nurl = \"http://{host}/jobs\""
    );
    let site = Site::new(&settings, &[&job]);
    let jobs: Vec<String> = (0..20_000)
        .map(|_| r#"{"kind":"app.call"}"#.to_owned())
        .collect();
    site.push(&jobs).await;
    let mut daemon = site.start("a");
    // It goes beyond what is served, notices the wait, and comes back.
    wait_until("a wait was noticed", DEADLINE, || {
        std::future::ready(cuts(&daemon) > 0)
    })
    .await;
    let near = CAPACITY - 1..=CAPACITY * 2;
    wait_for_limiter(&site, "the limit is near the capacity", |shown| {
        shown["by"] == "limiter" && near.contains(&limit(shown))
    })
    .await;
    let inside = app.inside.load(Ordering::SeqCst);
    assert!(inside < 32, "{inside} calls at once, of 64 slots");

    daemon.signal(Signal::TERM);
    daemon.wait().await;
    let field = limiters::field(HANDLER, &resource);
    let conn = tidegate::queue::connection::connect(&site.config.redis)
        .await
        .unwrap();
    let prefix = &site.config.redis.prefix;
    let kept = limiters::read(&conn, prefix, std::slice::from_ref(&field))
        .await
        .unwrap();
    let kept: Value = serde_json::from_str(kept[0].as_deref().unwrap()).unwrap();
    let next = site.start("b");
    let shown = wait_for_limiter(&site, "it is known", |shown| {
        shown["limiter"]["anchor_ms"] == kept["anchor"]["mean"]
    })
    .await;
    assert!(limit(&shown) > 2, "not as one that knows nothing: {shown}");
    drop(next);

    limiters::write(&conn, prefix, &[(field, "nonsense".to_owned())])
        .await
        .unwrap();
    let last = site.start("c");
    last.wait_for_event("limiter_kept").await;
    wait_for_limiter(&site, "it learns anew", |shown| {
        let anchor = &shown["limiter"]["anchor_ms"];
        anchor.is_number() && *anchor != kept["anchor"]["mean"]
    })
    .await;
}

const NAP: &str = "kind = \"app.nap\"\nhandler = \"exec\"\npriority = \"bulk\"\nresources = [\"other:thing\"]\n[exec]\ncommand = [\"/bin/sleep\", \"600\"]";

async fn wait_for_running(site: &Site, running: u64) {
    let queue = site.queue("default").await;
    wait_until(&format!("{running} run"), DEADLINE, || async {
        queue.counts().await.unwrap().running == running
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_job_starts_though_long_ones_use_up_the_limit_of_their_operation() {
    let urgent = "kind = \"app.urgent\"\nhandler = \"exec\"\npriority = \"critical\"\nresources = [\"other:thing\"]\n[exec]\ncommand = [\"/bin/true\"]";
    let settings = "[gate]\nsample = \"100ms\"\n[limiter]\ninitial = 2\nmax = 2\n[daemon]\ndrain_timeout = \"0s\"\n";
    let site = Site::new(settings, &[NAP, urgent]);
    let _daemon = site.start("a");
    let nap = r#"{"kind":"app.nap"}"#.to_owned();
    site.push(&vec![nap; 5]).await;
    wait_for_running(&site, 2).await;
    wait_for_limiter(&site, "its limit is used up", |shown| {
        limit(shown) == 2 && shown["limiter"]["inflight"] == 2
    })
    .await;
    let urgent = r#"{"kind":"app.urgent"}"#.to_owned();
    site.push(&vec![urgent; 3]).await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    let counts = site.queue("default").await.counts().await.unwrap();
    assert_eq!((counts.running, counts.lanes[4]), (2, 3), "bulk waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_only_tells_and_a_reload_puts_limits_in_force_or_does_away_with_them() {
    let settings = |mode: &str| {
        format!(
            "[gate]\nsample = \"100ms\"\n[limiter]\ninitial = 1\nmax = 1\nmode = \"{mode}\"\n[daemon]\ndrain_timeout = \"0s\"\n"
        )
    };
    let site = Site::new(&settings("shadow"), &[NAP]);
    let daemon = site.start("a");
    site.push(&vec![r#"{"kind":"app.nap"}"#.to_owned(); 3])
        .await;
    wait_for_running(&site, 3).await;
    wait_for_limiter(&site, "what it would do", |shown| {
        shown["mode"] == "shadow" && shown["limiter"]["limit"] == 1 && limit(shown) > 3
    })
    .await;
    let path = site.path("tidegate.toml");
    for (mode, in_force) in [("on", 1), ("off", 0)] {
        let text = fs::read_to_string(&path).unwrap();
        let (before, _) = text.split_once("[gate]").unwrap();
        fs::write(&path, format!("{before}{}", settings(mode))).unwrap();
        daemon.signal(Signal::HUP);
        wait_for_limiter(&site, mode, |shown| {
            limit(shown) == in_force && (in_force == 0) == shown.is_null()
        })
        .await;
    }
    assert!(daemon.events("reload_incomplete").is_empty());
}
