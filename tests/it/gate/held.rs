//! What a sick dependency does to the daemon: jobs are held back, not burned, and come when it is well again.

use crate::daemon::process::Site;
use crate::support::{DEADLINE, wait_until};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tidegate::stack::{PostgresOptions, PrivatePostgres};

/// A web app whose health a test decides.
struct App {
    address: std::net::SocketAddr,
    well: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

async fn app() -> App {
    let well = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU32::new(0));
    let (is_well, count) = (Arc::clone(&well), Arc::clone(&calls));
    let answer = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let status = if is_well.load(Ordering::SeqCst) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        std::future::ready(status)
    };
    let router = Router::new().route("/jobs", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    App {
        address,
        well,
        calls,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_holds_jobs_unclaimed_and_closes_again() {
    let app = app().await;
    let (host, resource) = (
        app.address,
        format!("http:127.0.0.1:{}", app.address.port()),
    );
    let settings = format!(
        "[http]\nallow = [\"{host}\"]\nallow_private = true\n[breaker]\nopen = \"1s\"\nrest = \"3s\"\n[daemon]\nconcurrency = 4\n"
    );
    let job = format!(
        "kind = \"app.call\"\nhandler = \"http\"\nresources = [\"{resource}\"]\n[retry]\nmax_attempts = 100\nstrategy = \"fixed\"\nbase = \"100ms\"\njitter = \"none\"\n[http]\nurl = \"http://{host}/jobs\""
    );
    let other = "kind = \"app.other\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";
    let site = Site::new(&settings, &[&job, other]);
    let daemon = site.start("a");
    let jobs: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"kind":"app.call","id":"c{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    daemon.wait_for_event("breaker").await;
    let opened = &daemon.events("breaker")[0];
    assert_eq!(
        (&opened["to"], &opened["alert"]),
        (&"open".into(), &"breaker_open".into())
    );

    // While it is open, other kinds go on, and only trials reach the app.
    site.push(&[r#"{"kind":"app.other","id":"other"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let queue = site.queue("default").await;
    wait_until("a trial was made and failed", DEADLINE, || {
        let reopened = daemon
            .events("breaker")
            .iter()
            .filter(|e| e["to"] == "open")
            .count();
        std::future::ready(reopened >= 2)
    })
    .await;
    let burned = app.calls.load(Ordering::SeqCst);
    assert!(
        burned < 30,
        "{burned} calls while the app was down, of 40 jobs with 100 attempts each"
    );

    app.well.store(true, Ordering::SeqCst);
    site.wait_for_stat("completed", 41, DEADLINE).await;
    // It does so even if these were the last jobs for now.
    wait_until("the breaker closes", DEADLINE, || {
        let last = daemon.events("breaker").pop();
        std::future::ready(last.is_some_and(|e| e["to"] == "closed"))
    })
    .await;
    wait_until("all is done", DEADLINE, || async {
        let counts = queue.counts().await.unwrap();
        (counts.dead, counts.delayed, counts.running) == (0, 0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_hangs_until_the_timeout_opens_its_breaker() {
    let settings = "[breaker]\nopen = \"60s\"\nopen_max = \"60s\"\n[daemon]\nconcurrency = 4\n";
    let job = "kind = \"app.hang\"\nhandler = \"exec\"\ntimeout = \"100ms\"\nresources = [\"other:thing\"]\n[retry]\nstrategy = \"fixed\"\nbase = \"50ms\"\n[exec]\ncommand = [\"/bin/sleep\", \"60\"]";
    let site = Site::new(settings, &[job]);
    let daemon = site.start("a");
    let jobs: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"kind":"app.hang","id":"h{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    daemon.wait_for_event("breaker").await;
    assert_eq!(daemon.events("breaker")[0]["to"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_closes_for_what_needs_a_frozen_database_and_opens_again() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let mut postgres = PrivatePostgres::start(PostgresOptions::new(dir.path().join("pg"))).unwrap();
    let settings = format!(
        "[database]\nurl = \"{}\"\nacquire_timeout = \"500ms\"\n[gate]\nsample = \"100ms\"\nhold = \"500ms\"\nstale_after = \"1s\"\n[daemon]\npoll = \"100ms\"\n",
        postgres.url("postgres")
    );
    let job = |name: &str, more: &str| {
        format!(
            "kind = \"app.{name}\"\nhandler = \"exec\"\n{more}\n[exec]\ncommand = [\"/bin/true\"]"
        )
    };
    let jobs = [
        job(
            "bulk",
            "priority = \"bulk\"\nresources = [\"postgres:primary\"]",
        ),
        job(
            "critical",
            "priority = \"critical\"\nresources = [\"postgres:primary\"]",
        ),
        job("free", "priority = \"bulk\""),
    ];
    let site = Site::new(&settings, &jobs.each_ref().map(String::as_str));
    let daemon = site.start("a");
    site.push(&[r#"{"kind":"app.bulk"}"#.to_owned()]).await;
    site.wait_for_stat("completed", 1, DEADLINE).await;

    postgres.pause().unwrap();
    wait_until("postgres is critical", DEADLINE, || {
        let critical =
            |e: &serde_json::Value| e["resource"] == "postgres:primary" && e["to"] == "critical";
        std::future::ready(daemon.events("gate").iter().any(critical))
    })
    .await;
    site.push(
        &["bulk", "critical", "free"]
            .map(|kind| format!(r#"{{"kind":"app.{kind}","id":"{kind}"}}"#)),
    )
    .await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    let queue = site.queue("default").await;
    let state = |id: &'static str| {
        let queue = queue.clone();
        async move { queue.find(id).await.unwrap().unwrap() }
    };
    assert_eq!(state("critical").await.state, "done");
    assert_eq!(
        state("free").await.state,
        "done",
        "it does not need the database"
    );
    let held = state("bulk").await;
    assert_eq!((held.state.as_str(), held.history.attempts), ("pending", 0));
    let key = tidegate::queue::board::health_key(&site.config.redis.prefix);
    let redis = site.redis().await;
    wait_until("the apps are told", DEADLINE, || {
        let (key, mut redis) = (key.clone(), redis.clone());
        async move {
            let text: String = redis::cmd("GET")
                .arg(key)
                .query_async(&mut redis)
                .await
                .unwrap();
            let health: serde_json::Value = serde_json::from_str(&text).unwrap();
            health["resources"]["postgres:primary"]["state"] == "critical"
        }
    })
    .await;

    postgres.resume().unwrap();
    site.wait_for_stat("completed", 4, Duration::from_secs(30))
        .await;
    assert_eq!(state("bulk").await.state, "done");
}
