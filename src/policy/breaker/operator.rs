//! What operators do to a breaker, and what they see of it.

use std::time::Duration;

use super::{
    Breaker, MAX_FORCED, Mode, Outlook, Phase, Reason, Snapshot, State, Transition, Window, Would,
    millis,
};

impl Breaker {
    /// Holds the breaker open for `ttl` (at most [`MAX_FORCED`]), whatever the evidence; then it is
    /// tried like any other. Turns the breaker on if it was not.
    pub fn force_open(&mut self, now_ms: u64, ttl: Duration) -> Transition {
        self.mode = Mode::On;
        (self.tie, self.left) = (None, None);
        let until_ms = now_ms.saturating_add(millis(ttl.min(MAX_FORCED)));
        let phase = Phase::Open {
            until_ms,
            forced: true,
        };
        self.enter(now_ms, phase, Reason::Forced)
    }

    /// Sets the mode and starts afresh, closed: evidence gathered under other rules does not count.
    /// Also ends a forced opening, and what the fleet decided until now.
    pub fn set_mode(&mut self, now_ms: u64, mode: Mode) -> Option<Transition> {
        self.mode = mode;
        self.openings = 0;
        (self.tie, self.left) = (None, None);
        self.void = self.seen;
        self.told = Window::default();
        let transition = self.enter(now_ms, Phase::Closed, Reason::Reset);
        (transition.from != State::Closed).then_some(transition)
    }

    /// Whether it acts on what it sees.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether an operator holds it open now.
    pub const fn is_forced(&self, now_ms: u64) -> bool {
        matches!(self.phase, Phase::Open { until_ms, forced: true } if now_ms < until_ms)
    }

    /// All there is to see, for `/health` and `explain`.
    pub fn snapshot(&self, now_ms: u64) -> Snapshot {
        let counts = self.evidence.counts(now_ms, &self.span);
        let (would, limit, retry_at_ms) = match self.judge(now_ms) {
            Outlook::Allow { limit: None } => (Would::Allow, None, None),
            Outlook::Allow { limit } => (Would::Limit, limit, None),
            Outlook::Trial => (Would::Try, None, None),
            Outlook::Refuse { retry_at_ms } => (Would::Refuse, None, Some(retry_at_ms)),
        };
        let retry_in_ms = retry_at_ms.map(|at| at.saturating_sub(now_ms));
        Snapshot {
            state: self.state(now_ms),
            mode: self.mode,
            would,
            forced_ms: retry_in_ms.filter(|_| self.is_forced(now_ms)),
            fleet: self.tie.is_some(),
            retry_in_ms,
            limit,
            openings: self.openings,
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
        }
    }
}
