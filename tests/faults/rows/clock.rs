//! The clocks of the machines that daemons run on.

use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Failure, Outcome, Row, fired};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const JUMPED: Row = Row {
    number: 17,
    name: "clock_jumped",
    fault: "the clocks of both daemons jump by an hour, apart from each other",
    trial: |seed| Box::pin(jumped(seed)),
};

const HOUR_MS: u64 = 3_600_000;

/// The library that lies about the time, where distributions put it.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut homes = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")]);
    homes.find_map(|home| {
        let library = home.join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    })
}

/// Makes a daemon believe the time in this file.
fn deceive(command: &mut Command, library: &Path, file: &Path) {
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

async fn jumped(seed: u64) -> Outcome {
    let Some(library) = library() else {
        let why =
            "libfaketime is not installed (Debian: faketime; scripts/setup.sh test installs it)";
        return Err(Failure::NotRun(why.to_owned()));
    };
    let mut bed = Bed::new(seed, Setup::default()).await;
    let clocks = ["a", "b"].map(|name| bed.site.path(&format!("{name}.clock")));
    for (name, clock) in ["a", "b"].into_iter().zip(&clocks) {
        fs::write(clock, "+0").unwrap();
        let mut command = bed.program.command();
        deceive(&mut command, &library, clock);
        bed.start_as(name, &mut command).await;
    }
    bed.begin();
    bed.instant().await;
    let jumps = if seed.is_multiple_of(2) {
        ["+1h", "-1h"]
    } else {
        ["-1h", "+1h"]
    };
    for (clock, jump) in clocks.iter().zip(jumps) {
        fs::write(clock, jump).unwrap();
        let between = bed.length(Duration::ZERO, Duration::from_millis(200));
        tokio::time::sleep(between).await;
    }
    // Longer than a lease, so that whoever goes by these clocks has time to go wrong.
    let length = bed.length(bed.lease * 2, bed.lease * 3);
    tokio::time::sleep(length).await;
    let verdict = check(&mut bed, Terms::default(), None).await?;
    fired(saw_other_times(&bed).await, "nobody believed the clock")?;
    Ok(verdict)
}

/// Whether the daemons wrote down ends of jobs at times that are more than half an hour apart.
async fn saw_other_times(bed: &Bed) -> bool {
    let mut conn = bed.site.redis().await;
    let read = redis::cmd("LRANGE")
        .arg(&bed.queue.keys().recent)
        .arg(0)
        .arg(-1)
        .to_owned();
    let records: Vec<String> = read.query_async(&mut conn).await.unwrap();
    let at = |record: &String| record.split('\t').nth(5)?.parse::<u64>().ok();
    let times: Vec<u64> = records.iter().filter_map(at).collect();
    let spread = times.iter().max().zip(times.iter().min());
    spread.is_some_and(|(last, first)| last - first > HOUR_MS / 2)
}
