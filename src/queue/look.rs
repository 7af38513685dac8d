//! Looking at a queue: all that a daemon must know to plan its next step. Changes nothing.

use super::control::Control;
use super::promote::Due;
use super::reply::Reply;
use super::script::LOOK;
use super::{Flow, Queue, QueueError};
use crate::job::Priority;
use std::sync::Arc;

/// The most flows of one priority a look returns.
pub const LOOK_FLOWS: usize = 2_000;
/// The most wishes for the end of a job that a look returns.
const WISHES: usize = 256;
/// Jobs asked about at once, where there are more wishes.
const ASK: usize = 500;
/// The most due jobs promoted in one step.
const PROMOTE_MAX: usize = 256;
/// The most bytes of their envelopes that a look returns, but for the last one.
const LOOK_BYTES: usize = 1 << 20;

/// Where the flows of a class go on behind those that were read: from this place on, but for the first few there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The place, ms.
    pub from_ms: u64,
    skip: usize,
}

impl Cursor {
    /// Behind a page of flows that began at `from`; none if the page was the last.
    fn behind(page: &[(Flow, u64)], from: Option<Self>) -> Option<Self> {
        let last = page.get(LOOK_FLOWS - 1)?.1;
        // Thousands may have the same place.
        let there = page.iter().rev().take_while(|(_, place)| *place == last);
        let before = from.filter(|from| from.from_ms == last);
        Some(Self {
            from_ms: last,
            skip: before.map_or(0, |from| from.skip) + there.count(),
        })
    }
}

/// A queue as a daemon sees it when it plans its next step.
#[derive(Debug)]
pub struct Look {
    /// Redis time, ms.
    pub now_ms: u64,
    /// When the next delayed job is due, ms.
    pub next_due_ms: Option<u64>,
    /// Entries in the inbox.
    pub inbox: u64,
    /// Jobs running anywhere.
    pub running: u64,
    /// Ids of running jobs whose end was asked for; none of them if there are hundreds.
    pub cancels: Vec<String>,
    /// There are hundreds: who runs jobs asks [`Queue::cancels_among`] these.
    pub many_cancels: bool,
    /// Jobs that are due, not yet in a flow.
    pub due: Vec<Due>,
    /// Whether flows are due whose rate made them wait.
    pub resumes: bool,
    /// What operators changed live.
    pub control: Control,
    /// Flows that hold jobs and may be claimed from, with their places, ms: the ready time of the head, or for one that
    /// takes turns its place in line. Of each class the first ones alone, if there are thousands.
    pub heads: Vec<(Flow, u64)>,
    /// Of each class with more flows than that, where they go on.
    pub horizon: [Option<Cursor>; 5],
}

impl Queue {
    /// Looks at everything that matters for planning.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn look(&self) -> Result<Look, QueueError> {
        let k = &self.keys;
        let fixed = [
            &k.jobs, &k.delayed, &k.inbox, &k.cancels, &k.running, &k.stats, &k.resume, &k.control,
        ];
        let keys: Vec<&String> = fixed.into_iter().chain(&k.ready).collect();
        let mut cmd = LOOK.call(keys.into_iter());
        cmd.arg(LOOK_FLOWS)
            .arg(PROMOTE_MAX)
            .arg(LOOK_BYTES)
            .arg(WISHES);
        let mut reply = Reply::new(LOOK.send(self, &cmd).await?)?;
        let mut look = Look {
            now_ms: reply.count()?,
            next_due_ms: reply.maybe()?,
            inbox: reply.count()?,
            running: reply.count()?,
            many_cancels: reply.count()? > WISHES as u64,
            cancels: Vec::new(),
            due: Vec::new(),
            resumes: false,
            control: Control::default(),
            heads: Vec::new(),
            horizon: [None; 5],
        };
        let mut cancels = reply.array()?;
        while !cancels.is_empty() {
            look.cancels.push(cancels.lossy()?);
        }
        let mut due = reply.array()?;
        while !due.is_empty() {
            look.due.push(Due {
                id: due.bytes()?,
                score: due.text()?,
                raw: due.bytes()?,
            });
        }
        look.resumes = reply.count()? > 0;
        let mut control = reply.array()?;
        let mut fields = Vec::new();
        while !control.is_empty() {
            fields.push((control.lossy()?, control.lossy()?));
        }
        look.control = Control::read(&fields);
        for priority in Priority::ALL {
            let mut flows = reply.array()?;
            let first = look.heads.len();
            while !flows.is_empty() {
                let flow = Flow::of(priority, &flows.lossy()?);
                look.heads.push((flow, flows.count()?));
            }
            look.horizon[priority.index()] = Cursor::behind(&look.heads[first..], None);
        }
        Ok(look)
    }

    /// The next flows of a class, as many as a look returns, and where they go on if these are not the last.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn look_further(
        &self,
        class: Priority,
        from: Cursor,
    ) -> Result<(Vec<(Flow, u64)>, Option<Cursor>), QueueError> {
        let mut conn = self.conn.clone();
        let found: Vec<(Vec<u8>, f64)> = redis::cmd("ZRANGE")
            .arg(&self.keys.ready[class.index()])
            .arg(from.from_ms)
            .arg(&["+inf", "BYSCORE", "LIMIT"])
            .arg(from.skip)
            .arg(LOOK_FLOWS)
            .arg("WITHSCORES")
            .query_async(&mut conn)
            .await?;
        let flow = |(member, place): (Vec<u8>, f64)| {
            let flow = Flow::of(class, &String::from_utf8_lossy(&member));
            (flow, place as u64)
        };
        let page: Vec<(Flow, u64)> = found.into_iter().map(flow).collect();
        let next = Cursor::behind(&page, Some(from));
        Ok((page, next))
    }

    /// Which of these jobs somebody wishes to end.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn cancels_among(&self, ids: &[Arc<str>]) -> Result<Vec<Arc<str>>, QueueError> {
        let mut conn = self.conn.clone();
        let mut wished = Vec::new();
        for step in ids.chunks(ASK) {
            let wishes: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
                .arg(&self.keys.cancels)
                .arg(step.iter().map(|id| &**id).collect::<Vec<_>>())
                .query_async(&mut conn)
                .await?;
            let asked = step.iter().zip(wishes).filter(|(_, wish)| wish.is_some());
            wished.extend(asked.map(|(id, _)| Arc::clone(id)));
        }
        Ok(wished)
    }
}

/// A page as Redis would answer it, of a whole class in order.
#[cfg(test)]
pub(crate) fn page_of(
    line: &[(Flow, u64)],
    from: Option<Cursor>,
) -> (Vec<(Flow, u64)>, Option<Cursor>) {
    let (place, skip) = from.map_or((0, 0), |from| (from.from_ms, from.skip));
    let rest = line.iter().filter(|(_, at)| *at >= place).skip(skip);
    let page: Vec<(Flow, u64)> = rest.take(LOOK_FLOWS).cloned().collect();
    let next = Cursor::behind(&page, from);
    (page, next)
}
