//! `[db.purge]` of a definition: what it may say, and its ranges.

use crate::catalog::{JobSpec, Problem};
use crate::config::{Config, duration};
use crate::db::purge::Purge;
use crate::db::{self, Ident, TableName};
use crate::policy::batch;
use regex::Regex;
use serde::Deserialize;
use std::collections::HashSet;
use std::time::Duration;

/// Fewest rows of a batch unless the definition says otherwise: below this the commits cost more than the rows.
const DEFAULT_MIN: u32 = 100;
/// Most rows of a batch unless the definition says otherwise; throughput is flat from about 20,000 on.
const DEFAULT_MAX: u32 = 50_000;
/// The most rows a definition may ask for in one batch.
const MOST_ROWS: u32 = 1_000_000;
/// Wait for a row lock unless the definition says otherwise.
const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// The statement timeout is at least this, and this many targets, unless the definition says otherwise.
const DEFAULT_STATEMENT_TIMEOUT: (Duration, u32) = (Duration::from_secs(5), 5);
/// The longest predicate, bytes.
const MAX_PREDICATE: usize = 16 * 1024;

/// `[db.purge]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    table: String,
    key: Vec<String>,
    r#where: String,
    #[serde(default)]
    params: Vec<String>,
    #[serde(default)]
    batch: BatchSection,
    #[serde(default, with = "duration::option")]
    lock_timeout: Option<Duration>,
    #[serde(default, with = "duration::option")]
    statement_timeout: Option<Duration>,
    #[serde(default, with = "duration::option")]
    pause: Option<Duration>,
    #[serde(default)]
    max_rows: Option<u64>,
    #[serde(default)]
    allow_no_index: bool,
    #[serde(default)]
    dry_run: bool,
}

/// `batch = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchSection {
    #[serde(default, with = "duration::option")]
    target: Option<Duration>,
    #[serde(default)]
    start: Option<u32>,
    #[serde(default)]
    min: Option<u32>,
    #[serde(default)]
    max: Option<u32>,
}

/// A checked section.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) purge: Purge,
    pub(super) params: Vec<String>,
    pub(super) dry_run: bool,
}

impl Definition {
    pub(super) fn read(spec: &JobSpec, config: &Config) -> Result<Self, Problem> {
        let section: Section = spec.section()?;
        Self::check(section, spec, config).map_err(|e| spec.problem(format!("[db.purge] {e}")))
    }

    fn check(section: Section, spec: &JobSpec, config: &Config) -> Result<Self, String> {
        if config.database.url.is_empty() {
            return Err("needs a database: set database.url".to_owned());
        }
        db::check_params(&section.params, &spec.args)?;
        check_predicate(&section.r#where, section.params.len())?;
        let [start, min, max] = batch_rows(&section.batch)?;
        let target = section.batch.target.unwrap_or(batch::TARGET);
        lasting("batch.target", target, Duration::from_millis(1), 60)?;
        let (least, targets) = DEFAULT_STATEMENT_TIMEOUT;
        let statement_timeout = section
            .statement_timeout
            .unwrap_or(least.max(targets * target));
        lasting("statement_timeout", statement_timeout, target, 3_600)?;
        let lock_timeout = section.lock_timeout.unwrap_or(DEFAULT_LOCK_TIMEOUT);
        lasting("lock_timeout", lock_timeout, Duration::from_millis(1), 60)?;
        if lock_timeout >= statement_timeout {
            return Err("lock_timeout: must be less than statement_timeout".to_owned());
        }
        let pause = section.pause.unwrap_or(Duration::ZERO);
        lasting("pause", pause, Duration::ZERO, 60)?;
        if section.max_rows == Some(0) {
            return Err("max_rows: 0 would delete nothing; leave it out for no limit".to_owned());
        }
        let purge = Purge {
            table: TableName::parse(&section.table).map_err(|e| format!("table: {e}"))?,
            key: key_columns(&section.key)?,
            predicate: section.r#where,
            target,
            start,
            min,
            max,
            lock_timeout,
            statement_timeout,
            pause,
            max_rows: section.max_rows,
            allow_no_index: section.allow_no_index,
        };
        Ok(Self {
            purge,
            params: section.params,
            dry_run: section.dry_run,
        })
    }
}

fn key_columns(names: &[String]) -> Result<Vec<Ident>, String> {
    let most = Purge::MAX_KEY_COLUMNS;
    if names.is_empty() || names.len() > most {
        return Err(format!("key: takes 1 to {most} columns"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
        return Err(format!("key: names {twice:?} twice"));
    }
    let parsed: Result<Vec<Ident>, String> = names.iter().map(|name| Ident::parse(name)).collect();
    parsed.map_err(|e| format!("key: {e}"))
}

/// The keys of a batch are bound after the definition's own parameters, so a number beyond those would mean a key.
fn check_predicate(predicate: &str, params: usize) -> Result<(), String> {
    if predicate.trim().is_empty() {
        return Err("where: is empty; to delete all rows say \"true\"".to_owned());
    }
    if predicate.len() > MAX_PREDICATE {
        return Err(format!("where: longer than {MAX_PREDICATE} bytes"));
    }
    let number = Regex::new(r"\$([0-9]+)").map_err(|e| e.to_string())?;
    let mut numbers = number
        .captures_iter(predicate)
        .map(|found| found[1].to_owned());
    match numbers.find(|n| !n.parse().is_ok_and(|n: usize| (1..=params).contains(&n))) {
        None => Ok(()),
        Some(n) => Err(format!("where: there is no ${n}; params names {params}")),
    }
}

/// Rows of the first batch, the fewest and the most.
fn batch_rows(section: &BatchSection) -> Result<[u32; 3], String> {
    let min = section.min.unwrap_or(DEFAULT_MIN);
    let max = section.max.unwrap_or(DEFAULT_MAX.max(min));
    let start = section
        .start
        .unwrap_or(batch::START_ROWS.clamp(min, max.max(min)));
    if min >= 1 && min <= start && start <= max && max <= MOST_ROWS {
        return Ok([start, min, max]);
    }
    Err(format!(
        "batch: min {min}, start {start} and max {max} must be in this order, within 1 to {MOST_ROWS}"
    ))
}

fn lasting(what: &str, given: Duration, min: Duration, max_seconds: u64) -> Result<(), String> {
    let max = Duration::from_secs(max_seconds);
    if (min..=max).contains(&given) {
        return Ok(());
    }
    let [given, min, max] = [given, min, max].map(duration::format);
    Err(format!(
        "{what}: \"{given}\" is not within \"{min}\" to \"{max}\""
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::KIND;
    use crate::catalog;
    use crate::config::{Secret, Sources, load};
    use std::path::Path;

    /// The definition that is shipped, with some of its text replaced.
    fn check(from: &str, to: &str, url: &str) -> Result<(), String> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/db.purge_sessions.toml");
        let text = std::fs::read_to_string(shipped).unwrap();
        assert!(text.contains(from), "{from}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), text.replace(from, to)).unwrap();
        let catalog = catalog::load(dir.path(), &["db.purge"]).unwrap();
        let mut config = load(&Sources::default()).unwrap();
        config.database.url = Secret::new(url);
        (KIND.check)(catalog.iter().next().unwrap(), &config).map_err(|e| e.to_string())
    }

    const URL: &str = "postgres://localhost/app";

    #[test]
    fn the_shipped_definition_is_good_but_needs_a_database() {
        check("", "", URL).unwrap();
        let error = check("", "", "").unwrap_err();
        assert!(error.contains("database.url"), "{error}");
    }

    #[test]
    fn problems_name_their_setting() {
        for (from, to, told) in [
            ("\"public.sessions\"", "\"a.b.c\"", "table:"),
            ("\"public.sessions\"", "\"s; drop table x\"", "table:"),
            (
                "\"public.sessions\"",
                "\"pg_catalog.pg_class\"",
                "pg_catalog",
            ),
            ("[\"created_at\", \"id\"]", "[]", "key:"),
            ("[\"created_at\", \"id\"]", "[\"id\", \"id\"]", "twice"),
            ("[\"created_at\", \"id\"]", "[\"id desc\"]", "key:"),
            ("params = [\"days\"]", "params = [\"weeks\"]", "`weeks`"),
            ("params = [\"days\"]", "params = []", "there is no $1"),
            ("$1::int", "$2::int", "there is no $2"),
            (
                "created_at < now() - make_interval(days => $1::int)",
                " ",
                "where: is empty",
            ),
            ("start = 1000", "start = 99", "batch:"),
            ("max = 50000", "max = 5000000", "batch:"),
            ("target = \"300ms\"", "target = \"2m\"", "batch.target"),
            (
                "lock_timeout = \"200ms\"",
                "lock_timeout = \"5s\"",
                "lock_timeout",
            ),
            ("pause = \"0ms\"", "pause = \"2m\"", "pause"),
            ("# max_rows = 1000000", "max_rows = 0", "max_rows"),
            ("pause = \"0ms\"", "puase = \"0ms\"", "puase"),
        ] {
            let error = check(from, to, URL).unwrap_err();
            assert!(
                error.contains("a.toml") && error.contains(told),
                "{to}: {error}"
            );
        }
    }
}
