//! Strict JSON: what serde alone lets through and an envelope may not contain.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A JSON value in which no object has the same key twice.
#[derive(Debug)]
pub(super) struct StrictValue(pub Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StrictVisitor).map(StrictValue)
    }
}

/// A JSON object in which no key stands twice, at any depth.
#[derive(Debug, Default)]
pub(super) struct StrictObject(pub Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match StrictValue::deserialize(d)?.0 {
            Value::Object(map) => Ok(Self(map)),
            other => Err(de::Error::custom(format!(
                "expected an object, got {}",
                type_name(&other)
            ))),
        }
    }
}

/// The JSON name of a value's type, for error messages.
pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(StrictValue(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, StrictValue(value))) = access.next_entry::<String, _>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("duplicate key `{key}`")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// One pass over the bytes for what must be known before the parser recurses or rounds: nesting deeper than
/// `max_depth`, and integers that do not fit in 64 bits (the parser would turn them into floats). Returns the depth.
pub(super) fn scan(raw: &[u8], max_depth: usize) -> Result<usize, String> {
    let mut depth = 0_usize;
    let mut deepest = 0;
    let mut at = 0;
    while at < raw.len() {
        match raw[at] {
            b'"' => at = skip_string(raw, at + 1),
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(format!("nested deeper than {max_depth} levels"));
                }
                deepest = deepest.max(depth);
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = raw[at..]
                    .iter()
                    .position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                    .map_or(raw.len(), |n| at + n);
                check_integer(&raw[at..end])?;
                at = end;
            }
            _ => at += 1,
        }
    }
    Ok(deepest)
}

/// Whether an object is nested at most `max` levels deep, itself included.
pub(super) fn within(object: &Map<String, Value>, max: usize) -> bool {
    max > 0 && object.values().all(|value| value_within(value, max - 1))
}

/// Whether a value is nested at most `max` levels deep.
pub(super) fn value_within(value: &Value, max: usize) -> bool {
    match value {
        Value::Object(object) => within(object, max),
        Value::Array(items) => max > 0 && items.iter().all(|item| value_within(item, max - 1)),
        _ => true,
    }
}

/// The position just after the string that starts at `at`.
fn skip_string(raw: &[u8], mut at: usize) -> usize {
    while at < raw.len() {
        match raw[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn check_integer(token: &[u8]) -> Result<(), String> {
    // 18 digits always fit; anything with a point or an exponent is a float by its own words.
    if token.len() <= 18 || token.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return Ok(());
    }
    let text = std::str::from_utf8(token).unwrap_or_default();
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return Ok(());
    }
    Err("an integer does not fit in 64 bits".to_owned())
}
