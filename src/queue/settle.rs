//! From a daemon back into the queue: one script for a batch of endings, each fenced by its token.

pub use super::ending::{Ending, Record, Settlement};

use super::ending::Told;
use super::reply::Reply;
use super::script::SETTLE;
use super::{Flow, Keys, Queue, QueueError, millis};
use std::collections::HashMap;

/// The most endings in one call.
pub const SETTLE_MAX: usize = 500;

/// What a settlement changed.
#[derive(Debug)]
pub struct Settled {
    /// Redis time, ms.
    pub now_ms: u64,
    /// Indices of endings that were refused: the job was not under that token any more.
    pub stale: Vec<usize>,
    /// Slots came free that others wait for.
    pub woke: bool,
}

impl Queue {
    /// Settles up to [`SETTLE_MAX`] deliveries. `batch` counts up by one with every batch of an incarnation, so that a
    /// batch whose reply was lost can be repeated under its number and is told what happened; 0 for single calls.
    ///
    /// # Errors
    /// The lease is lost, Redis failed, or a key has the wrong type.
    pub async fn settle(
        &self,
        incarnation: &str,
        batch: u64,
        settlements: &[Settlement],
    ) -> Result<Settled, QueueError> {
        debug_assert!(settlements.len() <= SETTLE_MAX);
        let mut late = vec![false; settlements.len()];
        loop {
            let cmd = self.settle_cmd(incarnation, batch, settlements, &late);
            let mut reply = Reply::new(SETTLE.send(self, &cmd).await?)?;
            let word = reply.text()?;
            let now_ms = reply.count()?;
            let mut named = Vec::new();
            while !reply.is_empty() {
                // Lua counts from 1.
                named.push(usize::try_from(reply.int()? - 1).unwrap_or(usize::MAX));
            }
            if word != "wanted" {
                return Ok(Settled::read(&word, now_ms, named, settlements.len()));
            }
            // Nothing was done: each time there are more whose ends are told.
            for at in named {
                late[at.min(settlements.len() - 1)] = true;
            }
        }
    }

    /// `late` tells whose end is waited for though nobody had asked when its run began.
    fn settle_cmd(
        &self,
        incarnation: &str,
        batch: u64,
        settlements: &[Settlement],
        late: &[bool],
    ) -> redis::Cmd {
        let k = &self.keys;
        let told: Vec<Told<'_>> = settlements
            .iter()
            .zip(late)
            .map(|(s, late)| s.told(*late))
            .collect();
        let mut flows: Vec<&Flow> = Vec::new();
        let mut counters: Vec<&str> = Vec::new();
        for s in settlements {
            if let Ending::HandedBack { flow, .. } = &s.ending
                && !flows.contains(&flow)
            {
                flows.push(flow);
            }
            if !counters.contains(&s.ending.counter()) {
                counters.push(s.ending.counter());
            }
        }
        let flow_keys: Vec<String> = flows.iter().map(|f| k.flow(f)).collect();
        let asked = settlements.iter().zip(&told).filter(|(_, told)| told.list);
        let results: Vec<String> = asked.map(|(s, _)| k.result(&s.id)).collect();
        let own = [
            &k.workers,
            &k.running,
            &k.jobs,
            &k.meta,
            &k.delayed,
            &k.dead,
            &k.recent,
            &k.stats,
            &k.ids,
            &k.settled,
            &k.quarantine,
            &k.cancels,
            &k.progress,
            &k.archive,
            &k.archived,
        ];
        let slots = Slots::of(settlements);
        let slot_keys = slots.keys(k);
        let keys: Vec<&String> = k
            .of_ties()
            .into_iter()
            .chain(own)
            .chain(&k.ready)
            .chain(&flow_keys)
            .chain(&results)
            .chain(&slot_keys)
            .collect();
        let mut cmd = SETTLE.call(keys.into_iter());
        cmd.arg(incarnation)
            .arg(batch)
            .arg(self.bounds.dead_max)
            .arg(self.bounds.dead_bytes)
            .arg(self.bounds.recent_max)
            .arg(millis(self.bounds.dedupe_window))
            .arg(self.bounds.quarantine_max)
            .arg(self.bounds.quarantine_bytes)
            .arg(self.bounds.history_max)
            .arg(self.bounds.history_bytes)
            .arg(settlements.len())
            .arg(u8::from(settlements.iter().any(|s| s.told)))
            .arg(results.len())
            .arg(slots.names.len())
            .arg(counters.len())
            .arg(&counters);
        for flow in &flows {
            cmd.arg(&*flow.member());
        }
        let mut list = 0;
        for (s, told) in settlements.iter().zip(&told) {
            cmd.arg(&*s.id).arg(&*s.token);
            s.write_verb(&mut cmd, &counters, told);
            s.ending.write(&mut cmd, &flows);
            if let Some(outcome) = &told.outcome {
                list += usize::from(told.list);
                cmd.arg(&**outcome).arg(if told.list { list } else { 0 });
            }
            if let (Ending::Finished { .. }, Some(follow)) = (&s.ending, &s.notice.follow) {
                cmd.arg(follow);
            }
        }
        slots.write(&mut cmd);
        cmd
    }
}

/// The slots that a batch of settlements gives back.
struct Slots<'a> {
    names: Vec<&'a str>,
    /// Item and slot, counted from 1.
    held: Vec<(usize, usize)>,
}

impl<'a> Slots<'a> {
    fn of(settlements: &'a [Settlement]) -> Self {
        let (mut names, mut held) = (Vec::new(), Vec::new());
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for (item, settlement) in settlements.iter().enumerate() {
            for name in settlement.slots.iter() {
                let number = *numbers.entry(name).or_insert_with(|| {
                    names.push(&**name);
                    names.len()
                });
                held.push((item + 1, number));
            }
        }
        Self { names, held }
    }

    /// What the script needs of them; nothing if there are none.
    fn keys(&self, k: &Keys) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let fixed = [&k.holds, &k.parked, &k.bell].map(Clone::clone);
        let own = self.names.iter().map(|name| k.slots(name));
        fixed.into_iter().chain(own).collect()
    }

    fn write(&self, cmd: &mut redis::Cmd) {
        cmd.arg(&self.names);
        for (item, slot) in &self.held {
            cmd.arg(*item).arg(*slot);
        }
    }
}

impl Settled {
    /// What the script says: `named` are the stale ones of `count`.
    fn read(word: &str, now_ms: u64, named: Vec<usize>, count: usize) -> Self {
        Self {
            now_ms,
            stale: match word {
                "old" => (0..count).collect(),
                _ => named,
            },
            woke: word == "woke",
        }
    }
}
