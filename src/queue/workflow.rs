//! Groups and chains as a whole: looked at, cancelled, forgotten.

use super::reply::Reply;
use super::script::{PRUNE, STOP};
use super::{Queue, QueueError, millis};
use redis::Value;
use std::time::Duration;

/// Ties read per step of a walk.
const WALK_COUNT: usize = 1_000;
/// The most groups and locks forgotten in one step.
const PRUNE_MAX: usize = 500;
/// How long a cancelled workflow is remembered: what comes of it after that would run.
const STOP_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Members in all.
    pub size: u32,
    /// Whether what follows runs even if members failed.
    pub always: bool,
    /// Members that came so far.
    pub members: u32,
    /// Members that are done.
    pub done: u32,
    /// Members that ended in another way.
    pub failed: u32,
    /// `open`, `done` (what follows was put into the inbox), `failed` or `cancelled`.
    pub state: &'static str,
    /// Whether something follows.
    pub follows: bool,
}

impl GroupState {
    /// Reads what the scripts keep of a group.
    fn parse(text: &str, follows: bool) -> Option<Self> {
        let mut parts = text.split('|');
        let size = parts.next()?.parse().ok()?;
        let always = parts.next()? == "a";
        let mut count = || parts.next()?.parse().ok();
        let (members, done, failed) = (count()?, count()?, count()?);
        Some(Self {
            size,
            always,
            members,
            done,
            failed,
            state: state_name(parts.next()?),
            follows,
        })
    }
}

fn state_name(letter: &str) -> &'static str {
    match letter {
        "o" => "open",
        "d" => "done",
        "f" => "failed",
        _ => "cancelled",
    }
}

/// What was forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Groups.
    pub groups: u64,
    /// Locks that outlived their jobs.
    pub locks: u64,
    /// Groups among them that were not complete: members that they waited for never came.
    pub open: u64,
    /// One of those.
    pub open_name: String,
}

impl Queue {
    /// How far a group is; none if no member came yet, or it is forgotten.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn group(&self, id: &str) -> Result<Option<GroupState>, QueueError> {
        let mut conn = self.conn.clone();
        let (text, follows): (Option<String>, bool) = redis::pipe()
            .atomic()
            .cmd("HGET")
            .arg(&self.keys.groups)
            .arg(id)
            .cmd("HEXISTS")
            .arg(&self.keys.group_then)
            .arg(id)
            .query_async(&mut conn)
            .await?;
        Ok(text.and_then(|text| GroupState::parse(&text, follows)))
    }

    /// Stops the workflow that began with a job, or the group, of this id: what it would still bring is not admitted.
    /// Returns the state the group had, if it is one. Jobs of it that are there are found by [`Queue::walk_ties`].
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn stop_workflow(&self, id: &str) -> Result<Option<&'static str>, QueueError> {
        let k = &self.keys;
        let keys = [
            &k.stops,
            &k.groups,
            &k.group_then,
            &k.group_results,
            &k.group_times,
        ];
        let mut cmd = STOP.call(keys.into_iter());
        cmd.arg(id).arg(millis(STOP_TTL));
        let answer = STOP.send(self, &cmd).await?;
        let state = Reply::new(Value::Array(vec![answer]))?.text()?;
        Ok((!state.is_empty()).then(|| state_name(&state)))
    }

    /// One bounded step through all jobs that are tied to anything: ids with their stored ties. `cursor` is 0 at first,
    /// and 0 again when the walk is through. What is there all the while is found.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn walk_ties(&self, cursor: u64) -> Result<(u64, Vec<(String, String)>), QueueError> {
        let mut conn = self.conn.clone();
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        let (next, pairs): (u64, Pairs) = redis::cmd("HSCAN")
            .arg(&self.keys.ties)
            .arg(cursor)
            .arg("COUNT")
            .arg(WALK_COUNT)
            .query_async(&mut conn)
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ties = pairs.into_iter().map(|(id, ties)| (text(id), text(ties)));
        Ok((next, ties.collect()))
    }

    /// Forgets groups that have not changed for `age`, the oldest beyond `most`, and locks that outlived their time; a few
    /// hundred at a time. Groups with members that may end still are kept.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn prune_ties(&self, age: Duration, most: usize) -> Result<Pruned, QueueError> {
        let k = &self.keys;
        let keys = [
            &k.groups,
            &k.group_then,
            &k.group_results,
            &k.group_times,
            &k.locks,
            &k.lock_ends,
            &k.stops,
            &k.stats,
        ];
        let mut cmd = PRUNE.call(keys.into_iter());
        cmd.arg(millis(age)).arg(most).arg(PRUNE_MAX);
        let mut reply = Reply::new(PRUNE.send(self, &cmd).await?)?;
        Ok(Pruned {
            groups: reply.count()?,
            locks: reply.count()?,
            open: reply.count()?,
            open_name: reply.lossy()?,
        })
    }
}

/// Whether stored ties belong to the workflow, or the group, of this id.
#[must_use]
pub fn belongs_to(ties: &str, id: &str) -> bool {
    ties.lines()
        .filter_map(|line| line.strip_prefix(['w', 'g']))
        .any(|of| of == id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_group_is_read_as_the_scripts_keep_it() {
        let group = GroupState::parse("3|a|2|1|0|o", true).unwrap();
        assert_eq!((group.size, group.always, group.members), (3, true, 2));
        assert_eq!((group.done, group.failed, group.state), (1, 0, "open"));
        for garbage in ["", "3", "3|a|2|1|0", "x|a|2|1|0|o"] {
            assert_eq!(GroupState::parse(garbage, false), None, "{garbage}");
        }
    }

    #[test]
    fn ties_tell_what_a_job_belongs_to() {
        let ties = "fapp.a:k\ngnightly\nworder-7\nr5000";
        assert!(belongs_to(ties, "nightly") && belongs_to(ties, "order-7"));
        assert!(!belongs_to(ties, "order") && !belongs_to(ties, "5000"));
    }
}
