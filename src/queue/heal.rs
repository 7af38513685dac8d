//! A key of ours that somebody overwrote with another type: set aside, so that the queue goes on.

use super::reply::Reply;
use super::script::HEAL;
use super::{Flow, Queue, QueueError};
use crate::catalog::Catalog;
use crate::job::Priority;
use redis::Value;
use std::sync::Arc;

/// Keys looked at per step when every flow is looked for.
const SCAN_COUNT: usize = 1_000;
/// What the names of keys that were set aside have after their own.
const ASIDE: &str = ":wrongtype:";

/// A key that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The key.
    pub key: String,
    /// The type it had.
    pub found: String,
    /// Where its content is now.
    pub moved_to: String,
}

impl Queue {
    /// Renames every key that has the wrong type and leaves a note in quarantine. `now_ms` makes the new names unique;
    /// the catalogue tells which flows there may be.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn heal(&self, now_ms: u64, catalog: &Catalog) -> Result<Vec<SetAside>, QueueError> {
        let mut set_aside = Vec::new();
        // The quarantine comes first, because notes about the others go there.
        let mut keys: Vec<(&str, &str)> = self.keys.typed().collect();
        keys.sort_by_key(|(key, _)| *key != self.keys.quarantine);
        for (key, wanted) in keys {
            set_aside.extend(self.heal_key(key, wanted, now_ms).await?);
        }
        for flow in flows(catalog) {
            let key = self.keys.flow(&flow);
            set_aside.extend(self.heal_key(&key, "list", now_ms).await?);
        }
        self.relist_flows(flows(catalog)).await?;
        let k = &self.keys;
        let lists: Vec<&String> = k.ready.iter().chain([&k.parked, &k.resume]).collect();
        if set_aside.iter().any(|gone| lists.contains(&&gone.key)) {
            self.relist_all().await?;
        }
        if set_aside.is_empty() {
            set_aside = self.heal_named(now_ms).await?;
        }
        Ok(set_aside)
    }

    /// Flows with keys and slots, which no catalogue names: looked for when nothing else was wrong.
    async fn heal_named(&self, now_ms: u64) -> Result<Vec<SetAside>, QueueError> {
        let mut set_aside = Vec::new();
        for (first, wanted) in [("flow:", "list"), ("slots:", "set")] {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let (next, keys) = self.scan_named(first, None, from).await?;
                cursor = next;
                let mut types = redis::pipe();
                for key in &keys {
                    types.cmd("TYPE").arg(key);
                }
                let types: Vec<String> = match keys.len() {
                    0 => Vec::new(),
                    _ => types.query_async(&mut self.conn.clone()).await?,
                };
                for (key, found) in keys.iter().zip(types) {
                    // What was set aside before has a name of the same sort.
                    if found != wanted && !is_aside(key) {
                        set_aside.extend(self.heal_key(key, wanted, now_ms).await?);
                    }
                }
            }
        }
        Ok(set_aside)
    }

    /// One bounded step through all keys of the server, for those of this queue whose names begin so; where the next one
    /// begins, if there is one.
    async fn scan_named(
        &self,
        first: &str,
        of_type: Option<&str>,
        cursor: u64,
    ) -> Result<(Option<u64>, Vec<String>), QueueError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{}*", self.keys.named(first)))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        if let Some(of_type) = of_type {
            scan.arg("TYPE").arg(of_type);
        }
        let mut conn = self.conn.clone();
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut conn).await?;
        // Keys of ours are text.
        let text = keys.into_iter().filter_map(|k| String::from_utf8(k).ok());
        Ok(((next != 0).then_some(next), text.collect()))
    }

    async fn heal_key(
        &self,
        key: &str,
        wanted: &str,
        now_ms: u64,
    ) -> Result<Option<SetAside>, QueueError> {
        let moved_to = format!("{key}{ASIDE}{now_ms}");
        let mut cmd =
            HEAL.call([key, &moved_to, &self.keys.quarantine, &self.keys.stats].into_iter());
        cmd.arg(wanted)
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes)
            .arg(self.size_of(key));
        let answer = HEAL.send(self, &cmd).await?;
        let found = Reply::new(Value::Array(vec![answer]))?.text()?;
        Ok((!found.is_empty()).then(|| SetAside {
            key: key.to_owned(),
            found,
            moved_to,
        }))
    }

    /// The size kept in `stats` that what a key holds counts for.
    fn size_of(&self, key: &str) -> &'static str {
        let k = &self.keys;
        match key {
            _ if [&k.jobs, &k.meta, &k.dead].iter().any(|of| *of == key) => "dead_bytes",
            _ if [&k.archive, &k.archived].iter().any(|of| *of == key) => "history_bytes",
            _ if k.quarantine == key => "quarantine_bytes",
            _ => "",
        }
    }

    /// Makes flows known again that a lost list of flows had made unfindable.
    async fn relist_flows(&self, flows: impl IntoIterator<Item = Flow>) -> Result<(), QueueError> {
        let mut conn = self.conn.clone();
        for flow in flows {
            let head: Option<Vec<u8>> = redis::cmd("LINDEX")
                .arg(self.keys.flow(&flow))
                .arg(0)
                .query_async(&mut conn)
                .await?;
            let Some(head) = head else { continue };
            let ready_ms = head
                .split(|b| *b == b':')
                .next()
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok())
                .unwrap_or(0);
            redis::cmd("ZADD")
                .arg(&self.keys.ready[flow.priority.index()])
                .arg("NX")
                .arg(ready_ms)
                .arg(&*flow.member())
                .query_async::<()>(&mut conn)
                .await?;
        }
        Ok(())
    }
}

impl Queue {
    /// The same for flows with keys, which no catalogue names: every key of the server is looked at, in bounded steps.
    async fn relist_all(&self) -> Result<(), QueueError> {
        let first = self.keys.named("flow:");
        let flow = |key: &String| {
            let (priority, member) = key.strip_prefix(&*first)?.split_once(':')?;
            Some(Flow::of(priority.parse().ok()?, member))
        };
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let (next, keys) = self.scan_named("flow:", Some("list"), from).await?;
            self.relist_flows(keys.iter().filter_map(flow).collect::<Vec<_>>())
                .await?;
            cursor = next;
        }
        Ok(())
    }
}

/// Whether a key is one that was set aside.
fn is_aside(key: &str) -> bool {
    let at = key.rsplit_once(ASIDE).map_or("", |(_, at)| at);
    !at.is_empty() && at.bytes().all(|b| b.is_ascii_digit())
}

fn flows(catalog: &Catalog) -> impl Iterator<Item = Flow> {
    let of_kind = |kind: &Arc<str>| {
        let kind = Arc::clone(kind);
        Priority::ALL.map(move |priority| Flow {
            priority,
            kind: Arc::clone(&kind),
            key: None,
        })
    };
    catalog.iter().flat_map(move |spec| of_kind(&spec.kind))
}
