//! Chains and groups while daemons die: neither a step nor the end of a group is lost or doubled.

use super::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_by_definition_runs_unless_a_job_says_otherwise() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let last = append_to(out.path(), "");
    let named =
        |kind: &str, more: &str| append_to(out.path(), more).replacen("app.append", kind, 1);
    let first = named(
        "app.first",
        "[then]\nkind = \"app.second\"\nargs = { n = 7 }",
    );
    let second = named("app.second", "[then]\nkind = \"app.append\"");
    let site = Site::new("", &[&last, &first, &second]);
    let _daemon = site.start("a");
    site.push(&[
        r#"{"kind":"app.first","id":"long"}"#.to_owned(),
        r#"{"kind":"app.first","id":"own","then":{"kind":"app.append"}}"#.to_owned(),
    ])
    .await;
    site.wait_for_stat("completed", 5, DEADLINE).await;
    let ran: BTreeSet<String> = fs::read_to_string(out.path())
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect();
    let wanted = ["long", "long-t1", "long-t2", "own", "own-t1"].map(str::to_owned);
    assert_eq!(ran, wanted.into());
    let queue = site.queue("default").await;
    let second = queue.find("long-t1").await.unwrap().unwrap();
    assert_eq!(second.finished.unwrap().kind, "app.second");
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.inbox, counts.quarantine), (0, 0));
}

/// Neither of two versions of the definitions need lead round in a circle, and both together may: the steps are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_goes_round_in_a_circle_is_set_aside_in_the_end() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let last = append_to(out.path(), "");
    let first = append_to(
        out.path(),
        "[then]\nkind = \"app.append\"\nargs = { n = 7 }",
    );
    let first = first.replacen("app.append", "app.round", 1);
    let site = Site::new("", &[&last, &first]);
    let _daemon = site.start("a");
    // As the queue writes them.
    let step = |root: &str, n: u32| {
        let before = n - 1;
        format!(
            r#"{{"kind":"app.round","id":"{root}-t{n}","workflow":"{root}","parents":[{{"id":"{root}-t{before}","state":"done"}}]}}"#
        )
    };
    site.push(&[step("r", 256), step("s", 255)]).await;
    site.wait_for_stat("quarantined", 1, DEADLINE).await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    let queue = site.queue("default").await;
    let aside = queue.quarantined("", 9).await.unwrap();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(aside[0].code, "too_large");
    assert!(aside[0].reason.contains("step 257 of a chain"), "{aside:?}");
    assert_eq!(fs::read_to_string(out.path()).unwrap().lines().count(), 3);
}

const CHAINS: u64 = 40;
const MEMBERS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_each_step_and_each_group_comes_once() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let settings = "[daemon]\nlease = \"1s\"\nconcurrency = 8\n";
    let site = Site::new(settings, &[&append_to(out.path(), "")]);
    let job = |id: String, more: String| {
        format!(r#"{{"kind":"app.append","id":"{id}","args":{{"n":1}}{more}}}"#)
    };
    let step = r#"{"kind":"app.append","args":{"n":1}"#;
    let chain = |n| {
        job(
            format!("c{n}"),
            format!(r#","then":{step},"then":{step}}}}}"#),
        )
    };
    let group = |n| {
        let group = format!(r#"{{"id":"g","size":{MEMBERS},"then":{step}}}}}"#);
        job(format!("m{n}"), format!(r#","group":{group}"#))
    };
    let jobs: Vec<String> = (0..CHAINS)
        .map(chain)
        .chain((0..MEMBERS).map(group))
        .collect();
    site.push(&jobs).await;
    let lines = || fs::read_to_string(out.path()).unwrap().lines().count();
    let total = CHAINS * 3 + MEMBERS + 1;
    let queue = site.queue("default").await;
    for round in 1..=3_usize {
        let daemon = site.start(&format!("daemon-{round}"));
        wait_until("some jobs ran", DEADLINE, || async {
            lines() >= round * 40
        })
        .await;
        daemon.kill9();
    }
    let _last = site.start("last");
    site.wait_for_stat("completed", total, Duration::from_secs(60))
        .await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(
        (counts.stats["admitted"], counts.stats["completed"]),
        (total, total)
    );
    assert_eq!(
        counts.inbox + counts.running + counts.delayed + counts.dead + counts.quarantine,
        0
    );
    let ran: BTreeSet<String> = fs::read_to_string(out.path())
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect();
    assert_eq!(ran.len() as u64, total, "every step ran");
    assert!(ran.contains("g-then") && ran.contains("c0-t1") && ran.contains("c0-t2"));
    let group = queue.group("g").await.unwrap().unwrap();
    assert_eq!((group.state, u64::from(group.done)), ("done", MEMBERS));
}
