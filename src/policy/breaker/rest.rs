//! A breaker that no job needs: neither is it an alert for ever, nor do jobs that come much later meet an open tap.
//!
//! It counts as closed, and remembers how far the dependency was trusted. Owns when it rests, and how it goes on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ramp::{Ramp, share_at};
use super::{Breaker, Mode, Outlook, Phase, Reason, Transition, millis};

/// How those begin who come after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// It was down when it was last seen: the next call is tried alone.
    Untried,
    /// It was on its way back: that goes on.
    Ramping {
        /// At this step.
        step: usize,
        /// Steps down until then.
        falls: u32,
    },
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untried => "the next one is tried alone",
            Self::Ramping { .. } => "the next ones go on with the way back",
        })
    }
}

impl Breaker {
    /// Has time do its part, about once a second or more often while it is not closed. A step of the way back that saw few
    /// calls may go on, and a breaker that no job needed for [`super::BreakerConfig::rest`] rests. `busy`: calls run.
    ///
    /// In a fleet both are decided by all.
    pub fn tick(&mut self, now_ms: u64, busy: bool) -> Option<Transition> {
        if busy {
            self.needed_ms = now_ms;
        }
        if self.tie.is_some() || self.mode == Mode::Disabled {
            return None;
        }
        let climbed = self.climb(now_ms);
        if climbed.is_some() {
            return climbed;
        }
        let (rest, since_ms) = match self.phase {
            Phase::Closed | Phase::Resting(_) => return None,
            Phase::Open { until_ms, .. } => (Rest::Untried, until_ms),
            Phase::HalfOpen => (Rest::Untried, 0),
            Phase::Ramping(Ramp { step, falls, .. }) => (Rest::Ramping { step, falls }, 0),
        };
        let idle_ms = now_ms.saturating_sub(self.needed_ms.max(since_ms));
        (idle_ms >= millis(self.config.rest))
            .then(|| self.enter(now_ms, Phase::Resting(rest), Reason::Rests(rest)))
    }

    /// Whether [`Breaker::tick`] has anything to do.
    pub const fn changes_by_time(&self) -> bool {
        !matches!(self.phase, Phase::Closed | Phase::Resting(_))
    }

    /// How long ago a job last waited for it or ran, milliseconds.
    pub(super) const fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.needed_ms)
    }

    /// What a rest lets through.
    pub(super) fn after_rest(&self, rest: Rest) -> Outlook {
        match rest {
            Rest::Untried => Outlook::Trial,
            Rest::Ramping { step, .. } => Outlook::Allow {
                limit: Some(share_at(step, &self.config)),
            },
        }
    }

    /// The first job after a rest on the way back goes on with it.
    pub(super) fn wake(&mut self, now_ms: u64) -> Option<Transition> {
        let Phase::Resting(Rest::Ramping { step, falls }) = self.phase else {
            return None;
        };
        let ramp = Phase::Ramping(Ramp::at(step, falls, now_ms));
        Some(self.enter(now_ms, ramp, Reason::Needed))
    }
}
