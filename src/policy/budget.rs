//! Retry budgets: how much of a resource's work may be retries.
//!
//! A dependency that comes back meets whatever failed meanwhile, all at once. The budget lets new work through as it comes,
//! and of retries so many that they are a set share of all; the others wait. The idea is that of Finagle's retry budget (a
//! bucket that first calls fill and retries empty) and of the chapters on overload in Google's book on site reliability
//! (a ratio of retries to requests); the decay and the order of those who wait are ours.
//!
//! One [`RetryBudget`] per resource. Its tokens decay with the time constant `window`, so that a quiet hour saves up no
//! storm: at rest there are `floor` of them, and under a steady load the share of the work of one window besides.
//!
//! Who is refused is given a time to ask again. The next few stand in line at the pace at which tokens come; behind them a
//! crowd comes by at a pace of its own, so that a budget that grows meanwhile is used, and the asking costs little however
//! many wait. Must not know jobs, nor where they wait. Times are monotonic milliseconds.

use std::time::Duration;

use serde::Serialize;

/// Times are whole steps of this, so that one look is made for several retries. A quarter of the shortest line there may be.
const STEP_MS: f64 = 200.0;

/// What a budget goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetConfig {
    /// The share of a resource's work that may be retries: more than 0, less than 1.
    pub share: f64,
    /// Retries in a window that are always let through.
    pub floor: f64,
    /// The time the budget remembers.
    pub window: Duration,
    /// So far ahead retries stand in line.
    pub line: Duration,
    /// So many of the crowd behind the line come by each second …
    pub crowd: f64,
    /// … up to this long from now; then the next round of them begins. Longer than the line.
    pub longest: Duration,
}

/// How the retries of a resource fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetState {
    /// They run as they come.
    Free,
    /// Some of them wait.
    Holding,
}

/// The budget of one resource.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    config: BudgetConfig,
    /// Retries that may be let through now.
    tokens: f64,
    /// Starts of new jobs, each fading with the window.
    fresh: f64,
    /// And of retries.
    retries: f64,
    at_ms: u64,
    /// When the last in line was told to come.
    line_ms: f64,
    /// And the last of the crowd behind it.
    crowd_ms: f64,
    state: BudgetState,
    held_ms: u64,
    /// Times a retry was told to wait since ever.
    held: u64,
}

impl RetryBudget {
    /// A budget that nothing was taken from.
    #[must_use]
    pub fn new(now_ms: u64, config: BudgetConfig) -> Self {
        Self {
            config,
            tokens: config.floor,
            fresh: 0.0,
            retries: 0.0,
            at_ms: now_ms,
            line_ms: 0.0,
            crowd_ms: 0.0,
            state: BudgetState::Free,
            held_ms: 0,
            held: 0,
        }
    }

    /// A new job of this resource starts.
    pub fn fresh(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.fresh += 1.0;
        self.tokens += self.per_fresh();
    }

    /// Whether a retry may be let through now.
    #[must_use]
    pub fn has_room(&mut self, now_ms: u64) -> bool {
        self.pass(now_ms);
        // What is left comes up to the floor in time, but never beyond: of a floor of one half must be enough.
        self.tokens >= (self.config.floor / 2.0).min(1.0)
    }

    /// A retry is let through.
    pub fn spend(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.retries += 1.0;
        self.tokens -= 1.0;
    }

    /// It was not, after all: somebody else had done so before.
    pub fn refund(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.retries = (self.retries - 1.0).max(0.0);
        self.tokens += 1.0;
    }

    /// A retry has to wait: for how long, `longest` at most. Those who ask later come later, as far as may be.
    pub fn hold(&mut self, now_ms: u64) -> Duration {
        self.pass(now_ms);
        self.held += 1;
        self.held_ms = now_ms;
        let now = ms(now_ms);
        let in_line = self.line_ms.max(now) + 1_000.0 / self.rate();
        let [line, longest] =
            [self.config.line, self.config.longest].map(|d| d.as_secs_f64() * 1e3);
        let at = if in_line <= now + line {
            self.line_ms = in_line;
            in_line
        } else {
            let behind = self.crowd_ms.max(now + line) + 1_000.0 / self.config.crowd;
            let is_full = behind > now + longest - STEP_MS;
            self.crowd_ms = if is_full { now + line } else { behind };
            self.crowd_ms
        };
        let at = (at / STEP_MS).ceil() * STEP_MS;
        // Never at once, even if the step has just come.
        Duration::from_secs_f64((at - now).max(STEP_MS / 2.0) / 1_000.0)
    }

    /// The change of state since the last call, for the caller to log: it holds when a retry had to wait, and is free again
    /// when none had to for a window and none is still to come.
    pub fn judge(&mut self, now_ms: u64) -> Option<BudgetState> {
        self.pass(now_ms);
        let quiet_ms = ms(now_ms.saturating_sub(self.held_ms));
        let waits = self.held > 0
            && (quiet_ms < self.config.window.as_secs_f64() * 1_000.0
                || self.line_ms.max(self.crowd_ms) > ms(now_ms));
        let state = match waits {
            true => BudgetState::Holding,
            false => BudgetState::Free,
        };
        let before = std::mem::replace(&mut self.state, state);
        (before != state).then_some(state)
    }

    /// All there is to see, for `/health` and `explain`.
    #[must_use]
    pub fn snapshot(&mut self, now_ms: u64) -> BudgetSnapshot {
        self.pass(now_ms);
        let all = self.fresh + self.retries;
        BudgetSnapshot {
            state: self.state,
            share: rounded(if all < 1.0 { 0.0 } else { self.retries / all }),
            limit: self.config.share,
            floor: self.config.floor,
            window_ms: u64::try_from(self.config.window.as_millis()).unwrap_or(u64::MAX),
            left: rounded(self.tokens.max(0.0)),
            per_second: rounded(self.rate()),
            held: self.held,
        }
    }

    /// What one new job allows of retries.
    fn per_fresh(&self) -> f64 {
        self.config.share / (1.0 - self.config.share)
    }

    /// Retries a second, as things are.
    fn rate(&self) -> f64 {
        (self.config.floor + self.fresh * self.per_fresh()) / self.config.window.as_secs_f64()
    }

    /// Time passes: what is remembered fades, and the floor comes in at the pace at which it would fade.
    fn pass(&mut self, now_ms: u64) {
        let passed = Duration::from_millis(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        let kept = (-passed.as_secs_f64() / self.config.window.as_secs_f64()).exp();
        self.fresh *= kept;
        self.retries *= kept;
        self.tokens = self.tokens * kept + self.config.floor * (1.0 - kept);
    }
}

#[allow(clippy::cast_precision_loss)] // exact for two hundred thousand years
const fn ms(ms: u64) -> f64 {
    ms as f64
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A budget at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetSnapshot {
    /// Whether retries wait.
    pub state: BudgetState,
    /// The share of the starts of the last window that were retries, 0 to 1.
    pub share: f64,
    /// The share that they may be.
    pub limit: f64,
    /// Retries in a window that are always let through.
    pub floor: f64,
    /// The window.
    pub window_ms: u64,
    /// Retries that may be let through now.
    pub left: f64,
    /// Retries a second that may be, as things are.
    pub per_second: f64,
    /// Times that a retry was told to wait since the daemon started.
    pub held: u64,
}

#[cfg(test)]
mod tests;
