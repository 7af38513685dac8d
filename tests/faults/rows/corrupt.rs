//! What others write into the storage of a queue.

use crate::bed::{Bed, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Outcome, Row, fired};
use rand::RngExt;
use std::time::Duration;

pub const CORRUPT: Row = Row {
    number: 25,
    name: "corrupt",
    fault: "garbage in the inbox, corrupt jobs, keys of a wrong type",
    trial: |seed| Box::pin(corrupt(seed)),
};

/// Keys that a queue can do without while they are empty.
const KEYS: [&str; 12] = [
    "cancels",
    "tomb",
    "progress",
    "parked",
    "resume",
    "rates",
    "merges",
    "groups",
    "lock_ends",
    "archive",
    "stops",
    "holds",
];

/// Entries that are no jobs.
const GARBAGE: [&[u8]; 6] = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"{\"kind\":\"no.such\",\"id\":\"g1\"}",
    b"{\"kind\":\"load.plain\",\"args\":{\"ms\":\"soon\"}}",
    b"[1,2,3]",
];

async fn corrupt(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    let mut conn = bed.site.redis().await;
    let mut garbage = 0;
    let mut wrong = 0;
    for _ in 0..6 {
        let entry = GARBAGE[bed.random.random_range(0..GARBAGE.len())];
        let push = redis::cmd("RPUSH")
            .arg(&bed.queue.keys().inbox)
            .arg(entry)
            .to_owned();
        push.query_async::<()>(&mut conn).await.unwrap();
        garbage += 1;
        // Only where nothing is lost by it: what an operator overwrites is gone.
        let key = bed
            .queue
            .keys()
            .named(KEYS[bed.random.random_range(0..KEYS.len())]);
        let set = redis::cmd("SET")
            .arg(key)
            .arg("junk")
            .arg("NX")
            .arg("GET")
            .to_owned();
        let set: redis::RedisResult<Option<String>> = set.query_async(&mut conn).await;
        wrong += u64::from(matches!(set, Ok(None)));
        let pause = bed.length(Duration::from_millis(5), Duration::from_millis(100));
        tokio::time::sleep(pause).await;
    }
    // A job whose stored envelope was changed behind its back.
    let corrupted = corrupt_a_waiting_job(&mut bed).await;
    fired(wrong > 0, "all keys were in use")?;
    // What no daemon had a use for meanwhile still lies there.
    bed.sent().await?;
    let mut now = bed.queue.workers().await.unwrap().now_ms;
    while wrong_keys(&bed).await > 0 {
        let catalog = tidegate::catalog::Catalog::default();
        bed.queue.heal(now, &catalog).await.unwrap();
        now += 1;
    }
    let terms = Terms {
        // What was found under a key is kept, too.
        quarantined: garbage + corrupted + wrong,
        meddled: true,
        strangers: &["victim", "g1"],
        attempts_fail: true,
        ..Terms::default()
    };
    check(&mut bed, terms, None).await
}

/// Keys that hold what was written to them.
async fn wrong_keys(bed: &Bed) -> usize {
    let mut conn = bed.site.redis().await;
    let mut found = 0;
    for key in KEYS {
        let ask = redis::cmd("TYPE")
            .arg(bed.queue.keys().named(key))
            .to_owned();
        let kind: String = ask.query_async(&mut conn).await.unwrap();
        found += usize::from(kind == "string");
    }
    found
}

/// Makes garbage of a job that waits for its time; it is in quarantine when that comes.
async fn corrupt_a_waiting_job(bed: &mut Bed) -> u64 {
    let entry = r#"{"kind":"load.plain","id":"victim","delay_ms":1500}"#.to_owned();
    bed.site.push(&[entry]).await;
    let mut conn = bed.site.redis().await;
    let keys = bed.queue.keys().clone();
    crate::support::wait_until("it waits", crate::bed::DEADLINE, || async {
        let score = redis::cmd("ZSCORE")
            .arg(&keys.delayed)
            .arg("victim")
            .to_owned();
        score
            .query_async::<Option<f64>>(&mut conn.clone())
            .await
            .unwrap()
            .is_some()
    })
    .await;
    let set = redis::cmd("HSET")
        .arg(&keys.jobs)
        .arg("victim")
        .arg(b"\xffgarbage")
        .to_owned();
    set.query_async::<()>(&mut conn).await.unwrap();
    1
}
