//! Walking a table in the order of a unique key, a bounded number of rows at a time.
//!
//! Keys travel as text and are cast back to the column's type by the server, so any type with an order will do. The
//! sessions' date style and time zone are fixed by the driver, so the text of a key always means the same.

use super::name::{Ident, TableName, check_schema};
use super::ranges::{Key, Range};
use super::{DbError, Param, bind};
use crate::job::ArgType;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};

/// The most columns of a key.
pub const MAX_COLUMNS: usize = 8;

/// Planner settings under which a range of keys is always read through the index: estimates of row comparisons are too
/// rough to leave the choice open, and one wrong guess reads the whole table for every batch.
pub(super) const ORDERED: &str =
    "set local enable_seqscan = off; set local enable_sort = off; set local jit = off";

/// The key of a table, checked against the catalogue.
#[derive(Debug, Clone)]
pub(super) struct Keyset {
    table: TableName,
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    name: Ident,
    /// Its type, as a cast names it.
    cast: String,
}

/// Why a key can't be used, or that the database could not be asked.
#[derive(Debug)]
pub(super) enum KeyError {
    /// For the definition's author.
    Refused(String),
    /// The database's own error.
    Db(DbError),
}

impl From<sqlx::Error> for KeyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl Keyset {
    /// Looks the table and its key up, and checks that the key is unique and never NULL.
    pub(super) async fn load(
        connection: &mut PgConnection,
        table: &TableName,
        key: &[Ident],
    ) -> Result<Self, KeyError> {
        let oid = table_oid(connection, table).await?;
        let names: Vec<&str> = key.iter().map(Ident::as_str).collect();
        let found: Vec<(Option<String>, Option<bool>)> = sqlx::query_as(
            "select format_type(a.atttypid, -1), a.attnotnull \
             from unnest($2::text[]) with ordinality k(name, at) \
             left join pg_attribute a on a.attrelid = $1::int8::oid and a.attname = k.name \
                  and a.attnum > 0 and not a.attisdropped \
             order by k.at",
        )
        .bind(oid)
        .bind(&names)
        .fetch_all(&mut *connection)
        .await?;
        let mut columns = Vec::with_capacity(key.len());
        for (name, column) in key.iter().zip(found) {
            let cast = match column {
                (Some(cast), Some(true)) => cast,
                (Some(_), _) => {
                    return Err(KeyError::Refused(format!(
                        "key: column {name} of {table} may be NULL, and a row with a NULL key is never met; \
                         make it NOT NULL or take another key"
                    )));
                }
                (None, _) => {
                    return Err(KeyError::Refused(format!(
                        "key: {table} has no column {name}"
                    )));
                }
            };
            columns.push(Column {
                name: name.clone(),
                cast,
            });
        }
        if !is_unique(connection, oid, &names).await? {
            return Err(KeyError::Refused(format!(
                "key: {} is not unique in {table}: add the columns of its primary key, \
                 or a walk could stop in the middle of equal keys",
                list(key)
            )));
        }
        Ok(Self {
            table: table.clone(),
            columns,
        })
    }

    /// Refuses a key in whose order the table can only be read by sorting it, or by sorting all rows with the same first
    /// columns. Expects the planner settings of
    /// [`ORDERED`].
    pub(super) async fn check_index(&self, connection: &mut PgConnection) -> Result<(), KeyError> {
        let columns = self.columns();
        let explain = format!(
            "explain (format json) select {columns} from {} order by {columns} limit 1000",
            self.table
        );
        let plan: Json<Value> = sqlx::query_scalar(AssertSqlSafe(explain))
            .persistent(false)
            .fetch_one(connection)
            .await?;
        if !has_node(&plan.0, &["Sort", "Incremental Sort"]) {
            return Ok(());
        }
        Err(KeyError::Refused(format!(
            "no index serves the key, so every batch would read and sort the whole table: \
             create index concurrently on {} ({columns}), or set allow_no_index = true",
            self.table
        )))
    }

    /// The greatest key of the table; none when it is empty.
    pub(super) async fn last(&self, connection: &mut PgConnection) -> Result<Option<Key>, DbError> {
        let descending: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} desc", c.name))
            .collect();
        let sql = format!(
            "select {} from {} order by {} limit 1",
            self.texts(),
            self.table,
            descending.join(", ")
        );
        Ok(sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_optional(connection)
            .await?)
    }

    /// The key `rows` rows into a range; none when the range holds fewer. Reads at most that many index entries,
    /// however few of the rows a predicate would match.
    pub(super) async fn boundary(
        &self,
        connection: &mut PgConnection,
        range: &Range,
        rows: u32,
    ) -> Result<Option<Key>, DbError> {
        let columns = self.columns();
        // The outer query makes texts of one row only, not of all that are passed over.
        let sql = format!(
            "select {} from (select {columns} from {} where {} order by {columns} offset {} limit 1) k",
            self.texts(),
            self.table,
            self.within(range, 1),
            rows.saturating_sub(1),
        );
        let arguments = bind::arguments(&range.params())?;
        Ok(sqlx::query_scalar_with(AssertSqlSafe(sql), arguments)
            .fetch_optional(connection)
            .await?)
    }

    /// The condition that a row lies in a range, whose [`Range::params`] are bound from `$first` on.
    pub(super) fn within(&self, range: &Range, first: usize) -> String {
        let columns = self.columns();
        match &range.after {
            None => format!("({columns}) <= {}", self.row(first)),
            Some(_) => format!(
                "({columns}) > {} and ({columns}) <= {}",
                self.row(first),
                self.row(first + self.columns.len())
            ),
        }
    }

    /// The key columns, as they stand in a select list or an order.
    pub(super) fn columns(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|c| c.name.to_string()).collect();
        names.join(", ")
    }

    fn texts(&self) -> String {
        let texts: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{}::text", c.name))
            .collect();
        format!("array[{}]", texts.join(", "))
    }

    fn row(&self, first: usize) -> String {
        let values: Vec<String> = (first..)
            .zip(&self.columns)
            .map(|(at, column)| format!("${at}::text::{}", column.cast))
            .collect();
        format!("({})", values.join(", "))
    }
}

impl Range {
    /// Its bounds as parameters: the lower one if there is one, then the upper one.
    pub(super) fn params(&self) -> Vec<Param> {
        self.after
            .iter()
            .flatten()
            .chain(&self.upto)
            .map(|text| Param {
                ty: ArgType::String,
                value: Value::from(text.as_str()),
            })
            .collect()
    }
}

/// The table's oid, once its schema is known to be one that jobs may change.
async fn table_oid(connection: &mut PgConnection, table: &TableName) -> Result<i64, KeyError> {
    let found: Option<(i64, String, String)> = sqlx::query_as(
        "select c.oid::int8, n.nspname::text, c.relkind::text from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)",
    )
    .bind(table.to_string())
    .fetch_optional(connection)
    .await?;
    let Some((oid, schema, kind)) = found else {
        return Err(KeyError::Refused(format!(
            "table: there is no {table} in this database"
        )));
    };
    check_schema(&schema).map_err(|e| KeyError::Refused(format!("table: {e}")))?;
    // An ordinary table or a partitioned one.
    if kind != "r" && kind != "p" {
        return Err(KeyError::Refused(format!("table: {table} is no table")));
    }
    Ok(oid)
}

/// Whether a unique index makes two rows with the same key impossible. All key columns are known to be NOT NULL.
async fn is_unique(
    connection: &mut PgConnection,
    oid: i64,
    key: &[&str],
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from pg_index i \
           where i.indrelid = $1::int8::oid and i.indisunique and i.indisvalid and i.indimmediate \
             and i.indpred is null and i.indexprs is null \
             and not exists (select from generate_series(0, i.indnkeyatts - 1) at \
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[at] \
               where a.attname <> all ($2::text[])))",
    )
    .bind(oid)
    .bind(key)
    .fetch_one(connection)
    .await
}

/// Whether a plan holds a node of one of these types. Plans are as deep as their SQL, which is ours.
fn has_node(plan: &Value, kinds: &[&str]) -> bool {
    match plan {
        Value::Object(node) => {
            node.get("Node Type")
                .is_some_and(|t| kinds.iter().any(|kind| t == kind))
                || node.values().any(|inner| has_node(inner, kinds))
        }
        Value::Array(nodes) => nodes.iter().any(|inner| has_node(inner, kinds)),
        _ => false,
    }
}

fn list(names: &[Ident]) -> String {
    let names: Vec<String> = names.iter().map(Ident::to_string).collect();
    format!("({})", names.join(", "))
}
