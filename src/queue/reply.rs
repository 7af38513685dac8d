//! Reading what a script answered. A reply of another shape than the script's header says is an error, never a panic.

use super::QueueError;
use redis::Value;
use std::vec::IntoIter;

/// The items of an array reply, taken one by one.
pub(super) struct Reply(IntoIter<Value>);

impl Reply {
    pub(super) fn new(value: Value) -> Result<Self, QueueError> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            other => Err(unexpected("an array", &other)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    fn next(&mut self) -> Result<Value, QueueError> {
        self.0
            .next()
            .ok_or_else(|| QueueError::Reply("shorter than expected".to_owned()))
    }

    pub(super) fn array(&mut self) -> Result<Self, QueueError> {
        Self::new(self.next()?)
    }

    /// An array, or none if a word stands there.
    pub(super) fn maybe_array(&mut self) -> Result<Option<Self>, QueueError> {
        match self.next()? {
            Value::BulkString(_) | Value::SimpleString(_) => Ok(None),
            other => Self::new(other).map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, QueueError> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            other => Err(unexpected("a string", &other)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, QueueError> {
        String::from_utf8(self.bytes()?).map_err(|_| QueueError::Reply("not UTF-8".to_owned()))
    }

    /// Text that others may have written to private storage: what is no UTF-8 in it names nothing of ours.
    pub(super) fn lossy(&mut self) -> Result<String, QueueError> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    /// A number, as an integer or in text, a score of a zset included.
    pub(super) fn int(&mut self) -> Result<i64, QueueError> {
        match self.next()? {
            Value::Int(n) => Ok(n),
            Value::BulkString(bytes) => {
                number(&bytes).ok_or_else(|| QueueError::Reply("a number was expected".to_owned()))
            }
            other => Err(unexpected("a number", &other)),
        }
    }

    /// A time or count, where -1 and below stand for none.
    pub(super) fn maybe(&mut self) -> Result<Option<u64>, QueueError> {
        Ok(u64::try_from(self.int()?).ok())
    }

    pub(super) fn count(&mut self) -> Result<u64, QueueError> {
        Ok(self.maybe()?.unwrap_or(0))
    }
}

fn number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse()
        .ok()
        .or_else(|| text.parse::<f64>().ok().map(|f| f as i64))
}

fn unexpected(wanted: &str, got: &Value) -> QueueError {
    let kind = match got {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "a string",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    QueueError::Reply(format!("{kind} where {wanted} was expected"))
}
