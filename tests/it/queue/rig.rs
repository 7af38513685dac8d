//! A queue of its own for each test, with a few kinds, and the steps of a daemon as short calls.

use redis::{FromRedisValue, ToRedisArgs};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate::catalog::{self, Catalog};
use tidegate::config::{self, Config, Secret, Sources};
use tidegate::job::{History, Priority};
use tidegate::queue::admit::judge;
use tidegate::queue::claim::RawDelivery;
use tidegate::queue::connection::{self, Connection};
use tidegate::queue::settle::{Ending, Record};
use tidegate::queue::{
    Admission, Flow, FlowAllowance, Peeked, Queue, Settled, Settlement, Terms, Verdict,
};

use crate::support;

/// The incarnation that every rig registers.
pub const ME: &str = "00000000-0000-4000-8000-000000000001";
/// Kinds every rig knows; all of them take an optional integer `n`.
pub const KINDS: [&str; 3] = ["app.a", "app.b", "app.c"];

pub struct Rig {
    pub queue: Queue,
    pub catalog: Catalog,
    pub config: Config,
    pub conn: Connection,
    claims: AtomicU64,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// On the Redis all tests share, with a configuration of its own.
    pub async fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::on(&support::redis_url(), set).await
    }

    /// On a given Redis.
    pub async fn on(url: &str, set: impl FnOnce(&mut Config)) -> Self {
        let mut config = config::load(&Sources::default()).unwrap();
        config.redis.url = Secret::new(url);
        config.redis.prefix = support::fresh_prefix();
        set(&mut config);
        let conn = connection::connect(&config.redis).await.unwrap();
        let queue = Queue::new("default", conn.clone(), &config);
        queue.heartbeat(ME, true).await.unwrap();
        Self {
            queue,
            catalog: kinds(),
            config,
            conn,
            claims: AtomicU64::new(0),
        }
    }

    /// A plain command.
    pub async fn redis<T: FromRedisValue>(&self, name: &str, args: &[&str]) -> T {
        self.try_redis(name, args).await.unwrap()
    }

    pub async fn try_redis<T: FromRedisValue>(
        &self,
        name: &str,
        args: &[&str],
    ) -> redis::RedisResult<T> {
        let mut conn = self.conn.clone();
        redis::cmd(name).arg(args).query_async(&mut conn).await
    }

    /// As an app does it.
    pub async fn push<T: ToRedisArgs>(&self, entries: &[T]) {
        let mut conn = self.conn.clone();
        for chunk in entries.chunks(1_000) {
            let mut cmd = redis::cmd("RPUSH");
            cmd.arg(&self.queue.keys().inbox);
            for entry in chunk {
                cmd.arg(entry);
            }
            cmd.query_async::<()>(&mut conn).await.unwrap();
        }
    }

    pub fn judge(&self, peeked: &Peeked) -> Vec<Verdict> {
        let one =
            |raw: &Vec<u8>| judge(raw, "default", &self.catalog, peeked.now_ms, rand::random());
        peeked.entries.iter().map(one).collect()
    }

    /// Admits until the inbox is empty; returns the verdicts and the numbers of those that were duplicates.
    pub async fn admit(&self) -> (Vec<Verdict>, Vec<usize>) {
        let (mut all, mut doubles) = (Vec::new(), Vec::new());
        loop {
            let peeked = self.queue.peek().await.unwrap();
            if peeked.entries.is_empty() {
                let left: u64 = self.redis("LLEN", &[&self.queue.keys().inbox]).await;
                if left == 0 {
                    return (all, doubles);
                }
                continue;
            }
            let verdicts = self.judge(&peeked);
            let admitted = self.queue.admit(ME, &peeked, &verdicts).await.unwrap();
            let Admission::Done { duplicates, .. } = admitted else {
                panic!("somebody else admits from this test's inbox");
            };
            doubles.extend(duplicates.iter().map(|index| all.len() + index));
            all.extend(verdicts);
        }
    }

    /// Pushes and admits.
    pub async fn put<T: ToRedisArgs>(&self, entries: &[T]) {
        self.push(entries).await;
        self.admit().await;
    }

    /// Promotes all that is due.
    pub async fn promote(&self) {
        loop {
            let look = self.queue.look().await.unwrap();
            if look.due.is_empty() {
                return;
            }
            self.queue
                .promote(ME, &look.due, &self.catalog)
                .await
                .unwrap();
        }
    }

    /// Claims from every flow that holds jobs.
    pub async fn claim(&self, limit: usize) -> Vec<RawDelivery> {
        self.claim_as(ME, limit).await
    }

    pub async fn claim_as(&self, incarnation: &str, limit: usize) -> Vec<RawDelivery> {
        let heads = self.queue.look().await.unwrap().heads;
        let flows: Vec<FlowAllowance> = heads
            .into_iter()
            .map(|(flow, _)| FlowAllowance {
                flow,
                allowance: limit,
                terms: Terms::default(),
            })
            .collect();
        self.claim_from(incarnation, limit, &flows).await
    }

    pub async fn claim_from(
        &self,
        incarnation: &str,
        limit: usize,
        flows: &[FlowAllowance],
    ) -> Vec<RawDelivery> {
        let number = self.claims.fetch_add(1, Ordering::Relaxed) + 1;
        let claimed = self.queue.claim(incarnation, number, limit, flows).await;
        claimed.unwrap().jobs
    }

    /// Claims and returns the `n` of each job.
    pub async fn take(&self, limit: usize) -> Vec<u64> {
        self.claim(limit).await.iter().map(number_of).collect()
    }

    pub async fn settle(&self, settlements: &[Settlement]) -> Settled {
        self.queue.settle(ME, 0, settlements).await.unwrap()
    }

    /// Settles as done; panics if the queue calls it stale.
    pub async fn done(&self, job: &RawDelivery) {
        let settled = self.settle(&[settlement(job, done(job))]).await;
        assert_eq!(settled.stale, Vec::<usize>::new(), "{}", job.id);
    }

    pub async fn stat(&self, name: &str) -> u64 {
        let counts = self.queue.counts().await.unwrap();
        counts.stats.get(name).copied().unwrap_or(0)
    }

    pub async fn state(&self, id: &str) -> Option<String> {
        self.queue.find(id).await.unwrap().map(|found| found.state)
    }

    /// Codes of what is in quarantine, with how many there are of each.
    pub async fn quarantine(&self) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        for entry in self.queue.quarantined("", 1_000).await.unwrap() {
            *codes.entry(entry.code).or_default() += 1;
        }
        codes
    }
}

fn kinds() -> Catalog {
    catalog_of(&KINDS.map(|kind| (kind, "[args]\nn = { type = \"integer\" }\n")))
}

/// Definitions of kinds, each with more than its name.
pub fn catalog_of(kinds: &[(&str, &str)]) -> Catalog {
    let dir = tempfile::tempdir().unwrap();
    for (kind, more) in kinds {
        let text = format!(
            "kind = \"{kind}\"\nhandler = \"exec\"\n{more}\n[exec]\ncommand = [\"/bin/true\"]\n"
        );
        std::fs::write(dir.path().join(format!("{kind}.toml")), text).unwrap();
    }
    catalog::load(dir.path(), &["exec"]).unwrap()
}

pub fn flow(priority: Priority, kind: &str) -> Flow {
    Flow {
        priority,
        kind: kind.into(),
        key: None,
    }
}

/// An envelope: `{"kind":kind,"args":{"n":n}<more>}`.
pub fn envelope(kind: &str, n: u64, more: &str) -> String {
    format!(r#"{{"kind":"{kind}","args":{{"n":{n}}}{more}}}"#)
}

pub fn number_of(job: &RawDelivery) -> u64 {
    number_in(&job.raw)
}

pub fn number_in(raw: &[u8]) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(raw).unwrap();
    value["args"]["n"].as_u64().unwrap()
}

pub fn record(id: &str, state: &'static str) -> Record<'static> {
    Record {
        id: id.to_owned().leak(),
        kind: "app.a",
        priority: Priority::Normal,
        state,
        attempts: 1,
        at_ms: 1,
        duration_ms: 1,
    }
}

pub fn done(job: &RawDelivery) -> Ending {
    Ending::Finished {
        record: record(&job.id, "done").encode(),
        counter: "done",
        given: true,
        history: History::parse(&job.history).map(Box::new),
    }
}

pub fn handed_back(flow: Flow) -> Ending {
    Ending::HandedBack {
        flow,
        history: None,
        counter: "handed_back",
    }
}

/// A history of `attempts` failures.
pub fn failures(attempts: u32) -> Box<History> {
    let mut history = Box::<History>::default();
    (0..attempts).for_each(|n| history.fail(u64::from(n), "no luck"));
    history
}

pub fn settlement(job: &RawDelivery, ending: Ending) -> Settlement {
    Settlement {
        id: job.id.as_str().into(),
        token: job.token.as_str().into(),
        notice: job.notice("app.a", &ending, 1),
        ending,
        slots: job.slots.clone(),
        told: false,
    }
}
