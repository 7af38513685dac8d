//! What jobs of one kind are told apart by, for limits and turns: an expression over their arguments, and the key it gives.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest key that is taken as it is, bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// The longest expression, bytes.
const MAX_EXPR_BYTES: usize = 256;

/// `args.<name>`, or deeper: `args.<name>.<field>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExpr {
    path: Vec<String>,
}

impl KeyExpr {
    /// The argument it looks at, or into.
    #[must_use]
    pub fn argument(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// Whether it looks into an object.
    #[must_use]
    pub fn is_deep(&self) -> bool {
        self.path.len() > 1
    }

    /// The key of a job with these arguments; `default` stands for the whole argument if it was not sent. A value that
    /// is not there gives the empty key: jobs without one are a group of their own.
    ///
    /// # Errors
    /// The value is nothing to tell jobs apart by: a list, an object, a fraction.
    pub fn key(
        &self,
        args: &Map<String, Value>,
        default: Option<&Value>,
    ) -> Result<Arc<str>, String> {
        let whole = args.get(self.argument()).or(default);
        let below = self.path.iter().skip(1);
        let value = below.fold(whole, |value, field| value?.get(field));
        match value {
            None | Some(Value::Null) => Ok("".into()),
            Some(Value::String(text)) => Ok(safe_key(text)),
            Some(Value::Bool(b)) => Ok(safe_key(&b.to_string())),
            Some(Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(safe_key(&n.to_string())),
            Some(_) => Err(format!(
                "{self}: must be a string, an integer or a boolean, as jobs are told apart by it"
            )),
        }
    }
}

impl FromStr for KeyExpr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            !part.is_empty() && part.bytes().all(allowed)
        };
        let path = text.strip_prefix("args.").unwrap_or_default();
        if text.len() > MAX_EXPR_BYTES || !path.split('.').all(word) {
            return Err(format!(
                "{text:?} must be args.<name>, or deeper like args.user.id"
            ));
        }
        Ok(Self {
            path: path.split('.').map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for KeyExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "args.{}", self.path.join("."))
    }
}

/// A key as it may stand in the names and lists of the queue. One that is too long, holds control characters, or looks
/// like such a stand-in, is replaced by a hash.
#[must_use]
pub fn safe_key(text: &str) -> Arc<str> {
    let plain = text.len() <= MAX_KEY_BYTES
        && !text.starts_with('#')
        && !text.chars().any(char::is_control);
    if plain {
        return text.into();
    }
    let digest = Sha256::digest(text.as_bytes());
    format!("#{}", hex::encode(&digest[..16])).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn key(expr: &str, args: Value) -> Result<Arc<str>, String> {
        let expr: KeyExpr = expr.parse().unwrap();
        expr.key(args.as_object().unwrap(), Some(&json!("by default")))
    }

    #[test]
    fn scalars_are_keys_and_what_is_missing_is_the_empty_one() {
        for (args, expected) in [
            (json!({"t": "acme"}), "acme"),
            (json!({"t": 7}), "7"),
            (json!({"t": -7}), "-7"),
            (json!({"t": true}), "true"),
            (json!({"t": null}), ""),
            (json!({}), "by default"),
        ] {
            assert_eq!(&*key("args.t", args).unwrap(), expected);
        }
        assert_eq!(&*key("args.u.id", json!({"u": {"id": 3}})).unwrap(), "3");
        assert_eq!(&*key("args.u.id", json!({"u": {}})).unwrap(), "");
        for args in [json!({"t": 1.5}), json!({"t": []}), json!({"t": {}})] {
            assert!(key("args.t", args).unwrap_err().starts_with("args.t: "));
        }
    }

    #[test]
    fn only_paths_below_args_are_expressions() {
        for bad in [
            "", "args", "args.", "t", "args..t", "args.a b", "meta.t", "args.é",
        ] {
            assert!(bad.parse::<KeyExpr>().is_err(), "{bad}");
        }
        assert_eq!(
            "args.a.b".parse::<KeyExpr>().unwrap().to_string(),
            "args.a.b"
        );
    }

    #[test]
    fn what_could_break_a_list_or_a_name_is_hashed() {
        for odd in ["a\nb", "\0", "#x", &"k".repeat(257)] {
            let safe = safe_key(odd);
            assert!(safe.len() == 33 && safe.starts_with('#'), "{safe}");
        }
        assert_eq!(&*safe_key("a@b:c {d}"), "a@b:c {d}");
        assert_ne!(safe_key("a\n"), safe_key("b\n"));
    }
}
