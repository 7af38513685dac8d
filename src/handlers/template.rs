//! Templates of cache keys and tags: `"product:{id}"`.
//!
//! Owns: filling names with single values. What comes out is a plain text that its user checks; nothing in a value is
//! ever read as a template again.

use serde_json::{Map, Value};

/// A text with names in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

impl Template {
    /// Reads a template. A name is 1 or more of `A-Z a-z 0-9 _`; a brace stands for nothing else.
    ///
    /// # Errors
    /// Says what is wrong, and shows the template.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?}: {what}; write names like {{user_id}}");
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inner = from
                .strip_prefix('{')
                .ok_or_else(|| wrong("a } without its {"))?;
            let (name, after) = inner
                .split_once('}')
                .ok_or_else(|| wrong("a { without its }"))?;
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(allowed) {
                return Err(wrong("a name must be of A-Z a-z 0-9 _"));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The names it needs.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// Names the value that is missing, null, or no text, number or boolean.
    pub(super) fn fill(&self, values: &Map<String, Value>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Name(name) => match values.get(name) {
                    Some(Value::String(value)) => text.push_str(value),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                        text.push_str(&value.to_string());
                    }
                    None => return Err(format!("{{{name}}}: there is no such value")),
                    Some(Value::Null) => return Err(format!("{{{name}}} is null")),
                    Some(Value::Array(_) | Value::Object(_)) => {
                        return Err(format!("{{{name}}} is no single value"));
                    }
                },
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn fill(template: &str, values: &str) -> Result<String, String> {
        Template::parse(template)?.fill(&serde_json::from_str(values).unwrap())
    }

    #[test]
    fn single_values_are_filled_in() {
        let values = r#"{"id":7,"name":"a{b}","ok":true}"#;
        assert_eq!(fill("p:{id}:{name}", values).unwrap(), "p:7:a{b}");
        assert_eq!(fill("{ok}", values).unwrap(), "true");
        assert_eq!(fill("fixed", values).unwrap(), "fixed");
    }

    #[test]
    fn what_is_no_single_value_is_refused() {
        for values in [
            r#"{}"#,
            r#"{"id":null}"#,
            r#"{"id":[1]}"#,
            r#"{"id":{"a":1}}"#,
        ] {
            assert!(fill("p:{id}", values).unwrap_err().contains("{id}"));
        }
    }

    #[test]
    fn braces_only_hold_names() {
        for bad in [
            "{", "}", "{}", "a{b", "a}b", "{a b}", "{{a}}", "{a.b}", "{é}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad:?} was taken");
        }
        let names = Template::parse("{a}:{b}{a}").unwrap();
        assert_eq!(names.names().collect::<Vec<_>>(), ["a", "b", "a"]);
    }
}
