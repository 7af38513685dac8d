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
    source: &'static str,
    sha: LazyLock<String>,
}

macro_rules! scripts {
    ($($script:ident = $name:literal),* $(,)?) => {
        $(pub(super) static $script: Script = Script {
            name: $name,
            source: include_str!(concat!("lua/", $name, ".lua")),
            sha: LazyLock::new(|| digest(include_str!(concat!("lua/", $name, ".lua")))),
        };)*
    };
}

scripts! {
    PEEK = "peek",
    HEAL = "heal",
    ADMIT = "admit",
    LOOK = "look",
    PROMOTE = "promote",
    CLAIM = "claim",
    SETTLE = "settle",
    PROGRESS = "progress",
    HEARTBEAT = "heartbeat",
    FENCE = "fence",
    ENQUEUE = "enqueue",
    CANCEL = "cancel",
    REQUEUE = "requeue",
    BURY = "bury",
    RELEASE = "release",
}

fn digest(source: &str) -> String {
    redis::Script::new(source).get_hash().to_owned()
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
        whole.arg(self.source);
        for arg in cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                whole.arg(bytes);
            }
        }
        whole
    }
}
