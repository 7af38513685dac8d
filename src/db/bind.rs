//! Typed parameters: what an enqueuer sent becomes a bound value, never a piece of SQL.
//!
//! | declared        | Postgres |
//! |-----------------|----------|
//! | `integer`       | `int8`   |
//! | `number`        | `float8` |
//! | `string`        | `text`   |
//! | `boolean`       | `bool`   |
//! | `array`, `object` | `jsonb` |
//!
//! An argument that was not sent and has no default is NULL of its type. A statement that needs another type casts:
//! `$1::int`, `$2::uuid`, `array(select jsonb_array_elements_text($3))`.

use super::DbError;
use crate::job::{ArgSpec, ArgType};
use serde_json::{Map, Value};
use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use std::collections::BTreeMap;

/// One bound value.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The declared type; decides the Postgres type.
    pub ty: ArgType,
    /// The value; `null` for one that was not sent.
    pub value: Value,
}

/// Checks that every name in `params` is a declared argument.
///
/// # Errors
/// Names the one that is not.
pub fn check_params(params: &[String], specs: &BTreeMap<String, ArgSpec>) -> Result<(), String> {
    match params.iter().find(|name| !specs.contains_key(*name)) {
        None => Ok(()),
        Some(unknown) => Err(format!("params: `{unknown}` is not declared in [args]")),
    }
}

/// The values of a job's arguments in the order of `params`, for `$1`, `$2`, ...
///
/// # Errors
/// A name is not declared.
pub fn params_of(
    params: &[String],
    specs: &BTreeMap<String, ArgSpec>,
    args: &Map<String, Value>,
) -> Result<Vec<Param>, DbError> {
    check_params(params, specs).map_err(DbError::Param)?;
    Ok(params
        .iter()
        .map(|name| Param {
            ty: specs[name].ty,
            value: args.get(name).cloned().unwrap_or(Value::Null),
        })
        .collect())
}

/// The driver's form of parameters.
///
/// # Errors
/// A value does not fit its type, such as an integer beyond 63 bits.
pub(super) fn arguments(params: &[Param]) -> Result<PgArguments, DbError> {
    let mut arguments = PgArguments::default();
    for (at, param) in params.iter().enumerate() {
        add(&mut arguments, param).map_err(|e| DbError::Param(format!("${}: {e}", at + 1)))?;
    }
    Ok(arguments)
}

fn add(arguments: &mut PgArguments, param: &Param) -> Result<(), String> {
    let added = match param.ty {
        ArgType::Integer => arguments.add(fit(param, Value::as_i64)?),
        ArgType::Number => arguments.add(fit(param, Value::as_f64)?),
        ArgType::String => arguments.add(fit(param, Value::as_str)?),
        ArgType::Boolean => arguments.add(fit(param, Value::as_bool)?),
        ArgType::Array | ArgType::Object => arguments.add(fit(param, Some)?),
    };
    added.map_err(|e| e.to_string())
}

/// The value as its type, or NULL.
fn fit<'v, T>(param: &'v Param, read: fn(&'v Value) -> Option<T>) -> Result<Option<T>, String> {
    if param.value.is_null() {
        return Ok(None);
    }
    match read(&param.value) {
        Some(value) => Ok(Some(value)),
        None => Err(format!("{} is no {:?} of 64 bits", param.value, param.ty)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_must_fit_their_declared_type() {
        let param = |ty, value| Param { ty, value };
        assert!(
            arguments(&[
                param(ArgType::Integer, Value::from(i64::MIN)),
                param(ArgType::Number, Value::from(3)),
                param(ArgType::String, Value::Null),
                param(ArgType::Object, serde_json::json!({"a": 1})),
            ])
            .is_ok()
        );
        let error = arguments(&[param(ArgType::Integer, Value::from(u64::MAX))]).unwrap_err();
        assert!(
            error.to_string().contains("$1: 18446744073709551615"),
            "{error}"
        );
    }

    #[test]
    fn names_are_taken_in_order_and_must_be_declared() {
        let specs =
            toml::from_str("days = { type = \"integer\" }\nwho = { type = \"string\" }").unwrap();
        let args = serde_json::from_str(r#"{"days":3}"#).unwrap();
        let names = ["who", "days"].map(str::to_owned);
        let params = params_of(&names, &specs, &args).unwrap();
        assert_eq!(
            params[0],
            Param {
                ty: ArgType::String,
                value: Value::Null
            }
        );
        assert_eq!(params[1].value, Value::from(3));
        let error = params_of(&["dayz".to_owned()], &specs, &args).unwrap_err();
        assert!(error.to_string().contains("`dayz`"), "{error}");
    }
}
