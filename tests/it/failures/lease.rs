//! Who runs a job, who may end it, and when it is given to another.

use super::private;
use crate::daemon::process::{Process, Site};
use crate::queue::rig::{ME, Rig, done, envelope, flow, handed_back, settlement};
use crate::support::{DEADLINE, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tidegate::job::Priority;

/// A definition whose runs note their start, and their end this many seconds later.
fn naps(file: &Path, seconds: u32) -> String {
    format!(
        "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo start >> {0}; sleep {seconds}; echo end >> {0}\"]",
        file.display()
    )
}

async fn both(site: &Site) -> [Process; 2] {
    let both = ["first", "second"].map(|name| site.start(name));
    for daemon in &both {
        daemon.wait_for_event("started").await;
    }
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_stuck_active_with_no_lease() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new("[daemon]\nlease = \"1s\"\n", &[&naps(out.path(), 3)]);
    let queue = site.queue("default").await;
    let keys = queue.keys();
    // Jobs that "run" under daemons that are not registered, and under what is no token at all.
    let mut conn = site.redis().await;
    let ghosts = ["nobody:1:1700000000000", "junk", ""];
    for (n, token) in ghosts.iter().enumerate() {
        let id = format!("ghost-{n}");
        redis::pipe()
            .hset(
                &keys.jobs,
                &id,
                format!(r#"{{"kind":"app.nap","id":"{id}"}}"#),
            )
            .hset(&keys.running, &id, token)
            .query_async::<()>(&mut conn)
            .await
            .unwrap();
    }
    let daemons = both(&site).await;
    site.wait_for_stat("completed", 3, DEADLINE).await;
    assert_eq!(queue.counts().await.unwrap().running, 0);
    // A run of three leases has its lease all the time, and its end counts.
    site.push(&[r#"{"kind":"app.nap","id":"long"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 4, DEADLINE).await;
    assert_eq!(
        fs::read_to_string(out.path())
            .unwrap()
            .matches("end")
            .count(),
        4
    );
    let refused = daemons.iter().map(|d| d.events("stale_settlement").len());
    assert_eq!(refused.sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f05_time_only_rescue_or_a_reused_identity() {
    // Time alone: Redis stands still for two leases, nobody can beat, and nobody is taken for dead.
    let mut server = private(|_| {});
    let out = tempfile::NamedTempFile::new().unwrap();
    let settings = "[daemon]\nlease = \"1s\"\n";
    let site = Site::on(&server.redis.url(), settings, &[&naps(out.path(), 4)]);
    let daemons = both(&site).await;
    let jobs: Vec<String> = (0..6)
        .map(|n| format!(r#"{{"kind":"app.nap","id":"n{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    wait_until("all run", DEADLINE, || {
        let noted = fs::read_to_string(out.path()).unwrap();
        std::future::ready(noted.lines().count() == 6)
    })
    .await;
    server.redis.pause().unwrap();
    let paused = std::time::Instant::now();
    wait_until("two leases pass", DEADLINE, || {
        std::future::ready(paused.elapsed() >= Duration::from_secs(2))
    })
    .await;
    server.redis.resume().unwrap();
    site.wait_for_stat("completed", 6, DEADLINE).await;
    let rescued = daemons.iter().map(|d| d.events("recovered").len());
    assert_eq!(rescued.sum::<usize>(), 0, "nobody had died");
    assert_eq!(
        fs::read_to_string(out.path())
            .unwrap()
            .matches("start")
            .count(),
        6
    );

    // Identity: the same daemon is given the same job again, and its first delivery ends nothing.
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, r#","id":"x""#)]).await;
    let first = rig.claim(1).await.remove(0);
    let home = flow(Priority::Normal, "app.a");
    rig.settle(&[settlement(&first, handed_back(home))]).await;
    let second = rig.claim(1).await.remove(0);
    assert_ne!(first.token, second.token);
    let late = rig
        .queue
        .settle(ME, 0, &[settlement(&first, done(&first))])
        .await;
    assert_eq!(late.unwrap().stale, [0]);
    assert_eq!(rig.state("x").await.as_deref(), Some("running"));
    rig.done(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f06_poison_pills() {
    let poison = "kind = \"app.poison\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"kill -9 $PPID\"]";
    let fine = "kind = \"app.fine\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/true\"]";
    let site = Site::new("[daemon]\nlease = \"1s\"\n", &[poison, fine]);
    let mut jobs = vec![r#"{"kind":"app.poison","id":"pill"}"#.to_owned()];
    jobs.extend((0..20).map(|n| format!(r#"{{"kind":"app.fine","id":"f{n}"}}"#)));
    site.push(&jobs).await;
    for round in 0..3 {
        let mut victim = site.start(&format!("victim{round}"));
        assert!(!victim.wait().await.success(), "the pill killed it");
    }
    // The fourth lives: the pill is set apart, under the id it always had, and burned no attempt.
    let mut survivor = site.start("survivor");
    site.wait_for_stat("poisoned", 1, DEADLINE).await;
    site.wait_for_stat("completed", 20, DEADLINE).await;
    let queue = site.queue("default").await;
    let found = queue.find("pill").await.unwrap().unwrap();
    let troubles = (found.history.crashes, found.history.attempts);
    assert_eq!((found.state.as_str(), troubles), ("dead", (3, 0)));
    assert_eq!(
        queue.counts().await.unwrap().dead,
        1,
        "no neighbour went with it"
    );
    survivor.signal(rustix::process::Signal::TERM);
    assert!(survivor.wait().await.success());
}
