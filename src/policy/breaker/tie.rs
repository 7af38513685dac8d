//! The breaker of this daemon as one of a fleet: what it tells the others, and how it follows what
//! all of them decided.

use super::fleet::{Decision, Progress, Record, Report};
use super::{Breaker, Mode, Phase, Ramp, Reason, Rest, State, Transition};

/// A job that waits for the breaker is forgotten after this long: a little more than the longest time between two looks
/// of a daemon at its queues, which bounds it.
const WANTED_MS: u64 = 12_000;

/// The decision of the fleet that a breaker follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tie {
    /// Its epoch.
    epoch: u64,
    /// Of a step of the way back: since when results count.
    judged_ms: Option<u64>,
    /// This daemon tries for all, until then.
    probes_until_ms: Option<u64>,
    /// How its trial ended.
    verdict: Option<bool>,
}

/// How the trial of this daemon for all stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// None was begun, or it was given back.
    None,
    /// It runs.
    Runs,
    /// The dependency answered well.
    Succeeded,
    /// It did not.
    Failed,
}

/// How far a daemon has come by itself while the fleet was out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// On its way back, at this step of the ramp.
    Ramping(usize),
    /// All is well here.
    Closed,
}

/// What the fleet needs to know of one daemon's breaker.
#[derive(Debug, Clone, PartialEq)]
pub struct Stand {
    /// What its calls say.
    pub report: Report,
    /// A job waits for a trial that only the fleet can permit.
    pub wants_trial: bool,
    /// The trial for all, under the decision of this epoch.
    pub trial: (u64, Trial),
    /// It recovered by itself since the decision of this epoch.
    pub ahead: Option<(u64, Ahead)>,
    /// An operator closed it here: decisions up to this epoch are over.
    pub void: u64,
}

impl Breaker {
    /// A job waits for leave to call.
    pub fn want(&mut self, now_ms: u64) {
        self.wanted_ms = Some(now_ms);
        self.needed_ms = now_ms;
    }

    /// What the fleet needs to know; none if this breaker takes no part, by an operator's order.
    pub fn stand(&self, now_ms: u64) -> Option<Stand> {
        if self.mode == Mode::Disabled || self.is_forced(now_ms) {
            return None;
        }
        let own = self.tie.is_none() && self.left.is_none();
        let is_shut = self.is_shut();
        let cooled = match self.phase {
            Phase::Open { until_ms, .. } => now_ms >= until_ms,
            // A trial that hangs does not keep the fleet from another one.
            Phase::HalfOpen => now_ms >= self.trial_until(),
            Phase::Closed | Phase::Resting(_) | Phase::Ramping(_) => false,
        };
        let wanted = self
            .wanted_ms
            .is_some_and(|at| now_ms.saturating_sub(at) <= WANTED_MS);
        let ahead = match self.phase {
            Phase::Ramping(ramp) => Some(Ahead::Ramping(ramp.step)),
            Phase::Closed => Some(Ahead::Closed),
            Phase::Resting(_) | Phase::Open { .. } | Phase::HalfOpen => None,
        };
        let idle_ms = self.idle_ms(now_ms);
        Some(Stand {
            report: Report {
                shut: own && is_shut,
                idle_ms: (idle_ms <= WANTED_MS).then_some(idle_ms),
                step: self.progress(),
                ..Report::of(self.told.recent(now_ms, self.span))
            },
            wants_trial: cooled && wanted && self.waits_for_fleet(now_ms),
            trial: self.trial(),
            ahead: self.left.zip(ahead),
            void: self.void,
        })
    }

    /// Takes over what the fleet decided. `fleet_now_ms` is the time of the fleet, which is not that of this daemon.
    pub fn follow(
        &mut self,
        now_ms: u64,
        record: Option<&Record>,
        me: &str,
        fleet_now_ms: u64,
    ) -> Option<Transition> {
        let Some(record) = record else {
            // What was decided is lost: go on from here alone.
            (self.tie, self.left) = (None, None);
            return None;
        };
        self.seen = self.seen.max(record.epoch);
        if self.mode == Mode::Disabled || self.is_forced(now_ms) || record.epoch <= self.void {
            return None;
        }
        if matches!(self.phase, Phase::Resting(_)) {
            // It did not recover while it was away: it knows no better than the others.
            (self.left, self.away) = (None, false);
        }
        let here = |at_ms: u64| now_ms.saturating_add(at_ms.saturating_sub(fleet_now_ms));
        let (until_ms, tie) = match &record.decision {
            Decision::Closed { rest, .. } => return self.close_with(now_ms, *rest, record),
            Decision::Ramping {
                step,
                judged_ms,
                falls,
                ..
            } => {
                let ramp = Ramp::at(*step, *falls, now_ms);
                return self.ramp_with(now_ms, ramp, *judged_ms, record);
            }
            Decision::Open { until_ms, .. } => (here(*until_ms), Tie::to(record, None)),
            Decision::Probing { by, until_ms } => {
                let own = (by == me).then(|| here(*until_ms));
                (now_ms, Tie::to(record, own))
            }
        };
        // Who was away knows better than what was decided before; and what was decided meanwhile may be over.
        let over = until_ms <= now_ms && std::mem::take(&mut self.away);
        if self.left.take_if(|left| *left == record.epoch).is_some() || over {
            self.come_back(tie);
            return None;
        }
        self.away = false;
        self.open_with(now_ms, until_ms, record, tie)
    }

    /// The fleet is out of reach: from here on this daemon decides by itself, beginning where it is.
    pub fn alone(&mut self) {
        self.away = true;
        if let Some(tie) = self.tie.take() {
            self.left = Some(tie.epoch);
        }
    }

    /// Whether only the fleet can permit a trial.
    pub(super) fn waits_for_fleet(&self, now_ms: u64) -> bool {
        self.tie
            .is_some_and(|tie| tie.probes_until_ms.is_none_or(|until| now_ms >= until))
    }

    /// The trial for all has ended.
    pub(super) fn tell_fleet(&mut self, succeeded: bool) {
        if let Some(tie) = &mut self.tie {
            tie.verdict = Some(succeeded);
        }
    }

    fn is_shut(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::HalfOpen)
    }

    fn trial(&self) -> (u64, Trial) {
        let Some(tie) = self.tie.filter(|tie| tie.probes_until_ms.is_some()) else {
            return (0, Trial::None);
        };
        let trial = match tie.verdict {
            Some(true) => Trial::Succeeded,
            Some(false) => Trial::Failed,
            None if self.trials.is_empty() => Trial::None,
            None => Trial::Runs,
        };
        (tie.epoch, trial)
    }

    /// The fleet is in reach again, and nothing was decided since. Who is still shut goes on with it; who recovered
    /// waits until the others have heard of that.
    fn come_back(&mut self, tie: Tie) {
        if self.is_shut() {
            self.tie = Some(tie);
        } else {
            self.left = Some(tie.epoch);
        }
    }

    fn close_with(
        &mut self,
        now_ms: u64,
        rest: Option<Rest>,
        record: &Record,
    ) -> Option<Transition> {
        let followed = self.tie.take().is_some() || self.left.take().is_some();
        if !followed || self.phase == Phase::Closed {
            return None;
        }
        self.openings = record.openings;
        let (phase, reason) = match rest {
            Some(rest) => (Phase::Resting(rest), Reason::FleetRests(rest)),
            None => (Phase::Closed, Reason::FleetRecovered),
        };
        Some(self.enter(now_ms, phase, reason))
    }

    /// What came of its calls at the step of the way back that all are at.
    fn progress(&self) -> Option<Progress> {
        let judged_ms = self.tie?.judged_ms?;
        match self.phase {
            Phase::Ramping(ramp) => Some(Progress {
                judged_ms,
                results: ramp.results,
            }),
            _ => None,
        }
    }

    fn open_with(
        &mut self,
        now_ms: u64,
        until_ms: u64,
        record: &Record,
        tie: Tie,
    ) -> Option<Transition> {
        self.left = None;
        let old = self.tie.replace(tie);
        if let Some(old) = old.filter(|old| old.epoch == tie.epoch) {
            // Known already; only a lease that was renewed has another end.
            self.tie = Some(Tie {
                verdict: old.verdict,
                ..tie
            });
            return None;
        }
        self.openings = record.openings;
        let probes = tie.probes_until_ms.is_some();
        if probes && self.phase == Phase::HalfOpen {
            return None;
        }
        let phase = Phase::Open {
            until_ms,
            forced: false,
        };
        if self.phase.state() == State::Open && (old.is_some() || probes) {
            self.phase = phase;
            return None;
        }
        let reason = match record.decision {
            Decision::Open { .. } if old.is_none() => Reason::Fleet(record.evidence),
            _ => Reason::FleetTrialFailed,
        };
        Some(self.enter(now_ms, phase, reason))
    }

    fn ramp_with(
        &mut self,
        now_ms: u64,
        to: Ramp,
        judged_ms: u64,
        record: &Record,
    ) -> Option<Transition> {
        let own = self.tie.is_none() && self.left.is_none();
        let recovered_alone = self.left == Some(record.epoch) && self.phase == Phase::Closed;
        if own && self.is_shut() || recovered_alone {
            // Shut by its own evidence, that is its own matter; or there before the others.
            return None;
        }
        self.left = None;
        let tie = Tie {
            judged_ms: Some(judged_ms),
            ..Tie::to(record, None)
        };
        let known = self.tie.replace(tie);
        self.openings = record.openings;
        match self.phase {
            Phase::Ramping(_) if known.is_some_and(|t| t.judged_ms == tie.judged_ms) => None,
            Phase::Ramping(ramp) => {
                self.go_on(ramp, to);
                None
            }
            _ => Some(self.enter(now_ms, Phase::Ramping(to), Reason::FleetTrialSucceeded)),
        }
    }
}

impl Tie {
    fn to(record: &Record, probes_until_ms: Option<u64>) -> Self {
        Self {
            epoch: record.epoch,
            judged_ms: None,
            probes_until_ms,
            verdict: None,
        }
    }
}
