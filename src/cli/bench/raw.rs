//! The bare loop: the same keys and tokens, no daemon and none of its guarantees. What the daemon is measured against.

use super::bed::Bed;
use super::{failed, load};
use crate::cli::CliError;
use crate::clock;
use crate::queue::claim::claim_number;
use redis::Script;
use uuid::Uuid;

/// Jobs per claim and settlement.
const BATCH: usize = 256;
/// Jobs stored per call when the loop is prepared.
const LOAD: u64 = 1_000;

/// Jobs per second, claimed and settled one batch after the other over one connection.
pub(super) async fn run(bed: &Bed, jobs: u64) -> Result<f64, CliError> {
    let keys = Keys::of(bed);
    keys.fill(bed, jobs).await.map_err(failed)?;
    let start = clock::monotonic();
    let done = keys.drain(bed).await.map_err(failed)?;
    let took = clock::since(start);
    if done != jobs {
        return Err(failed(format!("the raw loop ended {done} of {jobs} jobs")));
    }
    Ok(load::rate(jobs, took))
}

struct Keys {
    list: String,
    jobs: String,
    running: String,
}

impl Keys {
    fn of(bed: &Bed) -> Self {
        let keys = bed.queue.keys();
        Self {
            list: keys.named("raw:list"),
            jobs: keys.named("raw:jobs"),
            running: keys.named("raw:running"),
        }
    }

    async fn fill(&self, bed: &Bed, jobs: u64) -> redis::RedisResult<()> {
        let mut conn = bed.conn.clone();
        for from in (0..jobs).step_by(LOAD as usize) {
            let (mut store, mut list) = (redis::cmd("HSET"), redis::cmd("RPUSH"));
            store.arg(&self.jobs);
            list.arg(&self.list);
            for n in from..jobs.min(from + LOAD) {
                let id = Uuid::now_v7().to_string();
                store.arg(&id).arg(load::plain(n));
                list.arg(id);
            }
            let mut both = redis::pipe();
            both.add_command(store).add_command(list);
            both.query_async::<()>(&mut conn).await?;
        }
        Ok(())
    }

    async fn drain(&self, bed: &Bed) -> redis::RedisResult<u64> {
        let claim = Script::new(include_str!("lua/raw_claim.lua"));
        let settle = Script::new(include_str!("lua/raw_settle.lua"));
        let mut conn = bed.conn.clone();
        let (mut done, mut number) = (0, 0_u64);
        loop {
            number += 1;
            // As long as a daemon's, for that matters to Redis.
            let token = format!(
                "{}:{}:{:013}",
                Uuid::nil().simple(),
                claim_number(number),
                0
            );
            let mut call = claim.key(&self.list);
            call.key(&self.jobs).key(&self.running);
            call.arg(BATCH).arg(&token);
            let claimed: Vec<(String, Vec<u8>)> = call.invoke_async(&mut conn).await?;
            if claimed.is_empty() {
                return Ok(done);
            }
            let mut call = settle.key(&self.jobs);
            call.key(&self.running).arg(&token);
            for (id, _) in &claimed {
                call.arg(id);
            }
            done += call.invoke_async::<u64>(&mut conn).await?;
        }
    }
}
