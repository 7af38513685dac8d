//! One number from a query that a user wrote.

use super::{Database, DbError, JsonQuery};
use serde_json::Value;
use std::time::Duration;

impl Database {
    /// The number in the only column of a query's only row.
    ///
    /// # Errors
    /// As [`Database::json_rows`]; or there is no such row, column or number.
    pub async fn number(&self, sql: &str, timeout: Duration) -> Result<f64, DbError> {
        let query = JsonQuery {
            sql,
            params: &[],
            page: 1,
            max_rows: 1,
            timeout,
        };
        let mut rows = self.json_rows(&query).await?;
        let mut page = rows.next_page().await?.into_iter();
        let wrong = |what: &str| DbError::Param(format!("the query gives {what}, not one number"));
        let row = page.next().ok_or_else(|| wrong("no row"))?;
        if rows.truncated() {
            return Err(wrong("several rows"));
        }
        let mut columns = row.into_iter();
        match (columns.next(), columns.next()) {
            (Some((_, value)), None) => number(&value).ok_or_else(|| wrong(kind(&value))),
            _ => Err(wrong("several columns")),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

/// What a value is, without showing it.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::String(_) => "text",
        _ => "something else",
    }
}
