//! What a daemon tells of when something that is kept has to give way, and what it puts right by itself.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use rustix::process::Signal;
use serde_json::json;
use tidegate::job::What;

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_that_gave_way_and_too_many_ids_are_told_of() {
    let bad = "kind = \"app.bad\"\nhandler = \"exec\"\n[retry]\nmax_attempts = 1\n[exec]\ncommand = [\"/bin/false\"]";
    let site = Site::new("[retention]\ndead_max = 1\nids_max = 1000\n", &[bad]);
    let ids = site.queue("default").await.keys().ids.clone();
    let mut reserve = redis::cmd("ZADD");
    reserve.arg(ids);
    for n in 0..1_001 {
        reserve.arg(9_000_000_000_000_u64).arg(format!("r{n}"));
    }
    reserve
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let daemon = site.start("a");
    daemon.wait_for_event("ids_many").await;
    wait_until("it tells that dead jobs gave way", DEADLINE, || async {
        site.push(&vec![r#"{"kind":"app.bad"}"#.to_owned(); 2])
            .await;
        daemon.signal(Signal::HUP);
        !daemon.events("retention_dropped").is_empty()
    })
    .await;
    let told = &daemon.events("retention_dropped")[0];
    assert_eq!(told["what"], json!("dead jobs"), "{told}");
    assert!(told["count"].as_u64().unwrap() > 0, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_job_is_found_by_the_daemon_and_runs() {
    let ok = "kind = \"app.ok\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";
    let site = Site::new("[audit]\ninterval = \"1s\"\n", &[ok]);
    let daemon = site.start("a");
    daemon.wait_for_event("started").await;
    daemon.signal(Signal::TSTP);
    daemon.wait_for_event("quiet").await;
    site.push(&[r#"{"kind":"app.ok","id":"lost"}"#.to_owned()])
        .await;
    let queue = site.queue("default").await;
    wait_until("it waits", DEADLINE, || async {
        queue.counts().await.unwrap().lanes[2] == 1
    })
    .await;
    let flow = queue.keys().named("flow:normal:app.ok");
    redis::cmd("DEL")
        .arg(flow)
        .query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    daemon.wait_for_event("audit_repair").await;
    let told = &daemon.events("audit_repair")[0];
    assert_eq!(told["count"], json!(1), "{told}");
    assert!(told["what"].as_str().unwrap().contains("lost"), "{told}");
    daemon.signal(Signal::TSTP);
    site.wait_for_stat("completed", 1, DEADLINE).await;
    let found = queue.find("lost").await.unwrap().unwrap();
    assert!(
        found
            .history
            .events
            .iter()
            .any(|e| e.event == What::Repaired)
    );
}
