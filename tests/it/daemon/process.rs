//! A daemon as a process of its own, which a test can kill, stop and wake.

use crate::support::{self, DEADLINE};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tidegate::config::{Config, Sources};
use tidegate::queue::{Queue, connection};

/// A folder with a configuration and definitions, and the queue they work on.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub config: Config,
    redis_url: String,
}

impl Site {
    /// A site on the shared Redis with the given settings and definitions.
    pub fn new(settings: &str, jobs: &[&str]) -> Self {
        Self::on(&support::redis_url(), settings, jobs)
    }

    /// A site on a Redis of its own.
    pub fn on(redis_url: &str, settings: &str, jobs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prefix = support::fresh_prefix();
        let text = format!(
            "[redis]\nurl = \"{redis_url}\"\nprefix = \"{prefix}\"\n[log]\nformat = \"json\"\n{settings}"
        );
        fs::write(dir.path().join("tidegate.toml"), text).unwrap();
        fs::create_dir(dir.path().join("jobs")).unwrap();
        let site = Self {
            config: tidegate::config::load(&Sources {
                path: Some(dir.path().join("tidegate.toml")),
            })
            .unwrap(),
            dir,
            redis_url: redis_url.to_owned(),
        };
        for (n, job) in jobs.iter().enumerate() {
            site.write_job(&format!("{n}.toml"), job);
        }
        site
    }

    #[allow(dead_code, reason = "for the fault suite, which shares this file")]
    /// The server is another one by now, for what the test itself asks.
    pub fn server_is(&mut self, redis_url: &str) {
        redis_url.clone_into(&mut self.redis_url);
    }

    pub fn write_job(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("jobs").join(name), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn queue(&self, name: &str) -> Queue {
        let conn = connection::connect(&self.config.redis).await.unwrap();
        Queue::new(name, conn, &self.config)
    }

    pub async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// What an app does: a plain RPUSH.
    pub async fn push(&self, entries: &[String]) {
        let key = format!("{}:{{default}}:inbox", self.config.redis.prefix);
        for chunk in entries.chunks(500) {
            redis::cmd("RPUSH")
                .arg(&key)
                .arg(chunk)
                .query_async::<()>(&mut self.redis().await)
                .await
                .unwrap();
        }
    }

    /// Starts a daemon here; its log goes to `<name>.log`.
    pub fn start(&self, name: &str) -> Process {
        self.start_as(name, &mut Command::new(env!("CARGO_BIN_EXE_tidegate")))
    }

    /// Starts another program here that runs a daemon, or this one in other circumstances.
    pub fn start_as(&self, name: &str, program: &mut Command) -> Process {
        let log = self.path(&format!("{name}.log"));
        let child = program
            .arg("run")
            .arg("--config")
            .arg(self.path("tidegate.toml"))
            .arg("--jobs")
            .arg(self.path("jobs"))
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(self.path(&format!("{name}.err"))).unwrap())
            .spawn()
            .unwrap();
        Process { child, log }
    }

    /// Waits until a counter of the default queue has reached a value.
    pub async fn wait_for_stat(&self, counter: &str, value: u64, deadline: Duration) {
        let queue = self.queue("default").await;
        support::wait_until(&format!("{counter} = {value}"), deadline, || async {
            let stats = queue.counts().await.unwrap().sizes.stats;
            stats.get(counter).copied().unwrap_or(0) >= value
        })
        .await;
    }
}

/// A running daemon. Killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    #[allow(dead_code, reason = "for the fault suite, which shares this file")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    #[allow(dead_code, reason = "for the fault suite, which shares this file")]
    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        support::wait_until("the daemon exits", DEADLINE, || {
            status = self.child.try_wait().unwrap();
            std::future::ready(status.is_some())
        })
        .await;
        status.unwrap()
    }

    /// Events of its log so far with this name.
    pub fn events(&self, name: &str) -> Vec<serde_json::Value> {
        events(&self.log, name)
    }

    pub async fn wait_for_event(&self, name: &str) {
        support::wait_until(&format!("event {name} in the log"), DEADLINE, || {
            std::future::ready(!self.events(name).is_empty())
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn events(log: &Path, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["event"] == name)
        .collect()
}

/// A definition that appends each job's id to a file, one line per run. A child that outlives its daemon before it was
/// told its job does nothing.
pub fn append_to(file: &Path, more: &str) -> String {
    let script = format!(
        r#"read -r job || exit 1; id=${{job#*\"id\":\"}}; id=${{id%%\"*}}; printf '%s %s\n' "$id" "$TIDEGATE_ATTEMPT" >> {}"#,
        file.display()
    );
    format!(
        "kind = \"app.append\"\nhandler = \"exec\"\n{more}\n[args]\nn = {{ type = \"integer\", default = 0 }}\n[exec]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n"
    )
}
