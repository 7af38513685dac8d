//! Death of a daemon: nothing is lost, nobody is blamed, zombies are refused.

use super::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often each job ran, and the highest attempt it was told.
fn runs(file: &Path) -> BTreeMap<String, (u32, u32)> {
    let mut runs = BTreeMap::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        let (id, attempt) = line.split_once(' ').unwrap();
        let entry: &mut (u32, u32) = runs.entry(id.to_owned()).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(attempt.parse().unwrap());
    }
    runs
}

/// One seed: 500 jobs, the daemon killed at a random instant among them, another one started at once.
async fn killed_in_the_middle(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let out = tempfile::NamedTempFile::new().unwrap();
    let settings = "[daemon]\nlease = \"1s\"\nconcurrency = 16\n";
    let site = Site::new(settings, &[&append_to(out.path(), "")]);
    let jobs: Vec<String> = (0..500)
        .map(|n| format!(r#"{{"kind":"app.append","id":"j{n}","args":{{"n":{n}}}}}"#))
        .collect();
    site.push(&jobs).await;
    let first = site.start("first");
    let kill_after = random.random_range(1..400);
    wait_until("some jobs ran", DEADLINE, || async {
        runs(out.path()).len() >= kill_after
    })
    .await;
    first.kill9();
    let queue = site.queue("default").await;
    let held = queue.counts().await.unwrap().running;

    let second = site.start("second");
    // Lease + 5 s for what the dead one held; the rest is plain work.
    site.wait_for_stat("completed", 500, Duration::from_secs(60))
        .await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.stats["completed"], 500, "seed {seed}");
    assert_eq!(
        counts.running + counts.delayed + counts.dead + counts.lanes.iter().sum::<u64>(),
        0
    );
    let runs = runs(out.path());
    assert_eq!(runs.len(), 500, "seed {seed}: every job ran");
    let twice = runs.values().filter(|(count, _)| *count > 1).count() as u64;
    assert!(
        twice <= held,
        "seed {seed}: {twice} ran twice, {held} were held by the dead daemon"
    );
    assert!(
        runs.values().all(|(_, attempt)| *attempt == 1),
        "seed {seed}: no attempt was burned"
    );
    if held > 0 {
        // The log may be behind what it tells of.
        let jobs = |event: &serde_json::Value| event["jobs"].as_u64().unwrap();
        wait_until("they were recovered", DEADLINE, || async {
            second.events("recovered").iter().map(jobs).sum::<u64>() >= held
        })
        .await;
        let recovered: u64 = second.events("recovered").iter().map(jobs).sum();
        assert_eq!(recovered, held, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_500_jobs_none_is_lost() {
    for seed in 0..20 {
        killed_in_the_middle(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_takes_at_most_a_lease_and_five_seconds() {
    let job = "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"[ $TIDEGATE_ATTEMPT = 1 ] && sleep 2\"]";
    let site = Site::new("[daemon]\nlease = \"3s\"\ndrain_timeout = \"0s\"\n", &[job]);
    let first = site.start("first");
    let second = site.start("second");
    first.wait_for_event("started").await;
    second.wait_for_event("started").await;
    let jobs: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"kind":"app.nap","id":"n{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    let queue = site.queue("default").await;
    wait_until("both hold jobs", DEADLINE, || async {
        queue.counts().await.unwrap().running == 40
    })
    .await;
    let killed = std::time::Instant::now();
    first.kill9();
    second.wait_for_event("recovered").await;
    let took = killed.elapsed();
    assert!(took <= Duration::from_secs(3 + 5), "{took:?}");
    assert!(
        took >= Duration::from_secs(2),
        "{took:?}: it could not know that early"
    );
    site.wait_for_stat("completed", 40, DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_refused_and_the_others_result_stands() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "echo start >> {0}; sleep 3; echo end >> {0}",
        out.path().display()
    );
    let job = format!(
        "kind = \"app.slow\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']"
    );
    let site = Site::new("[daemon]\nlease = \"1s\"\n", &[&job]);
    let zombie = site.start("zombie");
    let jobs: Vec<String> = (0..8)
        .map(|n| format!(r#"{{"kind":"app.slow","id":"z{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    let queue = site.queue("default").await;
    wait_until("it holds them", DEADLINE, || async {
        queue.counts().await.unwrap().running == 8
    })
    .await;
    zombie.signal(Signal::STOP);
    let other = site.start("other");
    other.wait_for_event("recovered").await;
    // Its children end while it is stopped: when it wakes, it has results to settle.
    site.wait_for_stat("completed", 8, DEADLINE).await;
    zombie.signal(Signal::CONT);
    zombie.wait_for_event("lease_lost").await;
    zombie.wait_for_event("stale_settlement").await;
    wait_until("all eight are refused", DEADLINE, || {
        std::future::ready(zombie.events("stale_settlement").len() == 8)
    })
    .await;
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.stats["completed"], 8, "each was completed once");
    assert!(zombie.events("job_done").is_empty());
    // It goes on under a new incarnation.
    drop(other);
    site.push(&[r#"{"kind":"app.slow","id":"next"}"#.to_owned()])
        .await;
    site.wait_for_stat("completed", 9, DEADLINE).await;
    assert_eq!(zombie.events("job_done").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_daemon_three_times_is_poison_and_its_neighbours_are_unharmed() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let poison = "kind = \"app.poison\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"kill -9 $PPID\"]";
    let site = Site::new(
        "[daemon]\nlease = \"1s\"\n",
        &[poison, &append_to(out.path(), "")],
    );
    let mut jobs = vec![r#"{"kind":"app.poison","id":"poison"}"#.to_owned()];
    jobs.extend((0..50).map(|n| format!(r#"{{"kind":"app.append","id":"n{n}"}}"#)));
    site.push(&jobs).await;
    let queue = site.queue("default").await;
    for round in 0..3 {
        let mut daemon = site.start(&format!("victim{round}"));
        assert!(!daemon.wait().await.success(), "the job killed it");
    }
    let last = site.start("last");
    site.wait_for_stat("poisoned", 1, DEADLINE).await;
    site.wait_for_stat("completed", 50, DEADLINE).await;
    let found = queue.find("poison").await.unwrap().unwrap();
    assert_eq!((found.state.as_str(), found.history.crashes), ("dead", 3));
    assert_eq!(found.history.attempts, 0);
    assert_eq!(
        queue.counts().await.unwrap().dead,
        1,
        "no neighbour died with it"
    );
    last.wait_for_event("job_dead").await;
    assert_eq!(last.events("job_dead")[0]["alert"], "job_poison");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_two_crashes_run_one_at_a_time_whatever_their_queue() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let job = |queue: &str| {
        let file = out.path().display();
        format!(
            "kind = \"app.{queue}\"\nqueue = \"{queue}\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo start >> {file}; sleep 0.5; echo end >> {file}\"]"
        )
    };
    let site = Site::new("", &[&job("one"), &job("two")]);
    let mut redis = site.redis().await;
    let queues = [site.queue("one").await, site.queue("two").await];
    for queue in &queues {
        let keys = queue.keys();
        let entry = format!(r#"{{"kind":"app.{}","id":"s"}}"#, queue.name);
        redis::pipe()
            .hset(&keys.meta, "s", r#"{"crashes":2}"#)
            .rpush(&keys.inbox, entry)
            .query_async::<()>(&mut redis)
            .await
            .unwrap();
    }
    let _daemon = site.start("a");
    for queue in &queues {
        wait_until("it is done", DEADLINE, || async {
            queue
                .counts()
                .await
                .unwrap()
                .stats
                .contains_key("completed")
        })
        .await;
    }
    let noted = fs::read_to_string(out.path()).unwrap();
    assert_eq!(noted, "start\nend\nstart\nend\n");
}
