//! The flags that tie a job to others: unique, debounce, what follows, a group, its result.

use super::super::CliError;
use super::read_text;
use crate::config::duration;
use clap::ValueEnum;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Flags of `tidegate enqueue` about other jobs. Whether they fit together is the envelope's to say.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Other jobs")]
pub struct TieArgs {
    /// At most one job of the kind with this key
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// At most one job of the kind with the same values of these arguments, like to,subject
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "unique_key"
    )]
    unique_args: Option<Vec<String>>,
    /// Until when that holds [default: finished]
    #[arg(long, value_name = "WHEN")]
    unique_until: Option<UntilArg>,
    /// After this time it holds no more
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    unique_ttl: Option<Duration>,
    /// What becomes of this job if there is one already [default: skip]
    #[arg(long, value_name = "WHAT")]
    on_conflict: Option<ConflictArg>,
    /// Of several jobs with this key that follow each other closely, the last one runs
    #[arg(long, value_name = "KEY", requires = "debounce_wait")]
    debounce_key: Option<String>,
    /// It runs after this time without another one
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "debounce_key")]
    debounce_wait: Option<Duration>,
    /// But at the latest this long after the first one
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "debounce_key")]
    debounce_max_wait: Option<Duration>,
    /// The envelope of what follows when it is done, as JSON or @FILE; again for the step after that
    #[arg(long, value_name = "JSON")]
    then: Vec<String>,
    /// The group it is a member of
    #[arg(long, value_name = "ID", requires = "group_size")]
    group: Option<String>,
    /// How many members the group has in all
    #[arg(long, value_name = "N", requires = "group")]
    group_size: Option<u32>,
    /// The envelope of what follows the group, as JSON or @FILE: one member must bring it
    #[arg(long, value_name = "JSON", requires = "group")]
    group_then: Option<String>,
    /// Let that follow even if members failed
    #[arg(long, requires = "group")]
    group_always: bool,
    /// Keep its result for this time
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    result_ttl: Option<Duration>,
}

/// `--unique-until`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UntilArg {
    /// A daemon has taken it
    Claimed,
    /// It has ended
    Finished,
    /// The time of --unique-ttl is over, even if it is done before
    Ttl,
}

/// `--on-conflict`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConflictArg {
    /// It is dropped
    Skip,
    /// The waiting one takes its arguments, time and priority
    Replace,
    /// The waiting one takes its arguments in: arrays are united
    Merge,
}

impl TieArgs {
    /// The fields of the envelope that these flags make. `waits_for`: how long the result must be kept at least.
    pub(super) fn fields(
        &self,
        waits_for: Option<Duration>,
    ) -> Result<Map<String, Value>, CliError> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("unique", self.unique());
        set("debounce", self.debounce());
        set("then", chain(&self.then)?);
        set("group", self.group()?);
        let ttl = self.result_ttl.max(waits_for).map(millis);
        set("result_ttl_ms", ttl.map(Value::from));
        Ok(fields)
    }

    fn unique(&self) -> Option<Value> {
        let word = |arg: &dyn std::fmt::Debug| Value::from(format!("{arg:?}").to_lowercase());
        let mut rule = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            rule.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("key", self.unique_key.as_deref().map(Value::from));
        set("args", self.unique_args.as_ref().map(|names| json!(names)));
        set("until", self.unique_until.as_ref().map(|until| word(until)));
        set("ttl_ms", self.unique_ttl.map(|ttl| millis(ttl).into()));
        set(
            "on_conflict",
            self.on_conflict.as_ref().map(|what| word(what)),
        );
        (!rule.is_empty()).then_some(Value::Object(rule))
    }

    fn debounce(&self) -> Option<Value> {
        let mut rule = json!({"key": self.debounce_key.as_deref()?});
        if let Some(wait) = self.debounce_wait {
            rule["wait_ms"] = millis(wait).into();
        }
        if let Some(most) = self.debounce_max_wait {
            rule["max_wait_ms"] = millis(most).into();
        }
        Some(rule)
    }

    fn group(&self) -> Result<Option<Value>, CliError> {
        let Some(id) = &self.group else {
            return Ok(None);
        };
        let mut group = json!({"id": id, "size": self.group_size});
        if let Some(then) = &self.group_then {
            group["then"] = envelope("--group-then", then)?;
        }
        if self.group_always {
            group["when"] = "always".into();
        }
        Ok(Some(group))
    }

    /// The lock by which the enqueue script can tell a second one at once: that of a plain key whose second job is
    /// skipped.
    pub(super) fn lock(&self, kind: &str) -> String {
        let skips = matches!(self.on_conflict, None | Some(ConflictArg::Skip));
        match &self.unique_key {
            Some(key) if skips => format!("{kind}:{key}"),
            _ => String::new(),
        }
    }
}

/// Several steps, each following the one before.
fn chain(steps: &[String]) -> Result<Option<Value>, CliError> {
    let mut next = None;
    for step in steps.iter().rev() {
        let mut step = envelope("--then", step)?;
        if let Some(next) = next {
            if step.get("then").is_some() {
                let message =
                    "--then: give the next step in the envelope or with another --then, not both";
                return Err(CliError::Usage(message.to_owned()));
            }
            step["then"] = next;
        }
        next = Some(step);
    }
    Ok(next)
}

/// An envelope from the command line: an object, the rest is judged with the whole.
fn envelope(flag: &str, given: &str) -> Result<Value, CliError> {
    let text = read_text(flag, given)?;
    let usage = |message: String| CliError::Usage(format!("{flag}: {message}"));
    // Parsed as raw text first, so that what is no JSON is told as such.
    let raw: Box<RawValue> =
        serde_json::from_str(&text).map_err(|e| usage(format!("not JSON: {e}")))?;
    match serde_json::from_str(raw.get()) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        _ => Err(usage(
            "must be an envelope like {\"kind\":\"mail.report\"}".to_owned(),
        )),
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
