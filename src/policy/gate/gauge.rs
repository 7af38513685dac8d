//! The state of one resource, from its signals.

use std::fmt;

use serde::Serialize;

use super::signal::{Signal, Track};
use super::{Forced, GateState, Timing, Tuning};

/// A relapse is one within so many holds of the last improvement. Our choice.
const RELAPSE_HOLDS: u64 = 10;
/// After a relapse a failure is held for this part of the hold at least: what the defaults begin with. Our choice.
const LEAST_PART: u64 = 6;

/// Of a signal that is sampled at an interval of its own, so many samples may be lost before it is missing.
const LOST_SAMPLES: u64 = 3;
/// And so many before it counts as elevated.
const STALE_SAMPLES: u64 = 5;

/// A change of state, for the caller to log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transition {
    /// The state it left.
    pub from: GateState,
    /// The state it entered.
    pub to: GateState,
    /// The signal that was worst at that moment.
    pub signal: &'static str,
    /// Its last raw value, in its own unit; none if it is missing.
    pub value: Option<f64>,
    /// Its badness, 0 to 1.
    pub badness: f64,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            signal,
            badness,
            ..
        } = self;
        write!(f, "{from} to {to}: {signal} ")?;
        match self.value {
            Some(value) => write!(f, "at {value}, badness {badness:.2}"),
            None => write!(f, "missing, badness {badness:.2}"),
        }
    }
}

/// The signals of one resource and the state they add up to: the badness is that of the worst.
///
/// A missing signal never counts as healthy: its badness stays as it was, the state cannot improve
/// while it is missing, and once stale it counts at least as elevated. Do not list a signal that
/// the host does not have at all.
#[derive(Debug, Clone)]
pub struct ResourceGauge {
    tuning: Tuning,
    tracks: Vec<Track>,
    state: GateState,
    entered_ms: u64,
    /// Since when the badness has been low enough to leave the state.
    low_since_ms: Option<u64>,
    /// Whether, since all was well, a state was ever kept up by more than failures.
    by_load: bool,
    /// The hold after a mere failure, as it is by now.
    failure_hold_ms: u64,
    /// The last improvement that no relapse followed yet.
    improved_ms: Option<u64>,
}

impl ResourceGauge {
    /// A gauge in state `Ok` that has measured nothing yet.
    pub fn new(now_ms: u64, tuning: Tuning, signals: impl IntoIterator<Item = Signal>) -> Self {
        let tracks = signals
            .into_iter()
            .map(|signal| Track::new(signal, now_ms))
            .collect();
        Self {
            tuning,
            tracks,
            state: GateState::Ok,
            entered_ms: now_ms,
            low_since_ms: None,
            by_load: false,
            failure_hold_ms: tuning.timing.failure_hold_ms.min(tuning.timing.hold_ms),
            improved_ms: None,
        }
    }

    /// Takes the sample of a signal; none says that it could not be measured.
    /// Answers whether this resource has a signal of that name.
    pub fn sample(&mut self, now_ms: u64, signal: &str, value: Option<f64>) -> bool {
        let track = self
            .tracks
            .iter_mut()
            .find(|track| track.signal.name == signal);
        track.is_some_and(|track| {
            track.sample(now_ms, value, &self.tuning.smoothing);
            true
        })
    }

    /// Judges what was sampled: worse at once, better one step after each hold.
    pub fn tick(&mut self, now_ms: u64) -> Option<Transition> {
        let reached = self.reached(now_ms);
        if reached > self.state {
            self.count_relapse(now_ms);
            let entered_at = self.tuning.states.entered_at(reached);
            self.by_load |= self.load_towards(reached, now_ms) >= entered_at;
            return Some(self.enter(now_ms, reached));
        }
        self.by_load |=
            self.state > GateState::Ok && self.load_towards(self.state, now_ms) > self.left_at();
        let may_leave = self.state > GateState::Ok
            && !self.growth_frozen(now_ms)
            && self.badness_towards(self.state, now_ms) <= self.left_at();
        if !may_leave {
            self.low_since_ms = None;
            return None;
        }
        let since = *self.low_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since) < self.hold_ms() {
            return None;
        }
        self.improved_ms = Some(now_ms);
        Some(self.enter(now_ms, self.state.better()))
    }

    /// The badness at or below which the state may be left.
    fn left_at(&self) -> f64 {
        self.tuning.states.left_at(self.state)
    }

    /// How long the badness must have been low before the state is left.
    fn hold_ms(&self) -> u64 {
        match self.by_load {
            true => self.tuning.timing.hold_ms,
            false => self.failure_hold_ms,
        }
    }

    /// A failure that comes and goes is held longer each time, so that the gate does not flap with it.
    fn count_relapse(&mut self, now_ms: u64) {
        let Some(improved_ms) = self.improved_ms.take() else {
            return;
        };
        let Timing {
            hold_ms,
            failure_hold_ms,
            ..
        } = self.tuning.timing;
        let soon = now_ms.saturating_sub(improved_ms) < RELAPSE_HOLDS.saturating_mul(hold_ms);
        self.failure_hold_ms = match soon {
            true => {
                let doubled = self.failure_hold_ms.saturating_mul(2);
                doubled.max(hold_ms / LEAST_PART).min(hold_ms)
            }
            false => failure_hold_ms.min(hold_ms),
        };
    }

    /// The state as of the last tick.
    pub fn state(&self) -> GateState {
        self.state
    }

    /// Badness of the worst signal that bears on the state, 0 to 1: the pressure that is published.
    pub fn badness(&self, now_ms: u64) -> f64 {
        self.worst(now_ms)
            .map_or(0.0, |track| self.badness_of(track, now_ms))
    }

    /// Whether a signal is missing, so that no limit may be raised.
    pub fn growth_frozen(&self, now_ms: u64) -> bool {
        self.tracks
            .iter()
            .any(|track| self.is_missing(track, now_ms))
    }

    /// All there is to see, for `/health` and `explain`.
    pub fn snapshot(&self, now_ms: u64) -> GaugeSnapshot {
        let signal = |track: &Track| SignalSnapshot {
            name: track.signal.name,
            value: track.value,
            lo: track.signal.lo,
            hi: track.signal.hi,
            cap: track.signal.cap,
            badness: self.badness_of(track, now_ms),
            missing: self.is_missing(track, now_ms),
            age_ms: track.age_ms(now_ms),
        };
        GaugeSnapshot {
            state: self.state,
            state_age_ms: now_ms.saturating_sub(self.entered_ms),
            badness: self.badness(now_ms),
            worst: self.worst(now_ms).map(|track| track.signal.name),
            signals: self.tracks.iter().map(signal).collect(),
            hold_left_ms: self.low_since_ms.map(|since| {
                let held_ms = now_ms.saturating_sub(since);
                self.hold_ms().saturating_sub(held_ms)
            }),
            forced: None,
        }
    }

    /// The worst state any signal reaches.
    fn reached(&self, now_ms: u64) -> GateState {
        let reaches = |state: &GateState| {
            self.badness_towards(*state, now_ms) >= self.tuning.states.entered_at(*state)
        };
        GateState::ALL
            .into_iter()
            .rev()
            .find(reaches)
            .unwrap_or(GateState::Ok)
    }

    /// Badness as far as it bears on `state`: signals capped below it neither bring it about nor
    /// keep it up.
    fn badness_towards(&self, state: GateState, now_ms: u64) -> f64 {
        let bearing = self.tracks.iter().filter(|track| track.signal.cap >= state);
        bearing
            .map(|track| self.badness_of(track, now_ms))
            .fold(0.0, f64::max)
    }

    /// The same of the signals that are measures and no switches: of load, not of failure.
    fn load_towards(&self, state: GateState, now_ms: u64) -> f64 {
        let measures = self.tracks.iter().filter(|track| {
            let signal = track.signal;
            signal.cap >= state && !signal.is_switch()
        });
        measures
            .map(|track| self.badness_of(track, now_ms))
            .fold(0.0, f64::max)
    }

    /// The worst of the signals that can have brought about the present state.
    fn worst(&self, now_ms: u64) -> Option<&Track> {
        let badness = |track: &&Track| self.badness_of(track, now_ms);
        let by_badness = |a: &&Track, b: &&Track| badness(a).total_cmp(&badness(b));
        let bearing = self
            .tracks
            .iter()
            .filter(|track| track.signal.cap >= self.state);
        // Of equals the first listed, so that the name does not flicker.
        bearing.rev().max_by(by_badness)
    }

    /// Whether good samples are overdue: then nothing may be taken for better.
    fn is_missing(&self, track: &Track, now_ms: u64) -> bool {
        let overdue_ms = LOST_SAMPLES.saturating_mul(track.signal.every_ms);
        track.age_ms(now_ms) > self.tuning.timing.overdue_ms.max(overdue_ms)
    }

    /// Badness as it counts now: a signal lost for long counts at least as elevated.
    fn badness_of(&self, track: &Track, now_ms: u64) -> f64 {
        let stale_ms = STALE_SAMPLES.saturating_mul(track.signal.every_ms);
        match track.age_ms(now_ms) > self.tuning.timing.stale_ms.max(stale_ms) {
            true => track
                .smoothed
                .max(self.tuning.states.entered_at(GateState::Elevated)),
            false => track.smoothed,
        }
    }

    fn enter(&mut self, now_ms: u64, to: GateState) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        self.entered_ms = now_ms;
        self.low_since_ms = None;
        self.by_load &= to > GateState::Ok;
        let worst = self.worst(now_ms);
        Transition {
            from,
            to,
            signal: worst.map_or("none", |track| track.signal.name),
            value: worst.and_then(|track| track.value),
            badness: self.badness(now_ms),
        }
    }
}

/// A resource at one moment, for `/health` and `explain`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GaugeSnapshot {
    /// The state as of the last tick, or as ordered.
    pub state: GateState,
    /// Milliseconds since it was entered.
    pub state_age_ms: u64,
    /// Badness of the worst signal, 0 to 1.
    pub badness: f64,
    /// Its name.
    pub worst: Option<&'static str>,
    /// All signals.
    pub signals: Vec<SignalSnapshot>,
    /// While the badness is low enough to leave the state: milliseconds until it is left, if nothing gets worse.
    pub hold_left_ms: Option<u64>,
    /// The order of an operator that makes the state what it is; none if it is as measured.
    pub forced: Option<Forced>,
}

impl GaugeSnapshot {
    /// Whether the state is another one than measured, by an operator's order.
    pub fn is_ordered(&self) -> bool {
        let forced = self.forced.as_ref();
        forced.is_some_and(|forced| forced.measured != Some(self.state))
    }

    /// The worst signal itself.
    pub fn worst_signal(&self) -> Option<&SignalSnapshot> {
        let worst = self.worst?;
        self.signals.iter().find(|signal| signal.name == worst)
    }
}

/// A signal at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SignalSnapshot {
    /// Its name.
    pub name: &'static str,
    /// Its last raw value; none if it could not be measured.
    pub value: Option<f64>,
    /// The raw value at which badness begins.
    pub lo: f64,
    /// The raw value at which badness is complete.
    pub hi: f64,
    /// The worst state it may bring about.
    pub cap: GateState,
    /// Its smoothed badness, 0 to 1, as it counts now.
    pub badness: f64,
    /// Whether good samples are overdue.
    pub missing: bool,
    /// Milliseconds since its last good sample.
    pub age_ms: u64,
}

#[cfg(test)]
mod tests;
