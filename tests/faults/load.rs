//! The mixed load of a trial: every class, retries, delays, unique jobs, limits per key, chains, commands, a schedule. Each
//! entry is sent until it is acknowledged, as an app would; with the id it was given, that is once.

use crate::oracle::{Expected, Oracle};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::config::Config;
use tidegate::queue::Queue;
use tidegate::queue::connection::{self, Connection};
use tidegate::queue::operate::{Enqueued, NewJob};

/// How long entries come in.
pub const SPAN: Duration = Duration::from_millis(1_500);
/// How long one try to send may take before it is made anew.
const TRY: Duration = Duration::from_secs(2);
const CLASSES: [&str; 5] = ["critical", "high", "normal", "low", "bulk"];

/// How much of what is sent.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub jobs: usize,
    /// The longest run, ms.
    pub longest: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            jobs: 120,
            longest: 400,
        }
    }
}

/// One entry: its envelope, and what it promises.
pub struct Entry {
    pub id: String,
    pub envelope: Value,
    pub lock: String,
    pub expected: Expected,
}

/// The definitions of the load, for an app on this port and a file for receipts of commands.
pub fn definitions(port: u16, receipts: &std::path::Path) -> Vec<String> {
    let args = "[args]\nms = { type = \"integer\", default = 0 }\nfails = { type = \"integer\", default = 0 }\nkey = { type = \"string\", default = \"\" }\n";
    let http = format!("[http]\nurl = \"http://127.0.0.1:{port}/\"\n");
    let retry = |attempts: u32| {
        format!(
            "[retry]\nmax_attempts = {attempts}\nstrategy = \"fixed\"\nbase = \"100ms\"\njitter = \"none\"\n"
        )
    };
    let posted = |kind: &str, more: &str, attempts: u32| {
        let retry = retry(attempts);
        format!("kind = \"{kind}\"\nhandler = \"http\"\n{retry}{more}{args}{http}")
    };
    let receipts = receipts.display();
    let command = |kind: &str, seconds: &str| {
        let script = format!(
            r#"read -r job || exit 1; echo "b $TIDEGATE_JOB_ID $TIDEGATE_ATTEMPT" >> {receipts}; sleep {seconds}; echo "e $TIDEGATE_JOB_ID $TIDEGATE_ATTEMPT" >> {receipts}"#
        );
        let retry = retry(50);
        format!(
            "kind = \"{kind}\"\nhandler = \"exec\"\n{retry}[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n"
        )
    };
    vec![
        posted("load.plain", "", 50),
        posted("load.doomed", "", 2),
        posted(
            "load.alone",
            "[concurrency]\nlimit = 1\nkey = \"args.key\"\n",
            50,
        ),
        posted("load.once", "[unique]\nkey = \"args.key\"\n", 50),
        posted(
            "load.tick",
            "[schedule]\ncron = \"* * * * * *\"\nmisfire = \"all\"\ncatch_up = 100\n",
            50,
        ),
        command("load.command", "0.05"),
        command("load.slow", "4.5"),
    ]
}

/// The entries of a trial.
pub fn entries(random: &mut StdRng, mix: Mix) -> Vec<Entry> {
    (0..mix.jobs).map(|n| entry(random, n, mix)).collect()
}

fn entry(random: &mut StdRng, n: usize, mix: Mix) -> Entry {
    let id = format!("j{n}");
    // Most are short, a few take their time, so that something runs whenever the fault comes.
    let ms = if random.random_bool(0.2) {
        random.random_range(mix.longest / 2..=mix.longest)
    } else {
        random.random_range(0..20)
    };
    let class = CLASSES[random.random_range(0..5)];
    let mut fails = 0;
    let mut lock = String::new();
    let mut envelope = json!({"id": id, "priority": class, "args": {"ms": ms}});
    let mut expected = Expected::plain();
    match random.random_range(0..100) {
        0..36 => envelope["kind"] = "load.plain".into(),
        36..48 => {
            fails = 1;
            envelope["kind"] = "load.plain".into();
        }
        48..60 => {
            envelope["kind"] = "load.plain".into();
            envelope["delay_ms"] = random.random_range(50..1_000).into();
        }
        60..72 => {
            envelope["kind"] = "load.alone".into();
            envelope["args"] =
                json!({"ms": ms / 4, "key": format!("a{}", random.random_range(0..4))});
        }
        72..80 => {
            let key = format!("o{}", random.random_range(0..4));
            envelope["kind"] = "load.once".into();
            envelope["args"]["key"] = key.clone().into();
            envelope["unique"] = json!({"key": key});
            lock = format!("load.once:{key}");
            expected.may_be_skipped = true;
        }
        80..88 => {
            let step = json!({"kind": "load.plain", "args": {"ms": ms / 4}});
            let mut first = step.clone();
            first["then"] = step;
            envelope["kind"] = "load.plain".into();
            envelope["then"] = first;
            expected.followers = 2;
        }
        88..94 => {
            fails = 2;
            envelope["kind"] = "load.doomed".into();
            expected.dies = true;
        }
        _ => {
            envelope["kind"] = "load.command".into();
            envelope["args"] = json!({});
        }
    }
    if fails > 0 {
        envelope["args"]["fails"] = fails.into();
    }
    expected.failures = fails;
    Entry {
        id,
        envelope,
        lock,
        expected,
    }
}

/// Sends entries at random moments until [`SPAN`] has passed, half of them by the inbox, half by the script.
pub async fn send(config: Config, entries: Vec<Entry>, oracle: Arc<Mutex<Oracle>>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = entries.len();
    let began = Instant::now();
    let mut sender = Sender { config, open: None };
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let count = random.random_range(1..=6).min(left);
        let batch: Vec<Entry> = entries.by_ref().take(count).collect();
        left -= count;
        {
            let mut oracle = oracle.lock();
            for entry in &batch {
                oracle.expect(&entry.id, entry.expected.clone());
            }
        }
        if random.random_bool(0.5) {
            sender.push(&batch, &oracle).await;
        } else {
            sender.enqueue(&batch, &oracle).await;
        }
        let ahead = SPAN.saturating_sub(began.elapsed());
        let mean = ahead / u32::try_from(left / 3 + 1).unwrap();
        tokio::time::sleep(mean.mul_f64(random.random_range(0.2..1.4))).await;
    }
}

struct Sender {
    config: Config,
    open: Option<(Connection, Queue)>,
}

impl Sender {
    /// Connects anew after trouble.
    async fn open(&mut self) -> Option<(Connection, Queue)> {
        if self.open.is_none() {
            let conn = connection::connect(&self.config.redis).await.ok()?;
            let queue = Queue::new("default", conn.clone(), &self.config);
            self.open = Some((conn, queue));
        }
        self.open.clone()
    }

    async fn push(&mut self, batch: &[Entry], oracle: &Mutex<Oracle>) {
        let raws: Vec<String> = batch.iter().map(|e| e.envelope.to_string()).collect();
        loop {
            if let Some((mut conn, queue)) = self.open().await {
                let mut push = redis::cmd("RPUSH");
                push.arg(&queue.keys().inbox).arg(&raws);
                let sent = tokio::time::timeout(TRY, push.query_async::<u64>(&mut conn)).await;
                if matches!(sent, Ok(Ok(_))) {
                    break;
                }
            }
            self.trouble(oracle).await;
        }
        let mut oracle = oracle.lock();
        batch.iter().for_each(|e| oracle.acknowledged(&e.id));
    }

    async fn enqueue(&mut self, batch: &[Entry], oracle: &Mutex<Oracle>) {
        let raws: Vec<String> = batch.iter().map(|e| e.envelope.to_string()).collect();
        let jobs: Vec<NewJob<'_>> = batch
            .iter()
            .zip(&raws)
            .map(|(e, raw)| NewJob {
                id: &e.id,
                lock: &e.lock,
                envelope: raw.as_bytes(),
            })
            .collect();
        let answers = loop {
            if let Some((_, queue)) = self.open().await {
                let sent = tokio::time::timeout(TRY, queue.enqueue_all(&jobs)).await;
                if let Ok(Ok(answers)) = sent {
                    break answers;
                }
            }
            self.trouble(oracle).await;
        };
        let mut oracle = oracle.lock();
        for (entry, answer) in batch.iter().zip(answers) {
            match answer {
                Enqueued::Created | Enqueued::Duplicate(_) => oracle.acknowledged(&entry.id),
                Enqueued::Held { .. } => oracle.refused(&entry.id),
            }
        }
    }

    async fn trouble(&mut self, oracle: &Mutex<Oracle>) {
        oracle.lock().troubles += 1;
        self.open = None;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
