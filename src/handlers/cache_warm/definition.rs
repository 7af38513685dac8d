//! What a `[cache.warm]` section says, checked, and how a row becomes an entry.

use super::super::template::Template;
use crate::cache::{Fill, Key, MAX_TAGS, RegionName, Tag};
use crate::catalog::{JobSpec, Problem};
use crate::config::{Config, duration};
use crate::db;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// Rows of a page, unless the definition says otherwise.
const DEFAULT_BATCH: u32 = 500;
/// The most rows of a page.
const MAX_BATCH: u32 = 5_000;
/// Rows of a job, unless the definition says otherwise.
const DEFAULT_MAX_ROWS: u64 = 100_000;
/// The most rows of a job.
const MAX_ROWS: u64 = 10_000_000;

/// `[cache.warm]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    region: String,
    query: String,
    #[serde(default)]
    params: Vec<String>,
    key: String,
    #[serde(default)]
    tags: Vec<String>,
    value: Option<String>,
    #[serde(with = "duration")]
    ttl: Duration,
    #[serde(default = "default_batch")]
    batch: u32,
    #[serde(default = "default_max_rows")]
    max_rows: u64,
}

const fn default_batch() -> u32 {
    DEFAULT_BATCH
}

const fn default_max_rows() -> u64 {
    DEFAULT_MAX_ROWS
}

/// A checked section.
#[derive(Debug)]
pub(super) struct Definition {
    pub region: RegionName,
    pub query: String,
    pub params: Vec<String>,
    pub entry: EntryOfRow,
    pub ttl: Duration,
    pub batch: u32,
    pub max_rows: u64,
}

/// How a row becomes an entry.
#[derive(Debug)]
pub(super) struct EntryOfRow {
    key: Template,
    tags: Vec<Template>,
    /// The column that holds the payload; the whole row when there is none.
    value: Option<String>,
}

impl Definition {
    pub(super) fn read(spec: &JobSpec, config: &Config) -> Result<Self, Problem> {
        let section: Section = spec.section()?;
        Self::check(section, spec, config).map_err(|e| spec.problem(format!("[cache.warm] {e}")))
    }

    fn check(section: Section, spec: &JobSpec, config: &Config) -> Result<Self, String> {
        if config.database.url.is_empty() {
            return Err("needs a database: set database.url".to_owned());
        }
        db::check_params(&section.params, &spec.args)?;
        if section.query.trim().is_empty() {
            return Err("query: is empty".to_owned());
        }
        let max_ttl = config.cache.max_ttl;
        if section.ttl < Duration::from_millis(1) || section.ttl > max_ttl {
            let [given, max] = [section.ttl, max_ttl].map(duration::format);
            return Err(format!(
                "ttl: \"{given}\" is not within \"1ms\" to cache.max_ttl, \"{max}\""
            ));
        }
        within("batch", section.batch.into(), MAX_BATCH.into())?;
        within("max_rows", section.max_rows, MAX_ROWS)?;
        let key = Template::parse(&section.key).map_err(|e| format!("key: {e}"))?;
        if key.names().next().is_none() {
            return Err("key: names no column, so all rows would share one entry".to_owned());
        }
        let tags = section.tags.iter().map(|t| Template::parse(t));
        let tags = tags
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("tags: {e}"))?;
        if tags.len() > MAX_TAGS {
            return Err(format!("tags: at most {}", MAX_TAGS));
        }
        Ok(Self {
            region: RegionName::parse(&section.region).map_err(|e| e.to_string())?,
            query: section.query,
            params: section.params,
            entry: EntryOfRow {
                key,
                tags,
                value: section.value,
            },
            ttl: section.ttl,
            batch: section.batch,
            max_rows: section.max_rows,
        })
    }
}

fn within(what: &str, given: u64, max: u64) -> Result<(), String> {
    if (1..=max).contains(&given) {
        return Ok(());
    }
    Err(format!("{what}: {given} is not within 1 to {max}"))
}

impl EntryOfRow {
    /// The entry of a row.
    ///
    /// # Errors
    /// Why there is none: a column that is missing or null, or a name that is not allowed.
    pub(super) fn of(&self, row: Map<String, Value>) -> Result<Fill, String> {
        let key = Key::parse(&self.key.fill(&row)?).map_err(|e| e.to_string())?;
        let tag = |t: &Template| Tag::parse(&t.fill(&row)?).map_err(|e| e.to_string());
        let tags = self.tags.iter().map(tag).collect::<Result<_, _>>()?;
        let payload = match &self.value {
            None => Value::Object(row).to_string(),
            Some(column) => match row.get(column) {
                None => return Err(format!("there is no column `{column}`")),
                Some(Value::Null) => return Err(format!("column `{column}` is null")),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            },
        };
        Ok(Fill {
            key,
            tags,
            payload: payload.into_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::testing;
    use super::*;
    use crate::config::{Secret, Sources};

    const GOOD: &str = r#"
kind = "a"
handler = "cache.warm"
[args]
days = { type = "integer", default = 1 }
[cache.warm]
region = "eu"
query = "select id, name from t where age < $1"
params = ["days"]
key = "product:{id}"
tags = ["product:{id}"]
ttl = "1h"
"#;

    fn read(from: &str, to: &str) -> Result<Definition, String> {
        let mut config = crate::config::load(&Sources::default()).unwrap();
        config.database.url = Secret::new("postgres://localhost/x");
        let spec = testing::spec("cache.warm", &GOOD.replace(from, to));
        Definition::read(&spec, &config).map_err(|e| e.to_string())
    }

    fn row(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn sections_are_checked() {
        assert!(read("", "").is_ok(), "{:?}", read("", ""));
        for (from, to, part) in [
            ("\"eu\"", "\"EU\"", "region"),
            ("\"1h\"", "\"25h\"", "max_ttl"),
            ("\"1h\"", "\"0s\"", "ttl"),
            ("params = [\"days\"]", "params = [\"years\"]", "years"),
            ("key = \"product:{id}\"", "key = \"product\"", "one entry"),
            ("tags = [\"product:{id}\"]", "tags = [\"{\"]", "tags"),
            ("ttl = \"1h\"", "ttl = \"1h\"\nbatch = 0", "batch"),
            (
                "ttl = \"1h\"",
                "ttl = \"1h\"\nmax_rows = 10000001",
                "max_rows",
            ),
            ("ttl = \"1h\"", "ttl = \"1h\"\nmaxrows = 1", "maxrows"),
            ("select id, name from t where age < $1", " ", "query"),
        ] {
            let told = read(from, to).unwrap_err();
            assert!(
                told.contains(part),
                "{to:?} told {told:?}, without {part:?}"
            );
        }
    }

    #[test]
    fn without_a_database_it_is_refused() {
        let config = crate::config::load(&Sources::default()).unwrap();
        let spec = testing::spec("cache.warm", GOOD);
        let told = Definition::read(&spec, &config).unwrap_err().to_string();
        assert!(told.contains("database.url"), "{told}");
    }

    #[test]
    fn a_row_becomes_an_entry() {
        let whole = read("", "").unwrap().entry;
        let fill = whole.of(row(r#"{"id":7,"name":"tea"}"#)).unwrap();
        assert_eq!(fill.key.as_str(), "product:7");
        assert_eq!(fill.tags[0].as_str(), "product:7");
        assert_eq!(
            row(std::str::from_utf8(&fill.payload).unwrap())["name"],
            "tea"
        );

        let column = read("ttl =", "value = \"name\"\nttl =").unwrap().entry;
        let payload = |json: &str| column.of(row(json)).map(|fill| fill.payload);
        assert_eq!(payload(r#"{"id":7,"name":"tea"}"#).unwrap(), b"tea");
        assert_eq!(payload(r#"{"id":7,"name":{"a":1}}"#).unwrap(), b"{\"a\":1}");
        for bad in [
            r#"{"id":7,"name":null}"#,
            r#"{"id":7}"#,
            r#"{"id":null,"name":"x"}"#,
            r#"{"id":"a\nb","name":"x"}"#,
        ] {
            assert!(payload(bad).is_err(), "{bad}");
        }
    }
}
