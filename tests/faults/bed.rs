//! What one trial runs on: a Redis of its own with an append-only file, a folder with configuration and definitions, the
//! app that gets the jobs, and daemons as processes.

use crate::load::{self, Mix};
use crate::oracle::{Expected, Oracle};
use crate::process::{Process, Site};
use crate::receiver::Receiver;
use crate::row::Broken;
use crate::support::wait_until;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::config::{Config, Secret};
use tidegate::queue::{Queue, connection};
use tidegate::stack::{PrivateRedis, RedisOptions};
use tokio::task::JoinHandle;

/// How long anything but the drain may take before a trial is given up.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What differs from row to row.
pub struct Setup {
    pub lease: Duration,
    /// More of the configuration: whole sections.
    pub more: String,
    pub mix: Mix,
    /// The size of a disk of its own for the Redis server.
    pub redis_disk: Option<u64>,
    /// More arguments of the Redis server.
    pub redis_args: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            more: String::new(),
            mix: Mix::default(),
            redis_disk: None,
            redis_args: Vec::new(),
        }
    }
}

/// The surroundings of one trial.
pub struct Bed {
    pub seed: u64,
    pub random: StdRng,
    pub lease: Duration,
    pub mix: Mix,
    pub redis: PrivateRedis,
    _data: tempfile::TempDir,
    pub receiver: Receiver,
    pub site: Site,
    pub oracle: Arc<Mutex<Oracle>>,
    pub queue: Queue,
    pub daemons: BTreeMap<String, Process>,
    /// The program that daemons run, and what it is told by its environment.
    pub program: Program,
    /// The configuration of the app that enqueues.
    apps: Config,
    load: Option<JoinHandle<()>>,
    began: Instant,
}

/// A daemon's program.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: String,
    pub env: Vec<(String, String)>,
}

impl Program {
    /// The one under test.
    pub fn current() -> Self {
        Self {
            path: env!("CARGO_BIN_EXE_tidegate").to_owned(),
            env: Vec::new(),
        }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Bed {
    pub async fn new(seed: u64, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = RedisOptions::new(dir.path().join("redis"));
        options.append_only = true;
        options.disk = setup.redis_disk;
        options.extra_args = setup.redis_args.clone();
        let redis = tokio::task::spawn_blocking(move || PrivateRedis::start(options).unwrap());
        let redis = redis.await.unwrap();
        let receiver = Receiver::start().await;
        let site = Site::on(&redis.url(), &settings(&setup, receiver.port()), &[]);
        let jobs = load::definitions(receiver.port(), &site.path("receipts"));
        for (n, job) in jobs.iter().enumerate() {
            site.write_job(&format!("{n}.toml"), job);
        }
        let conn = connection::connect(&site.config.redis).await.unwrap();
        let queue = Queue::new("default", conn, &site.config);
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            lease: setup.lease,
            mix: setup.mix,
            redis,
            _data: dir,
            receiver,
            queue,
            apps: site.config.clone(),
            site,
            oracle: Arc::default(),
            daemons: BTreeMap::new(),
            program: crate::row::program(),
            load: None,
            began: Instant::now(),
        }
    }

    /// Starts a daemon and waits until it takes jobs.
    pub async fn start(&mut self, name: &str) {
        let mut command = self.program.command();
        self.start_as(name, &mut command).await;
    }

    pub async fn start_as(&mut self, name: &str, command: &mut Command) {
        let daemon = self.site.start_as(name, command);
        daemon.wait_for_event("started").await;
        self.daemons.insert(name.to_owned(), daemon);
    }

    pub async fn start_both(&mut self) {
        self.start("a").await;
        self.start("b").await;
    }

    pub fn daemon(&self, name: &str) -> &Process {
        &self.daemons[name]
    }

    /// Begins to send the load.
    pub fn begin(&mut self) {
        let entries = load::entries(&mut self.random, self.mix);
        let config = self.apps.clone();
        let oracle = Arc::clone(&self.oracle);
        self.began = Instant::now();
        self.load = Some(tokio::spawn(load::send(config, entries, oracle, self.seed)));
    }

    /// The app that enqueues finds Redis here.
    pub fn apps_use(&mut self, url: &str) {
        self.apps.redis.url = Secret::new(url);
    }

    /// The app that enqueues asks a Sentinel where Redis is.
    pub fn apps_ask(&mut self, sentinel: Secret) {
        self.apps.redis.sentinels = vec![sentinel];
    }

    /// Another server is the primary from now on.
    pub fn moved_to(&mut self, url: &str) {
        self.site.server_is(url);
        self.site.config.redis.url = Secret::new(url);
    }

    /// Pushes more jobs, all of them plain.
    pub async fn push_also(&mut self, entries: Vec<String>) {
        for entry in &entries {
            let parsed: serde_json::Value = serde_json::from_str(entry).unwrap();
            let id = parsed["id"].as_str().unwrap();
            self.oracle.lock().expect(id, Expected::plain());
        }
        self.site.push(&entries).await;
        for entry in &entries {
            let parsed: serde_json::Value = serde_json::from_str(entry).unwrap();
            self.oracle
                .lock()
                .acknowledged(parsed["id"].as_str().unwrap());
        }
    }

    /// Waits for a random instant in the midst of the load.
    pub async fn instant(&mut self) {
        let share = self.random.random_range(0.15..0.85);
        let at = load::SPAN.mul_f64(share);
        tokio::time::sleep(at.saturating_sub(self.began.elapsed())).await;
    }

    /// A random length of time.
    pub fn length(&mut self, from: Duration, to: Duration) -> Duration {
        from + (to - from).mul_f64(self.random.random_range(0.0..1.0))
    }

    /// Waits until all of the load is acknowledged.
    pub async fn sent(&mut self) -> Result<(), Broken> {
        let Some(load) = self.load.as_mut() else {
            return Ok(());
        };
        match tokio::time::timeout(DEADLINE, load).await {
            Ok(Ok(())) => {
                self.load = None;
                Ok(())
            }
            Ok(Err(e)) => Err(Broken::new(format!("the load failed: {e}"))),
            Err(_) => Err(Broken::new("the load was not acknowledged after the fault")),
        }
    }

    /// What runs now: id and token.
    pub async fn running(&self) -> BTreeMap<String, String> {
        let mut conn = self.site.redis().await;
        redis::cmd("HGETALL")
            .arg(&self.queue.keys().running)
            .query_async(&mut conn)
            .await
            .unwrap_or_default()
    }

    /// The incarnation under which a daemon works, by what its log says at a loss, or by who is registered: use it while
    /// one daemon lives.
    pub async fn only_incarnation(&self) -> String {
        let only = async || {
            let workers = self.queue.workers().await.unwrap().workers;
            match workers.as_slice() {
                [(one, _)] => Some(one.clone()),
                _ => None,
            }
        };
        wait_until("one daemon is registered", DEADLINE, || async {
            only().await.is_some()
        })
        .await;
        only().await.unwrap()
    }

    /// Waits until some job runs under an incarnation.
    pub async fn wait_until_held(&self, incarnation: &str, least: usize) {
        wait_until("it holds jobs", DEADLINE, || async {
            let running = self.running().await;
            let held = running.values().filter(|t| t.starts_with(incarnation));
            held.count() >= least
        })
        .await;
    }

    /// Events of all daemons that were ever started here.
    pub fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let folder = std::fs::read_dir(self.site.dir.path()).unwrap();
        let logs = folder.map(|entry| entry.unwrap().path());
        logs.filter(|path| path.extension().is_some_and(|x| x == "log"))
            .flat_map(|path| crate::process::events(&path, name))
            .collect()
    }
}

fn settings(setup: &Setup, port: u16) -> String {
    format!(
        "[daemon]\nlease = \"{}ms\"\nconcurrency = 8\npoll = \"250ms\"\ndrain_timeout = \"2s\"\n\
         [gate]\nmode = \"off\"\n[breaker]\nmode = \"off\"\n[audit]\ninterval = \"1s\"\n\
         [retention]\nrecent_max = 100000\n\
         [http]\nallow = [\"127.0.0.1:{port}\"]\nallow_private = true\n{}",
        setup.lease.as_millis(),
        setup.more
    )
}
