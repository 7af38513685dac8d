//! A daemon that is killed.

use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Outcome, Row, fired};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What recovery may take beyond the lease.
const RECOVERY: Duration = Duration::from_secs(5);

pub const WORKER: Row = Row {
    number: 1,
    name: "worker_killed",
    fault: "SIGKILL of a daemon, default lease",
    trial: |seed| Box::pin(worker(seed)),
};

/// With the lease that is the default: recovery is measured against it.
async fn worker(seed: u64) -> Outcome {
    let default = tidegate::config::load(&tidegate::config::Sources::default()).unwrap();
    let setup = Setup {
        lease: default.daemon.lease,
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    bed.start("a").await;
    let victim = bed.only_incarnation().await;
    bed.start("b").await;
    bed.begin();
    bed.instant().await;
    bed.wait_until_held(&victim, 1).await;
    bed.daemons.remove("a").unwrap().kill9();
    let killed = Instant::now();
    let held = held_by(&bed, &victim).await;
    fired(!held.is_empty(), "it held nothing when it was killed")?;
    let recovery = recovered(&bed, &held, killed, bed.lease + RECOVERY).await?;
    let verdict = check(
        &mut bed,
        Terms {
            leases_expire: true,
            ..Terms::default()
        },
        Some(recovery),
    )
    .await?;
    each_crash_counted(&bed, &held).await?;
    Ok(verdict)
}

/// What runs under an incarnation.
pub async fn held_by(bed: &Bed, incarnation: &str) -> BTreeMap<String, String> {
    let mut running = bed.running().await;
    running.retain(|_, token| token.starts_with(incarnation));
    running
}

/// Waits until no job runs under any of these tokens; how long that took since `since`.
pub async fn recovered(
    bed: &Bed,
    held: &BTreeMap<String, String>,
    since: Instant,
    limit: Duration,
) -> Result<Duration, Broken> {
    loop {
        let running = bed.running().await;
        let took = since.elapsed();
        if held
            .iter()
            .all(|(id, token)| running.get(id) != Some(token))
        {
            return Ok(took);
        }
        if took > limit {
            return Err(Broken::new(format!(
                "I6: jobs of the dead were not recovered within {limit:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The daemon is blamed for its crash, the job for nothing.
async fn each_crash_counted(bed: &Bed, held: &BTreeMap<String, String>) -> Result<(), Broken> {
    for id in held.keys() {
        let found = bed.queue.find(id).await.unwrap();
        let history = found.map(|f| f.history).unwrap_or_default();
        if history.crashes != 1 {
            let told = format!(
                "{id} was held once when its daemon was killed, and has {} crashes",
                history.crashes
            );
            return Err(Broken::new(told));
        }
    }
    Ok(())
}
