//! What the gate goes by: where states begin and end, and what each leaves to a priority class.

use super::GateState;
use crate::config::{GateConfig, GateMode, SharesConfig, StatesConfig};
use crate::job::Priority;
use serde::{Deserialize, Serialize};

/// `[gate]` as far as it decides. Daemons publish it in this form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Whether states are heeded.
    pub mode: GateMode,
    /// Where they begin and end.
    pub states: Thresholds,
    /// What they leave to each class.
    pub shares: Shares,
}

impl From<&GateConfig> for Rules {
    fn from(gate: &GateConfig) -> Self {
        Self {
            mode: gate.mode,
            states: Thresholds::from(&gate.states),
            shares: Shares::from(&gate.shares),
        }
    }
}

impl Rules {
    /// The share of the slots that jobs of `class` may use, as far as a state is heeded.
    #[must_use]
    pub const fn share(&self, class: Priority, measured: GateState) -> f64 {
        self.shares.of(class, self.mode.heeded(measured))
    }
}

/// The badness at which each state is entered, and at or below which it is left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thresholds(StatesConfig);

impl From<&StatesConfig> for Thresholds {
    fn from(states: &StatesConfig) -> Self {
        Self(*states)
    }
}

impl Thresholds {
    /// The badness at which a state is entered.
    #[must_use]
    pub const fn entered_at(&self, state: GateState) -> f64 {
        self.of(state)[0]
    }

    /// The badness at or below which it may be left.
    #[must_use]
    pub const fn left_at(&self, state: GateState) -> f64 {
        self.of(state)[1]
    }

    const fn of(&self, state: GateState) -> [f64; 2] {
        match state {
            GateState::Ok => [0.0; 2],
            GateState::Elevated => self.0.elevated,
            GateState::Overloaded => self.0.overloaded,
            GateState::Critical => self.0.critical,
        }
    }
}

/// What each state leaves to each class: a share of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares(SharesConfig);

impl From<&SharesConfig> for Shares {
    fn from(shares: &SharesConfig) -> Self {
        Self(*shares)
    }
}

/// What a product of a share and a number of slots may be short of a whole number by rounding alone.
const ROUNDING: f64 = 1e-6;

impl Shares {
    /// The share of the slots that jobs of `class` may use, 0 to 1. Zero means: claim none.
    #[must_use]
    pub const fn of(&self, class: Priority, state: GateState) -> f64 {
        let [elevated, overloaded, critical] = match class {
            Priority::Critical => self.0.critical,
            Priority::High => self.0.high,
            Priority::Normal => self.0.normal,
            Priority::Low => self.0.low,
            Priority::Bulk => self.0.bulk,
        };
        match state {
            GateState::Ok => 1.0,
            GateState::Elevated => elevated,
            GateState::Overloaded => overloaded,
            GateState::Critical => critical,
        }
    }

    /// How many of `slots` jobs of `class` may use: the share, rounded down.
    ///
    /// A share above zero gives at least one slot, for every class: slowed is not stopped, and a queue of one slot must
    /// not starve its `low` jobs because something is strained. `critical` has a share in every state and so always keeps
    /// one; in `Critical` it is rounded up, to no more than in `Overloaded`.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // 0 to the slots
    pub fn limit(&self, slots: usize, class: Priority, state: GateState) -> usize {
        let share = self.of(class, state);
        if share <= 0.0 || slots == 0 {
            return 0;
        }
        let exact = slots as f64 * share;
        let down = ((exact + ROUNDING).floor() as usize).max(1);
        match (class, state) {
            (Priority::Critical, GateState::Critical) => {
                let up = ((exact - ROUNDING).ceil() as usize).max(1);
                up.min(self.limit(slots, class, GateState::Overloaded))
            }
            _ => down,
        }
    }
}

#[cfg(test)]
pub(in crate::policy::gate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Sources, load};
    use Priority::{Bulk, Critical, High, Low, Normal};

    /// Those of the default configuration.
    pub(in crate::policy::gate) fn rules() -> Rules {
        Rules::from(&load(&Sources::default()).unwrap().gate)
    }

    #[test]
    fn limits_of_twenty_slots() {
        let shares = rules().shares;
        let row = |state| Priority::ALL.map(|class| shares.limit(20, class, state));
        assert_eq!(row(GateState::Ok), [20, 20, 20, 20, 20]);
        assert_eq!(row(GateState::Elevated), [20, 20, 20, 15, 10]);
        assert_eq!(row(GateState::Overloaded), [20, 15, 10, 5, 0]);
        assert_eq!(row(GateState::Critical), [4, 0, 0, 0, 0]);
    }

    #[test]
    fn few_slots_are_slowed_but_not_stopped() {
        let shares = rules().shares;
        assert_eq!(shares.limit(1, Bulk, GateState::Elevated), 1);
        assert_eq!(shares.limit(3, Low, GateState::Overloaded), 1);
        assert_eq!(shares.limit(3, High, GateState::Overloaded), 2);
        assert_eq!(shares.limit(5, Normal, GateState::Overloaded), 2);
        assert_eq!(shares.limit(1, Critical, GateState::Critical), 1);
        assert_eq!(shares.limit(5, Critical, GateState::Critical), 1);
        assert_eq!(shares.limit(6, Critical, GateState::Critical), 2);
        assert_eq!(shares.limit(0, Critical, GateState::Ok), 0);
    }

    #[test]
    fn they_are_published_as_they_are_configured() {
        let json = serde_json::to_value(rules()).unwrap();
        assert_eq!(json["states"]["critical"], serde_json::json!([0.95, 0.75]));
        assert_eq!(json["shares"]["bulk"], serde_json::json!([0.5, 0.0, 0.0]));
        assert_eq!(serde_json::from_value::<Rules>(json).unwrap(), rules());
    }

    #[test]
    fn only_mode_on_heeds_the_state() {
        let of = |mode| Rules { mode, ..rules() };
        let shares = [GateMode::On, GateMode::Shadow, GateMode::Off]
            .map(|mode| of(mode).share(Bulk, GateState::Critical));
        assert_eq!(shares, [0.0, 1.0, 1.0]);
    }

    proptest! {
        #[test]
        fn never_more_in_a_worse_state_or_for_a_lower_class(
            slots in 1_usize..100_000,
            table in prop::array::uniform5(prop::array::uniform3(0.001_f64..1.0)),
        ) {
            let mut table = table;
            // As the configuration has them: falling from class to class and from state to state.
            for class in 0..5 {
                for state in 0..3 {
                    let above = if class > 0 { table[class - 1][state] } else { 1.0 };
                    let before = if state > 0 { table[class][state - 1] } else { 1.0 };
                    table[class][state] = table[class][state].min(above).min(before);
                }
            }
            let [critical, high, normal, low, bulk] = table;
            let table = SharesConfig { critical, high, normal, low, bulk };
            for shares in [rules().shares, Shares(table)] {
                for state in GateState::ALL {
                    let limits = Priority::ALL.map(|class| shares.limit(slots, class, state));
                    prop_assert!(limits.is_sorted_by(|higher, lower| higher >= lower));
                    prop_assert!(limits[0] >= 1 && limits[0] <= slots);
                }
                for class in Priority::ALL {
                    let limits = GateState::ALL.map(|state| shares.limit(slots, class, state));
                    prop_assert!(limits.is_sorted_by(|better, worse| better >= worse));
                }
            }
        }
    }
}
