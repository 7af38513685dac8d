//! A daemon that is asked to end.

use super::killed::held_by;
use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Failure, Outcome, Row, fired};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Drain, hand-back and settlement of a daemon here, and what a busy machine adds to them.
const IN_TIME: Duration = Duration::from_secs(12);
/// The same with a Redis that does not answer: every step takes as long as it may.
const IN_TIME_ALONE: Duration = Duration::from_secs(25);

pub const TERMINATED: Row = Row {
    number: 22,
    name: "sigterm",
    fault: "SIGTERM in the midst of jobs, twice, at the start, with Redis frozen",
    trial: |seed| Box::pin(terminated(seed)),
};

async fn terminated(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    if seed % 4 == 2 {
        return at_start(&mut bed).await;
    }
    bed.start("a").await;
    let victim = bed.only_incarnation().await;
    bed.start("b").await;
    bed.begin();
    let long =
        (0..12).map(|n| format!(r#"{{"id":"long{n}","kind":"load.plain","args":{{"ms":3500}}}}"#));
    bed.push_also(long.collect()).await;
    bed.instant().await;
    bed.wait_until_held(&victim, 1).await;
    fired(!held_by(&bed, &victim).await.is_empty(), "it held nothing")?;
    let frozen = seed % 4 == 3;
    if frozen {
        tokio::task::block_in_place(|| bed.redis.pause()).unwrap();
    }
    bed.daemon("a").signal(Signal::TERM);
    if seed % 4 == 1 {
        let between = bed.length(Duration::from_millis(20), Duration::from_millis(500));
        tokio::time::sleep(between).await;
        bed.daemon("a").signal(Signal::TERM);
    }
    let limit = if frozen { IN_TIME_ALONE } else { IN_TIME };
    let status = exit_of(&mut bed, limit).await;
    if frozen {
        tokio::task::block_in_place(|| bed.redis.resume()).unwrap();
    }
    let status = status?;
    if !status.success() {
        return Err(Broken::new(format!("it ended with {status}")).into());
    }
    if !frozen {
        gone_at_once(&bed, &victim).await?;
    }
    let terms = Terms {
        leases_expire: frozen,
        handed_back: true,
        ..Terms::default()
    };
    check(&mut bed, terms, None).await
}

/// Nobody waits for the lease of one that took leave.
async fn gone_at_once(bed: &Bed, victim: &str) -> Result<(), Failure> {
    let held = held_by(bed, victim).await;
    let workers = bed.queue.workers().await.unwrap().workers;
    if !held.is_empty() || workers.iter().any(|(who, _)| who == victim) {
        return Err(Broken::new(format!(
            "after its end it still holds {held:?}, or is registered"
        ))
        .into());
    }
    Ok(())
}

async fn at_start(bed: &mut Bed) -> Outcome {
    bed.start("b").await;
    bed.begin();
    let daemon = bed.site.start_as("a", &mut bed.program.command());
    bed.daemons.insert("a".to_owned(), daemon);
    let after = bed.length(Duration::ZERO, Duration::from_millis(250));
    tokio::time::sleep(after).await;
    bed.daemon("a").signal(Signal::TERM);
    let status = exit_of(bed, IN_TIME).await?;
    // Before the first line of the program nobody can catch a signal.
    if !status.success() && status.signal() != Some(15) {
        return Err(Broken::new(format!("it ended with {status}")).into());
    }
    let terms = Terms {
        handed_back: true,
        ..Terms::default()
    };
    check(bed, terms, None).await
}

async fn exit_of(bed: &mut Bed, limit: Duration) -> Result<ExitStatus, Failure> {
    let mut daemon = bed.daemons.remove("a").unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = daemon.exited() {
            return Ok(status);
        }
        if began.elapsed() > limit {
            return Err(Broken::new(format!("it had not ended after {limit:?}")).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
