//! `cache.warm`: fills a cache region with the rows of a SQL query.
//!
//! Owns: how a row becomes an entry. The stamp is taken before the query runs, so a row that changes while the job works
//! misses once its change is announced. Must not know how a region keeps its log, nor the driver of the database.

mod definition;

use super::progress::saturating;
use super::{Built, Context, Deps, Handler, HandlerKind, JobError};
use crate::cache::{self, Cache, CacheError, Region, Stamp};
use crate::catalog::JobSpec;
use crate::clock;
use crate::db::{self, Database, DbError, JsonQuery, Param};
use crate::job::{ArgSpec, Job, Outcome, Progress};
use definition::Definition;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The `cache.warm` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "cache.warm",
    check: |spec, config| Definition::read(spec, config).map(|_| ()),
    touches: |spec, _| {
        let touched = [cache::resource_of, db::resource_of];
        touched.map(|of| of(&spec.resources).to_owned()).into()
    },
    build: |spec, deps| Warm::build(spec, deps),
};

/// A page counts for no more than this when the gate asks for a rest after it, so that the server does not end the
/// transaction meanwhile: the least share is a fifth, which makes 4 s of 10 ([`db::IDLE_IN_TRANSACTION`]), and leaves 6 for
/// storing the next page.
const LONGEST_PAGE: Duration = Duration::from_secs(1);

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

    fn tell(&self, progress: &mut Progress) {
        progress.count("rows", saturating(self.rows));
        progress.count("written", saturating(self.written));
        progress.count("skipped", saturating(self.skipped));
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
    /// The gate told it to make room.
    Yielded(String),
}

impl From<JobError> for Stopped {
    /// What a job is told between two pages.
    fn from(e: JobError) -> Self {
        match e {
            JobError::Yield { reason } => Self::Yielded(reason),
            _ => Self::Asked,
        }
    }
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
            Err(Stopped::Yielded(reason)) => Outcome::Yielded { reason },
            // What is wrong with the definition stays wrong.
            Err(Stopped::Cache(e)) if e.is_passing() => {
                Outcome::Failed(e.into_failure(&self.redis))
            }
            Err(Stopped::Cache(e)) => Outcome::Fatal(e.into_failure(&self.redis)),
            Err(Stopped::Database(e)) if e.is_mistake() => {
                Outcome::Fatal(e.into_failure(&self.postgres))
            }
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
        let mut worked: Option<Duration> = None;
        // Ends by itself: pages hold at most `max_rows` rows together, and an empty one is the last.
        loop {
            if ctx.stop.is_cancelled() {
                return Err(Stopped::Asked);
            }
            let begun = clock::monotonic();
            let page = rows.next_page().await?;
            if page.is_empty() {
                tally.truncated = rows.truncated();
                return Ok(());
            }
            let fetched = clock::since(begun);
            // With the page at hand: who has only the end to find need not make room.
            if let Some(worked) = worked {
                ctx.pace(worked.min(LONGEST_PAGE)).await?;
            }
            let begun = clock::monotonic();
            self.store(&region, &stamp, page, tally).await?;
            worked = Some(fetched + clock::since(begun));
            ctx.progress.update(|progress| tally.tell(progress));
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
    #![allow(clippy::panic)]
    use super::*;

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
