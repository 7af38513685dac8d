//! The disk that the append-only file is written to.

use super::server::redis;
use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Failure, Outcome, Row, fired};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub const FULL: Row = Row {
    number: 15,
    name: "disk_full",
    fault: "no room left for the append-only file, on a tmpfs of 16 MB",
    trial: |seed| Box::pin(full(seed)),
};

const DISK: u64 = 16 << 20;

/// Whether this user may mount something in a namespace of its own.
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs none /tmp"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

async fn full(seed: u64) -> Outcome {
    if !can_mount() {
        let why = "a user namespace with a mount in it is not allowed here (unshare -Urm)";
        return Err(Failure::NotRun(why.to_owned()));
    }
    let setup = Setup {
        redis_disk: Some(DISK),
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    // As the server sees it: the mount is in its namespace alone.
    let root = PathBuf::from(format!("/proc/{}/root", bed.redis.pid().unwrap()));
    let folder = bed.redis.dir().join("disk");
    let filler = root.join(folder.strip_prefix("/").unwrap()).join("filler");
    fill(&filler);
    let length = bed.length(Duration::from_millis(300), Duration::from_secs(2));
    let refused = redis(&bed, &["SET", "probe", "x"]).await;
    tokio::time::sleep(length).await;
    let still = redis(&bed, &["SET", "probe", "x"]).await;
    fs::remove_file(&filler).unwrap();
    let misconf = |r: &redis::RedisResult<redis::Value>| {
        r.as_ref().is_err_and(|e| e.code() == Some("MISCONF"))
    };
    fired(misconf(&refused) || misconf(&still), "writes went on")?;
    check(&mut bed, Terms::default(), None).await
}

/// Writes until there is no room left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
