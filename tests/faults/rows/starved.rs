//! A daemon without descriptors, and one that is given a configuration it can't use.

use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Outcome, Row, fired};
use rustix::process::Signal;
use std::fs;
use std::process::Command;
use std::time::Duration;

pub const STARVED: Row = Row {
    number: 24,
    name: "descriptors_and_reload",
    fault: "no file descriptor left (prlimit), a broken configuration on SIGHUP",
    trial: |seed| Box::pin(starved(seed)),
};

/// Sets the soft limit of a process.
fn limit_descriptors(pid: u32, limit: u64) {
    let set = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .output()
        .unwrap();
    assert!(set.status.success(), "{set:?}");
}

async fn starved(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    let config = bed.site.path("tidegate.toml");
    let good = fs::read_to_string(&config).unwrap();
    let pid = bed.daemon("a").id();
    // What is open stays open; nothing more can be opened.
    limit_descriptors(pid, 3);
    let bad = if seed.is_multiple_of(2) {
        good.replace("concurrency = 8", "concurrency = 0")
    } else {
        format!("{good}\n[daemon")
    };
    fs::write(&config, bad).unwrap();
    for name in ["a", "b"] {
        bed.daemon(name).signal(Signal::HUP);
    }
    let length = bed.length(Duration::from_millis(500), Duration::from_secs(2));
    tokio::time::sleep(length).await;
    fs::write(&config, good).unwrap();
    limit_descriptors(pid, 1_024);
    for name in ["a", "b"] {
        bed.daemon(name).wait_for_event("reload_failed").await;
    }
    let log = fs::read_to_string(bed.site.path("a.log")).unwrap();
    fired(
        log.contains("Too many open files"),
        "there were descriptors enough",
    )?;
    let terms = Terms {
        attempts_fail: true,
        ..Terms::default()
    };
    let verdict = check(&mut bed, terms, None).await?;
    for name in ["a", "b"] {
        let daemon = bed.daemons.get_mut(name).unwrap();
        if let Some(status) = daemon.exited() {
            return Err(Broken::new(format!("{name} ended with {status}")).into());
        }
    }
    Ok(verdict)
}
