//! How far a job has come, from the handler to whoever asks, through the whole daemon.

use super::process::Site;
use crate::cli;
use crate::support::{DEADLINE, wait_until};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::catalog;
use tidegate::daemon::Daemon;
use tidegate::handlers::{Context, Handler, HandlerKind};
use tidegate::job::Outcome;
use tokio_util::sync::CancellationToken;

/// How long a talkative job talks.
const TALK: Duration = Duration::from_millis(1_200);

/// Tells how far it has come without a pause.
struct Talkative;

impl Handler for Talkative {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let talk = async {
                for n in 0.. {
                    ctx.progress.count("told", n);
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(TALK, talk).await;
            Outcome::Done(None)
        })
    }
}

const TALKATIVE: HandlerKind = HandlerKind {
    name: "test.talkative",
    check: |_, _| Ok(()),
    touches: |_, _| Vec::new(),
    build: |_, _| Ok(Arc::new(Talkative)),
};

fn calls(daemon: &Daemon, op: &str) -> u64 {
    let text = daemon.metrics().encode().unwrap();
    let count = text.lines().find(|line| {
        line.starts_with("tidegate_redis_command_duration_seconds_count")
            && line.contains(&format!("op=\"{op}\""))
    });
    count.map_or(0, |line| {
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_written_twice_a_second_at_most_whatever_the_number_of_jobs() {
    let job = "kind = \"app.talk\"\nhandler = \"test.talkative\"\n";
    let site = Site::new("", &[job]);
    let catalog = catalog::load(&site.path("jobs"), &["test.talkative"]).unwrap();
    let daemon = Daemon::start(site.config.clone(), catalog, &[TALKATIVE])
        .await
        .unwrap();
    let jobs: Vec<String> = (0..8)
        .map(|n| format!(r#"{{"kind":"app.talk","id":"t{n}"}}"#))
        .collect();
    let began = Instant::now();
    site.push(&jobs).await;
    let queue = site.queue("default").await;
    wait_until("all tell", DEADLINE, || async {
        let mut telling = 0;
        for n in 0..8 {
            let found = queue.find(&format!("t{n}")).await.unwrap();
            telling += usize::from(found.is_some_and(|f| f.progress.is_some()));
        }
        telling == 8
    })
    .await;
    site.wait_for_stat("completed", 8, DEADLINE).await;
    let written = calls(&daemon, "progress");
    daemon.stop(Duration::ZERO, CancellationToken::new()).await;
    // A busy machine makes the jobs start, and end, one after the other.
    let most = 2.0 * began.elapsed().as_secs_f64() + 2.0;
    assert!(
        (1.0..=most).contains(&(written as f64)),
        "{written} calls for 8 jobs, at most {most}"
    );
    let left: u64 = redis::cmd("EXISTS")
        .arg(&queue.keys().progress)
        .query_async(&mut site.redis().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_tells_by_a_pipe_and_an_operator_reads_it() {
    let site = Site::new("", &[]);
    let go = site.path("go");
    let script = format!(
        r#"echo '{{"percent":40,"message":"halfway","counters":{{"rows":12}}}}' > "$TIDEGATE_PROGRESS"; while ! [ -e {} ]; do sleep 0.02; done"#,
        go.display()
    );
    site.write_job(
        "a.toml",
        &format!(
            "kind = \"app.tell\"\nhandler = \"exec\"\n[exec]\nprogress = true\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n"
        ),
    );
    let daemon = site.start("d");
    site.push(&[r#"{"kind":"app.tell","id":"tell"}"#.to_owned()])
        .await;
    let queue = site.queue("default").await;
    wait_until("it tells", DEADLINE, || async {
        let found = queue.find("tell").await.unwrap();
        found.is_some_and(|f| f.progress.is_some())
    })
    .await;
    let shown = cli::json_at(&site, &["job", "show", "tell"]).ok();
    assert_eq!(shown["progress"]["percent"], 40.0);
    assert_eq!(shown["progress"]["counters"]["rows"], 12);
    let text = cli::at(&site, &["job", "show", "tell"]).out;
    assert!(text.contains("40%, halfway, rows 12 ("), "{text}");
    std::fs::write(&go, "").unwrap();
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let shown = cli::json_at(&site, &["job", "show", "tell"]).ok();
    assert_eq!(shown.get("progress"), None, "{shown}");
    drop(daemon);
}
