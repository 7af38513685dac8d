//! What limiters have learnt, kept over restarts: a hash beside the queues, a field for each operation.
//!
//! Owns the key and how it stays small. Must not know what a field's text means, but for the time at its front.

use super::QueueError;
use super::connection::Connection;
use std::time::Duration;

/// Entries that nobody wrote for this long go: no definition names their operation any more.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// The most entries; beyond it the oldest go.
const MOST: usize = 1_000;
/// Entries looked at in one step of tidying, and the most steps.
const SCAN_COUNT: usize = 100;
const STEPS: usize = 100;

/// The hash, field `<handler>|<resource>`, value `<Redis ms> <text>`.
#[must_use]
pub fn key(prefix: &str) -> String {
    format!("{prefix}:gate:limiters")
}

/// The field of an operation.
#[must_use]
pub fn field(handler: &str, resource: &str) -> String {
    format!("{handler}|{resource}")
}

/// What was kept under these fields; none where nothing was.
///
/// # Errors
/// Redis failed, or the key is no hash.
pub async fn read(
    conn: &Connection,
    prefix: &str,
    fields: &[String],
) -> Result<Vec<Option<String>>, QueueError> {
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = conn.clone();
    let entries: Vec<Option<String>> = redis::cmd("HMGET")
        .arg(key(prefix))
        .arg(fields)
        .query_async(&mut conn)
        .await?;
    let text = |entry: String| Some(entry.split_once(' ')?.1.to_owned());
    Ok(entries.into_iter().map(|e| e.and_then(text)).collect())
}

/// Keeps these texts.
///
/// # Errors
/// Redis failed, or the key is no hash.
pub async fn write(
    conn: &Connection,
    prefix: &str,
    entries: &[(String, String)],
) -> Result<(), QueueError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut conn = conn.clone();
    let now_ms = redis_ms(&mut conn).await?;
    let mut set = redis::cmd("HSET");
    set.arg(key(prefix));
    for (field, text) in entries {
        set.arg(field).arg(format!("{now_ms} {text}"));
    }
    set.query_async::<()>(&mut conn).await?;
    Ok(())
}

/// Removes what nobody wrote for a month, what has no time at its front, and the oldest of too many; how many went.
///
/// # Errors
/// Redis failed, or the key is no hash.
pub async fn tidy(conn: &Connection, prefix: &str) -> Result<usize, QueueError> {
    let mut conn = conn.clone();
    let before_ms = redis_ms(&mut conn)
        .await?
        .saturating_sub(super::millis(KEEP));
    let mut entries: Vec<(u64, String)> = Vec::new();
    let mut cursor = 0_u64;
    for _ in 0..STEPS {
        let (next, page): (u64, Vec<(String, String)>) = redis::cmd("HSCAN")
            .arg(key(prefix))
            .arg(cursor)
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .query_async(&mut conn)
            .await?;
        entries.extend(
            page.into_iter()
                .map(|(field, entry)| (written_ms(&entry), field)),
        );
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    entries.sort_unstable_by(|a, b| b.cmp(a));
    entries.dedup();
    let kept = entries.iter().take(MOST);
    let kept = kept.take_while(|(at, _)| *at >= before_ms).count();
    let gone: Vec<&str> = entries.iter().skip(kept).map(|(_, f)| f.as_str()).collect();
    for fields in gone.chunks(SCAN_COUNT) {
        let del = redis::cmd("HDEL").arg(key(prefix)).arg(fields).to_owned();
        del.query_async::<()>(&mut conn).await?;
    }
    Ok(gone.len())
}

/// The time at the front of an entry; 0 if there is none.
fn written_ms(entry: &str) -> u64 {
    let first = entry.split_once(' ').map(|(at, _)| at);
    first.and_then(|at| at.parse().ok()).unwrap_or(0)
}

/// By the time of Redis: a daemon whose clock is wrong must not remove anything.
async fn redis_ms(conn: &mut Connection) -> Result<u64, QueueError> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(conn).await?;
    Ok(seconds * 1_000 + micros / 1_000)
}
