//! A queue in numbers, for people: each flow is counted, so it costs more the more of them there are.

use super::depth::Sizes;
use super::look::{LOOK_FLOWS, Look};
use super::{Control, Flow, Queue, QueueError};
use crate::job::Priority;
use std::collections::BTreeSet;
use std::ops::Deref;

/// Flows asked about at once.
const FLOW_STEP: usize = 1_000;
/// Looks further down a class when its flows are counted: beyond that, what is counted is less than there is.
const FLOW_PAGES: usize = 25;

/// A queue in numbers: its [`Sizes`], which are read as if they stood here, and what was counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// What Redis knows without counting.
    pub sizes: Sizes,
    /// Waiting jobs per class, the parked ones among them.
    pub lanes: [u64; 5],
    /// Jobs that wait for a slot or the rate of their key.
    pub parked: u64,
    /// What operators changed live.
    pub control: Control,
    /// Ready time of the job that waits longest, ms.
    pub oldest_ready_ms: Option<u64>,
}

impl Deref for Counts {
    type Target = Sizes;

    fn deref(&self) -> &Sizes {
        &self.sizes
    }
}

impl Queue {
    /// Counts everything. The lanes cost one command per flow.
    ///
    /// # Errors
    /// Redis failed, or a key has the wrong type.
    pub async fn counts(&self) -> Result<Counts, QueueError> {
        let sizes = self.sizes().await?;
        let mut look = self.look().await?;
        let mut counts = Counts {
            sizes,
            oldest_ready_ms: self.oldest_ready().await?,
            control: std::mem::take(&mut look.control),
            ..Counts::default()
        };
        let waiting = self.flows_in_line(look).await?;
        let parked = self.parked_flows().await?;
        let others: Vec<Flow> = parked.difference(&waiting).cloned().collect();
        for (flow, length) in self.lengths(waiting.into_iter().collect()).await? {
            counts.lanes[flow.priority.index()] += length;
        }
        for (flow, length) in self.lengths(others).await? {
            counts.lanes[flow.priority.index()] += length;
            counts.parked += length;
        }
        Ok(counts)
    }

    /// All flows that may be claimed from, of a look and beyond it.
    async fn flows_in_line(&self, look: Look) -> Result<BTreeSet<Flow>, QueueError> {
        let mut flows: BTreeSet<Flow> = look.heads.into_iter().map(|(flow, _)| flow).collect();
        for class in Priority::ALL {
            let mut horizon = look.horizon[class.index()];
            for _ in 0..FLOW_PAGES {
                let Some(from) = horizon else { break };
                let (page, next) = self.look_further(class, from).await?;
                horizon = next;
                flows.extend(page.into_iter().map(|(flow, _)| flow));
            }
        }
        Ok(flows)
    }

    /// Flows that wait for a slot or the rate of their key.
    pub(super) async fn parked_flows(&self) -> Result<BTreeSet<Flow>, QueueError> {
        let mut flows = BTreeSet::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let (next, page) = self.page(&self.keys.parked, from).await?;
            let lines = page.iter().flat_map(|(_, lines)| lines.lines());
            flows.extend(lines.filter_map(|line| Flow::named(line.rsplit_once(':')?.0)));
            cursor = next;
        }
        let mut conn = self.conn.clone();
        let resumes: Vec<Vec<u8>> = redis::cmd("ZRANGE")
            .arg(&self.keys.resume)
            .arg(0)
            .arg(FLOW_PAGES * LOOK_FLOWS)
            .query_async(&mut conn)
            .await?;
        let named = |bytes: &Vec<u8>| Flow::named(&String::from_utf8_lossy(bytes));
        flows.extend(resumes.iter().filter_map(named));
        Ok(flows)
    }

    /// How many entries some flows hold: one command for each.
    pub(super) async fn lengths(&self, flows: Vec<Flow>) -> Result<Vec<(Flow, u64)>, QueueError> {
        let mut conn = self.conn.clone();
        let mut lengths: Vec<u64> = Vec::with_capacity(flows.len());
        for step in flows.chunks(FLOW_STEP) {
            let mut pipe = redis::pipe();
            for flow in step {
                pipe.cmd("LLEN").arg(self.keys.flow(flow));
            }
            lengths.extend(pipe.query_async::<Vec<u64>>(&mut conn).await?);
        }
        Ok(flows.into_iter().zip(lengths).collect())
    }
}
