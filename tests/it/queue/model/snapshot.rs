//! All that a database holds, read in one step.

use crate::queue::rig::Rig;
use std::collections::{BTreeMap, BTreeSet};

/// Reads every key: its name, its type, and what it holds as a flat list.
const DUMP: &str = r"
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key)['ok']
  local held = {}
  if kind == 'hash' then held = redis.call('HGETALL', key)
  elseif kind == 'zset' then held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then held = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then held = redis.call('SMEMBERS', key)
  elseif kind == 'string' then held = {redis.call('GET', key)}
  elseif kind == 'stream' then
    for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
      held[#held + 1] = entry[1]
      for i = 1, #entry[2], 2 do
        if entry[2][i] == 'raw' then held[#held + 1] = entry[2][i + 1] end
      end
    end
  end
  all[#all + 1] = {key, held}
end
return all";

/// Names of keys without their prefix, and what each holds.
#[derive(Debug)]
pub struct Snapshot {
    held: BTreeMap<String, Vec<String>>,
}

impl Snapshot {
    pub async fn of(rig: &Rig) -> Self {
        let all: Vec<(String, Vec<String>)> = rig.redis("EVAL", &[DUMP, "0"]).await;
        let base = rig.queue.keys().named("");
        let short = |key: String| key.strip_prefix(&base).unwrap_or(&key).to_owned();
        let held = all.into_iter().map(|(key, held)| (short(key), held));
        Self {
            held: held.collect(),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }

    pub fn list(&self, name: &str) -> &[String] {
        self.held.get(name).map_or(&[], Vec::as_slice)
    }

    /// A hash, a zset or a stream: its fields, members or entries with what belongs to them.
    pub fn pairs(&self, name: &str) -> BTreeMap<&str, &str> {
        let pairs = self.list(name).chunks_exact(2);
        pairs.map(|pair| (&*pair[0], &*pair[1])).collect()
    }

    pub fn members(&self, name: &str) -> BTreeSet<&str> {
        self.pairs(name).into_keys().collect()
    }

    /// What is told of jobs at their result lists: ids and states.
    pub fn results(&self) -> BTreeMap<String, String> {
        let lists = self.held.iter().filter_map(|(name, held)| {
            let id = name.strip_prefix("result:")?;
            assert_eq!(held.len(), 1, "{name}");
            let told: serde_json::Value = serde_json::from_str(&held[0]).unwrap();
            assert_eq!(told["id"], id);
            Some((id.to_owned(), told["state"].as_str()?.to_owned()))
        });
        lists.collect()
    }

    /// Who holds the slots of each name.
    pub fn slots(&self) -> BTreeMap<String, BTreeSet<&str>> {
        let sets = self.held.iter().filter_map(|(name, held)| {
            let slot = name.strip_prefix("slots:")?;
            Some((slot.to_owned(), held.iter().map(String::as_str).collect()))
        });
        sets.collect()
    }

    /// Names of the flows that hold entries: class and kind, with the key.
    pub fn flows(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        self.held.iter().filter_map(|(name, held)| {
            let (class, member) = name.strip_prefix("flow:")?.split_once(':')?;
            Some((class, member, held.as_slice()))
        })
    }
}
