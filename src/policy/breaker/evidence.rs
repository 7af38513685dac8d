//! What the calls of one operation say about its dependency: a window of outcomes, connect errors in
//! a row, and how usual those are. It must not know the states of a breaker.

use super::beta::surely_more;
use super::call::CallResult;
use super::report::Reason;
use super::settings::BreakerConfig;
use super::window::{Counts, Span, Window};

/// A row of connect errors counts only if it comes about by chance less often than this: once in
/// weeks at a thousand calls a minute.
const ROW_CHANCE: f64 = 1e-8;
/// What is usual is remembered over about this many calls.
const USUAL_CALLS: f64 = 256.0;
/// Before anything is known: one connect error in forty calls, as sure as after twenty calls. Then
/// five in a row are out of the usual.
const USUAL_FIRST: Usual = Usual {
    errors: 0.5,
    calls: 20.0,
};

/// The share of connect errors in ordinary times.
#[derive(Debug, Clone, Copy)]
struct Usual {
    errors: f64,
    calls: f64,
}

impl Usual {
    /// Takes in a row of connect errors that ended in `others` calls of another outcome.
    fn take_in(&mut self, errors: u32, others: u32) {
        let (errors, calls) = (f64::from(errors), f64::from(errors) + f64::from(others));
        let kept = (1.0 - 1.0 / USUAL_CALLS).powf(calls);
        self.errors = self.errors * kept + errors;
        self.calls = self.calls * kept + calls;
    }

    /// Whether so many in a row are beyond chance.
    fn is_beyond(self, row: u32) -> bool {
        let share = self.errors / self.calls;
        f64::from(row) * share.ln() <= ROW_CHANCE.ln()
    }
}

/// All that is known from calls.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    window: Window,
    /// Connect errors since the last other outcome.
    row: u32,
    usual: Usual,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            window: Window::default(),
            row: 0,
            usual: USUAL_FIRST,
        }
    }
}

/// What a result counts as; none if it says nothing about the dependency.
pub(super) fn outcome(result: CallResult) -> Option<Counts> {
    let (failures, slow) = match result {
        CallResult::NotDependency => return None,
        CallResult::Success { slow } => (0, slow.into()),
        CallResult::DependencyFailure { .. } => (1, 0),
    };
    Some(Counts {
        calls: 1,
        failures,
        slow,
    })
}

impl Evidence {
    /// Takes in one outcome.
    pub(super) fn add(&mut self, now_ms: u64, outcome: Counts, connect_error: bool, span: &Span) {
        self.window.add(now_ms, outcome, span);
        if connect_error {
            self.row = self.row.saturating_add(1);
        } else {
            self.usual.take_in(self.row, 1);
            self.row = 0;
        }
    }

    /// The reason to open that the newest outcome gives, if it is one. Only a bad outcome can be.
    pub(super) fn reason(
        &self,
        now_ms: u64,
        newest: Counts,
        config: &BreakerConfig,
        span: &Span,
    ) -> Option<Reason> {
        if self.row >= config.connect_errors && self.usual.is_beyond(self.row) {
            return Some(Reason::ConnectErrors { count: self.row });
        }
        if newest.good() > 0 {
            return None;
        }
        proof(&self.window, now_ms, config, span)
    }

    /// What the window holds now.
    pub(super) fn counts(&self, now_ms: u64, span: &Span) -> Counts {
        self.window.counts(now_ms, span)
    }

    /// Forgets what a change of state makes old: the outcomes, not what is usual.
    pub(super) fn clear(&mut self) {
        self.window.clear();
        self.row = 0;
    }
}

/// Whether too many calls of a window fail, or are slow, or either of both, beyond chance. A dependency that hangs may
/// show as failed calls and as slow ones, by chance as many of each: it depends on whose timer is first.
pub(super) fn proof(
    window: &Window,
    now_ms: u64,
    config: &BreakerConfig,
    span: &Span,
) -> Option<Reason> {
    let (failed_share, slow_share, sure) = (config.failed_share, config.slow_share, config.sure);
    window.find(now_ms, span, |counts| {
        let Counts {
            calls,
            failures,
            slow,
        } = counts;
        if too_many(failures, calls, failed_share, sure) {
            return Some(Reason::Failures { failures, calls });
        }
        if too_many(slow, calls, slow_share, sure) {
            return Some(Reason::SlowCalls { slow, calls });
        }
        let (bad, share) = (failures.saturating_add(slow), failed_share.max(slow_share));
        too_many(bad, calls, share, sure).then_some(Reason::BadCalls {
            failures,
            slow,
            calls,
        })
    })
}

/// The arithmetic is spared where the share is not even reached.
fn too_many(bad: u32, calls: u32, share: f64, sure: f64) -> bool {
    f64::from(bad) > f64::from(calls) * share
        && surely_more(share, bad, calls.saturating_sub(bad)) >= sure
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many calls of which one in `each` met a connect error: the row that is out of the usual.
    fn row_needed(calls: u32, each: u32) -> u32 {
        let mut usual = USUAL_FIRST;
        for n in 0..calls {
            usual.take_in(u32::from(each > 0 && n % each == 0), 1);
        }
        (5..).find(|row| usual.is_beyond(*row)).unwrap_or_default()
    }

    #[test]
    fn how_many_connect_errors_in_a_row_are_out_of_the_usual() {
        assert_eq!(row_needed(0, 0), 5, "nothing known yet");
        assert_eq!(row_needed(10_000, 0), 5, "never seen");
        assert_eq!(row_needed(10_000, 100), 5, "one in a hundred");
        assert_eq!(row_needed(10_000, 10), 8, "one in eleven");
        assert!(row_needed(10_000, 2) >= 15, "one in three");
    }
}
