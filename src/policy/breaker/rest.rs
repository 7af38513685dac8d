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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{FAILED, MIDDLE, OK, breaker, call, opened, trial};
    use super::super::{State, Verdict, Would};
    use super::*;

    /// Lets so many seconds pass, and answers what time changed.
    fn idle(breaker: &mut Breaker, now_ms: &mut u64, seconds: u64) -> Vec<Transition> {
        let tick = |_| {
            *now_ms += 1_000;
            breaker.tick(*now_ms, false)
        };
        (0..seconds).filter_map(tick).collect()
    }

    #[test]
    fn a_way_back_that_no_job_needs_ends_and_goes_on_with_the_next_job() {
        let mut breaker = opened(0);
        call(&mut breaker, 5_000, OK);
        let mut now = 5_000;
        assert_eq!(idle(&mut breaker, &mut now, 299), []);
        let rest = Rest::Ramping { step: 0, falls: 0 };
        let rested = idle(&mut breaker, &mut now, 1);
        let told: Vec<_> = rested.iter().map(|t| (t.from, t.to, t.reason)).collect();
        let expected = (State::Ramping, State::Closed, Reason::Rests(rest));
        assert_eq!(told, [expected]);
        assert_eq!(
            rested[0].reason.to_string(),
            "no job needs it any more; the next ones go on with the way back"
        );
        now += 14 * 86_400_000;
        let shown = breaker.snapshot(now);
        assert_eq!((shown.would, shown.limit), (Would::Limit, Some(0.01)));
        let (verdict, woken) = breaker.admit(now);
        assert!(
            matches!(verdict, Verdict::Allow { limit: Some(share), .. } if share < 0.02),
            "no open tap after a fortnight's sleep: {verdict:?}"
        );
        let told = woken.map(|t| (t.from, t.to, t.reason));
        assert_eq!(told, Some((State::Closed, State::Ramping, Reason::Needed)));
    }

    #[test]
    fn a_trickle_of_good_calls_ends_the_way_back_however_thin_it_is() {
        for minutes in [1, 4, 10, 600] {
            let mut breaker = opened(0);
            let mut now = 5_000;
            let mut calls = 0;
            while calls == 0
                || breaker.state(now) != State::Closed
                || breaker.snapshot(now).limit.is_some()
            {
                call(&mut breaker, now, OK);
                idle(&mut breaker, &mut now, minutes * 60);
                calls += 1;
                assert!(calls <= 8, "one in {minutes} min: {:?}", breaker.phase);
            }
        }
    }

    #[test]
    fn a_few_results_with_a_bad_one_are_no_proof_however_long_it_takes() {
        let mut breaker = opened(0);
        call(&mut breaker, 5_000, OK);
        let mut now = 5_000;
        for result in [FAILED, OK, OK, OK] {
            call(&mut breaker, now, result);
            assert_eq!(idle(&mut breaker, &mut now, 60), []);
            assert_eq!(breaker.snapshot(now).limit, Some(0.01));
        }
        call(&mut breaker, now, OK);
        assert_eq!(breaker.snapshot(now).limit, Some(0.02), "four of five");
    }

    #[test]
    fn an_open_one_that_no_job_needs_rests_and_then_tries_one_alone() {
        let mut breaker = opened(0);
        let mut now = 0;
        assert_eq!(idle(&mut breaker, &mut now, 304), []);
        assert_eq!(breaker.state(now), State::HalfOpen);
        let rested = idle(&mut breaker, &mut now, 1);
        assert_eq!(
            rested.iter().map(|t| t.to).collect::<Vec<_>>(),
            [State::Closed]
        );
        assert_eq!(breaker.snapshot(now).would, Would::Try);
        let (verdict, begun) = breaker.admit(now);
        let Verdict::Trial(permit) = verdict else {
            unreachable!("{verdict:?}")
        };
        let told = begun.map(|t| (t.from, t.to));
        assert_eq!(told, Some((State::Closed, State::HalfOpen)));
        assert!(trial(&mut breaker, now).is_none(), "one alone");
        let failed = breaker.record(now, permit.epoch, FAILED, MIDDLE);
        assert_eq!(failed.map(|t| t.to), Some(State::Open));
        assert_eq!(
            breaker.peek(now),
            Outlook::Refuse {
                retry_at_ms: now + 10_000
            },
            "its second cool-down"
        );
    }

    #[test]
    fn what_is_needed_or_forced_does_not_rest() {
        let mut busy = opened(0);
        let lost = trial(&mut busy, 5_000).expect("the trial");
        for second in 5..3_600 {
            assert_eq!(busy.tick(second * 1_000, true), None, "it hangs on");
        }
        busy.release(lost);
        let mut waited_for = opened(0);
        for second in 0..3_600 {
            waited_for.want(second * 1_000);
            assert_eq!(waited_for.tick(second * 1_000, false), None);
        }
        let mut forced = breaker();
        forced.force_open(0, Duration::from_secs(3_600));
        let mut now = 0;
        assert_eq!(idle(&mut forced, &mut now, 3_899), []);
        assert_eq!(idle(&mut forced, &mut now, 1).len(), 1, "its time is over");
    }
}
