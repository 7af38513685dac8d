//! Reading the rows of a definition's query in bounded pages.

use super::pace::Pace;
use super::{Database, DbError, Param, Transaction, TxOptions, bind, within};
use crate::clock;
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use std::time::Duration;

/// A definition's query and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct JsonQuery<'a> {
    /// One `select`, from a definition, with `$1`, `$2`, ... for `params`.
    pub sql: &'a str,
    /// The bound values.
    pub params: &'a [Param],
    /// Rows per page.
    pub page: u32,
    /// Rows in all; more are left out and reported as truncated.
    pub max_rows: u64,
    /// Longest time the server may take for one page.
    pub timeout: Duration,
}

/// The rows of a query, one page at a time, all of one snapshot. Holds a connection and the snapshot until dropped,
/// so whoever takes the pages should not dawdle: the server ends a reader that takes longer than
/// [`IDLE_IN_TRANSACTION`](super::IDLE_IN_TRANSACTION) between two of them.
#[derive(Debug)]
pub struct JsonRows {
    transaction: Transaction,
    sql: String,
    pace: Pace,
    page: u32,
    /// Rows that may still be given out.
    left: u64,
    timeout: Duration,
    truncated: bool,
}

impl Database {
    /// Runs a query in a READ ONLY transaction and opens a cursor on its rows.
    ///
    /// # Errors
    /// No connection, an argument that does not fit, a mistake in the SQL, or `query.timeout`.
    pub async fn json_rows(&self, query: &JsonQuery<'_>) -> Result<JsonRows, DbError> {
        let arguments = bind::arguments(query.params)?;
        // The line break ends a comment the query may end with. One row more tells whether there are more.
        let declare = format!(
            "declare tidegate_rows no scroll cursor for select to_jsonb(q) from ({}\n) q limit {}",
            query.sql.trim().trim_end_matches(';'),
            query.max_rows.min(i64::MAX as u64 - 1) + 1,
        );
        let options = TxOptions {
            read_only: true,
            statement_timeout: query.timeout,
            lock_timeout: query.timeout,
        };
        let mut transaction = self.begin(options).await?;
        within(query.timeout, async {
            // All rows will be read: the plan should not favour the first ones.
            sqlx::query("set local cursor_tuple_fraction = 1")
                .execute(&mut *transaction)
                .await?;
            sqlx::query_with(AssertSqlSafe(declare), arguments)
                .persistent(false)
                .execute(&mut *transaction)
                .await?;
            Ok(())
        })
        .await?;
        Ok(JsonRows {
            transaction,
            sql: query.sql.to_owned(),
            pace: self.pace().clone(),
            page: query.page.max(1),
            left: query.max_rows,
            timeout: query.timeout,
            truncated: false,
        })
    }
}

impl JsonRows {
    /// The next rows, at most a page of them; empty at the end.
    ///
    /// # Errors
    /// As [`Database::json_rows`].
    pub async fn next_page(&mut self) -> Result<Vec<Map<String, Value>>, DbError> {
        let wanted = self.left.min(u64::from(self.page));
        // With the last row allowed, ask for one more to learn whether there is one.
        let ask = if wanted == self.left {
            wanted + 1
        } else {
            wanted
        };
        if self.truncated {
            return Ok(Vec::new());
        }
        let fetch = format!("fetch forward {ask} from tidegate_rows");
        let start = clock::monotonic();
        let mut rows: Vec<sqlx::types::Json<Map<String, Value>>> = within(self.timeout, async {
            Ok(sqlx::query_scalar(AssertSqlSafe(fetch))
                .fetch_all(&mut *self.transaction)
                .await?)
        })
        .await?;
        let took = clock::since(start);
        self.pace.note(&self.sql, rows.len() as u64, took);
        if rows.len() as u64 > self.left {
            self.truncated = true;
            rows.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        }
        self.left -= rows.len() as u64;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Whether rows beyond `max_rows` were left out. Known once the last page was taken.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.truncated
    }
}
