//! What the load was promised: which jobs were acknowledged, and how each must end.

use std::collections::{BTreeMap, BTreeSet};

/// How a job must end.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Attempts that fail, by design.
    pub failures: u32,
    /// It is dead after them.
    pub dies: bool,
    /// It may give way to another one of its key.
    pub may_be_skipped: bool,
    /// Steps that follow when it is done.
    pub followers: u32,
}

impl Expected {
    pub fn plain() -> Self {
        Self::default()
    }
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Oracle {
    jobs: BTreeMap<String, Expected>,
    acknowledged: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Tries to send that failed.
    pub troubles: u32,
}

impl Oracle {
    /// It is about to be sent.
    pub fn expect(&mut self, id: &str, expected: Expected) {
        self.jobs.insert(id.to_owned(), expected);
    }

    /// The server took it.
    pub fn acknowledged(&mut self, id: &str) {
        self.acknowledged.insert(id.to_owned());
    }

    /// The server said that another one stands for it.
    pub fn refused(&mut self, id: &str) {
        self.refused.insert(id.to_owned());
    }

    /// Jobs that were acknowledged.
    pub fn acknowledged_ids(&self) -> impl Iterator<Item = (&str, &Expected)> {
        let of = |id: &String| self.jobs.get_key_value(id);
        self.acknowledged
            .iter()
            .filter_map(of)
            .map(|(id, e)| (id.as_str(), e))
    }

    /// What is known of a job, a later step of a chain included. None for one that nobody sent.
    pub fn expected(&self, id: &str) -> Option<Expected> {
        if let Some(expected) = self.jobs.get(id) {
            return Some(expected.clone());
        }
        let (first, step) = id.rsplit_once("-t")?;
        let of = self.jobs.get(first)?;
        let is_step = step.parse().is_ok_and(|n: u32| n >= 1 && n <= of.followers);
        is_step.then(Expected::plain)
    }

    /// Forgets what an operator threw away with the whole server.
    pub fn forget(&mut self, id: &str) {
        self.acknowledged.remove(id);
    }
}
