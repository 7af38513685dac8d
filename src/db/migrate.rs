//! The project's own schema `tidegate`, and how it comes to be.

use super::{Database, DbError, within};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Executor, SqlSafeStr};
use std::time::Duration;

/// The version of the schema this program works with: the number of the last migration.
pub const SCHEMA_VERSION: i64 = 2;

/// All migrations, compiled in: number, name, SQL. One that was released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "batch_progress",
        include_str!("../../migrations/0001_batch_progress.sql"),
    ),
    (
        2,
        "outbox",
        include_str!("../../migrations/0002_outbox.sql"),
    ),
];

const SCHEMA: &str = "tidegate";
/// In our own schema, so that an app that uses the same tool in the same database is not disturbed.
const TABLE: &str = "tidegate._sqlx_migrations";
/// How long all migrations together may take, waiting for another daemon that migrates included.
const LIMIT: Duration = Duration::from_secs(300);

/// What [`migrate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// How many migrations were applied now.
    pub applied: usize,
    /// The version the schema has now.
    pub version: i64,
}

/// Brings the schema up to date. Does nothing when it is; several daemons may call it at once.
///
/// # Errors
/// No connection, no right to create the schema, or a schema that is newer or was changed by hand.
pub async fn migrate(database: &Database) -> Result<Migrated, DbError> {
    let before = schema_version(database).await?.unwrap_or(0);
    let mut connection = database.acquire().await?;
    // The migrator takes an advisory lock of the session, and keeps it when it fails: the session must not live on.
    connection.close_on_drop();
    within(LIMIT, async {
        let limits = "set statement_timeout = '5min'; set lock_timeout = '5min'";
        connection.execute(limits).await?;
        migrator()
            .run_direct(None, &mut *connection, false)
            .await
            .map_err(|e| DbError::Migration(e.to_string()))
    })
    .await?;
    Ok(Migrated {
        applied: MIGRATIONS.iter().filter(|m| m.0 > before).count(),
        version: SCHEMA_VERSION,
    })
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|&(version, name, sql)| {
            let sql = sql.into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// The version of the schema in the database; none when it is not there.
///
/// # Errors
/// No connection, or no right to read it.
pub async fn schema_version(database: &Database) -> Result<Option<i64>, DbError> {
    let mut connection = database.acquire().await?;
    within(database.statement_timeout(), async {
        let there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(TABLE)
            .fetch_one(&mut *connection)
            .await?;
        if !there {
            return Ok(None);
        }
        let version = "select max(version) from tidegate._sqlx_migrations where success";
        Ok(sqlx::query_scalar(version)
            .fetch_one(&mut *connection)
            .await?)
    })
    .await
}

/// Makes sure the schema is there in the version this program needs, or a later one.
pub(crate) async fn require_schema(database: &Database) -> Result<(), DbError> {
    match schema_version(database).await? {
        Some(version) if version >= SCHEMA_VERSION => Ok(()),
        _ => Err(DbError::SchemaMissing {
            needed: SCHEMA_VERSION,
        }),
    }
}
