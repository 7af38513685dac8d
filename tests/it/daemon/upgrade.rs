//! An upgrade daemon by daemon: for a while, one knows kinds that the other does not.

use super::process::Site;
use crate::support::{DEADLINE, wait_until};
use std::fs;

const KEYED: &str = "kind = \"app.keyed\"\nhandler = \"exec\"\npriority = \"high\"\n[concurrency]\nlimit = 1\nkey = \"args.t\"\n[args]\nt = { type = \"string\" }\n[exec]\ncommand = [\"/bin/sleep\", \"60\"]";
const OTHER: &str = "kind = \"app.other\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";

/// The daemon that knows the kind dies while it runs one of its jobs and another one is delayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_know_a_kind_keeps_its_jobs_in_their_flows() {
    let settings = "[daemon]\nlease = \"1s\"\npoll = \"200ms\"\n";
    let site = Site::new(settings, &[KEYED, OTHER]);
    let knows = site.start("new");
    let queue = site.queue("default").await;
    site.push(&[
        r#"{"kind":"app.keyed","id":"runs","args":{"t":"acme"}}"#.to_owned(),
        r#"{"kind":"app.keyed","id":"later","args":{"t":"acme"},"delay_ms":3000}"#.to_owned(),
    ])
    .await;
    wait_until("one runs, one is delayed", DEADLINE, || async {
        let sizes = queue.sizes().await.unwrap();
        (sizes.running, sizes.delayed) == (1, 1)
    })
    .await;
    fs::remove_file(site.path("jobs").join("0.toml")).unwrap();
    let _does_not = site.start("old");
    knows.kill9();
    site.wait_for_stat("recovered", 1, DEADLINE).await;
    wait_until("the delayed one was due", DEADLINE, || async {
        queue.sizes().await.unwrap().delayed == 0
    })
    .await;
    let heads = queue.look().await.unwrap().heads;
    let flows: Vec<String> = heads
        .iter()
        .map(|(flow, _)| format!("{}:{}", flow.priority, flow.member()))
        .collect();
    assert_eq!(flows, ["high:app.keyed@acme"]);
    assert_eq!(queue.counts().await.unwrap().lanes[1], 2);
    assert_eq!(queue.holders("app.keyed@acme").await.unwrap(), 0);
}
