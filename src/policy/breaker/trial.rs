//! Half-open: one call at a time, to see. A trial that hangs neither holds the field for ever nor lets others pile up.

use super::{Breaker, CallResult, Permit, Phase, Ramp, Reason, State, Transition, Verdict, millis};

/// The most trials that are remembered; of more the oldest can't report any longer. A bound of memory, no setting.
pub(super) const MOST_TRIALS: usize = 8;

impl Breaker {
    /// Returns a permit whose call was not made or was cancelled: the next trial may start.
    pub fn release(&mut self, permit: Permit) {
        self.trials.retain(|out| out.epoch != permit.epoch);
    }

    /// Until when the newest trial has the field for itself; 0 if there is none.
    pub(super) fn trial_until(&self) -> u64 {
        self.trials.last().map_or(0, |out| out.deadline_ms)
    }

    /// Every trial has an epoch of its own, so that one given up on cannot speak for its successor.
    pub(super) fn start_trial(&mut self, now_ms: u64) -> (Verdict, Option<Transition>) {
        let from = self.phase.state();
        let reason = match from {
            State::Closed => Reason::Needed,
            _ => Reason::CoolDownOver,
        };
        if from != State::HalfOpen {
            self.phase = Phase::HalfOpen;
            self.trials.clear();
        }
        if self.trials.len() == MOST_TRIALS {
            self.trials.remove(0);
        }
        // The next one waits twice as long: calls that hang must not pile up.
        let doubled = 2_u32.saturating_pow(u32::try_from(self.trials.len()).unwrap_or(u32::MAX));
        let patience = self.config.trial_timeout.saturating_mul(doubled);
        let longest = self.config.max_trial_timeout.max(self.config.trial_timeout);
        self.epoch += 1;
        let permit = Permit {
            epoch: self.epoch,
            deadline_ms: now_ms.saturating_add(millis(patience.min(longest))),
        };
        self.trials.push(permit);
        let transition = Transition {
            from,
            to: State::HalfOpen,
            reason,
            at_ms: now_ms,
        };
        (
            Verdict::Trial(permit),
            (from != State::HalfOpen).then_some(transition),
        )
    }

    /// A trial came to an end. One that says nothing makes room for the next.
    pub(super) fn end_trial(
        &mut self,
        now_ms: u64,
        epoch: u64,
        result: CallResult,
        jitter: f64,
    ) -> Option<Transition> {
        let place = self.trials.iter().position(|out| out.epoch == epoch)?;
        self.trials.remove(place);
        let is_newest = place == self.trials.len();
        let outcome = self.take_in(now_ms, result)?;
        let (succeeded, failed) = match self.tie {
            Some(_) => (Reason::FleetTrialSucceeded, Reason::FleetTrialFailed),
            None => (Reason::TrialSucceeded, Reason::TrialFailed),
        };
        if outcome.good() > 0 {
            self.tell_fleet(true);
            let ramp = Phase::Ramping(Ramp::at(0, 0, now_ms));
            return Some(self.enter(now_ms, ramp, succeeded));
        }
        is_newest.then(|| {
            self.tell_fleet(false);
            self.open(now_ms, failed, jitter)
        })
    }
}
