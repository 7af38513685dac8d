//! The scripts, compiled in, and how one is called.

use super::connection::Connection;
use super::{Queue, QueueError};
use crate::clock;
use redis::{Arg, Cmd, Value};
use std::sync::LazyLock;

/// A script: its own text, and the shared fragments it starts with.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    source: LazyLock<Source>,
}

/// A script as Redis gets it.
#[derive(Debug)]
struct Source {
    text: String,
    sha: String,
}

/// `NAME = "file"` is `lua/file.lua`; `NAME = "file" + "shared"` begins with `lua/lib/shared.lua`.
macro_rules! scripts {
    ($($script:ident = $name:literal $(+ $lib:literal)*),* $(,)?) => {
        $(pub(super) static $script: Script = Script {
            name: $name,
            source: LazyLock::new(|| Source::new(
                &[$(include_str!(concat!("lua/lib/", $lib, ".lua"))),*],
                include_str!(concat!("lua/", $name, ".lua")),
            )),
        };)*
    };
}

scripts! {
    BREAKERS = "breakers",
    BRIDGE_TAKE = "bridge_take",
    BRIDGE_DONE = "bridge_done",
    PEEK = "peek" + "sizes" + "quarantine",
    HEAL = "heal" + "sizes" + "quarantine",
    ADMIT = "admit" + "sizes" + "quarantine" + "ends" + "tomb" + "events" + "groups" + "ties" + "locks" + "members",
    LOOK = "look",
    PROMOTE = "promote" + "sizes" + "quarantine" + "archive" + "groups" + "ties",
    CLAIM = "claim" + "order" + "gates",
    SETTLE = "settle" + "sizes" + "quarantine" + "archive" + "ends" + "groups" + "ties" + "slots" + "back",
    UNPARK = "unpark" + "slots",
    CONTROL = "control",
    ORDER = "order",
    PROGRESS = "progress",
    HEARTBEAT = "heartbeat",
    FENCE = "fence",
    CANCEL = "cancel" + "sizes" + "archive" + "ends" + "tomb" + "groups" + "ties",
    REQUEUE = "requeue" + "sizes",
    BURY = "bury" + "sizes" + "archive" + "groups" + "ties",
    FORGET = "forget" + "sizes" + "archive",
    TALLY = "tally",
    LEAD = "lead",
    PENDING = "pending",
    WHEREABOUTS = "whereabouts",
    RELIST = "relist",
    HOLE = "hole",
    REENTER = "reenter",
    UNSTONE = "unstone",
    ORPHANS = "orphans",
    UNRESERVE = "unreserve",
    LOOSE_LOCKS = "loose_locks",
    LOOSE_TIES = "loose_ties" + "groups" + "ties",
    REGROUP = "regroup" + "groups" + "ties",
    UNHOLD = "unhold" + "slots",
    UNSLOT = "unslot" + "slots",
    STOP = "stop",
    PRUNE = "prune",
    ASK = "ask",
    RELEASE = "release" + "sizes" + "quarantine" + "groups" + "ties",
    DISCARD = "discard" + "sizes" + "quarantine",
    TICK = "tick",
    RESUME = "resume",
    LOAD = "load",
    PEAK = "peak",
    SHELVE = "shelve" + "sizes" + "tomb" + "groups" + "ties",
}

/// The one script that others call too stands where they find it.
pub(super) static ENQUEUE: Script = Script {
    name: "enqueue",
    source: LazyLock::new(|| Source::new(&[], include_str!("../../clients/enqueue/v2.lua"))),
};

impl Source {
    fn new(libs: &[&str], own: &str) -> Self {
        let text = assemble(libs, own);
        #[cfg(feature = "broken")]
        let text = if super::broken::has(super::broken::Flaw::NoTokenCheck) {
            text.replace("held[i] ~= token or over_now[id]", "over_now[id]")
        } else {
            text
        };
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha }
    }
}

/// The shared fragments before a script, but behind its first line if that says how it is to be run.
fn assemble(libs: &[&str], own: &str) -> String {
    let first_line = own.find('\n').map_or(own.len(), |end| end + 1);
    let (shebang, rest) = own.split_at(if own.starts_with("#!") { first_line } else { 0 });
    [&[shebang], libs, &[rest]].concat().concat()
}

impl Script {
    /// A call with its keys; the caller adds the arguments.
    pub(super) fn call<K: AsRef<str>>(&self, keys: impl ExactSizeIterator<Item = K>) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.source.sha.as_str()).arg(keys.len());
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

    /// The same on a server that is none of a queue.
    pub(super) async fn ask(&self, conn: &Connection, cmd: &Cmd) -> Result<Value, QueueError> {
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
        whole.arg(&self.source.text);
        for arg in cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                whole.arg(bytes);
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::assemble;

    #[test]
    fn what_says_how_a_script_is_run_stays_its_first_line() {
        let own = "#!lua flags=allow-oom\nreturn a + b\n";
        let libs = ["local a = 1\n", "local b = 2\n"];
        let whole = "#!lua flags=allow-oom\nlocal a = 1\nlocal b = 2\nreturn a + b\n";
        assert_eq!(assemble(&libs, own), whole);
        assert_eq!(
            assemble(&libs[..1], "return a\n"),
            "local a = 1\nreturn a\n"
        );
        assert_eq!(assemble(&[], own), own);
    }
}
