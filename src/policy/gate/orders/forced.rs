//! What an order makes of a measured state.

use serde::Serialize;

use super::super::{GateState, GaugeSnapshot, Thresholds};
use super::{Order, Will};

/// That the state of a resource is not the measured one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forced {
    /// What was ordered.
    pub order: Will,
    /// The state that was measured; none if nobody probes the resource.
    pub measured: Option<GateState>,
    /// When the order ends, unix ms by the server's clock.
    pub until: u64,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Order {
    /// What this order makes of a resource as it was measured; of one that nobody probes, if none is given. None if the
    /// order is not about a state. `now_ms` is unix ms, as of the order.
    pub fn applied(
        &self,
        measured: Option<&GaugeSnapshot>,
        states: &Thresholds,
        now_ms: u64,
    ) -> Option<GaugeSnapshot> {
        let calm = GaugeSnapshot {
            state: GateState::Ok,
            state_age_ms: now_ms.saturating_sub(self.at),
            badness: 0.0,
            worst: None,
            signals: Vec::new(),
            hold_left_ms: None,
            forced: None,
        };
        let found = measured.unwrap_or(&calm);
        let (state, badness) = match self.order {
            Will::AtLeast(least) => (
                found.state.max(least),
                found.badness.max(states.entered_at(least)),
            ),
            Will::AtMost(most) => (
                found.state.min(most),
                found.badness.min(states.entered_at(most)),
            ),
            Will::Open | Will::Disabled | Will::MetricsOnly | Will::Limit(_) => return None,
        };
        Some(GaugeSnapshot {
            state,
            state_age_ms: match state == found.state {
                true => found.state_age_ms,
                false => now_ms.saturating_sub(self.at),
            },
            badness,
            worst: found.worst,
            signals: found.signals.clone(),
            hold_left_ms: found.hold_left_ms,
            forced: Some(Forced {
                order: self.order,
                measured: measured.map(|snapshot| snapshot.state),
                until: self.until,
                by: self.by.clone(),
                why: self.why.clone(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::tests::rules;
    use super::super::tests::order;
    use super::*;
    use GateState::{Critical, Ok as Well, Overloaded};

    fn measured(state: GateState, badness: f64) -> GaugeSnapshot {
        GaugeSnapshot {
            state,
            state_age_ms: 60_000,
            badness,
            worst: None,
            signals: Vec::new(),
            hold_left_ms: None,
            forced: None,
        }
    }

    #[test]
    fn at_least_never_hides_what_is_worse_and_at_most_always_does() {
        let states = rules().states;
        let least = order("db:x", Will::AtLeast(Overloaded), 9_000);
        let state = |order: &Order, measured: Option<&GaugeSnapshot>| {
            order
                .applied(measured, &states, 2_000)
                .map(|s| (s.state, s.badness))
        };
        assert_eq!(
            state(&least, Some(&measured(Well, 0.1))),
            Some((Overloaded, 0.8))
        );
        assert_eq!(
            state(&least, Some(&measured(Critical, 0.97))),
            Some((Critical, 0.97))
        );
        assert_eq!(state(&least, None), Some((Overloaded, 0.8)));
        let most = order("db:x", Will::AtMost(Well), 9_000);
        assert_eq!(
            state(&most, Some(&measured(Critical, 1.0))),
            Some((Well, 0.0))
        );
        let forced = most.applied(Some(&measured(Critical, 1.0)), &states, 2_000);
        let forced = forced.and_then(|s| s.forced);
        assert_eq!(forced.map(|f| f.measured), Some(Some(Critical)));
        let unprobed = least.applied(None, &states, 2_000);
        assert_eq!(unprobed.map(|s| s.state_age_ms), Some(1_000));
        assert_eq!(state(&order("a@db:x", Will::Open, 9_000), None), None);
    }
}
