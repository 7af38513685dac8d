//! `db.purge`: deletes the rows of a table that meet a condition, in batches that nobody else notices.
//!
//! Owns: what a run is told and what a halted one means for the job. How rows are deleted is the database's to know.

mod definition;

use definition::Definition;

use super::progress::saturating;
use super::{Built, Context, Deps, Handler, HandlerKind, JobError};
use crate::catalog::JobSpec;
use crate::db::purge::{Halt, Purge, Watch};
use crate::db::{self, Database, DbError, Delivery, Param};
use crate::job::{ArgSpec, Failure, Job, Outcome};
use futures::future::BoxFuture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The `db.purge` handler, as the list of handlers knows it.
pub const KIND: HandlerKind = HandlerKind {
    name: "db.purge",
    check: |spec, config| Definition::read(spec, config).map(|_| ()),
    touches: |spec, _| vec![db::resource_of(&spec.resources).to_owned()],
    build: |spec, deps| DbPurge::build(spec, deps),
};

/// Wait before a run meets a locked table again.
const TABLE_LOCKED_PAUSE: Duration = Duration::from_secs(10);

/// The handler of one definition.
struct DbPurge {
    purge: Purge,
    params: Vec<String>,
    args: BTreeMap<String, ArgSpec>,
    dry_run: bool,
    database: Database,
    /// Blamed when the server is at fault.
    resource: String,
    /// How long a finished job is known by its id.
    remembered: Duration,
}

impl DbPurge {
    fn build(spec: &JobSpec, deps: &Deps) -> Built {
        let definition = Definition::read(spec, &deps.config)?;
        let Some(database) = deps.database.clone() else {
            return Err(spec.problem("[db.purge] needs a database: set database.url"));
        };
        Ok(Arc::new(Self {
            purge: definition.purge,
            params: definition.params,
            args: spec.args.clone(),
            dry_run: definition.dry_run,
            database,
            resource: db::resource_of(&spec.resources).to_owned(),
            remembered: deps.config.dedupe.window,
        }))
    }

    async fn purge(&self, ctx: &Context) -> Outcome {
        let params = match db::params_of(&self.params, &self.args, &ctx.job.args) {
            Ok(params) => params,
            Err(error) => return Outcome::fatal(error.to_string()),
        };
        let result = if self.dry_run {
            self.purge
                .preview(&self.database, &params)
                .await
                .map(|p| result_of(&p))
        } else {
            self.delete(&ctx.job, &params, ctx).await
        };
        match result {
            Ok(done) => done,
            Err(halt) => self.outcome(halt),
        }
    }

    async fn delete(&self, job: &Job, params: &[Param], ctx: &Context) -> Result<Outcome, Halt> {
        let delivery = Delivery {
            queue: &job.queue,
            job_id: job.id.as_str(),
            token: &job.token,
            remembered: self.remembered,
        };
        let watch = Watch {
            stop: &ctx.stop,
            on_batch: &|rows, batches| {
                ctx.progress.update(|progress| {
                    progress.count("rows_deleted", saturating(rows));
                    progress.count("batches", saturating(batches));
                });
            },
            between: &|worked| {
                Box::pin(async move {
                    match ctx.pace(worked).await {
                        Err(JobError::Yield { reason }) => Some(reason),
                        // Who was asked to stop sees that for himself.
                        _ => None,
                    }
                })
            },
        };
        let report = self
            .purge
            .run(&self.database, &delivery, params, &watch)
            .await?;
        Ok(result_of(&report))
    }

    /// What a halted run means for the job. Its progress is kept in every case.
    fn outcome(&self, halt: Halt) -> Outcome {
        match halt {
            Halt::Stopped => Outcome::Interrupted {
                reason: "asked to stop".to_owned(),
            },
            Halt::Yielded(reason) => Outcome::Yielded { reason },
            Halt::Superseded => Outcome::Interrupted {
                reason: "another delivery of this job has taken over".to_owned(),
            },
            Halt::TableLocked => Outcome::Snooze {
                after: TABLE_LOCKED_PAUSE,
                reason: format!(
                    "another session holds a lock on {}, or its progress",
                    self.purge.table
                ),
            },
            Halt::RowsLocked(ranges) => Outcome::failed(format!(
                "rows of {} stayed locked by other sessions, in {ranges} ranges of keys; all others are deleted",
                self.purge.table
            )),
            Halt::Refused(why) => Outcome::fatal(format!("[db.purge] {why}")),
            Halt::Db(error) => self.failure(error),
        }
    }

    fn failure(&self, error: DbError) -> Outcome {
        let permanent = error.is_mistake();
        let failure: Failure = error.into_failure(&self.resource);
        if permanent {
            Outcome::Fatal(failure)
        } else {
            Outcome::Failed(failure)
        }
    }
}

fn result_of(report: &impl Serialize) -> Outcome {
    match serde_json::to_value(report) {
        Ok(value) => Outcome::Done(Some(value)),
        Err(_) => Outcome::Done(None),
    }
}

impl Handler for DbPurge {
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.purge(ctx))
    }
}
