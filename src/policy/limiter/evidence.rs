//! What recent jobs say against an anchor: how many of them wait within the dependency.

use super::anchor::Anchor;
use super::window::Tally;

/// What a look at recent jobs says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Wait within the dependency, milliseconds.
    pub(super) wait_ms: f64,
    /// Jobs waiting there: surely no fewer, most likely, and surely no more.
    pub(super) low: f64,
    pub(super) queue: f64,
    pub(super) high: f64,
    /// Jobs in flight.
    pub(super) load: f64,
}

impl Reading {
    /// What a tally says if disturbance is a wait that adds to each job: a line, a pool. It is
    /// clear by `sure` standard errors.
    pub(super) fn by_wait(anchor: &Anchor, tally: &Tally, sure: f64) -> Self {
        let (mean_ln, error) = tally.mean_ln();
        let wait = anchor.wait_ms(mean_ln);
        Self::of(anchor, tally, wait, sure * error * anchor.wait_per_ln(wait))
    }

    /// What it says by the means alone, whichever way jobs disturb each other. A dull witness, and
    /// the only one where contention stretches each job: then no one wait explains what is seen.
    pub(super) fn by_mean(anchor: &Anchor, tally: &Tally, sure: f64) -> Self {
        let (mean, error) = tally.mean_ms();
        let spread = sure * error.hypot(anchor.mean_error_ms());
        Self::of(anchor, tally, mean - anchor.mean_ms(), spread)
    }

    /// What more load has brought, as a share of what it brings if there is no room for it: then
    /// the latency grows as the load does. `wait_ms` is the wait added; `low`, `queue` and `high`
    /// are shares.
    pub(super) fn added(anchor: &Anchor, before: &Tally, now: &Tally, sure: f64) -> Self {
        let ((ln_before, error_before), (ln_now, error_now)) = (before.mean_ln(), now.mean_ln());
        let (wait_before, wait) = (anchor.wait_ms(ln_before), anchor.wait_ms(ln_now));
        let full = (anchor.mean_ms() + wait_before.max(0.0)) * (now.load() / before.load() - 1.0);
        let errors = (error_now * anchor.wait_per_ln(wait))
            .hypot(error_before * anchor.wait_per_ln(wait_before));
        let full = full.max(anchor.mean_ms() * 0.02);
        let (share, spread) = ((wait - wait_before) / full, sure * errors / full);
        Self {
            wait_ms: wait - wait_before,
            low: share - spread,
            queue: share,
            high: share + spread,
            load: now.load(),
        }
    }

    /// By Little's law: of the load, the share of its time that a job waits.
    fn of(anchor: &Anchor, tally: &Tally, wait: f64, spread: f64) -> Self {
        let load = tally.load();
        let queue = |wait: f64| load * wait / (wait.max(0.0) + anchor.mean_ms());
        Self {
            wait_ms: wait,
            low: queue(wait - spread),
            queue: queue(wait),
            high: queue(wait + spread),
            load,
        }
    }
}
