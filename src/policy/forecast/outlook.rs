//! The forecast of the whole fleet: a model of each class and of all together, and the known peaks.

use super::model::expected_jobs;
use super::{History, Model, Peak, Rules, peaks};
use crate::job::Priority;

/// What one class, or all together, will do.
#[derive(Debug, Clone)]
pub struct View {
    /// None for all together.
    pub class: Option<Priority>,
    /// Jobs at once on average in the last slot that is known.
    pub actual: Option<f64>,
    /// Jobs at once on average.
    pub demand: Model,
    /// Jobs that are due in the slot that runs.
    pub jobs: Option<f64>,
}

/// The whole forecast at one slot.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The slot that runs.
    pub now: u64,
    /// How many slots ahead it is relied on, and judged by.
    pub lead: u64,
    /// The first slot that is known.
    pub began: Option<u64>,
    /// All together, then each class.
    pub views: Vec<View>,
    /// The peaks of the coming day.
    pub peaks: Vec<Peak>,
}

impl Outlook {
    /// The forecast at the slot `now`, from the slots before it.
    #[must_use]
    pub fn of(history: &History, rules: &Rules, now: u64, lead: u64) -> Self {
        let classes = [None].into_iter().chain(Priority::ALL.map(Some));
        let views: Vec<View> = classes
            .map(|class| View {
                class,
                actual: history.demand(class).get(now.saturating_sub(1)),
                demand: Model::fit(history.demand(class), rules, now, lead),
                jobs: expected_jobs(history.jobs(class), rules, now),
            })
            .collect();
        Self {
            now,
            lead,
            began: history.demand(None).began(),
            peaks: views
                .first()
                .map_or_else(Vec::new, |all| peaks(&all.demand, &rules.peaks)),
            views,
        }
    }

    /// What all classes together will not exceed, in four of five slots, from the slot `from` on for as long as the
    /// forecast is relied on; jobs at once. None while it says nothing.
    #[must_use]
    pub fn wanted(&self, from: u64) -> Option<f64> {
        let all = &self.views.first()?.demand;
        let upper = (from..=from + self.lead).filter_map(|slot| all.at(slot)?.upper);
        upper.max_by(f64::total_cmp)
    }

    /// The first peak that begins after the slot `from` within the lead.
    #[must_use]
    pub fn near_peak(&self, from: u64) -> Option<Peak> {
        let near = |peak: &&Peak| peak.start > from && peak.start <= from + self.lead;
        self.peaks.iter().find(near).copied()
    }
}
