//! What a daemon knows of the flows of a queue: which hold jobs, and since when their heads wait.

use crate::job::Priority;
use crate::policy::aging::{Head, claim_order};
use crate::queue::Flow;
use std::collections::BTreeMap;
use std::time::Duration;

/// The flows known to hold jobs that may be claimed, with their places, ms: the ready time of the head, or the place in
/// line. Where there are thousands, only the first ones of a class are known, up to its horizon.
#[derive(Debug, Default)]
pub struct Heads {
    known: BTreeMap<Flow, u64>,
    horizon: [Option<u64>; 5],
}

impl Heads {
    /// Everything is known anew.
    pub fn replace(&mut self, heads: Vec<(Flow, u64)>, horizon: [Option<u64>; 5]) {
        self.known = heads.into_iter().collect();
        self.horizon = horizon;
    }

    /// More of a class is known: what comes next behind its horizon, up to a new one.
    pub fn extend(&mut self, class: Priority, heads: Vec<(Flow, u64)>, horizon: Option<u64>) {
        self.known.extend(heads);
        self.horizon[class.index()] = horizon;
    }

    /// A class of which not every flow is known, and its horizon.
    #[must_use]
    pub fn cut(&self) -> Option<(Priority, u64)> {
        let of = |class: Priority| Some((class, self.horizon[class.index()]?));
        Priority::ALL.into_iter().find_map(of)
    }

    /// Jobs came to a flow; its place stays what it was, if it had one.
    pub fn arrived(&mut self, flow: &Flow, place_ms: u64) {
        if !self.known.contains_key(flow) && !self.is_beyond(flow, place_ms) {
            self.known.insert(flow.clone(), place_ms);
        }
    }

    /// A claim showed the place of a flow, or that it has none now.
    pub fn seen(&mut self, flow: &Flow, place: Option<u64>) {
        match place {
            Some(place_ms) if !self.is_beyond(flow, place_ms) => {
                self.known.insert(flow.clone(), place_ms);
            }
            _ => {
                self.known.remove(flow);
            }
        }
    }

    /// Behind the horizon others come first that are not known: a flow is learned of in its turn.
    fn is_beyond(&self, flow: &Flow, place_ms: u64) -> bool {
        self.horizon[flow.priority.index()].is_some_and(|horizon| place_ms > horizon)
    }

    /// Whether no flow is known to hold a job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.cut().is_none()
    }

    /// When the job that waits longest became ready, ms.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.known.values().copied().min()
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
            .known
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
