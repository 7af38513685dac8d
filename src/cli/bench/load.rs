//! Putting jobs in, and watching from outside until they are where they should be.

use super::bed::Bed;
use super::failed;
use crate::cli::CliError;
use crate::clock;
use crate::queue::operate::ENQUEUE_MAX;
use std::time::Duration;
use uuid::Uuid;

/// Commands in one pipeline.
const PIPELINE: u64 = 1_000;
/// How often Redis is asked how far it is: rarely enough not to matter.
const GLANCE: Duration = Duration::from_millis(5);
/// How long nothing may change before a measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which list jobs are pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// The inbox.
    Inbox,
    /// A list that becomes the inbox later, all at once.
    Aside,
}

/// A small job, as an app would send it.
pub(super) fn plain(n: u64) -> String {
    format!(r#"{{"kind":"bench.noop","args":{{"n":{n}}}}}"#)
}

/// The same, with an id of its own.
fn plain_with(n: u64, id: &str) -> String {
    format!(r#"{{"id":"{id}","kind":"bench.noop","args":{{"n":{n}}}}}"#)
}

pub(super) fn rate(jobs: u64, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}

/// Jobs per second through the enqueue script, with ids of their own, to a queue that nobody serves.
pub(super) async fn enqueue_rate(bed: &Bed, jobs: u64) -> Result<f64, CliError> {
    let mut spent = Duration::ZERO;
    for from in (0..jobs).step_by(ENQUEUE_MAX) {
        let ids: Vec<(u64, String)> = (from..jobs.min(from + ENQUEUE_MAX as u64))
            .map(|n| (n, Uuid::now_v7().to_string()))
            .collect();
        let batch: Vec<(&str, Vec<u8>)> = ids
            .iter()
            .map(|(n, id)| (id.as_str(), plain_with(*n, id).into_bytes()))
            .collect();
        let start = clock::monotonic();
        bed.queue.enqueue(&batch).await?;
        spent += clock::since(start);
    }
    Ok(rate(jobs, spent))
}

/// Jobs per second through plain `RPUSH`, one job a command, pipelined.
pub(super) async fn push(
    bed: &Bed,
    to: Into,
    jobs: u64,
    envelope: impl Fn(u64) -> String,
) -> Result<f64, CliError> {
    let key = match to {
        Into::Inbox => bed.queue.keys().inbox.clone(),
        Into::Aside => aside(bed),
    };
    let mut conn = bed.conn.clone();
    let mut spent = Duration::ZERO;
    for from in (0..jobs).step_by(PIPELINE as usize) {
        let mut pipe = redis::pipe();
        for n in from..jobs.min(from + PIPELINE) {
            pipe.cmd("RPUSH").arg(&key).arg(envelope(n)).ignore();
        }
        let start = clock::monotonic();
        pipe.query_async::<()>(&mut conn).await.map_err(failed)?;
        spent += clock::since(start);
    }
    Ok(rate(jobs, spent))
}

/// Makes what was pushed aside the inbox.
pub(super) async fn fill_inbox_at_once(bed: &Bed) -> Result<(), CliError> {
    let mut conn = bed.conn.clone();
    let rename = redis::cmd("RENAME")
        .arg(aside(bed))
        .arg(&bed.queue.keys().inbox)
        .to_owned();
    rename.query_async(&mut conn).await.map_err(failed)
}

fn aside(bed: &Bed) -> String {
    bed.queue.keys().named("bench:aside")
}

/// Jobs that ever ended well.
pub(super) async fn settled(bed: &Bed) -> Result<u64, CliError> {
    let mut conn = bed.conn.clone();
    let done: Option<u64> = redis::cmd("HGET")
        .arg(&bed.queue.keys().stats)
        .arg("completed")
        .query_async(&mut conn)
        .await
        .map_err(failed)?;
    Ok(done.unwrap_or(0))
}

/// Jobs per second from now until `goal` jobs have ended.
pub(super) async fn rate_until_settled(bed: &Bed, jobs: u64, goal: u64) -> Result<f64, CliError> {
    let start = clock::monotonic();
    until(async || Ok(goal.saturating_sub(settled(bed).await?))).await?;
    Ok(rate(jobs, clock::since(start)))
}

/// Jobs that were admitted and have not ended.
pub(super) async fn admitted(bed: &Bed) -> Result<u64, CliError> {
    fields(bed, &bed.queue.keys().jobs).await
}

/// Waits until so many jobs are admitted.
pub(super) async fn until_admitted(bed: &Bed, jobs: u64) -> Result<(), CliError> {
    until(async || Ok(jobs.saturating_sub(admitted(bed).await?))).await
}

/// Waits until jobs are parked on so many slots.
pub(super) async fn until_parked(bed: &Bed, slots: u64) -> Result<(), CliError> {
    until(async || Ok(slots.saturating_sub(fields(bed, &bed.queue.keys().parked).await?))).await
}

/// Fields of a hash.
async fn fields(bed: &Bed, key: &str) -> Result<u64, CliError> {
    let mut conn = bed.conn.clone();
    let count = redis::cmd("HLEN").arg(key).query_async(&mut conn).await;
    count.map_err(failed)
}

/// Waits until nothing is left; gives up when what is left does not change any more.
async fn until(mut left: impl AsyncFnMut() -> Result<u64, CliError>) -> Result<(), CliError> {
    let (mut last, mut since) = (u64::MAX, clock::monotonic());
    loop {
        let now_left = left().await?;
        if now_left == 0 {
            return Ok(());
        }
        if now_left != last {
            (last, since) = (now_left, clock::monotonic());
        } else if clock::since(since) > PATIENCE {
            return Err(failed(format!("stuck with {now_left} jobs to go")));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Waits until no more than so many jobs run.
pub(super) async fn until_running(bed: &Bed, jobs: u64) -> Result<(), CliError> {
    let running = &bed.queue.keys().running;
    until(async || Ok(fields(bed, running).await?.saturating_sub(jobs))).await
}

/// Bytes Redis uses, but for the buffers of its clients.
pub(super) async fn memory(bed: &Bed) -> Result<u64, CliError> {
    let mut conn = bed.conn.clone();
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut conn)
        .await
        .map_err(failed)?;
    let field = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|value| value.trim_start_matches(':').trim().parse::<u64>().ok())
    };
    let used = field("used_memory:").ok_or_else(|| failed("Redis does not tell its memory"))?;
    Ok(used.saturating_sub(field("mem_clients_normal:").unwrap_or(0)))
}

/// Bytes of Redis per waiting job beyond its envelope, given what was used before the jobs came.
pub(super) async fn overhead_per_job(bed: &Bed, before: u64, jobs: u64) -> Result<f64, CliError> {
    let used = memory(bed).await?.saturating_sub(before);
    let envelopes: usize = (0..jobs).map(|n| plain(n).len()).sum();
    Ok((used as f64 - envelopes as f64) / jobs as f64)
}
