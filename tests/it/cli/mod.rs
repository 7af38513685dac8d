//! The program as people and scripts meet it: exit codes, JSON, what is said and what is not.

mod around;
mod bulk;
mod check;
mod cron;
mod explain;
mod gate;
mod jobs;
mod kept;
mod steer;
mod tied;
mod usage;

use crate::daemon::process::Site;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tidegate::catalog::{self, Catalog};
use tidegate::handlers::BUILT_IN;
use tidegate::queue::{Admission, Queue, admit};

/// A kind that succeeds, one that fails at once for good, and one that is put off after a failure.
pub const JOBS: [&str; 3] = [
    "kind = \"app.ok\"\nhandler = \"exec\"\n[args]\nn = { type = \"integer\", default = 0 }\n[exec]\ncommand = [\"/bin/true\"]",
    "kind = \"app.bad\"\nhandler = \"exec\"\n[retry]\nmax_attempts = 1\n[exec]\ncommand = [\"/bin/false\"]",
    "kind = \"app.again\"\nhandler = \"exec\"\n[retry]\nmax_attempts = 9\nstrategy = \"fixed\"\nbase = \"1h\"\njitter = \"none\"\n[exec]\ncommand = [\"/bin/false\"]",
];

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The one JSON object it printed.
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// The same, if it succeeded.
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.json()
    }
}

/// Runs the program with nothing but these arguments and variables.
pub fn program(args: &[&str], env: &[(&str, &str)], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ended without reading has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Runs a command at a site.
pub fn at(site: &Site, args: &[&str]) -> Ran {
    at_with_input(site, args, "")
}

/// The same, for programs.
pub fn json_at(site: &Site, args: &[&str]) -> Ran {
    at(site, &[args, &["--json"]].concat())
}

pub fn at_with_input(site: &Site, args: &[&str], input: &str) -> Ran {
    let (config, jobs) = (site.path("tidegate.toml"), site.path("jobs"));
    let global = [
        "--config",
        config.to_str().unwrap(),
        "--jobs",
        jobs.to_str().unwrap(),
    ];
    program(&[&global, args].concat(), &[], input)
}

pub fn catalog_of(site: &Site) -> Catalog {
    let handlers: Vec<&str> = BUILT_IN.iter().map(|h| h.name).collect();
    catalog::load(&site.path("jobs"), &handlers).unwrap()
}

/// Admits the inbox, as a daemon does that is too busy to claim.
pub async fn admit_all(site: &Site, queue: &Queue) {
    let catalog = catalog_of(site);
    queue.heartbeat("admitter", true).await.unwrap();
    let peeked = queue.peek().await.unwrap();
    let name = Arc::clone(&queue.name);
    let judge = |raw: &Vec<u8>| admit::judge(raw, &name, &catalog, peeked.now_ms, [7; 10]);
    let verdicts: Vec<_> = peeked.entries.iter().map(judge).collect();
    let admission = queue.admit("admitter", &peeked, &verdicts).await.unwrap();
    assert!(matches!(admission, Admission::Done { .. }));
    queue.deregister("admitter").await.unwrap();
}
