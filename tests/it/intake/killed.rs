//! kill -9 between every two steps of the relay: nothing is lost, nothing runs twice.
//!
//! The steps run in a process of their own, which kills itself after a given one.

use super::{Harbour, relay};
use crate::support::{self, DEADLINE};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use tidegate::config::{self, Secret, Sources};
use tidegate::queue::connection;
use tidegate::services::outbox::sort;

/// What the child works on, and after which step it dies.
const DATABASE: &str = "RELAY_CHILD_DATABASE";
const PREFIX: &str = "RELAY_CHILD_PREFIX";
const REDIS: &str = "RELAY_CHILD_REDIS";
const STEPS: &str = "RELAY_CHILD_STEPS";
/// Lock, push to two queues, delete, commit.
const ALL_STEPS: u32 = 5;

/// Dies as with kill -9 once so many steps are done.
pub struct Fuse(u32);

impl Fuse {
    pub fn new(steps: u32) -> Self {
        Self(steps)
    }

    pub fn step(&mut self) {
        if self.0 == 0 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        self.0 -= 1;
    }
}

#[tokio::test]
#[ignore = "the child of the tests below, which start it"]
async fn relay_in_a_child() {
    let [database, prefix, redis, steps] =
        [DATABASE, PREFIX, REDIS, STEPS].map(|name| std::env::var(name).unwrap());
    let mut config = config::load(&Sources::default()).unwrap();
    config.redis.prefix = prefix;
    config.redis.url = Secret::new(redis);
    let conn = connection::connect(&config.redis).await.unwrap();
    let relay = relay(&config, &database, conn);
    let mut fuse = Fuse::new(steps.parse().unwrap());
    fuse.step();
    let mut batch = relay.take().await.unwrap().unwrap();
    fuse.step();
    let sorted = sort(&batch.rows, 0);
    assert_eq!(sorted.parcels.len(), 2);
    let mut sent = Vec::new();
    for parcel in &sorted.parcels {
        relay.send(parcel).await.unwrap();
        sent.extend(&parcel.seqs);
        fuse.step();
    }
    batch.finish(&sent, &sorted.rejected).await.unwrap();
    fuse.step();
    batch.commit().await.unwrap();
    fuse.step();
}

/// A test of this binary as a process of its own.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs the child and waits until it is dead and its locks are free.
async fn die_after(harbour: &Harbour, steps: u32) {
    let status = child("intake::killed::relay_in_a_child")
        .env(DATABASE, &harbour.url)
        .env(PREFIX, &harbour.rig.config.redis.prefix)
        .env(REDIS, support::redis_url())
        .env(STEPS, steps.to_string())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "killed after step {steps}");
    support::wait_until("its session has ended", DEADLINE, || async {
        let held = "select count(*) from pg_locks where relation = 'tidegate.outbox'::regclass
                    and pid <> pg_backend_pid()";
        harbour.number(held).await == 0
    })
    .await;
}

async fn insert_100(harbour: &Harbour) {
    harbour
        .execute(
            "insert into tidegate.outbox (kind, args, queue)
             select 'app.a', jsonb_build_object('n', n), case when n % 2 = 0 then 'default' else 'other' end
             from generate_series(1, 100) n",
        )
        .await;
}

/// How often each job has been in an inbox so far; each look is as if a daemon had taken all of them.
async fn numbers(harbour: &Harbour) -> BTreeMap<u64, u32> {
    let mut seen = BTreeMap::new();
    for queue in ["default", "other"] {
        for entry in harbour.inbox(queue).await {
            *seen
                .entry(entry["args"]["n"].as_u64().unwrap())
                .or_default() += 1;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_it_loses_and_doubles_nothing() {
    for steps in 0..=ALL_STEPS {
        let harbour = Harbour::new().await;
        insert_100(&harbour).await;
        die_after(&harbour, steps).await;
        let left = if steps == ALL_STEPS { 0 } else { 100 };
        assert_eq!(harbour.rows().await, left, "after step {steps}");
        harbour.relay_all().await;
        assert_eq!(harbour.rows().await, 0);
        let seen = numbers(&harbour).await;
        assert_eq!(seen.len(), 100, "after step {steps}: none is lost");
        assert!(
            seen.values().all(|n| *n == 1),
            "after step {steps}: {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_one_after_the_other() {
    let harbour = Harbour::new().await;
    insert_100(&harbour).await;
    for _ in 0..3 {
        for steps in 0..ALL_STEPS {
            die_after(&harbour, steps).await;
        }
    }
    harbour.relay_all().await;
    let seen = numbers(&harbour).await;
    assert!(
        seen.len() == 100 && seen.values().all(|n| *n == 1),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_ended_before_the_next_relay_came_do_not_run_again() {
    let harbour = Harbour::new().await;
    insert_100(&harbour).await;
    // Both queues have been pushed to, no row is deleted.
    die_after(&harbour, 3).await;
    harbour.rig.admit().await;
    let jobs = harbour.rig.claim(100).await;
    assert_eq!(jobs.len(), 50);
    for job in &jobs {
        harbour.rig.done(job).await;
    }
    harbour.relay_all().await;
    assert_eq!(harbour.rows().await, 0);
    assert!(harbour.inbox("default").await.is_empty(), "each was known");
    assert_eq!(harbour.inbox("other").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_lost_before_the_commit_is_pushed_again() {
    let harbour = Harbour::new().await;
    insert_100(&harbour).await;
    die_after(&harbour, 3).await;
    // As after a failover that lost the last writes.
    for queue in ["default", "other"] {
        for key in ["inbox", "ids"] {
            let key = format!("{}:{{{queue}}}:{key}", harbour.rig.config.redis.prefix);
            let _: u64 = harbour.rig.redis("DEL", &[&key]).await;
        }
    }
    harbour.relay_all().await;
    assert_eq!(numbers(&harbour).await.len(), 100);
}
