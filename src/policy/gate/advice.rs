//! What a job that works in batches is told between two of them.
//!
//! Its class has a share of the slots, and a long job holds one for hours: so it keeps to the share in time. One whose
//! class has none left ends at its batch and goes on later. Must not know who asks.

use std::time::Duration;

use super::GateState;
use crate::job::Priority;

/// What a job should do at the boundary of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// Go on at once.
    Go,
    /// Rest, so that the time spent working is this share of all time: more than 0, less than 1.
    Slow(f64),
    /// End here, and go on in a later delivery; why.
    Yield(String),
}

impl Advice {
    /// What a job of `class` is told in `state`, which leaves this share to it; `what` names what is in that state.
    #[must_use]
    pub fn of(share: f64, class: Priority, state: GateState, what: &str) -> Self {
        match share {
            share if share >= 1.0 => Self::Go,
            share if share > 0.0 => Self::Slow(share),
            _ => Self::Yield(format!("{what} is {state}: {class} jobs wait")),
        }
    }

    /// How long to rest after a batch that took `worked`. Nothing unless slowed.
    #[must_use]
    pub fn rest(&self, worked: Duration) -> Duration {
        match self {
            Self::Slow(share) if *share > 0.0 && *share < 1.0 => {
                Duration::try_from_secs_f64(worked.as_secs_f64() * (1.0 / share - 1.0))
                    .unwrap_or(Duration::MAX)
            }
            Self::Slow(_) | Self::Go | Self::Yield(_) => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::rules;
    use super::*;

    #[test]
    fn a_job_keeps_to_the_share_of_its_class() {
        let shares = rules().shares;
        let of =
            |class, state| Advice::of(shares.of(class, state), class, state, "postgres:primary");
        assert_eq!(of(Priority::Bulk, GateState::Ok), Advice::Go);
        assert_eq!(of(Priority::Critical, GateState::Overloaded), Advice::Go);
        assert_eq!(of(Priority::Bulk, GateState::Elevated), Advice::Slow(0.5));
        let slow = of(Priority::Low, GateState::Overloaded);
        assert_eq!(
            slow.rest(Duration::from_millis(300)),
            Duration::from_millis(900)
        );
        let ended = of(Priority::Bulk, GateState::Overloaded);
        assert_eq!(ended.rest(Duration::from_secs(1)), Duration::ZERO);
        let Advice::Yield(why) = ended else {
            unreachable!("bulk has no share")
        };
        assert_eq!(why, "postgres:primary is overloaded: bulk jobs wait");
    }

    #[test]
    fn who_has_no_slot_yields_and_nobody_else() {
        let shares = rules().shares;
        for state in GateState::ALL {
            for class in Priority::ALL {
                let advice = Advice::of(shares.of(class, state), class, state, "x");
                let yields = matches!(advice, Advice::Yield(_));
                assert_eq!(yields, shares.limit(100, class, state) == 0);
            }
        }
    }
}
