//! A server in trouble, and keys that others have overwritten.

use super::rig::{ME, Rig, done, envelope, settlement};
use crate::support;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate::queue::{QueueError, Verdict};
use tidegate::stack::{PrivateRedis, RedisOptions};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Goes through a job's whole life as a daemon does, healing when it is told to; false if that does not help.
async fn goes_on(rig: &Rig, n: u64) -> bool {
    let mut conn = rig.conn.clone();
    for _ in 0..10 {
        let pushed = redis::cmd("RPUSH")
            .arg(&rig.queue.keys().inbox)
            .arg(envelope("app.a", n, ""))
            .query_async::<()>(&mut conn)
            .await;
        if pushed.is_ok() {
            break;
        }
        rig.queue.heal(n, &rig.catalog).await.unwrap();
    }
    for round in 0..20 {
        match step(rig).await {
            Ok(taken) if taken.contains(&n) => return true,
            Ok(_) => {}
            Err(QueueError::WrongType(_)) => {
                let now_ms = n * 1_000 + round;
                rig.queue.heal(now_ms, &rig.catalog).await.unwrap();
            }
            Err(QueueError::LeaseLost) => {
                rig.queue.heartbeat(ME, true).await.unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
    false
}

/// Admits, claims and settles once; returns the numbers of the jobs that are done.
async fn step(rig: &Rig) -> Result<Vec<u64>, QueueError> {
    let peeked = rig.queue.peek().await?;
    if !peeked.entries.is_empty() {
        let verdicts = rig.judge(&peeked);
        rig.queue.admit(ME, &peeked, &verdicts).await?;
    }
    let look = rig.queue.look().await?;
    rig.queue.promote(ME, &look.due, &rig.catalog).await?;
    let flows: Vec<_> = look
        .heads
        .into_iter()
        .map(|(flow, _)| tidegate::queue::FlowAllowance {
            flow,
            allowance: 9,
            terms: Default::default(),
        })
        .collect();
    // Claims and batches count up, as a daemon's do.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let jobs = rig.queue.claim(ME, number, 9, &flows).await?.jobs;
    let ends: Vec<_> = jobs.iter().map(|j| settlement(j, done(j))).collect();
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let stale = loop {
        // As the settler does: until it is confirmed.
        match rig.queue.settle(ME, number, &ends).await {
            Ok(settled) => break settled.stale,
            Err(QueueError::WrongType(_)) => {
                rig.queue.heal(number, &rig.catalog).await?;
            }
            Err(QueueError::LeaseLost) => {
                rig.queue.heartbeat(ME, true).await?;
            }
            Err(e) => return Err(e),
        }
    };
    let settled = jobs.iter().enumerate().filter(|(i, _)| !stale.contains(i));
    Ok(settled.map(|(_, job)| super::rig::number_of(job)).collect())
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_set_aside_and_the_queue_goes_on() {
    let rig = Rig::new().await;
    let mut keys: Vec<String> = rig
        .queue
        .keys()
        .typed()
        .map(|(k, _)| k.to_owned())
        .collect();
    for class in tidegate::job::Priority::ALL {
        let home = super::rig::flow(class, "app.a");
        keys.push(rig.queue.keys().flow(&home));
    }
    for (n, key) in keys.iter().enumerate() {
        for junk in ["SET", "HSET", "ZADD"] {
            rig.redis::<()>("DEL", &[key]).await;
            let args: &[&str] = match junk {
                "SET" => &[key, "junk"],
                "HSET" => &[key, "1", "junk"],
                _ => &[key, "1", "junk"],
            };
            rig.redis::<()>(junk, args).await;
            let n = (n * 10 + junk.len()) as u64;
            assert!(goes_on(&rig, n).await, "stuck after {junk} {key}");
        }
    }
    // What is wrong but was not in the way is healed when somebody looks.
    let healed = rig.queue.heal(7, &rig.catalog).await.unwrap();
    let again = rig.queue.heal(8, &rig.catalog).await.unwrap();
    assert_eq!(again, [], "after {healed:?}");
    // Those from after the quarantine itself was overwritten.
    assert!(rig.quarantine().await["wrong_type"] >= 20);
}

#[tokio::test]
async fn nothing_changes_before_the_wrong_type_is_found() {
    let rig = Rig::new().await;
    let keys = rig.queue.keys().clone();
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"x{n}""#));
    // Every key that a claim and a settlement write to, each time with jobs at stake.
    let at_stake = [
        &keys.jobs,
        &keys.meta,
        &keys.running,
        &keys.tomb,
        &keys.delayed,
        &keys.dead,
        &keys.recent,
        &keys.stats,
        &keys.ids,
        &keys.settled,
        &keys.quarantine,
        &keys.cancels,
        &keys.ready[2],
    ];
    for (n, key) in at_stake.into_iter().enumerate() {
        let n = n as u64;
        rig.put(&[given(n)]).await;
        if key != &keys.jobs && key != &keys.ready[2] {
            let flow = super::rig::flow(tidegate::job::Priority::Normal, "app.a");
            spoil(&rig, key).await;
            let allowance = tidegate::queue::FlowAllowance {
                flow,
                allowance: 1,
                terms: Default::default(),
            };
            let claim = rig.queue.claim(ME, 1_000 + n, 1, &[allowance]).await;
            if let Ok(claimed) = &claim {
                let job = &claimed.jobs[0];
                let end = [settlement(job, done(job))];
                let settled = rig.queue.settle(ME, 0, &end).await;
                restore(&rig, key).await;
                if settled.is_err() {
                    let settled = rig.queue.settle(ME, 0, &end).await.unwrap();
                    assert_eq!(settled.stale, Vec::<usize>::new(), "{key}");
                }
            } else {
                restore(&rig, key).await;
                assert_eq!(rig.take(1).await, [n], "{key}");
                let job = rig.queue.find(&format!("x{n}")).await.unwrap().unwrap();
                assert_eq!(job.state, "running", "{key}");
            }
        }
        rig.redis::<()>("DEL", &[&keys.running, &keys.jobs, &keys.ready[2]])
            .await;
        let home = super::rig::flow(tidegate::job::Priority::Normal, "app.a");
        rig.redis::<()>("DEL", &[&keys.flow(&home)]).await;
    }
}

async fn spoil(rig: &Rig, key: &str) {
    let aside = format!("{key}:aside");
    let _ = rig.try_redis::<()>("RENAME", &[key, &aside]).await;
    rig.redis::<()>("SET", &[key, "junk"]).await;
}

async fn restore(rig: &Rig, key: &str) {
    let aside = format!("{key}:aside");
    rig.redis::<()>("DEL", &[key]).await;
    let _ = rig.try_redis::<()>("RENAME", &[&aside, key]).await;
}

#[tokio::test]
async fn a_lost_list_of_flows_is_made_anew() {
    let rig = Rig::new().await;
    rig.put(&[envelope("app.a", 1, ""), envelope("app.b", 2, "")])
        .await;
    let ready = rig.queue.keys().ready[2].clone();
    rig.redis::<()>("SET", &[&ready, "junk"]).await;
    assert!(matches!(
        rig.queue.look().await,
        Err(QueueError::WrongType(_))
    ));
    let healed = rig.queue.heal(1, &rig.catalog).await.unwrap();
    assert_eq!((healed.len(), healed[0].found.as_str()), (1, "string"));
    assert_eq!(rig.take(9).await, [1, 2]);
}

#[tokio::test]
async fn a_counter_that_is_no_number_is_started_anew() {
    let rig = Rig::new().await;
    rig.redis::<()>("SET", &[&rig.queue.keys().taken, "junk"])
        .await;
    assert!(goes_on(&rig, 1).await);
}

#[tokio::test]
async fn a_server_that_lost_its_scripts_is_given_them_again() {
    let rig = Rig::new().await;
    for n in 0..5 {
        rig.redis::<()>("SCRIPT", &["FLUSH"]).await;
        assert!(goes_on(&rig, n).await);
    }
    let (admit, flush) = tokio::join!(
        async {
            let entries: Vec<String> = (10..500).map(|n| envelope("app.a", n, "")).collect();
            for chunk in entries.chunks(10) {
                rig.put(chunk).await;
            }
            rig.take(1_000).await.len()
        },
        async {
            for _ in 0..50 {
                rig.redis::<()>("SCRIPT", &["FLUSH"]).await;
            }
        }
    );
    assert_eq!((admit, flush), (490, ()));
}

#[tokio::test]
async fn out_of_memory_new_work_is_refused_and_old_work_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivateRedis::start(RedisOptions::new(dir.path())).unwrap();
    let rig = Rig::on(&server.url(), |_| {}).await;
    let given = |n: u64| envelope("app.a", n, &format!(r#","id":"x{n}""#));
    rig.put(&(0..100).map(given).collect::<Vec<_>>()).await;
    rig.push(&(100..200).map(given).collect::<Vec<_>>()).await;
    rig.push(&["x".repeat(1 << 20)]).await;
    rig.redis::<()>("CONFIG", &["SET", "maxmemory", "1mb"])
        .await;

    let new = given(500).into_bytes();
    let refused = rig.queue.enqueue(&[("x500", new.clone())]).await;
    assert!(matches!(refused, Err(QueueError::Redis(e)) if e.code() == Some("OOM")));
    let keys = rig.queue.keys();
    let reserved: Option<f64> = rig.redis("ZSCORE", &[&keys.ids, "x500"]).await;
    assert_eq!(reserved, None, "a refused id is not reserved");
    let pushed = rig.try_redis::<()>("RPUSH", &[&keys.inbox, "x"]).await;
    assert_eq!(pushed.unwrap_err().code(), Some("OOM"));

    // What was accepted is admitted, run and settled; that is what makes room.
    let (verdicts, _) = rig.admit().await;
    let ready = |v: &&Verdict| matches!(v, Verdict::Ready { .. });
    assert_eq!(verdicts.iter().filter(ready).count(), 100);
    rig.queue.heartbeat(ME, false).await.unwrap();
    let jobs = rig.claim(500).await;
    assert_eq!(jobs.len(), 200);
    let ends: Vec<_> = jobs.iter().map(|j| settlement(j, done(j))).collect();
    assert_eq!(rig.settle(&ends).await.stale, Vec::<usize>::new());
    assert_eq!(rig.stat("done").await, 200);

    rig.redis::<()>("CONFIG", &["SET", "maxmemory", "0"]).await;
    rig.queue.enqueue(&[("x500", new)]).await.unwrap();
    rig.admit().await;
    assert_eq!(rig.take(9).await, [500]);
}

#[tokio::test]
async fn a_restarted_server_is_reached_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RedisOptions::new(dir.path());
    options.append_only = true;
    let mut server = PrivateRedis::start(options).unwrap();
    let rig = Rig::on(&server.url(), |_| {}).await;
    rig.put(&[envelope("app.a", 1, "")]).await;
    // An append-only file is written before a reply, and synced every second: a killed server keeps what it wrote.
    server.kill9().unwrap();
    assert!(rig.queue.look().await.is_err());
    server.restart().unwrap();
    support::wait_until("the queue answers", support::DEADLINE, || async {
        rig.queue.look().await.is_ok()
    })
    .await;
    assert_eq!(rig.take(9).await, [1]);
}
