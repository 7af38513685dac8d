//! What daemons ask of Redis where there is a crowd: of flows that may not start, of wishes to end jobs, of daemons that
//! wait for one slot.

use super::process::{Site, append_to};
use crate::support::{DEADLINE, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tidegate::stack::{PrivateRedis, RedisOptions};

const NAP: &str =
    "kind = \"app.nap\"\nhandler = \"exec\"\n[exec]\ncommand = [\"/bin/sleep\", \"60\"]";

fn redis_of(dir: &Path) -> PrivateRedis {
    PrivateRedis::start(RedisOptions::new(dir.join("redis"))).unwrap()
}

async fn calls(site: &Site, command: &str) -> u64 {
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let text: String = info.query_async(&mut site.redis().await).await.unwrap();
    let line = |line: &str| {
        let stats = line.strip_prefix(&format!("cmdstat_{command}:calls="))?;
        stats.split(',').next()?.parse().ok()
    };
    text.lines().find_map(line).unwrap_or(0)
}

/// Thirty thousand keys of a kind whose only slot is taken stand before a job that may run, and before each job that comes
/// after it.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_flows_are_closed_those_behind_them_run() {
    let dir = tempfile::tempdir().unwrap();
    let redis = redis_of(dir.path());
    let out = tempfile::NamedTempFile::new().unwrap();
    let crowd = NAP.replace("app.nap", "app.crowd").replace(
        "[exec]",
        "[concurrency]\nlimit = 1\nkey = \"args.t\"\ntotal = 1\n[args]\nt = { type = \"string\" }\n[exec]",
    );
    let site = Site::on(
        &redis.url(),
        "[daemon]\npoll = \"500ms\"\n",
        &[&crowd, &append_to(out.path(), "")],
    );
    let _daemon = site.start("a");
    let keys: Vec<String> = (0..30_000)
        .map(|n| format!(r#"{{"kind":"app.crowd","args":{{"t":"t{n}"}}}}"#))
        .collect();
    site.push(&keys).await;
    site.wait_for_stat("admitted", 30_000, DEADLINE).await;
    let before = calls(&site, "zrange").await;
    let began = std::time::Instant::now();
    for n in 0..200 {
        let job = format!(r#"{{"kind":"app.append","id":"j{n}"}}"#);
        site.push(&[job]).await;
    }
    let ran = || {
        fs::read_to_string(out.path())
            .unwrap_or_default()
            .lines()
            .count()
    };
    wait_until("those behind ran", DEADLINE, || {
        std::future::ready(ran() == 200)
    })
    .await;
    let polls = began.elapsed().as_millis() as u64 / 500 + 1;
    let spent = calls(&site, "zrange").await - before;
    println!("{spent} calls of ZRANGE in {polls} polls");
    // For each poll a look, which takes eight, and as many pages behind it; for each claim one or two, but no page.
    assert!(spent <= (polls + 2) * 30 + 300, "{spent} in {polls} polls");
}

/// Each is one of the many wishes that a look does not list.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_is_heard_among_thousands() {
    let site = Site::new("[daemon]\npoll = \"10s\"\n", &[NAP]);
    let _daemon = site.start("a");
    let queue = site.queue("default").await;
    site.push(&[r#"{"kind":"app.nap","id":"nap"}"#.to_owned()])
        .await;
    wait_until("it runs", DEADLINE, || async {
        queue.sizes().await.unwrap().running == 1
    })
    .await;
    let mut pipe = redis::pipe();
    for n in 0..3_000 {
        pipe.hset(&queue.keys().cancels, format!("other-{n}"), "{}")
            .ignore();
    }
    pipe.query_async::<()>(&mut site.redis().await)
        .await
        .unwrap();
    let cancelled = crate::cli::at(&site, &["job", "cancel", "nap"]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    site.wait_for_stat("cancelled", 1, Duration::from_secs(5))
        .await;
}

/// Looks since the log of commands was begun: a script with as many keys, of which the jobs are the first.
async fn looks(site: &Site) -> usize {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let mut get = redis::cmd("SLOWLOG");
    get.arg("GET").arg(-1);
    let log: Vec<Entry> = get.query_async(&mut site.redis().await).await.unwrap();
    let is_look = |args: &[String]| {
        args.first()
            .is_some_and(|name| name.eq_ignore_ascii_case("evalsha"))
            && args.get(2).is_some_and(|keys| keys == "13")
            && args.get(3).is_some_and(|first| first.ends_with(":jobs"))
    };
    log.iter().filter(|entry| is_look(&entry.3)).count()
}

/// A slot that comes free is one look for each daemon that may want it, the one that gave it back included.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_slot_is_looked_for_once_by_each_daemon() {
    const JOBS: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let redis = redis_of(dir.path());
    let out = tempfile::NamedTempFile::new().unwrap();
    let site = Site::on(
        &redis.url(),
        "[daemon]\npoll = \"10s\"\n",
        &[&append_to(out.path(), "[concurrency]\nlimit = 1")
            .replace(">> ", "; sleep 0.1; echo >> ")],
    );
    let daemons = ["a", "b", "c"].map(|name| site.start(name));
    let queue = site.queue("default").await;
    wait_until("all listen", DEADLINE, || async {
        let mut numsub = redis::cmd("PUBSUB");
        numsub.arg("NUMSUB").arg(&queue.keys().bell);
        let (_, n): (String, u64) = numsub.query_async(&mut site.redis().await).await.unwrap();
        n == 3
    })
    .await;
    for (name, value) in [
        ("slowlog-max-len", "100000"),
        ("slowlog-log-slower-than", "0"),
    ] {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        set.query_async::<()>(&mut site.redis().await)
            .await
            .unwrap();
    }
    let jobs: Vec<String> = (0..JOBS)
        .map(|n| format!(r#"{{"kind":"app.append","id":"j{n}"}}"#))
        .collect();
    site.push(&jobs).await;
    // Without a look of our own.
    wait_until("all ran", DEADLINE, || async {
        let stats = queue.sizes().await.unwrap().stats;
        stats.get("completed").is_some_and(|n| *n == JOBS as u64)
    })
    .await;
    let looks = looks(&site).await;
    println!("{looks} looks for {JOBS} releases");
    assert!(looks <= 3 * JOBS + 9, "{looks}");
    drop(daemons);
}
