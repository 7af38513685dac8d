//! How many slots a priority class may use now, and what holds it back.

use serde::Serialize;

use super::HealthView;
use crate::job::Priority;
use crate::policy::gate::{GateMode, GateState, Rules, Thresholds};

/// Stands for a signal where an operator's order makes the state what it is.
const ORDERED: &str = "order";

/// Why a class may not use all slots, for `explain`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reason {
    /// The resource that fares worst.
    pub resource: String,
    /// Its worst signal; `order` if an operator ordered the state.
    pub signal: &'static str,
    /// The signal's last value, in the unit its name ends in; none if it could not be measured.
    pub value: Option<f64>,
    /// The value that brings the state about. A state outlasts its cause, so `value` may be better again. 0 for an order.
    pub limit: f64,
    /// The state of the resource.
    pub state: GateState,
}

/// How many of `total` slots jobs of class `priority` that declare `resources` may use.
///
/// The reason is there whenever health would hold some slots back, also when the mode is `shadow` and none is; when it is
/// `off`, there is never one.
pub fn slots_for<R: AsRef<str>>(
    view: &HealthView,
    priority: Priority,
    resources: &[R],
    total: usize,
    rules: &Rules,
) -> (usize, Option<Reason>) {
    let (state, _) = view.state_of(resources);
    let limit = |state| rules.shares.limit(total, priority, state);
    let held_back = rules.mode != GateMode::Off && limit(state) < total;
    let reason = held_back.then(|| reason(view, resources, &rules.states));
    (limit(rules.mode.heeded(state)), reason.flatten())
}

fn reason<R: AsRef<str>>(
    view: &HealthView,
    resources: &[R],
    states: &Thresholds,
) -> Option<Reason> {
    let (resource, view) = view.worst_for(resources)?;
    if view.is_ordered() {
        return Some(Reason {
            resource: resource.to_owned(),
            signal: ORDERED,
            value: None,
            limit: 0.0,
            state: view.state,
        });
    }
    let signal = view.worst_signal()?;
    Some(Reason {
        resource: resource.to_owned(),
        signal: signal.name,
        value: signal.value,
        limit: signal.lo + states.entered_at(view.state) * (signal.hi - signal.lo),
        state: view.state,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::view::tests::view;
    use super::*;
    use crate::config::{Sources, load};
    use GateState::{Critical, Elevated, Ok, Overloaded};

    const NONE: [&str; 0] = [];

    fn rules(mode: GateMode) -> Rules {
        let config = load(&Sources::default()).unwrap();
        Rules {
            mode,
            ..Rules::from(&config.gate)
        }
    }

    #[test]
    fn what_holds_a_class_back_is_named_with_its_value_and_limit() {
        let view = view(&[
            ("postgres:primary", Overloaded, 0.9, 19.0),
            ("redis:main", Elevated, 0.5, 15.0),
        ]);
        let (slots, reason) = slots_for(
            &view,
            Priority::Normal,
            &["postgres:primary"],
            8,
            &rules(GateMode::On),
        );
        assert_eq!(slots, 4);
        assert_eq!(
            reason,
            Some(Reason {
                resource: "postgres:primary".to_owned(),
                signal: "wait_ms",
                value: Some(19.0),
                limit: 18.0,
                state: Overloaded,
            })
        );
        let (slots, reason) = slots_for(&view, Priority::Bulk, &NONE, 8, &rules(GateMode::On));
        assert_eq!(slots, 4);
        assert_eq!(reason.map(|reason| reason.limit), Some(15.0));
    }

    #[test]
    fn a_class_that_keeps_all_slots_needs_no_reason() {
        let view = view(&[("redis:main", Elevated, 0.5, 15.0)]);
        let all = slots_for(&view, Priority::High, &NONE, 8, &rules(GateMode::On));
        assert_eq!(all, (8, None));
        let nothing_known = slots_for(
            &HealthView::default(),
            Priority::Bulk,
            &NONE,
            8,
            &rules(GateMode::On),
        );
        assert_eq!(nothing_known, (8, None));
        // One slot is the whole of it and the share alike.
        assert_eq!(
            slots_for(&view, Priority::Low, &NONE, 1, &rules(GateMode::On)),
            (1, None)
        );
    }

    #[test]
    fn shadow_says_what_it_would_do_and_off_says_nothing() {
        let view = view(&[
            ("redis:main", Critical, 1.0, 99.0),
            ("memory", Ok, 0.0, 0.0),
        ]);
        let bulk = |mode| slots_for(&view, Priority::Bulk, &NONE, 8, &rules(mode));
        assert_eq!(bulk(GateMode::On).0, 0);
        let (slots, reason) = bulk(GateMode::Shadow);
        assert_eq!(slots, 8);
        assert_eq!(reason.map(|reason| reason.state), Some(Critical));
        assert_eq!(bulk(GateMode::Off), (8, None));
    }
}
