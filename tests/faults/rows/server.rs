//! What happens to the Redis server itself.

use super::killed::{held_by, recovered};
use crate::bed::{Bed, DEADLINE, Setup};
use crate::invariants::{Terms, check};
use crate::row::{Broken, Failure, Outcome, Row, fired};
use crate::supervisor::Supervisor;
use crate::support::wait_until;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What recovery may take beyond the lease.
const RECOVERY: Duration = Duration::from_secs(5);

pub const KILLED: Row = Row {
    number: 8,
    name: "redis_killed",
    fault: "SIGKILL of Redis with an append-only file, then a slow start",
    trial: |seed| Box::pin(killed(seed)),
};

pub const FROZEN: Row = Row {
    number: 12,
    name: "redis_frozen",
    fault: "Redis stopped, asleep, or with its writes paused; or all of them stopped, like a laptop",
    trial: |seed| Box::pin(frozen(seed)),
};

pub const OUT_OF_MEMORY: Row = Row {
    number: 14,
    name: "out_of_memory",
    fault: "maxmemory 1mb, and a daemon killed meanwhile",
    trial: |seed| Box::pin(out_of_memory(seed)),
};

pub const READ_ONLY: Row = Row {
    number: 16,
    name: "readonly_noreplicas",
    fault: "Redis demoted to a replica, or short of replicas",
    trial: |seed| Box::pin(read_only(seed)),
};

pub const FLUSHED: Row = Row {
    number: 20,
    name: "flushed",
    fault: "SCRIPT FLUSH again and again, or FLUSHALL",
    trial: |seed| Box::pin(flushed(seed)),
};

pub async fn redis(bed: &Bed, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let command = redis::cmd(words[0]).arg(&words[1..]).to_owned();
    command.query_async(&mut bed.site.redis().await).await
}

/// A field of what the server says of itself. One that is just becoming something else may need to be asked twice.
pub async fn info(bed: &Bed, section: &str, field: &str) -> String {
    let began = Instant::now();
    let text = loop {
        match ask_info(bed, section).await {
            Ok(text) => break text,
            Err(e) => assert!(began.elapsed() < DEADLINE, "INFO {section}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

async fn ask_info(bed: &Bed, section: &str) -> redis::RedisResult<String> {
    let client = redis::Client::open(bed.site.config.redis.url.reveal())?;
    let mut conn = client.get_multiplexed_async_connection().await?;
    redis::cmd("INFO").arg(section).query_async(&mut conn).await
}

/// Counts the answers of a server that loads its data, until told to stop.
fn count_loading(port: u16, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut loading = 0;
        while !stop.load(Ordering::Acquire) {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let mut answer = [0; 64];
                let read = stream
                    .write_all(b"PING\r\n")
                    .and_then(|()| stream.read(&mut answer));
                loading += u64::from(read.is_ok_and(|n| answer[..n].starts_with(b"-LOADING")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        loading
    })
}

async fn killed(seed: u64) -> Outcome {
    let setup = Setup {
        lease: Duration::from_secs(3),
        // Slow enough that somebody sees it load.
        redis_args: [
            "--key-load-delay",
            "400",
            "--loading-process-events-interval-bytes",
            "1024",
        ]
        .map(str::to_owned)
        .into(),
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    let before = info(&bed, "server", "run_id").await;
    let stop = Arc::new(AtomicBool::new(false));
    let length = bed.length(Duration::from_millis(50), Duration::from_millis(600));
    bed.redis.kill9().unwrap();
    let watcher = count_loading(bed.redis.port(), Arc::clone(&stop));
    tokio::time::sleep(length).await;
    tokio::task::block_in_place(|| bed.redis.restart()).unwrap();
    stop.store(true, Ordering::Release);
    let loading = watcher.join().unwrap();
    fired(
        info(&bed, "server", "run_id").await != before,
        "it is the same server",
    )?;
    fired(loading > 0, "nobody saw it load")?;
    check(&mut bed, Terms::default(), None).await
}

async fn frozen(seed: u64) -> Outcome {
    let setup = Setup {
        redis_args: ["--enable-debug-command", "yes"].map(str::to_owned).into(),
        ..Setup::default()
    };
    let mut bed = Bed::new(seed, setup).await;
    let mut supervisor = Supervisor::new(bed.site.dir.path(), "a", Duration::from_secs(1));
    let mut command = bed.program.command();
    supervisor.watch(&mut command);
    bed.start_as("a", &mut command).await;
    bed.start("b").await;
    bed.begin();
    bed.instant().await;
    let length = bed.length(bed.lease, bed.lease * 3);
    let connections: u64 = info(&bed, "stats", "total_connections_received")
        .await
        .parse()
        .unwrap();
    let pets = supervisor.pets();
    let began = Instant::now();
    let all = seed % 4 == 3;
    match seed % 4 {
        3 => {
            // Like a laptop that sleeps: Redis, and everybody who works on it.
            signal_both(&bed, Signal::STOP);
            tokio::task::block_in_place(|| bed.redis.pause()).unwrap();
            tokio::time::sleep(length).await;
            tokio::task::block_in_place(|| bed.redis.resume()).unwrap();
            signal_both(&bed, Signal::CONT);
        }
        0 => {
            tokio::task::block_in_place(|| bed.redis.pause()).unwrap();
            tokio::time::sleep(length).await;
            tokio::task::block_in_place(|| bed.redis.resume()).unwrap();
        }
        1 => {
            let mut conn = unhurried(&bed).await;
            let sleep = redis::cmd("DEBUG")
                .arg("SLEEP")
                .arg(length.as_secs_f64())
                .to_owned();
            sleep.query_async::<()>(&mut conn).await.unwrap();
        }
        _ => {
            let ms = length.as_millis().to_string();
            redis(&bed, &["CLIENT", "PAUSE", &ms, "WRITE"])
                .await
                .unwrap();
            let mut conn = unhurried(&bed).await;
            let write = redis::cmd("SET").arg("probe").arg("x").to_owned();
            write.query_async::<()>(&mut conn).await.unwrap();
            redis(&bed, &["DEL", "probe"]).await.unwrap();
        }
    }
    fired(began.elapsed() >= bed.lease, "it answered all the time")?;
    // A watchdog that bit now would make it worse.
    if supervisor.pets() == pets && !all {
        return Err(Broken::new("no sign of life while Redis stood still").into());
    }
    let verdict = check(&mut bed, Terms::default(), None).await?;
    let after: u64 = info(&bed, "stats", "total_connections_received")
        .await
        .parse()
        .unwrap();
    // The checks themselves take some.
    if after - connections > 300 {
        return Err(Broken::new(format!("a stampede: {} connections", after - connections)).into());
    }
    fired(
        all || !bed.events("redis_lost").is_empty(),
        "no daemon felt it",
    )?;
    Ok(verdict)
}

fn signal_both(bed: &Bed, signal: Signal) {
    for name in ["a", "b"] {
        bed.daemon(name).signal(signal);
    }
}

/// A connection that waits for its answers.
async fn unhurried(bed: &Bed) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(bed.redis.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap()
}

async fn out_of_memory(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start("a").await;
    let victim = bed.only_incarnation().await;
    bed.start("b").await;
    bed.begin();
    bed.instant().await;
    bed.wait_until_held(&victim, 1).await;
    redis(&bed, &["CONFIG", "SET", "maxmemory", "1mb"])
        .await
        .unwrap();
    bed.daemons.remove("a").unwrap().kill9();
    let since = Instant::now();
    let inbox = bed.queue.keys().inbox.clone();
    let refused = redis(&bed, &["RPUSH", &inbox, "{}"]).await;
    fired(
        refused.is_err_and(|e| e.code() == Some("OOM")),
        "there was memory left",
    )?;
    let held = held_by(&bed, &victim).await;
    fired(!held.is_empty(), "the victim held nothing")?;
    let recovery = recovered(&bed, &held, since, bed.lease + RECOVERY).await?;
    // What is there is drained all the same.
    let completed = completed(&bed).await;
    wait_until("jobs are settled without memory", DEADLINE, || async {
        let running = bed.running().await.len();
        running == 0 || completed_is_more(&bed, completed).await
    })
    .await;
    let refused = bed.oracle.lock().troubles;
    redis(&bed, &["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    let _ = refused;
    let terms = Terms {
        leases_expire: true,
        ..Terms::default()
    };
    check(&mut bed, terms, Some(recovery)).await
}

async fn completed(bed: &Bed) -> u64 {
    let stats = bed
        .queue
        .counts()
        .await
        .map(|c| c.sizes.stats)
        .unwrap_or_default();
    stats.get("completed").copied().unwrap_or(0)
}

async fn completed_is_more(bed: &Bed, than: u64) -> bool {
    completed(bed).await > than
}

async fn read_only(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    let length = bed.length(Duration::from_millis(300), Duration::from_secs(2));
    let (harm, heal, code): (&[&str], &[&str], &str) = if seed.is_multiple_of(2) {
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
            "READONLY",
        )
    } else {
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        )
    };
    redis(&bed, harm).await.unwrap();
    let refused = redis(&bed, &["SET", "probe", "x"]).await;
    tokio::time::sleep(length).await;
    redis(&bed, heal).await.unwrap();
    fired(
        refused.is_err_and(|e| e.code() == Some(code)),
        "writes went on",
    )?;
    check(&mut bed, Terms::default(), None).await
}

async fn flushed(seed: u64) -> Outcome {
    let mut bed = Bed::new(seed, Setup::default()).await;
    bed.start_both().await;
    bed.begin();
    bed.instant().await;
    if seed.is_multiple_of(2) {
        scripts_flushed(&mut bed).await
    } else {
        everything_flushed(&mut bed).await
    }
}

async fn scripts_flushed(bed: &mut Bed) -> Outcome {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        redis(bed, &["SCRIPT", "FLUSH"]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let errors = info(bed, "errorstats", "errorstat_NOSCRIPT").await;
    fired(!errors.is_empty(), "nobody missed a script")?;
    check(bed, Terms::default(), None).await
}

/// What an operator threw away is gone: that is said aloud, nobody dies of it, and what comes afterwards is as safe as ever.
async fn everything_flushed(bed: &mut Bed) -> Outcome {
    redis(bed, &["FLUSHALL"]).await.unwrap();
    // What was sent until then is not what the promise is about.
    {
        let mut oracle = bed.oracle.lock();
        let gone: Vec<String> = oracle
            .acknowledged_ids()
            .map(|(id, _)| id.to_owned())
            .collect();
        gone.iter().for_each(|id| oracle.forget(id));
    }
    for name in ["a", "b"] {
        wait_until("the loss is told of", DEADLINE, || {
            std::future::ready(!bed.daemon(name).events("redis_rolled_back").is_empty())
        })
        .await;
    }
    let terms = Terms {
        leases_expire: true,
        may_lose: true,
        ..Terms::default()
    };
    let mut verdict = check(bed, terms, None).await?;
    for name in ["a", "b"] {
        let told = bed.daemon(name).events("lease_lost").len();
        if told > 2 {
            return Err(Failure::from(Broken::new(format!(
                "{name} lost its lease {told} times: a loop"
            ))));
        }
    }
    if verdict.lost > 0 {
        return Err(Broken::new(format!(
            "{} jobs sent after the flush are lost",
            verdict.lost
        ))
        .into());
    }
    verdict.lost = 0;
    Ok(verdict)
}
