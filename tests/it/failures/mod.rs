//! The failures that other job systems are known for, one test each, on real servers: none of them is ours.

mod connection;
mod growth;
mod lease;
mod limits;
mod outbox;
mod promotion;
mod schedules;
mod storage;

use crate::queue::rig::Rig;
use tidegate::stack::{PrivateRedis, RedisOptions};

/// A Redis for one test, gone with it.
struct Private {
    redis: PrivateRedis,
    _dir: tempfile::TempDir,
}

fn private(set: impl FnOnce(&mut RedisOptions)) -> Private {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RedisOptions::new(dir.path().join("redis"));
    set(&mut options);
    Private {
        redis: PrivateRedis::start(options).unwrap(),
        _dir: dir,
    }
}

/// Calls a script for the numbers 1 to `count`, some thousand at a time: `KEYS` are the given ones, and it loops from
/// `ARGV[1]` to `ARGV[2]`. For filling storage faster than a client could.
async fn fill(rig: &Rig, keys: &[&str], count: u64, body: &str) {
    const STEP: u64 = 4_000;
    let script = format!("for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do {body} end");
    let number = keys.len().to_string();
    for from in (1..=count).step_by(STEP as usize) {
        let to = (from + STEP - 1).min(count).to_string();
        let from = from.to_string();
        let mut args = vec![script.as_str(), &number];
        args.extend(keys);
        args.extend([from.as_str(), &to]);
        rig.redis::<()>("EVAL", &args).await;
    }
}
