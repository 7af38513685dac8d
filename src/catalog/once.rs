//! `[unique]` and `[debounce]`: which jobs of a kind must not stand beside each other.

use crate::config::duration;
use crate::job::ties::{Debounce, OnConflict, Unique, Until};
use crate::job::{ArgSpec, KeyExpr};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// `[unique]`, checked.
#[derive(Debug, Clone)]
pub struct UniqueSpec {
    /// The value that makes up the key; none: `rule.args` do.
    pub key: Option<KeyExpr>,
    /// The rest of it, as in an envelope.
    pub rule: Unique,
}

/// `[debounce]`, checked.
#[derive(Debug, Clone)]
pub struct DebounceSpec {
    /// The value that makes up the key.
    pub key: KeyExpr,
    /// Runs after this long without another one, ms.
    pub wait_ms: u64,
    /// But at the latest this long after the first one, ms.
    pub max_wait_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUnique {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    until: Until,
    #[serde(default, with = "duration::option")]
    ttl: Option<Duration>,
    #[serde(default)]
    on_conflict: OnConflict,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDebounce {
    key: String,
    #[serde(with = "duration")]
    wait: Duration,
    #[serde(default, with = "duration::option")]
    max_wait: Option<Duration>,
}

impl RawUnique {
    /// # Errors
    /// Names the field that can't work.
    pub(super) fn parse(self, args: &BTreeMap<String, ArgSpec>) -> Result<UniqueSpec, String> {
        let key = self.key.map(|text| expression(&text, args)).transpose();
        let key = key.map_err(|e| format!("unique.key: {e}"))?;
        if key.is_some() && self.args.is_some() {
            return Err("unique: give key or args, not both".to_owned());
        }
        for name in self.args.iter().flatten() {
            known(name, args).map_err(|e| format!("unique.args: {e}"))?;
        }
        let rule = Unique {
            key: None,
            args: self.args,
            until: self.until,
            ttl_ms: self.ttl.map(millis),
            on_conflict: self.on_conflict,
        };
        rule.check_rule().map_err(|e| format!("unique: {e}"))?;
        Ok(UniqueSpec { key, rule })
    }
}

impl RawDebounce {
    /// # Errors
    /// Names the field that can't work.
    pub(super) fn parse(self, args: &BTreeMap<String, ArgSpec>) -> Result<DebounceSpec, String> {
        let key = expression(&self.key, args).map_err(|e| format!("debounce.key: {e}"))?;
        let rule = Debounce {
            key: String::new(),
            wait_ms: millis(self.wait),
            max_wait_ms: self.max_wait.map(millis),
        };
        rule.check_rule().map_err(|e| format!("debounce: {e}"))?;
        Ok(DebounceSpec {
            key,
            wait_ms: rule.wait_ms,
            max_wait_ms: rule.max_wait_ms,
        })
    }
}

fn expression(text: &str, args: &BTreeMap<String, ArgSpec>) -> Result<KeyExpr, String> {
    let key: KeyExpr = text.parse()?;
    known(key.argument(), args)?;
    Ok(key)
}

fn known(name: &str, args: &BTreeMap<String, ArgSpec>) -> Result<(), String> {
    if args.contains_key(name) {
        return Ok(());
    }
    Err(format!("args.{name} is not declared in [args]"))
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Deserialize)]
    struct Sections {
        unique: Option<RawUnique>,
        debounce: Option<RawDebounce>,
    }

    fn fault(text: &str) -> String {
        let args =
            toml::from_str("to = { type = \"integer\" }\nhow = { type = \"object\" }").unwrap();
        let sections: Sections = match toml::from_str(text) {
            Ok(sections) => sections,
            Err(e) => return e.to_string(),
        };
        let unique = sections.unique.and_then(|raw| raw.parse(&args).err());
        let debounce = sections.debounce.and_then(|raw| raw.parse(&args).err());
        unique.or(debounce).unwrap_or_default()
    }

    #[test]
    fn what_can_not_work_is_refused_by_its_field() {
        for (text, told) in [
            (
                "[unique]\nkey = \"args.from\"",
                "unique.key: args.from is not declared",
            ),
            (
                "[unique]\nkey = \"to\"",
                "unique.key: \"to\" must be args.<name>",
            ),
            ("[unique]\nargs = [\"from\"]", "unique.args: args.from"),
            ("[unique]\nargs = [\"to\"]\nkey = \"args.to\"", "not both"),
            (
                "[unique]\non_conflict = \"merge\"",
                "needs until = \"claimed\"",
            ),
            ("[unique]\nuntil = \"ttl\"", "needs a ttl"),
            ("[unique]\nttl = \"0s\"", "ttl must be"),
            ("[unique]\nuntl = \"ttl\"", "untl"),
            ("[debounce]\nkey = \"args.to\"", "wait"),
            (
                "[debounce]\nkey = \"args.from\"\nwait = \"1s\"",
                "debounce.key: args.from",
            ),
            (
                "[debounce]\nkey = \"args.to\"\nwait = \"2d\"",
                "debounce: wait must be",
            ),
            (
                "[debounce]\nkey = \"args.to\"\nwait = \"2s\"\nmax_wait = \"1s\"",
                "max_wait",
            ),
        ] {
            let error = fault(text);
            assert!(error.contains(told), "{text}: {error:?} lacks {told:?}");
        }
    }

    #[test]
    fn what_can_work_is_taken() {
        for text in [
            "[unique]",
            "[unique]\nargs = []",
            "[unique]\nargs = [\"to\"]\nuntil = \"claimed\"\non_conflict = \"merge\"\nttl = \"1h\"",
            "[unique]\nkey = \"args.how.much\"\nuntil = \"ttl\"\nttl = \"1d\"",
            "[debounce]\nkey = \"args.to\"\nwait = \"2s\"\nmax_wait = \"1m\"",
        ] {
            assert_eq!(fault(text), "", "{text}");
        }
    }
}
