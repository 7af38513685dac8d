//! What a daemon knows of the flows of a queue: which hold jobs, and since when their heads wait.

use crate::policy::aging::{Head, claim_order};
use crate::queue::Flow;
use std::collections::BTreeMap;
use std::time::Duration;

/// The flows known to hold jobs, with the ready times of their heads, ms.
#[derive(Debug, Default)]
pub struct Heads(BTreeMap<Flow, u64>);

impl Heads {
    /// Everything is known anew.
    pub fn replace(&mut self, heads: Vec<(Flow, u64)>) {
        self.0 = heads.into_iter().collect();
    }

    /// Jobs came to a flow; the head stays what it was, if there was one.
    pub fn arrived(&mut self, flow: &Flow, ready_ms: u64) {
        if !self.0.contains_key(flow) {
            self.0.insert(flow.clone(), ready_ms);
        }
    }

    /// A claim showed the head of a flow, or that it is empty.
    pub fn seen(&mut self, flow: &Flow, head: Option<u64>) {
        match head {
            Some(ready_ms) => {
                self.0.insert(flow.clone(), ready_ms);
            }
            None => {
                self.0.remove(flow);
            }
        }
    }

    /// Whether no flow is known to hold a job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the job that waits longest became ready, ms.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.0.values().copied().min()
    }

    /// The first `n` of the flows that `open` lets through, in the order in which they are to be claimed.
    #[must_use]
    pub fn first(
        &self,
        n: usize,
        now_ms: u64,
        aging_after: Duration,
        mut open: impl FnMut(&Flow) -> bool,
    ) -> Vec<Flow> {
        let known: Vec<(&Flow, u64)> = self
            .0
            .iter()
            .filter(|(flow, _)| open(flow))
            .map(|(flow, ready)| (flow, *ready))
            .collect();
        let head = |(index, (flow, ready)): (usize, &(&Flow, u64))| Head {
            flow: index,
            priority: flow.priority,
            ready_ms: *ready,
        };
        let mut heads: Vec<Head> = known.iter().enumerate().map(head).collect();
        claim_order(&mut heads, now_ms, aging_after, n)
            .map(|index| known[index].0.clone())
            .collect()
    }
}
