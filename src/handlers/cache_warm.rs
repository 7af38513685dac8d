//! `cache.warm`: fills a cache region with the rows of a SQL query.
//!
//! Owns: how a row becomes an entry. The stamp is taken before the query runs, so a row that changes while the job works
//! misses once its change is announced. Must not know how a region keeps its log, nor the driver of the database.

use super::template::Template;
use super::{Built, Context, Deps, Handler, HandlerKind};
use crate::cache::{self, Cache, CacheError, Fill, Key, Region, RegionName, Stamp, Tag};
use crate::catalog::{JobSpec, Problem};
use crate::config::{Config, duration};
use crate::db::{self, Database, DbError, JsonQuery, Param};
use crate::job::{ArgSpec, Job, Outcome};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows of a page, unless the definition says otherwise.
const DEFAULT_BATCH: u32 = 500;
/// The most rows of a page.
const MAX_BATCH: u32 = 5_000;
/// Rows of a job, unless the definition says otherwise.
const DEFAULT_MAX_ROWS: u64 = 100_000;
/// The most rows of a job.
const MAX_ROWS: u64 = 10_000_000;

/// The `cache.warm` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "cache.warm",
    check: |spec, config| Definition::read(spec, config).map(|_| ()),
    build: |spec, deps| Warm::build(spec, deps),
};

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
struct Definition {
    region: RegionName,
    query: String,
    params: Vec<String>,
    entry: EntryOfRow,
    ttl: Duration,
    batch: u32,
    max_rows: u64,
}

/// How a row becomes an entry.
#[derive(Debug)]
struct EntryOfRow {
    key: Template,
    tags: Vec<Template>,
    /// The column that holds the payload; the whole row when there is none.
    value: Option<String>,
}

impl Definition {
    fn read(spec: &JobSpec, config: &Config) -> Result<Self, Problem> {
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
        if tags.len() > cache::MAX_TAGS {
            return Err(format!("tags: at most {}", cache::MAX_TAGS));
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
    fn of(&self, row: Map<String, Value>) -> Result<Fill, String> {
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

/// How far a job has come.
#[derive(Debug, Default)]
struct Tally {
    rows: u64,
    written: u64,
    skipped: u64,
    /// Why the first of the skipped rows was skipped.
    reason: Option<String>,
    /// There were more than `max_rows`.
    truncated: bool,
}

impl Tally {
    fn skip(&mut self, count: u64, reason: Option<String>) {
        self.skipped += count;
        self.reason = self.reason.take().or(reason);
    }

    /// What came of the job: rows that make no entry are reported; if none makes one, the definition is wrong.
    fn outcome(self) -> Outcome {
        if self.rows > 0 && self.written == 0 {
            let reason = self.reason.unwrap_or_default();
            return Outcome::fatal(format!(
                "none of {} rows made an entry: {reason}",
                self.rows
            ));
        }
        let mut result = json!({
            "rows": self.rows,
            "written": self.written,
            "skipped": self.skipped,
            "truncated": self.truncated,
        });
        if let Some(reason) = self.reason {
            result["skipped_because"] = Value::String(reason);
        }
        Outcome::Done(Some(result))
    }
}

/// Why a job ended early.
enum Stopped {
    Cache(CacheError),
    Database(DbError),
    Asked,
}

impl From<CacheError> for Stopped {
    fn from(e: CacheError) -> Self {
        Self::Cache(e)
    }
}

impl From<DbError> for Stopped {
    fn from(e: DbError) -> Self {
        Self::Database(e)
    }
}

/// Fills a region as one definition says.
struct Warm {
    definition: Definition,
    args: BTreeMap<String, ArgSpec>,
    cache: Cache,
    database: Database,
    redis: String,
    postgres: String,
}

impl Warm {
    fn build(spec: &JobSpec, deps: &Deps) -> Built {
        let missing = |what| spec.problem(format!("cache.warm needs {what}"));
        Ok(Arc::new(Self {
            definition: Definition::read(spec, &deps.config)?,
            args: spec.args.clone(),
            cache: deps.cache.clone().ok_or_else(|| missing("Redis"))?,
            database: deps.database.clone().ok_or_else(|| missing("a database"))?,
            redis: cache::resource_of(&spec.resources).to_owned(),
            postgres: db::resource_of(&spec.resources).to_owned(),
        }))
    }

    async fn deliver(&self, ctx: &Context) -> Outcome {
        let mut tally = Tally::default();
        match self.fill(ctx, &mut tally).await {
            Ok(()) => tally.outcome(),
            Err(Stopped::Asked) => Outcome::Interrupted {
                reason: format!("asked to stop after {} rows", tally.rows),
            },
            Err(Stopped::Cache(e)) => Outcome::Failed(e.into_failure(&self.redis)),
            Err(Stopped::Database(e)) => Outcome::Failed(e.into_failure(&self.postgres)),
        }
    }

    /// Reads the query page by page and stores each page. Entries stored before a failure are good and stay.
    async fn fill(&self, ctx: &Context, tally: &mut Tally) -> Result<(), Stopped> {
        let region = self.cache.region(&self.definition.region);
        let params = self.params(&ctx.job)?;
        // Before the query: a change that is invalidated from here on makes its rows miss.
        let stamp = region.begin().await?;
        let query = JsonQuery {
            sql: &self.definition.query,
            params: &params,
            page: self.definition.batch,
            max_rows: self.definition.max_rows,
            timeout: self.database.statement_timeout(),
        };
        let mut rows = self.database.json_rows(&query).await?;
        // Ends by itself: pages hold at most `max_rows` rows together, and an empty one is the last.
        loop {
            if ctx.stop.is_cancelled() {
                return Err(Stopped::Asked);
            }
            let page = rows.next_page().await?;
            if page.is_empty() {
                tally.truncated = rows.truncated();
                return Ok(());
            }
            self.store(&region, &stamp, page, tally).await?;
        }
    }

    async fn store(
        &self,
        region: &Region,
        stamp: &Stamp,
        page: Vec<Map<String, Value>>,
        tally: &mut Tally,
    ) -> Result<(), CacheError> {
        tally.rows += page.len() as u64;
        let mut fills = Vec::with_capacity(page.len());
        for row in page {
            match self.definition.entry.of(row) {
                Ok(fill) => fills.push(fill),
                Err(reason) => tally.skip(1, Some(reason)),
            }
        }
        let stored = region.put_many(&fills, self.definition.ttl, stamp).await?;
        tally.written += stored.written;
        tally.skip(stored.refused, stored.reason);
        Ok(())
    }

    fn params(&self, job: &Job) -> Result<Vec<Param>, DbError> {
        db::params_of(&self.definition.params, &self.args, &job.args)
    }
}

impl Handler for Warm {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.deliver(ctx))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::testing;
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

    #[test]
    fn a_job_fails_only_if_no_row_makes_an_entry() {
        let tally = |rows, written| Tally {
            rows,
            written,
            skipped: rows - written,
            reason: Some("key".to_owned()),
            truncated: false,
        };
        assert!(matches!(tally(0, 0).outcome(), Outcome::Done(_)));
        assert!(matches!(tally(2, 1).outcome(), Outcome::Done(_)));
        let Outcome::Fatal(failure) = tally(2, 0).outcome() else {
            panic!("none of two was taken for a success");
        };
        assert!(
            failure.message.contains("none of 2 rows"),
            "{}",
            failure.message
        );
    }
}
