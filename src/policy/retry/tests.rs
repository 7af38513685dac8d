#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::{Strategy, *};

fn policy(toml: &str) -> RetryPolicy {
    let policy: RetryPolicy = toml::from_str(toml).unwrap();
    policy.validate().unwrap();
    policy
}

fn waits(policy: &RetryPolicy) -> Vec<u128> {
    (1..=5)
        .map(|attempt| policy.delay(attempt, 0.5).as_millis())
        .collect()
}

#[test]
fn the_whole_section_is_read() {
    let policy = policy(
        r#"max_attempts = 5
           strategy = "exponential"
           base = "1s"
           factor = 2.0
           max = "10m"
           jitter = "equal"
           retry_on = ["timeout", "^5\\d\\d "]
           fatal_on = ["no such table"]"#,
    );
    assert_eq!(policy.max_attempts, 5);
    assert_eq!(policy.max, Duration::from_secs(600));
    assert_eq!(policy.jitter, Jitter::Equal);
    assert_eq!(policy.retry_on.unwrap().len(), 2);
}

#[test]
fn an_empty_section_is_the_default_and_valid() {
    let empty = policy("");
    assert_eq!(
        format!("{empty:?}"),
        format!("{:?}", RetryPolicy::default())
    );
    assert_eq!(empty.max_attempts, 20);
    assert_eq!(empty.strategy, Strategy::Exponential);
}

#[test]
fn each_strategy_has_its_formula() {
    let none = "jitter = 'none'\nbase = '1s'\nmax = '5s'\n";
    let of = |line: &str| waits(&policy(&format!("{none}{line}")));
    assert_eq!(of("factor = 2.0"), [1_000, 2_000, 4_000, 5_000, 5_000]);
    assert_eq!(
        of("strategy = 'linear'"),
        [1_000, 2_000, 3_000, 4_000, 5_000]
    );
    assert_eq!(of("strategy = 'fixed'"), [1_000; 5]);
    let listed = "strategy = 'delays'\ndelays = ['10ms', '2s', '1s']";
    assert_eq!(of(listed), [10, 2_000, 1_000, 1_000, 1_000]);
}

#[test]
fn jitter_spreads_as_named() {
    let at = |jitter: &str, unit| {
        policy(&format!("base = '1s'\njitter = '{jitter}'"))
            .delay(1, unit)
            .as_millis()
    };
    assert_eq!([at("full", 0.0), at("full", 0.25)], [0, 250]);
    assert_eq!([at("equal", 0.0), at("equal", 0.5)], [500, 750]);
    assert_eq!([at("none", 0.0), at("none", 0.9)], [1_000, 1_000]);
}

#[test]
fn ranges_are_checked_and_every_bad_field_is_named() {
    let errors = |toml: &str| {
        toml::from_str::<RetryPolicy>(toml)
            .unwrap()
            .validate()
            .unwrap_err()
    };
    let bad = [
        ("max_attempts = 0", "max_attempts:"),
        ("max_attempts = 1001", "max_attempts:"),
        ("base = '0s'", "base:"),
        ("base = '25h'\nmax = '2days'", "base:"),
        ("factor = 0.9", "factor:"),
        ("factor = 101.0", "factor:"),
        ("factor = nan", "factor:"),
        ("max = '366days'", "max:"),
        ("base = '1m'\nmax = '59s'", "max:"),
        ("delays = ['1s']", "delays:"),
        ("strategy = 'delays'", "delays:"),
        ("strategy = 'delays'\ndelays = ['5h']", "delays:"),
    ];
    for (toml, field) in bad {
        let errors = errors(toml);
        assert!(
            errors.len() == 1 && errors[0].starts_with(field),
            "{toml}: {errors:?}"
        );
    }
    assert_eq!(errors("max_attempts = 0\nfactor = 0.5").len(), 2);
}

#[test]
fn a_bad_form_is_refused_when_read() {
    let bad = [
        ("retry_on = ['ok', 'a(']", "retry_on: \"a(\""),
        ("fatal_on = ['[']", "fatal_on: \"[\""),
        ("tries = 3", "tries"),
        ("strategy = 'cubic'", "cubic"),
        ("base = 3", "base"),
        ("max_attempts = -1", "max_attempts"),
    ];
    for (toml, named) in bad {
        let error = toml::from_str::<RetryPolicy>(toml).unwrap_err().to_string();
        assert!(error.contains(named), "{toml}: {error}");
    }
    let many = format!("fatal_on = [{}]", "'x',".repeat(101));
    assert!(toml::from_str::<RetryPolicy>(&many).is_err());
}

#[test]
fn errors_decide_before_attempts_do() {
    let policy = policy(
        "max_attempts = 3\nbase = '1s'\njitter = 'none'\n\
         retry_on = ['timeout', 'refused']\nfatal_on = ['(?i)poison']",
    );
    let decide = |attempt, own, error| policy.decide(attempt, own, error, None, 0.0);
    let dead = |decision: Decision| match decision {
        Decision::Dead { reason } => reason,
        Decision::RetryIn(_) => String::new(),
    };
    let again = Decision::RetryIn(Duration::from_secs(1));

    assert_eq!(decide(1, None, "connect: refused"), again);
    assert!(dead(decide(1, None, "timeout: POISON")).contains("fatal_on \"(?i)poison\""));
    assert!(dead(decide(1, None, "syntax error")).contains("retry_on"));
    assert_eq!(dead(decide(3, None, "timeout")), "attempt 3 of 3 failed");
    assert_eq!(
        decide(3, Some(9), "timeout"),
        Decision::RetryIn(Duration::from_secs(4))
    );
    assert_eq!(dead(decide(1, Some(1), "timeout")), "attempt 1 of 1 failed");
}

#[test]
fn an_empty_retry_on_retries_nothing() {
    let decision = policy("retry_on = []").decide(1, None, "timeout", None, 0.5);
    assert!(matches!(decision, Decision::Dead { .. }));
}

#[test]
fn a_handler_may_ask_for_its_own_wait_within_bounds() {
    let policy = policy("base = '1s'\nmax = '10s'");
    let ask = |secs| policy.decide(1, None, "", Some(Duration::from_secs(secs)), 0.5);
    assert_eq!(ask(3_600), Decision::RetryIn(Duration::from_secs(3_600)));
    assert_eq!(ask(u64::MAX), Decision::RetryIn(MAX_ASKED_DELAY));
}

proptest! {
    #[test]
    fn no_wait_exceeds_max_and_none_panics(
        base_ms in 0_u64..=u64::MAX, factor in prop::num::f64::ANY, max_ms in 0_u64..=u64::MAX,
        attempt in prop::num::u32::ANY, unit in prop::num::f64::ANY,
        strategy in 0..4_usize, jitter in 0..3_usize,
    ) {
        let policy = RetryPolicy {
            strategy: [Strategy::Exponential, Strategy::Linear, Strategy::Fixed, Strategy::Delays][strategy],
            jitter: [Jitter::Full, Jitter::Equal, Jitter::None][jitter],
            base: Duration::from_millis(base_ms),
            max: Duration::from_millis(max_ms),
            factor,
            ..RetryPolicy::default()
        };
        prop_assert!(policy.delay(attempt, unit) <= policy.max);
    }

    #[test]
    fn waits_never_shrink_with_attempts(factor in 1.0_f64..100.0, attempt in 1_u32..2_000) {
        let policy = RetryPolicy { factor, jitter: Jitter::None, ..RetryPolicy::default() };
        prop_assert!(policy.delay(attempt, 0.0) <= policy.delay(attempt + 1, 0.0));
    }
}
