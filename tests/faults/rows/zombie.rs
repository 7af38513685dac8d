//! A daemon that was taken for dead, and comes back.

use super::killed::{held_by, recovered};
use crate::bed::{Bed, DEADLINE, Setup};
use crate::invariants::{Terms, check, commands};
use crate::proxy::{Harm, Proxy};
use crate::row::{Broken, Failure, Outcome, Row, fired};
use crate::support::{self, wait_until};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// What recovery may take beyond the lease.
const RECOVERY: Duration = Duration::from_secs(5);
/// How long a zombie may go on after it woke: a heartbeat and its answer.
const NOTICE: Duration = Duration::from_secs(3);
/// Longer than the stall of any zombie here, ms.
const LONG_MS: u64 = 3_500;

pub const STOPPED: Row = Row {
    number: 2,
    name: "zombie",
    fault: "a daemon stopped for longer than its lease, then woken",
    trial: |seed| Box::pin(stopped(seed)),
};

pub const RELEASED: Row = Row {
    number: 3,
    name: "same_worker_again",
    fault: "a daemon cut off from Redis for longer than its lease gets its own jobs again",
    trial: |seed| Box::pin(same_worker(seed)),
};

const EXPIRING: Terms = Terms {
    leases_expire: true,
    handed_back: false,
    attempts_fail: false,
    may_lose: false,
    quarantined: 0,
    meddled: false,
    strangers: &[],
};

async fn stopped(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start("a").await;
    let victim = bed.only_incarnation().await;
    bed.start("b").await;
    bed.begin();
    // Runs and a command that are still under way when it wakes.
    let long = (0..6)
        .map(|n| format!(r#"{{"id":"long{n}","kind":"load.plain","args":{{"ms":{LONG_MS}}}}}"#));
    let slow = (0..4).map(|n| format!(r#"{{"id":"slow{n}","kind":"load.slow"}}"#));
    bed.push_also(long.chain(slow).collect()).await;
    bed.instant().await;
    bed.wait_until_held(&victim, 1).await;
    bed.daemon("a").signal(Signal::STOP);
    let since = Instant::now();
    wait_until("it stands still", DEADLINE, || {
        std::future::ready(
            support::process_state(bed.daemon("a").id()).is_some_and(|(s, _)| s == 'T'),
        )
    })
    .await;
    let held = held_by(&bed, &victim).await;
    fired(!held.is_empty(), "it held nothing when it was stopped")?;
    let recovery = recovered(&bed, &held, since, bed.lease + RECOVERY).await?;
    let under_way = runs_under_way(&bed, since);
    bed.daemon("a").signal(Signal::CONT);
    bed.daemon("a").wait_for_event("lease_lost").await;
    side_effects_end(&bed, &under_way).await?;
    let verdict = check(&mut bed, EXPIRING, Some(recovery)).await?;
    let ended = commands(&bed, 'e');
    if let Some((id, _)) = ended
        .iter()
        .find(|(id, times)| id.starts_with("slow") && **times > 1)
    {
        return Err(Broken::new(format!(
            "the zombie's child went on: {id} came to its end twice"
        ))
        .into());
    }
    let done = bed.daemon("a").events("job_done");
    let wrong = done.iter().find(|e| {
        held.get(e["id"].as_str().unwrap_or_default())
            .is_some_and(|t| e["token"] == t.as_str())
    });
    if let Some(event) = wrong {
        return Err(Broken::new(format!("the zombie's end was accepted: {event}")).into());
    }
    Ok(verdict)
}

/// Numbers of the runs that began before, and are not over.
fn runs_under_way(bed: &Bed, before: Instant) -> Vec<usize> {
    let runs = bed.receiver.runs();
    let old = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| run.began < before && run.ended.is_none());
    old.map(|(number, _)| number).collect()
}

/// Runs that were under way on both daemons are over soon; those of the zombie because it broke them off.
async fn side_effects_end(bed: &Bed, under_way: &[usize]) -> Result<(), Failure> {
    let woke = Instant::now();
    let again = |runs: &[crate::receiver::Run], number: usize| {
        let id = &runs[number].id;
        runs[number + 1..].iter().any(|run| run.id == *id)
    };
    loop {
        let runs = bed.receiver.runs();
        // What runs a second time was the zombie's.
        let left = under_way
            .iter()
            .filter(|n| runs[**n].ended.is_none() && again(&runs, **n))
            .count();
        if left == 0 {
            return Ok(());
        }
        if woke.elapsed() > NOTICE {
            return Err(Broken::new(format!(
                "{left} requests of the zombie went on after it lost its lease"
            ))
            .into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The other daemon recovers, but claims nothing: so the victim gets what it had, under other tokens, while its own ends
/// of the first time are still to be settled.
async fn same_worker(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    let proxy = Proxy::start(bed.redis.port()).await;
    let mut command = bed.program.command();
    bed.start_as("a", command.env("TIDEGATE_REDIS__URL", proxy.url()))
        .await;
    let victim = bed.only_incarnation().await;
    bed.start("b").await;
    bed.daemon("b").signal(Signal::TSTP);
    bed.daemon("b").wait_for_event("quiet").await;
    bed.begin();
    bed.instant().await;
    bed.wait_until_held(&victim, 4).await;
    proxy.set(Harm::Cut);
    let since = Instant::now();
    let held = held_by(&bed, &victim).await;
    fired(!held.is_empty(), "it held nothing when it was cut off")?;
    let recovery = recovered(&bed, &held, since, bed.lease + RECOVERY).await?;
    proxy.set(Harm::Nothing);
    bed.daemon("a").wait_for_event("lease_lost").await;
    fired(proxy.hits() > 0, "no connection was cut")?;
    check(&mut bed, EXPIRING, Some(recovery)).await
}

/// A command with another address of Redis.
pub fn through(command: &mut Command, proxy: &Proxy) {
    command.env("TIDEGATE_REDIS__URL", proxy.url());
}
