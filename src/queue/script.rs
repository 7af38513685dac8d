//! The scripts, compiled in, and how one is called.

use super::connection::Connection;
use super::{Queue, QueueError};
use crate::clock;
use redis::{Arg, Cmd, Value};
use std::sync::LazyLock;

/// A script and its digest.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    source: LazyLock<String>,
    sha: LazyLock<String>,
}

macro_rules! scripts {
    ($($script:ident = $name:literal $(with $lib:literal)*),* $(,)?) => {
        $(pub(super) static $script: Script = Script {
            name: $name,
            source: LazyLock::new(|| {
                let libs = [$(include_str!(concat!("lua/lib/", $lib, ".lua"))),*];
                assemble(include_str!(concat!("lua/", $name, ".lua")), &libs)
            }),
            sha: LazyLock::new(|| redis::Script::new(&$script.source).get_hash().to_owned()),
        };)*
    };
}

scripts! {
    PEEK = "peek" with "sizes" with "quarantine",
    HEAL = "heal" with "sizes" with "quarantine",
    ADMIT = "admit" with "sizes" with "quarantine",
    LOOK = "look",
    PROMOTE = "promote" with "sizes" with "quarantine" with "archive",
    CLAIM = "claim",
    SETTLE = "settle" with "sizes" with "quarantine" with "archive",
    HEARTBEAT = "heartbeat",
    FENCE = "fence",
    ENQUEUE = "enqueue",
    CANCEL = "cancel" with "sizes" with "archive",
    REQUEUE = "requeue" with "sizes",
    BURY = "bury" with "sizes" with "archive",
    FORGET = "forget" with "sizes" with "archive",
    RELEASE = "release" with "sizes" with "quarantine",
    DISCARD = "discard" with "sizes" with "quarantine",
}

/// A script with what it shares with others before it, but for its first line if that says how it is to be run.
fn assemble(script: &str, libs: &[&str]) -> String {
    let (shebang, body) = match script.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (first, rest),
        _ => ("", script),
    };
    let mut source = String::from(shebang);
    for part in libs.iter().chain(&[body]) {
        if !source.is_empty() {
            source.push('\n');
        }
        source.push_str(part);
    }
    source
}

impl Script {
    /// A call with its keys; the caller adds the arguments.
    pub(super) fn call<K: AsRef<str>>(&self, keys: impl ExactSizeIterator<Item = K>) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.sha.as_str()).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        cmd
    }

    /// Sends a call. A server that lost its scripts (restart, failover, flush) is sent this one along with the call.
    pub(super) async fn send(&self, queue: &Queue, cmd: &Cmd) -> Result<Value, QueueError> {
        let started = clock::monotonic();
        let answer = self.ask(&queue.conn, cmd).await;
        if let Some(observer) = &queue.observer {
            (observer.0)(self.name, clock::since(started));
        }
        answer
    }

    async fn ask(&self, conn: &Connection, cmd: &Cmd) -> Result<Value, QueueError> {
        let mut conn = conn.clone();
        match cmd.query_async::<Value>(&mut conn).await {
            Err(e) if e.code() == Some("NOSCRIPT") => {
                Ok(self.whole(cmd).query_async(&mut conn).await?)
            }
            other => Ok(other?),
        }
    }

    /// The same call with the source in place of its digest.
    fn whole(&self, cmd: &Cmd) -> Cmd {
        let mut whole = redis::cmd("EVAL");
        whole.arg(self.source.as_str());
        for arg in cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                whole.arg(bytes);
            }
        }
        whole
    }
}
