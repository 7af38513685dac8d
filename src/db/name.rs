//! Names of tables and columns as definitions give them.
//!
//! A name is checked against a narrow alphabet and always quoted, so none can be a piece of SQL. Upper and lower case
//! are told apart, as in a quoted name.

use std::fmt;

/// The longest name Postgres keeps, bytes.
const MAX_BYTES: usize = 63;
/// Schemas in which no definition may change anything: the catalogues, and our own.
const FORBIDDEN: [&str; 4] = ["pg_catalog", "information_schema", "pg_toast", "tidegate"];

/// The name of a column, or one part of a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ident(String);

impl Ident {
    /// Checks a name: a letter or `_`, then letters, digits, `_`; at most 63 bytes.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let good = text.bytes().next().is_some_and(first)
            && text.len() <= MAX_BYTES
            && text.bytes().all(|b| first(b) || b.is_ascii_digit());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is no name: a letter or _, then letters, digits or _, at most {MAX_BYTES}"
            ))
        }
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Quoted, as it stands in SQL.
impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// The name of a table, with its schema if it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    schema: Option<Ident>,
    table: Ident,
}

impl TableName {
    /// Parses `table` or `schema.table`.
    ///
    /// # Errors
    /// A part is no name, there are more than two, or the schema is none that jobs may change.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(Ident::parse(schema)?), table),
            None => (None, text),
        };
        if let Some(schema) = &schema {
            check_schema(schema.as_str())?;
        }
        let table = Ident::parse(table)?;
        Ok(Self { schema, table })
    }
}

/// Quoted, as it stands in SQL.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}", self.table)
    }
}

/// Refuses the schemas in which no job may change anything.
///
/// # Errors
/// Names the schema.
pub(super) fn check_schema(schema: &str) -> Result<(), String> {
    if FORBIDDEN.contains(&schema) || schema.starts_with("pg_") {
        return Err(format!("schema {schema} may not be changed by jobs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(
            TableName::parse("public.Sessions").unwrap().to_string(),
            r#""public"."Sessions""#
        );
        assert_eq!(TableName::parse("_t1").unwrap().to_string(), r#""_t1""#);
    }

    #[test]
    fn nothing_but_names_passes() {
        let long = "x".repeat(64);
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "a b",
            "a;drop table x",
            "a\"b",
            "1a",
            "a-b",
            "é",
            &long,
            "pg_catalog.pg_class",
            "information_schema.tables",
            "tidegate.batch_progress",
            "pg_toast.x",
        ] {
            assert!(TableName::parse(bad).is_err(), "{bad}");
        }
    }
}
