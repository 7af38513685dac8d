//! Properties the breaker keeps under any sequence of calls.

use proptest::prelude::*;

use super::tests::{FAILED, MIDDLE, OK, REFUSED, SLOW, breaker};
use super::*;

/// What may be done to a breaker, at some distance in time.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    Finish(usize, u8),
    Cancel(usize),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        Just(Step::Admit),
        (0..4_usize, 0..5_u8).prop_map(|(call, result)| Step::Finish(call, result)),
        (0..4_usize).prop_map(Step::Cancel),
    ];
    prop::collection::vec((0_u64..3_000, step), 0..400)
}

proptest! {
    /// Whatever happens: peek foretells admit, at most one trial is current, a transition's ends
    /// are the states before and after, and it never stays shut when nothing is running.
    #[test]
    fn holds_its_promises(steps in steps()) {
        let mut breaker = breaker();
        let (mut now, mut running) = (0_u64, Vec::new());
        for (wait, step) in steps {
            now += wait;
            let before = breaker.phase.state();
            let transition = match step {
                Step::Admit => {
                    let outlook = breaker.peek(now);
                    let (verdict, transition) = breaker.admit(now);
                    match (verdict, outlook) {
                        (Verdict::Allow { epoch, limit }, Outlook::Allow { limit: seen }) => {
                            prop_assert_eq!(limit, seen);
                            running.push(Permit { epoch, deadline_ms: u64::MAX });
                        }
                        (Verdict::Trial(permit), Outlook::Trial) => {
                            let overtakes = running.iter().any(|call: &Permit| {
                                call.epoch == permit.epoch
                            });
                            prop_assert!(!overtakes, "two trials in one epoch");
                            running.push(permit);
                        }
                        (Verdict::Refuse { retry_at_ms: a }, Outlook::Refuse { retry_at_ms: b }) => {
                            prop_assert!(a == b && a > now && a - now <= 360_000);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                    transition
                }
                Step::Finish(call, result) if call < running.len() => {
                    let result = [OK, SLOW, FAILED, REFUSED, CallResult::NotDependency][usize::from(result)];
                    breaker.record(now, running.swap_remove(call).epoch, result, MIDDLE)
                }
                Step::Cancel(call) if call < running.len() => {
                    breaker.release(running.swap_remove(call));
                    None
                }
                Step::Finish(..) | Step::Cancel(_) => None,
            };
            let after = breaker.phase.state();
            match transition {
                Some(transition) => prop_assert_eq!((transition.from, transition.to), (before, after)),
                None => prop_assert_eq!(before, after),
            }
        }
        let refused = matches!(breaker.peek(now + 360_000), Outlook::Refuse { .. });
        prop_assert!(!refused, "stuck");
    }
}
