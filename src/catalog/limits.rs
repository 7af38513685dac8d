//! How much of a kind may run, and whose turn it is: `[concurrency]`, `[rate]` and `fairness` of a definition.

use crate::config::duration;
use crate::job::{ArgSpec, ArgType, KeyExpr};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The highest limits that mean anything.
const MAX_LIMIT: usize = 1_000_000;
/// The longest time a rate may count over.
const MAX_PER: Duration = Duration::from_secs(30 * 86_400);
/// The highest rate, starts a second: finer times are not kept.
const MAX_A_SECOND: f64 = 10_000.0;

/// `[concurrency]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// At most this many at once across all daemons: of the kind, or of each key.
    #[serde(default)]
    pub limit: Option<usize>,
    /// What the limit tells jobs apart by.
    #[serde(default)]
    pub key: Option<String>,
    /// With a key: at most this many at once across all keys.
    #[serde(default)]
    pub total: Option<usize>,
    /// At most this many at once in one daemon.
    #[serde(default)]
    pub per_daemon: Option<usize>,
}

/// `[rate]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// At most this many starts per `per`, of the kind or of each key.
    pub limit: usize,
    /// The time the limit is for.
    #[serde(with = "duration")]
    pub per: Duration,
    /// How many may start at once after a pause; `limit` when absent.
    #[serde(default)]
    pub burst: Option<usize>,
    /// What the rate tells jobs apart by.
    #[serde(default)]
    pub key: Option<String>,
}

impl Rate {
    /// The time that each start uses up, ms.
    #[must_use]
    pub fn every_ms(&self) -> f64 {
        self.per.as_secs_f64() * 1_000.0 / self.limit.max(1) as f64
    }

    /// How many may start at once after a pause.
    #[must_use]
    pub fn burst(&self) -> usize {
        self.burst.unwrap_or(self.limit)
    }

    /// What is wrong with its numbers, each naming its field.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(check_count("rate.limit", Some(self.limit)));
        problems.extend(check_count("rate.burst", self.burst));
        if self.per < Duration::from_millis(1) || self.per > MAX_PER {
            let given = duration::format(self.per);
            problems.push(format!(
                "rate.per: \"{given}\" is not within \"1ms\" to \"30days\""
            ));
        } else if self.every_ms() * MAX_A_SECOND < 1_000.0 {
            problems.push(format!(
                "rate.limit: more than {MAX_A_SECOND} starts a second; leave the rate out, or lower it"
            ));
        }
        problems
    }
}

impl Concurrency {
    /// What is wrong with its numbers, each naming its field.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let counts = [
            ("concurrency.limit", self.limit),
            ("concurrency.total", self.total),
            ("concurrency.per_daemon", self.per_daemon),
        ];
        let counts = counts.into_iter();
        counts
            .filter_map(|(name, n)| check_count(name, n))
            .collect()
    }
}

fn check_count(name: &str, given: Option<usize>) -> Option<String> {
    match given? {
        0 => Some(format!(
            "{name}: 0 would never run; leave it out for no limit"
        )),
        n if n > MAX_LIMIT => Some(format!("{name}: {n} is more than {MAX_LIMIT}")),
        _ => None,
    }
}

/// The one expression by which jobs of a kind are told apart, if any of the three is given. Without `args`, only code
/// knows the arguments.
///
/// # Errors
/// Every problem: an expression that is none, of an argument that is not declared or can't be a key, or different ones.
pub(super) fn partition(
    concurrency: &Concurrency,
    rate: Option<&Rate>,
    fairness: Option<&str>,
    args: Option<&BTreeMap<String, ArgSpec>>,
) -> Result<Option<KeyExpr>, Vec<String>> {
    let mut problems = Vec::new();
    if concurrency.key.is_some() && concurrency.limit.is_none() {
        problems.push("concurrency.key: takes a limit for each key beside it".to_owned());
    }
    if concurrency.total.is_some() && concurrency.key.is_none() {
        problems.push(
            "concurrency.total: takes a key; without one, limit counts the whole kind".to_owned(),
        );
    }
    let given = [
        ("concurrency.key", concurrency.key.as_deref()),
        ("rate.key", rate.and_then(|r| r.key.as_deref())),
        ("fairness", fairness),
    ];
    let mut first: Option<(&str, KeyExpr)> = None;
    for (field, text) in given {
        let Some(text) = text else { continue };
        match parse(text, args) {
            Err(e) => problems.push(format!("{field}: {e}")),
            Ok(expr) => match &first {
                Some((named, one)) if *one != expr => problems.push(format!(
                    "{field}: {text:?} is not the same as {named}; jobs of a kind are told apart by one thing"
                )),
                Some(_) => {}
                None => first = Some((field, expr)),
            },
        }
    }
    if problems.is_empty() {
        Ok(first.map(|(_, expr)| expr))
    } else {
        Err(problems)
    }
}

fn parse(text: &str, args: Option<&BTreeMap<String, ArgSpec>>) -> Result<KeyExpr, String> {
    let expr: KeyExpr = text.parse()?;
    let Some(args) = args else { return Ok(expr) };
    let name = expr.argument();
    let Some(spec) = args.get(name) else {
        return Err(format!("[args] declares no {name:?}"));
    };
    let fits = match spec.ty {
        ArgType::String | ArgType::Integer | ArgType::Boolean => !expr.is_deep(),
        ArgType::Object => expr.is_deep(),
        ArgType::Number | ArgType::Array => false,
    };
    if fits {
        Ok(expr)
    } else {
        Err(format!(
            "{text:?} must lead to a string, an integer or a boolean"
        ))
    }
}
