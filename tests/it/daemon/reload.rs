//! Reload: what is taken over at once, and what waits for a restart.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use rustix::process::Signal;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_changed_by_a_reload_leaves_waiting_jobs_in_their_lane() {
    let job = |priority: &str| {
        format!(
            "kind = \"app.true\"\nhandler = \"exec\"\npriority = \"{priority}\"\n[exec]\ncommand = [\"/bin/true\"]"
        )
    };
    let site = Site::new("", &[&job("low")]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    daemon.signal(Signal::TSTP);
    daemon.wait_for_event("quiet").await;
    let queue = site.queue("default").await;
    site.push(&[r#"{"kind":"app.true","id":"before"}"#.to_owned()])
        .await;
    wait_until("it waits as low", DEADLINE, || async {
        queue.counts().await.unwrap().lanes[3] == 1
    })
    .await;
    site.write_job("0.toml", &job("high"));
    daemon.signal(Signal::HUP);
    daemon.wait_for_event("reloaded").await;
    daemon.signal(Signal::TSTP);
    site.wait_for_stat("completed", 1, DEADLINE).await;
    // The slot comes back to the class it was taken from, so that neither class is closed by a wrong count.
    site.push(&[
        r#"{"kind":"app.true","id":"after"}"#.to_owned(),
        r#"{"kind":"app.true","id":"low","priority":"low"}"#.to_owned(),
    ])
    .await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    daemon.wait_for_event("job_done").await;
    assert_eq!(daemon.events("job_done")[0]["priority"], "low");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_over_concurrency_and_names_what_needs_a_restart() {
    let nap = "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"60\"]";
    let site = Site::new("[daemon]\nconcurrency = 1\n", &[nap]);
    let daemon = site.start("a");
    let nap = r#"{"kind":"app.nap"}"#.to_owned();
    site.push(&[nap.clone(), nap]).await;
    let queue = site.queue("default").await;
    let running = |n: u64| {
        let queue = &queue;
        wait_until("they run", DEADLINE, move || async move {
            queue.counts().await.unwrap().running == n
        })
    };
    running(1).await;
    let path = site.path("tidegate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let more = "concurrency = 2\nlease = \"20s\"\n[aging]\nafter = \"90s\"";
    fs::write(&path, text.replace("concurrency = 1", more)).unwrap();
    daemon.signal(Signal::HUP);
    running(2).await;
    daemon.wait_for_event("reload_incomplete").await;
    assert_eq!(
        daemon.events("reload_incomplete")[0]["sections"],
        "daemon, aging"
    );
}
