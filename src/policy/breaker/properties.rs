//! Properties the breaker keeps under any sequence of calls.

use proptest::prelude::*;

use super::tests::{FAILED, MIDDLE, OK, REFUSED, SLOW, breaker};
use super::*;

const RESULTS: [CallResult; 5] = [OK, SLOW, FAILED, REFUSED, CallResult::NotDependency];

/// What may be done to a breaker, at some distance in time.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    Finish(usize, u8),
    Cancel(usize),
    /// A trial that is over is reported again.
    Again(usize, u8),
    /// Time does its part, while calls run or not.
    Tick(bool),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        Just(Step::Admit),
        (0..4_usize, 0..5_u8).prop_map(|(call, result)| Step::Finish(call, result)),
        (0..4_usize).prop_map(Step::Cancel),
        (0..4_usize, 0..5_u8).prop_map(|(call, result)| Step::Again(call, result)),
        any::<bool>().prop_map(Step::Tick),
    ];
    // Mostly in quick succession; now and then long enough for a trial to be given up.
    let wait = prop_oneof![9 => 0_u64..3_000, 1 => 0_u64..400_000];
    prop::collection::vec((wait, step), 0..400)
}

proptest! {
    /// Whatever happens: peek foretells admit, no trial begins beside one that has the field, a trial that is over says
    /// nothing more, a transition's ends are the states before and after, it never stays shut when nothing is running, and
    /// when no job needs it any more it is closed.
    #[test]
    fn holds_its_promises(steps in steps()) {
        let mut breaker = breaker();
        let (mut now, mut running, mut over) = (0_u64, Vec::<Permit>::new(), Vec::<Permit>::new());
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
                            let overtakes = running.iter().any(|call| {
                                let has_field = call.deadline_ms != u64::MAX && now < call.deadline_ms
                                    && breaker.trials.contains(call);
                                call.epoch == permit.epoch || has_field
                            });
                            prop_assert!(!overtakes, "two trials at once");
                            running.push(permit);
                        }
                        (Verdict::Refuse { retry_at_ms: a }, Outlook::Refuse { retry_at_ms: b }) => {
                            prop_assert!(a == b && a > now && a - now <= 480_000);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                    transition
                }
                Step::Finish(call, result) if call < running.len() => {
                    let result = RESULTS[usize::from(result)];
                    let ended = running.swap_remove(call);
                    over.extend((ended.deadline_ms != u64::MAX).then_some(ended));
                    breaker.record(now, ended.epoch, result, MIDDLE)
                }
                Step::Cancel(call) if call < running.len() => {
                    let ended = running.swap_remove(call);
                    over.extend((ended.deadline_ms != u64::MAX).then_some(ended));
                    breaker.release(ended);
                    None
                }
                Step::Again(call, result) if call < over.len() => {
                    let result = RESULTS[usize::from(result)];
                    let again = over[over.len() - 1 - call];
                    breaker.release(again);
                    let said = breaker.record(now, again.epoch, result, MIDDLE);
                    prop_assert_eq!(said, None, "it is over");
                    None
                }
                Step::Tick(busy) => breaker.tick(now, busy),
                Step::Finish(..) | Step::Cancel(_) | Step::Again(..) => None,
            };
            let after = breaker.phase.state();
            match transition {
                Some(transition) => prop_assert_eq!((transition.from, transition.to), (before, after)),
                None => prop_assert_eq!(before, after),
            }
        }
        let refused = matches!(breaker.peek(now + 480_000), Outlook::Refuse { .. });
        prop_assert!(!refused, "stuck");
        // The longest cool-down and the rest, and a step of the way back that time may pass.
        for at in (now..now + 700_000).step_by(1_000) {
            breaker.tick(at, false);
        }
        prop_assert_eq!(breaker.state(now + 700_000), State::Closed);
    }
}
