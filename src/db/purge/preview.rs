//! What a run would do, without doing it.

use super::{Halt, Purge};
use crate::db::keyset::{Keyset, ORDERED};
use crate::db::ranges::Range;
use crate::db::{Database, DbError, Param, bind};
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

/// What a dry run tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PurgePreview {
    /// The statement of the first batch; its arguments are bound.
    pub sql: String,
    /// The server's plan for it.
    pub plan: Value,
    /// Rows that match, as the planner's statistics have it. Nothing is counted.
    pub estimated_rows: f64,
    /// The key at which a run beginning now would end; none when the table is empty.
    pub last_key: Option<Vec<String>>,
    /// Foreign keys that refer to the table, and its delete triggers.
    pub touches: Vec<String>,
}

impl Purge {
    /// Says what a run would do, in a READ ONLY transaction.
    ///
    /// # Errors
    /// As [`Purge::run`].
    pub async fn preview(
        &self,
        database: &Database,
        params: &[Param],
    ) -> Result<PurgePreview, Halt> {
        let mut transaction = database.begin(self.options(true)).await?;
        let limit = 8 * self.statement_timeout;
        let work = self.look(&mut transaction, params);
        match tokio::time::timeout(limit, work).await {
            Ok(preview) => preview,
            Err(_) => Err(DbError::Silent(limit).into()),
        }
    }

    async fn look(
        &self,
        connection: &mut PgConnection,
        params: &[Param],
    ) -> Result<PurgePreview, Halt> {
        let estimated = format!("select from {} where ({}\n)", self.table, self.predicate);
        let estimated_rows = explain(connection, &estimated, params).await?["Plan Rows"]
            .as_f64()
            .unwrap_or(f64::NAN);
        connection.execute(ORDERED).await?;
        let keyset = Keyset::load(connection, &self.table, &self.key).await?;
        if !self.allow_no_index {
            keyset.check_index(connection).await?;
        }
        let last_key = keyset.last(connection).await?;
        let mut sql = String::new();
        let mut plan = Value::Null;
        if let Some(upto) = last_key.clone() {
            let whole = Range { after: None, upto };
            let end = keyset.boundary(connection, &whole, self.start).await?;
            let part = Range {
                upto: end.unwrap_or(whole.upto),
                after: None,
            };
            let condition = self.condition(&keyset, &part, params.len());
            sql = format!("delete from {} where {condition}", self.table);
            plan = explain(connection, &sql, &[params, &part.params()].concat()).await?;
        }
        let touches = self.touches(connection).await?;
        Ok(PurgePreview {
            sql,
            plan,
            estimated_rows,
            last_key,
            touches,
        })
    }

    /// What else a delete sets in motion.
    async fn touches(&self, connection: &mut PgConnection) -> Result<Vec<String>, DbError> {
        let found = sqlx::query_scalar(
            "select 'foreign key ' || conname || ' of ' || conrelid::regclass || ': ' || pg_get_constraintdef(oid) \
             from pg_constraint where contype = 'f' and confrelid = to_regclass($1) \
             union all \
             select 'trigger ' || tgname from pg_trigger \
             where tgrelid = to_regclass($1) and not tgisinternal and tgtype & 8 <> 0 limit 100",
        )
        .bind(self.table.to_string())
        .fetch_all(connection)
        .await?;
        Ok(found)
    }
}

/// The root node of a statement's plan.
async fn explain(
    connection: &mut PgConnection,
    sql: &str,
    params: &[Param],
) -> Result<Value, DbError> {
    let plan: Json<Value> = sqlx::query_scalar_with(
        AssertSqlSafe(format!("explain (format json) {sql}")),
        bind::arguments(params)?,
    )
    .persistent(false)
    .fetch_one(connection)
    .await?;
    Ok(plan.0[0]["Plan"].clone())
}
