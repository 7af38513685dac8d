//! Two versions on one queue: this one, and one from the history of the repository.

use super::killed::{held_by, recovered};
use crate::bed::{Bed, Program, Setup};
use crate::build::{self, NoBuild};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Failure, Outcome, Row, fired};
use std::time::{Duration, Instant};

pub const MIXED: Row = Row {
    number: 23,
    name: "two_versions",
    fault: "an older version beside this one, and one of the two killed",
    trial: |seed| Box::pin(mixed(seed)),
};

/// The version before, as it stands in the history. To be moved on with each release.
const BEFORE: &str = "bacec93";
const RECOVERY: Duration = Duration::from_secs(5);

async fn mixed(seed: u64) -> Outcome {
    let older = build::older(BEFORE).await.map_err(|e| match e {
        NoBuild::Missing(what) => Failure::NotRun(what),
        NoBuild::Failed(why) => Broken::new(why).into(),
    })?;
    let older = Program {
        path: older.display().to_string(),
        env: Vec::new(),
    };
    let mut bed = Bed::new(seed, Setup::default()).await;
    let older_dies = seed.is_multiple_of(2);
    let (first, second) = if older_dies {
        (older, bed.program.clone())
    } else {
        (bed.program.clone(), older)
    };
    bed.start_as("a", &mut first.command()).await;
    let victim = bed.only_incarnation().await;
    bed.start_as("b", &mut second.command()).await;
    bed.begin();
    bed.instant().await;
    bed.wait_until_held(&victim, 1).await;
    bed.daemons.remove("a").unwrap().kill9();
    let since = Instant::now();
    let held = held_by(&bed, &victim).await;
    fired(!held.is_empty(), "it held nothing when it was killed")?;
    let recovery = recovered(&bed, &held, since, bed.lease + RECOVERY).await?;
    let terms = Terms {
        leases_expire: true,
        ..Terms::default()
    };
    check(&mut bed, terms, Some(recovery)).await
}
