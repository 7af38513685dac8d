//! The single steps of a sweep: one bounded call each.

use super::super::reply::Reply;
use super::super::script::{
    HOLE, LOOSE_LOCKS, LOOSE_TIES, ORPHANS, PENDING, REENTER, REGROUP, RELIST, UNHOLD, UNRESERVE,
    UNSLOT, UNSTONE, WHEREABOUTS,
};
use super::super::{Flow, Queue, QueueError};
use super::KnownFlows;
use crate::catalog::Catalog;
use crate::job::Priority;
use redis::Value;

/// Entries of a flow read at once.
pub(super) const PAGE: usize = 1_000;
/// Ids asked for at once.
pub(super) const ASK: usize = 500;
/// Jobs put back at once.
pub(super) const REENTER_MAX: usize = 100;
/// Tombstones corrected at once.
pub(super) const UNSTONE_MAX: usize = 200;
/// Jobs, or ids, looked at in one step; their values come along inside Redis.
pub(super) const SCAN: usize = 64;
/// Entries looked through when one is to be found again, and at either end of a flow.
const REACH: usize = 2_500;
/// Reserved ids looked at.
const RESERVED: usize = 500;

/// One step through something: where the next one begins, "0" when all was seen, and what was found.
pub(super) type Step = (String, Vec<Vec<u8>>);

/// What is kept beside jobs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beside<'k> {
    /// The ids of one hash or zset, each of which must be in another one.
    Ids {
        of: &'k String,
        home: &'k String,
    },
    Ties,
    Locks,
}

/// What a step through slots found.
#[derive(Debug)]
pub(super) struct SlotStep {
    /// Where each slot is to be looked at next; "0" if all was seen.
    pub cursors: Vec<String>,
    /// Holders that do not run.
    pub ghosts: Vec<Vec<u8>>,
    /// Slots that are waited for, and that nobody holds.
    pub stuck: Vec<String>,
}

/// An entry of a flow, where it was seen.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    /// The flow.
    pub flow: Flow,
    /// Entries behind it when it was read.
    pub distance: usize,
    /// The entry.
    pub entry: Vec<u8>,
}

/// The ready time of an entry, ms, and the id in it.
pub(super) fn split(entry: &[u8]) -> (u64, &[u8]) {
    let digits = entry.get(..13).and_then(|d| std::str::from_utf8(d).ok());
    let ready = digits.and_then(|d| d.parse().ok()).unwrap_or(0);
    (ready, entry.get(14..).unwrap_or_default())
}

impl Queue {
    /// How many jobs are stored.
    pub(super) async fn job_count(&self) -> Result<u64, QueueError> {
        let mut conn = self.conn.clone();
        let mut hlen = redis::cmd("HLEN");
        hlen.arg(&self.keys.jobs);
        Ok(hlen.query_async(&mut conn).await?)
    }

    /// Every flow that is listed, or that the definitions make possible.
    pub(super) async fn all_flows(&self, catalog: &Catalog) -> Result<Vec<Flow>, QueueError> {
        let mut known = KnownFlows::default();
        known.add(catalog);
        let mut flows = known.0;
        let mut conn = self.conn.clone();
        for (priority, ready) in Priority::ALL.iter().zip(&self.keys.ready) {
            for from in (0..).step_by(PAGE) {
                let page: Vec<Vec<u8>> = redis::cmd("ZRANGE")
                    .arg(ready)
                    .arg(from)
                    .arg(from + PAGE - 1)
                    .query_async(&mut conn)
                    .await?;
                let full = page.len() == PAGE;
                flows.extend(page.iter().map(|member| {
                    let member = String::from_utf8_lossy(member);
                    Flow::of(*priority, &member)
                }));
                if !full {
                    break;
                }
            }
        }
        flows.extend(self.parked_flows().await?);
        Ok(flows.into_iter().collect())
    }

    /// Entries of a flow from a distance to its tail on, going towards its head: the last comes first. Entries move away
    /// from the tail, if at all; so one that stays in the flow is not missed.
    pub(super) async fn flow_page(
        &self,
        flow: &Flow,
        from: usize,
    ) -> Result<Vec<Sighting>, QueueError> {
        let mut conn = self.conn.clone();
        let below = |n: usize| -i64::try_from(n).unwrap_or(i64::MAX);
        let page: Vec<Vec<u8>> = redis::cmd("LRANGE")
            .arg(self.keys.flow(flow))
            .arg(below(from + PAGE))
            .arg(below(from + 1))
            .query_async(&mut conn)
            .await?;
        let each = page.into_iter().rev().enumerate();
        Ok(each
            .map(|(n, entry)| Sighting {
                flow: flow.clone(),
                distance: from + n,
                entry,
            })
            .collect())
    }

    /// Where jobs are: a letter for each id, as the script's header has them.
    pub(super) async fn whereabouts(&self, ids: &[&[u8]]) -> Result<Vec<u8>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let k = &self.keys;
        let mut cmd = WHEREABOUTS.call([&k.jobs, &k.running, &k.delayed, &k.dead].into_iter());
        cmd.arg(ids);
        let answer = WHEREABOUTS.send(self, &cmd).await?;
        Reply::new(Value::Array(vec![answer]))?.bytes()
    }

    /// One step through all jobs, for those that should wait in a flow.
    pub(super) async fn pending(&self, cursor: &str) -> Result<Step, QueueError> {
        let k = &self.keys;
        let mut cmd = PENDING.call([&k.jobs, &k.running, &k.delayed, &k.dead].into_iter());
        cmd.arg(cursor).arg(SCAN);
        read_step(PENDING.send(self, &cmd).await?)
    }

    /// One step through what is kept beside jobs, for what nobody has any more.
    pub(super) async fn step_beside(
        &self,
        what: Beside<'_>,
        cursor: &str,
        repair: bool,
    ) -> Result<Step, QueueError> {
        let k = &self.keys;
        let (script, keys) = match what {
            Beside::Ids { of, home } => (&ORPHANS, vec![of, home]),
            Beside::Ties => (&LOOSE_TIES, [&k.of_ties()[..], &[&k.jobs]].concat()),
            Beside::Locks => (&LOOSE_LOCKS, vec![&k.locks, &k.jobs, &k.lock_ends, &k.ties]),
        };
        let mut cmd = script.call(keys.into_iter());
        cmd.arg(cursor).arg(SCAN).arg(u8::from(repair));
        read_step(script.send(self, &cmd).await?)
    }

    /// Counts members that are gone, of groups as they were read; answers which groups were still the same.
    pub(super) async fn regroup(
        &self,
        groups: &[(&str, &str, u64)],
        repair: bool,
    ) -> Result<Vec<Vec<u8>>, QueueError> {
        let mut cmd = REGROUP.call(self.keys.of_ties().into_iter());
        cmd.arg(u8::from(repair));
        for (name, read, gone) in groups {
            cmd.arg(name).arg(read).arg(gone);
        }
        read_list(Reply::new(REGROUP.send(self, &cmd).await?)?)
    }

    /// Puts right what jobs hold, as it was read; answers whose slots were wrong.
    pub(super) async fn unhold(
        &self,
        held: &[(String, String)],
        repair: bool,
    ) -> Result<Vec<Vec<u8>>, QueueError> {
        let k = &self.keys;
        let names = held.iter().flat_map(|(_, lines)| lines.split('\n'));
        let slots = names.filter(|name| !name.is_empty()).map(|n| k.slots(n));
        let keys = [&k.running, &k.holds, &k.parked, &k.bell].into_iter();
        let keys: Vec<String> = keys.chain(&k.ready).cloned().chain(slots).collect();
        let mut cmd = UNHOLD.call(keys.into_iter());
        cmd.arg(u8::from(repair));
        for (id, lines) in held {
            cmd.arg(id).arg(lines);
        }
        read_list(Reply::new(UNHOLD.send(self, &cmd).await?)?)
    }

    /// One step through the holders of some slots, each from its cursor on.
    pub(super) async fn unslot(
        &self,
        slots: &[(String, String)],
        repair: bool,
    ) -> Result<SlotStep, QueueError> {
        let k = &self.keys;
        let named = slots.iter().map(|(name, _)| k.slots(name));
        let keys = [&k.running, &k.parked, &k.bell].into_iter();
        let keys: Vec<String> = keys.chain(&k.ready).cloned().chain(named).collect();
        let mut cmd = UNSLOT.call(keys.into_iter());
        cmd.arg(u8::from(repair)).arg(SCAN);
        for (name, cursor) in slots {
            cmd.arg(name).arg(cursor);
        }
        let mut reply = Reply::new(UNSLOT.send(self, &cmd).await?)?;
        let text = |list: Vec<Vec<u8>>| -> Vec<String> {
            let each = list.iter();
            each.map(|item| String::from_utf8_lossy(item).into_owned())
                .collect()
        };
        Ok(SlotStep {
            cursors: text(read_list(reply.array()?)?),
            ghosts: read_list(reply.array()?)?,
            stuck: text(read_list(reply.array()?)?),
        })
    }

    /// Ids that are reserved though the inbox is empty.
    pub(super) async fn unreserve(&self, repair: bool) -> Result<Vec<Vec<u8>>, QueueError> {
        let k = &self.keys;
        let mut cmd = UNRESERVE.call([&k.inbox, &k.ids].into_iter());
        cmd.arg(RESERVED).arg(u8::from(repair));
        read_list(Reply::new(UNRESERVE.send(self, &cmd).await?)?)
    }

    /// Lists a flow that holds entries and is not listed; true if it was so.
    pub(super) async fn relist(&self, flow: &Flow, repair: bool) -> Result<bool, QueueError> {
        let k = &self.keys;
        let ready = &k.ready[flow.priority.index()];
        let mut cmd = RELIST.call([ready, &k.flow(flow), &k.parked, &k.resume].into_iter());
        cmd.arg(&*flow.member())
            .arg(flow.priority.index() + 1)
            .arg(u8::from(repair));
        Ok(RELIST.send(self, &cmd).await? == Value::Int(1))
    }

    /// Makes an entry a hole if its job is not to wait there, or has the other entry; true if it was so.
    pub(super) async fn hole(
        &self,
        seen: &Sighting,
        other: Option<&Sighting>,
        repair: bool,
    ) -> Result<bool, QueueError> {
        let k = &self.keys;
        let flow = k.flow(&seen.flow);
        let other_flow = other.map_or_else(|| flow.clone(), |o| k.flow(&o.flow));
        let keys = [
            &k.jobs,
            &k.running,
            &k.delayed,
            &k.dead,
            &k.tomb,
            &flow,
            &other_flow,
        ];
        let mut cmd = HOLE.call(keys.into_iter());
        cmd.arg(&seen.entry)
            .arg(seen.distance)
            .arg(other.map_or(&[][..], |o| &o.entry))
            .arg(other.map_or(0, |o| o.distance))
            .arg(REACH)
            .arg(u8::from(repair));
        Ok(HOLE.send(self, &cmd).await? == Value::Int(1))
    }

    /// Puts jobs that are nowhere into a flow; answers which they were, each with its tombstone.
    pub(super) async fn reenter(
        &self,
        flow: &Flow,
        jobs: &[(Vec<u8>, String)],
        event: &str,
        repair: bool,
    ) -> Result<Vec<(Vec<u8>, String)>, QueueError> {
        let k = &self.keys;
        let (ready, flow_key) = (&k.ready[flow.priority.index()], k.flow(flow));
        let keys = [
            &k.jobs, &k.running, &k.delayed, &k.dead, &k.tomb, &k.meta, ready, &flow_key,
        ];
        let mut cmd = REENTER.call(keys.into_iter());
        cmd.arg(&*flow.member())
            .arg(REACH)
            .arg(u8::from(repair))
            .arg(event);
        for (id, fresh) in jobs {
            cmd.arg(id).arg(fresh);
        }
        let mut reply = Reply::new(REENTER.send(self, &cmd).await?)?;
        let mut back = Vec::new();
        while !reply.is_empty() {
            back.push((reply.bytes()?, reply.text()?));
        }
        Ok(back)
    }

    /// Makes tombstones, as they were read, count so many entries.
    pub(super) async fn unstone(&self, stones: &[(&[u8], &str, u64)]) -> Result<(), QueueError> {
        let mut cmd = UNSTONE.call([&self.keys.tomb].into_iter());
        for (id, stone, count) in stones {
            cmd.arg(id).arg(stone).arg(count);
        }
        UNSTONE.send(self, &cmd).await.map(|_| ())
    }

    /// One step through the tombstones.
    pub(super) async fn stones(
        &self,
        cursor: u64,
    ) -> Result<(u64, Vec<(Vec<u8>, String)>), QueueError> {
        let mut conn = self.conn.clone();
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        let (next, pairs): (u64, Pairs) = redis::cmd("HSCAN")
            .arg(&self.keys.tomb)
            .arg(cursor)
            .arg("COUNT")
            .arg(ASK)
            .query_async(&mut conn)
            .await?;
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let pairs = pairs.into_iter().map(|(id, stone)| (id, text(stone)));
        Ok((next, pairs.collect()))
    }
}

fn read_step(value: Value) -> Result<Step, QueueError> {
    let mut reply = Reply::new(value)?;
    Ok((reply.text()?, read_list(reply)?))
}

fn read_list(mut reply: Reply) -> Result<Vec<Vec<u8>>, QueueError> {
    let mut list = Vec::with_capacity(reply.len());
    while !reply.is_empty() {
        list.push(reply.bytes()?);
    }
    Ok(list)
}
