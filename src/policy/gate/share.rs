//! How many slots a priority class keeps in each state.

use super::GateState;
use crate::job::Priority;

/// The share of the slots that jobs of `class` may use, 0 to 1. Zero means: claim none.
pub const fn share(class: Priority, state: GateState) -> f64 {
    match (state, class) {
        (GateState::Ok, _) => 1.0,

        (GateState::Elevated, Priority::Low) => 0.75,
        (GateState::Elevated, Priority::Bulk) => 0.5,
        (GateState::Elevated, _) => 1.0,

        (GateState::Overloaded, Priority::Critical) => 1.0,
        (GateState::Overloaded, Priority::High) => 0.75,
        (GateState::Overloaded, Priority::Normal) => 0.5,
        (GateState::Overloaded, Priority::Low) => 0.25,
        (GateState::Overloaded, Priority::Bulk) => 0.0,

        (GateState::Critical, Priority::Critical) => 0.2,
        (GateState::Critical, _) => 0.0,
    }
}

/// How many of `slots` jobs of `class` may use: the share, rounded down.
///
/// A share above zero gives at least one slot, for every class: slowed is not stopped, and a queue
/// of one slot must not starve its `low` jobs because something is strained. `critical` has a
/// share in every state and so always keeps one; in `Critical` its floor of 20% is rounded up.
pub fn class_limit(slots: usize, class: Priority, state: GateState) -> usize {
    // In twentieths, exactly: every share of the table is a whole number of them.
    let twentieths = (share(class, state) * 20.0).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 20
    let parts = slots.saturating_mul(twentieths as usize);
    match (class, state) {
        _ if parts == 0 => 0,
        (Priority::Critical, GateState::Critical) => parts.div_ceil(20),
        _ => (parts / 20).max(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Priority::{Bulk, Critical, High, Low, Normal};

    #[test]
    fn limits_of_twenty_slots() {
        let row = |state| Priority::ALL.map(|class| class_limit(20, class, state));
        assert_eq!(row(GateState::Ok), [20, 20, 20, 20, 20]);
        assert_eq!(row(GateState::Elevated), [20, 20, 20, 15, 10]);
        assert_eq!(row(GateState::Overloaded), [20, 15, 10, 5, 0]);
        assert_eq!(row(GateState::Critical), [4, 0, 0, 0, 0]);
    }

    #[test]
    fn few_slots_are_slowed_but_not_stopped() {
        assert_eq!(class_limit(1, Bulk, GateState::Elevated), 1);
        assert_eq!(class_limit(3, Low, GateState::Overloaded), 1);
        assert_eq!(class_limit(3, High, GateState::Overloaded), 2);
        assert_eq!(class_limit(5, Normal, GateState::Overloaded), 2);
        assert_eq!(class_limit(1, Critical, GateState::Critical), 1);
        assert_eq!(class_limit(6, Critical, GateState::Critical), 2);
        assert_eq!(class_limit(0, Critical, GateState::Ok), 0);
    }

    proptest! {
        #[test]
        fn never_more_in_a_worse_state_or_for_a_lower_class(slots in 1_usize..100_000) {
            for state in GateState::ALL {
                let limits = Priority::ALL.map(|class| class_limit(slots, class, state));
                prop_assert!(limits.is_sorted_by(|higher, lower| higher >= lower));
                prop_assert!(limits[0] >= 1 && limits[0] <= slots);
            }
            for class in Priority::ALL {
                let limits = GateState::ALL.map(|state| class_limit(slots, class, state));
                prop_assert!(limits.is_sorted_by(|better, worse| better >= worse));
            }
        }
    }
}
