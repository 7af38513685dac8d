//! The circuit breakers of this daemon: one per handler kind and resource, kept over reloads.

use crate::clock::Epoch;
use crate::config::{BreakerConfig as Settings, BreakerMode};
use crate::job::{Failure, Outcome};
use crate::policy::breaker::{
    Breaker, BreakerConfig, CallResult, Mode, Outlook, Permit, Snapshot, Transition, Verdict,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// All breakers, by handler and resource.
pub struct Breakers {
    settings: Settings,
    epoch: Epoch,
    cells: Mutex<Cells>,
    tell: Tell,
}

/// By handler and resource.
type Cells = BTreeMap<(Arc<str>, Arc<str>), Arc<BreakerCell>>;

/// Hears of every change of state.
type Tell = Box<dyn Fn(&BreakerCell, &Transition) + Send + Sync>;

/// One breaker with its name.
pub struct BreakerCell {
    /// The handler kind whose calls it watches.
    pub handler: Arc<str>,
    /// The dependency they touch.
    pub resource: Arc<str>,
    breaker: Mutex<Breaker>,
}

/// What a run owes its breakers: a result, or its permits back.
pub struct Passage {
    breakers: Arc<Breakers>,
    calls: Vec<Call>,
}

struct Call {
    cell: Arc<BreakerCell>,
    epoch: u64,
    permit: Option<Permit>,
}

impl Breakers {
    /// No breaker yet; `tell` hears of every change of state.
    pub fn new(
        settings: Settings,
        epoch: Epoch,
        tell: impl Fn(&BreakerCell, &Transition) + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings,
            epoch,
            cells: Mutex::default(),
            tell: Box::new(tell),
        }
    }

    /// The breakers of a handler that touches `resources`, made on first use.
    pub fn of(&self, handler: &Arc<str>, resources: &[Arc<str>]) -> Vec<Arc<BreakerCell>> {
        if self.settings.mode == BreakerMode::Off {
            return Vec::new();
        }
        let mut cells = self.cells.lock();
        let get = |resource: &Arc<str>| {
            let key = (Arc::clone(handler), Arc::clone(resource));
            let cell = cells
                .entry(key)
                .or_insert_with(|| self.cell(handler, resource));
            Arc::clone(cell)
        };
        resources.iter().map(get).collect()
    }

    fn cell(&self, handler: &Arc<str>, resource: &Arc<str>) -> Arc<BreakerCell> {
        let mut breaker = Breaker::new(BreakerConfig::from(&self.settings));
        breaker.set_mode(self.epoch.now_ms(), Mode::from(self.settings.mode));
        Arc::new(BreakerCell {
            handler: Arc::clone(handler),
            resource: Arc::clone(resource),
            breaker: Mutex::new(breaker),
        })
    }

    /// How many calls may be begun by the look of it now, of `slots` at most; 0 while a breaker is open.
    pub fn outlook(&self, cells: &[Arc<BreakerCell>], slots: usize) -> usize {
        let now = self.epoch.now_ms();
        let each = cells
            .iter()
            .map(|cell| match cell.breaker.lock().peek(now) {
                Outlook::Allow { limit: None } => slots,
                Outlook::Allow { limit: Some(share) } => ((slots as f64 * share) as usize).max(1),
                Outlook::Trial => 1,
                Outlook::Refuse { .. } => 0,
            });
        each.min().unwrap_or(slots)
    }

    /// Asks all of a kind's breakers to let one call through; none if one refuses.
    pub fn pass(self: &Arc<Self>, cells: &[Arc<BreakerCell>]) -> Option<Passage> {
        let mut passage = Passage {
            breakers: Arc::clone(self),
            calls: Vec::with_capacity(cells.len()),
        };
        for cell in cells {
            let (verdict, change) = cell.breaker.lock().admit(self.epoch.now_ms());
            self.report(cell, change);
            let (epoch, permit) = match verdict {
                Verdict::Allow { epoch, .. } => (epoch, None),
                Verdict::Trial(permit) => (permit.epoch, Some(permit)),
                Verdict::Refuse { .. } => return None,
            };
            passage.calls.push(Call {
                cell: Arc::clone(cell),
                epoch,
                permit,
            });
        }
        Some(passage)
    }

    /// Every breaker as it stands, for reports.
    pub fn snapshots(&self) -> Vec<(Arc<str>, Arc<str>, Snapshot)> {
        let now = self.epoch.now_ms();
        let cells = self.cells.lock();
        let each = cells.values().map(|cell| {
            let snapshot = cell.breaker.lock().snapshot(now);
            (
                Arc::clone(&cell.handler),
                Arc::clone(&cell.resource),
                snapshot,
            )
        });
        each.collect()
    }

    fn report(&self, cell: &BreakerCell, change: Option<Transition>) {
        if let Some(change) = change {
            (self.tell)(cell, &change);
        }
    }
}

impl Passage {
    /// Tells the breakers how the call went. One that used up its timeout counts as slow, whatever it came to.
    pub fn record(mut self, outcome: &Outcome, took: Duration, timeout: Duration) {
        let hung = took >= timeout && matches!(outcome, Outcome::Failed(_));
        for call in self.calls.drain(..) {
            let slow = took >= self.breakers.settings.slow_call;
            let result = match judge(outcome, &call.cell.resource, slow) {
                CallResult::NotDependency if hung => CallResult::Success { slow: true },
                result => result,
            };
            let change = call.cell.breaker.lock().record(
                self.breakers.epoch.now_ms(),
                call.epoch,
                result,
                rand::random(),
            );
            self.breakers.report(&call.cell, change);
        }
    }
}

impl Drop for Passage {
    /// A call that was dropped proves nothing: its permits go back.
    fn drop(&mut self) {
        for call in self.calls.drain(..) {
            if let Some(permit) = call.permit {
                call.cell.breaker.lock().release(permit);
            }
        }
    }
}

/// What an outcome says about one dependency.
fn judge(outcome: &Outcome, resource: &str, slow: bool) -> CallResult {
    match outcome {
        Outcome::Done(_) => CallResult::Success { slow },
        Outcome::Failed(Failure { blame: Some(b), .. })
        | Outcome::Fatal(Failure { blame: Some(b), .. })
            if b.resource == resource =>
        {
            CallResult::DependencyFailure { connect: b.connect }
        }
        _ => CallResult::NotDependency,
    }
}
