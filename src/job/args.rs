//! The typed arguments a definition declares, and the check of what an enqueuer sent against them.

use super::strict::type_name;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// The JSON type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgType {
    /// UTF-8 text; `min`, `max` bound its length in characters.
    String,
    /// Any number; `min`, `max` bound its value.
    Number,
    /// A whole number of at most 64 bits; `min`, `max` bound its value.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list; `min`, `max` bound its length, `items` its members.
    Array,
    /// An object, passed through unchecked but for its type.
    Object,
}

impl ArgType {
    const fn describe(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// One declared argument.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgSpec {
    /// Its JSON type.
    #[serde(rename = "type")]
    pub ty: ArgType,
    /// The enqueuer must send it.
    #[serde(default)]
    pub required: bool,
    /// Taken when it is not sent.
    #[serde(default)]
    pub default: Option<Value>,
    /// Least value, or least length.
    #[serde(default)]
    pub min: Option<Number>,
    /// Greatest value, or greatest length.
    #[serde(default)]
    pub max: Option<Number>,
    /// A regular expression the whole string must match.
    #[serde(default, deserialize_with = "whole_regex")]
    pub pattern: Option<Regex>,
    /// The only values allowed.
    #[serde(default, rename = "enum")]
    pub allowed: Option<Vec<Value>>,
    /// What each member of an array must be.
    #[serde(default)]
    pub items: Option<Box<Self>>,
}

fn whole_regex<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(d)?;
    Regex::new(&format!("^(?:{text})$"))
        .map(Some)
        .map_err(serde::de::Error::custom)
}

/// Checks a declaration itself: a default that does not fit, a bound that means nothing for the type.
///
/// # Errors
/// Names the argument and what is wrong with it.
pub fn check_specs(specs: &BTreeMap<String, ArgSpec>) -> Result<(), String> {
    specs
        .iter()
        .try_for_each(|(name, spec)| check_spec(name, spec))
}

fn check_spec(name: &str, spec: &ArgSpec) -> Result<(), String> {
    let bounded = spec.min.is_some() || spec.max.is_some();
    if bounded && matches!(spec.ty, ArgType::Boolean | ArgType::Object) {
        return Err(format!(
            "args.{name}: min and max mean nothing for {}",
            spec.ty.describe()
        ));
    }
    if spec.pattern.is_some() && spec.ty != ArgType::String {
        return Err(format!("args.{name}: pattern is for strings only"));
    }
    if spec.items.is_some() && spec.ty != ArgType::Array {
        return Err(format!("args.{name}: items is for arrays only"));
    }
    if spec.required && spec.default.is_some() {
        return Err(format!(
            "args.{name}: a required argument can't have a default"
        ));
    }
    if let (Some(min), Some(max)) = (&spec.min, &spec.max)
        && min.as_f64() > max.as_f64()
    {
        return Err(format!("args.{name}: min {min} is more than max {max}"));
    }
    if let Some(items) = &spec.items {
        check_spec(&format!("{name}[]"), items)?;
    }
    for value in spec.default.iter().chain(spec.allowed.iter().flatten()) {
        check_type(name, spec, value)?;
    }
    match &spec.default {
        Some(default) => check_value(name, spec, default).map_err(|e| format!("default of {e}")),
        None => Ok(()),
    }
}

/// Checks what was sent and fills in defaults.
///
/// # Errors
/// Names the argument, what was given and what is allowed.
pub fn bind(
    specs: &BTreeMap<String, ArgSpec>,
    given: &mut Map<String, Value>,
) -> Result<(), String> {
    if let Some(unknown) = given.keys().find(|k| !specs.contains_key(*k)) {
        let known: Vec<&str> = specs.keys().map(String::as_str).collect();
        return Err(format!(
            "args.{unknown}: not declared; this kind takes: {}",
            if known.is_empty() {
                "nothing".to_owned()
            } else {
                known.join(", ")
            }
        ));
    }
    for (name, spec) in specs {
        match (given.get(name), &spec.default) {
            (Some(value), _) => check_value(name, spec, value)?,
            (None, Some(default)) => {
                given.insert(name.clone(), default.clone());
            }
            (None, None) if spec.required => {
                return Err(format!("args.{name}: required ({})", spec.ty.describe()));
            }
            (None, None) => {}
        }
    }
    Ok(())
}

fn check_value(name: &str, spec: &ArgSpec, value: &Value) -> Result<(), String> {
    check_type(name, spec, value)?;
    if let Some(allowed) = &spec.allowed
        && !allowed.contains(value)
    {
        let listed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Err(format!(
            "args.{name}: {} is not one of {}",
            brief(value),
            listed.join(", ")
        ));
    }
    match value {
        Value::Number(n) => check_bounds(name, spec, n.as_f64(), "value")?,
        Value::String(s) => {
            check_bounds(name, spec, Some(s.chars().count() as f64), "length")?;
            if spec.pattern.as_ref().is_some_and(|p| !p.is_match(s)) {
                return Err(format!(
                    "args.{name}: {} does not match its pattern",
                    brief(value)
                ));
            }
        }
        Value::Array(items) => {
            check_bounds(name, spec, Some(items.len() as f64), "length")?;
            if let Some(each) = &spec.items {
                for (n, item) in items.iter().enumerate() {
                    check_value(&format!("{name}[{n}]"), each, item)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_type(name: &str, spec: &ArgSpec, value: &Value) -> Result<(), String> {
    let fits = match spec.ty {
        ArgType::String => value.is_string(),
        ArgType::Number => value.is_number(),
        ArgType::Integer => value.is_i64() || value.is_u64(),
        ArgType::Boolean => value.is_boolean(),
        ArgType::Array => value.is_array(),
        ArgType::Object => value.is_object(),
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "args.{name}: expected {}, got {} {}",
        spec.ty.describe(),
        type_name(value),
        brief(value)
    ))
}

fn check_bounds(
    name: &str,
    spec: &ArgSpec,
    measured: Option<f64>,
    what: &str,
) -> Result<(), String> {
    let Some(measured) = measured else {
        return Ok(());
    };
    if let Some(min) = &spec.min
        && min.as_f64().is_some_and(|m| measured < m)
    {
        return Err(format!("args.{name}: {what} {measured} is less than {min}"));
    }
    if let Some(max) = &spec.max
        && max.as_f64().is_some_and(|m| measured > m)
    {
        return Err(format!("args.{name}: {what} {measured} is more than {max}"));
    }
    Ok(())
}

/// A value short enough for an error message.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 60 {
        return text;
    }
    format!("{}…", super::history::cut(&text, 60))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn specs(toml: &str) -> BTreeMap<String, ArgSpec> {
        toml::from_str(toml).unwrap()
    }

    fn bound(specs: &BTreeMap<String, ArgSpec>, json: &str) -> Result<Value, String> {
        let mut given = serde_json::from_str(json).unwrap();
        bind(specs, &mut given).map(|()| Value::Object(given))
    }

    #[test]
    fn defaults_are_filled_in_and_bounds_held() {
        let s = specs(
            r#"n = { type = "integer", required = true, min = 0, max = 9 }
               who = { type = "string", default = "all", pattern = "[a-z]+", max = 5 }
               tags = { type = "array", items = { type = "string", enum = ["a", "b"] } }"#,
        );
        check_specs(&s).unwrap();
        assert_eq!(
            bound(&s, r#"{"n":3}"#).unwrap(),
            serde_json::json!({"n":3,"who":"all"})
        );
        assert!(bound(&s, r#"{"n":3,"tags":["a","b"]}"#).is_ok());
        for (bad, names) in [
            ("{}", "args.n: required"),
            (r#"{"n":-1}"#, "less than 0"),
            (r#"{"n":10}"#, "more than 9"),
            (r#"{"n":1.5}"#, "expected an integer, got a number 1.5"),
            (r#"{"n":"1"}"#, "expected an integer, got a string"),
            (r#"{"n":1,"m":2}"#, "args.m: not declared"),
            (r#"{"n":1,"who":"A"}"#, "pattern"),
            (r#"{"n":1,"who":"abcdef"}"#, "length 6"),
            (r#"{"n":1,"who":"ab\nc"}"#, "pattern"),
            (r#"{"n":1,"tags":["a","c"]}"#, "args.tags[1]"),
        ] {
            let error = bound(&s, bad).unwrap_err();
            assert!(error.contains(names), "{bad}: {error}");
        }
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused() {
        for bad in [
            r#"n = { type = "boolean", min = 1 }"#,
            r#"n = { type = "integer", pattern = "x" }"#,
            r#"n = { type = "string", items = { type = "string" } }"#,
            r#"n = { type = "integer", default = "x" }"#,
            r#"n = { type = "integer", default = 5, max = 4 }"#,
            r#"n = { type = "integer", min = 5, max = 4 }"#,
            r#"n = { type = "integer", required = true, default = 4 }"#,
        ] {
            assert!(check_specs(&specs(bad)).is_err(), "{bad}");
        }
        assert!(
            toml::from_str::<BTreeMap<String, ArgSpec>>(
                r#"n = { type = "string", pattern = "(" }"#
            )
            .is_err()
        );
    }
}
