//! Uniting the arguments of jobs that were merged while they waited. Pure.

use serde_json::{Map, Value};

/// The arguments of a job with those of later ones taken in, the oldest first. Arrays are united: each member once, in the
/// order in which they came. Of everything else the newest counts.
#[must_use]
pub fn unite(
    mut args: Map<String, Value>,
    later: impl IntoIterator<Item = Map<String, Value>>,
) -> Map<String, Value> {
    let mut seen = Seen::default();
    for newer in later {
        for (name, value) in newer {
            match (args.get_mut(&name), value) {
                (Some(Value::Array(items)), Value::Array(more)) => seen.add(&name, items, more),
                (_, value) => {
                    seen.0.remove(&name);
                    args.insert(name, value);
                }
            }
        }
    }
    args
}

/// Which members each array holds, as text: there may be a great many.
#[derive(Default)]
struct Seen(std::collections::HashMap<String, std::collections::HashSet<String>>);

impl Seen {
    fn add(&mut self, name: &str, items: &mut Vec<Value>, more: Vec<Value>) {
        let held = self.0.entry(name.to_owned()).or_insert_with(|| {
            let mut held = std::collections::HashSet::new();
            items.retain(|item| held.insert(item.to_string()));
            held
        });
        items.extend(
            more.into_iter()
                .filter(|item| held.insert(item.to_string())),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn united(all: &[Value]) -> Value {
        let mut maps = all.iter().map(|v| v.as_object().unwrap().clone());
        let first = maps.next().unwrap();
        Value::Object(unite(first, maps))
    }

    #[test]
    fn arrays_are_united_in_order_and_of_the_rest_the_newest_counts() {
        let all = [
            json!({"tags": ["a", "b", "a"], "n": 1, "only": true}),
            json!({"tags": ["c", "b"], "n": 2, "new": [1]}),
            json!({"tags": ["a", {"x": 1}], "n": 3, "new": [2, 1]}),
            json!({"tags": [{"x": 1}, "d"]}),
        ];
        let expected = json!({
            "tags": ["a", "b", "c", {"x": 1}, "d"], "n": 3, "only": true, "new": [1, 2],
        });
        assert_eq!(united(&all), expected);
    }

    #[test]
    fn what_changes_its_type_is_replaced() {
        assert_eq!(
            united(&[json!({"x": [1]}), json!({"x": 2})]),
            json!({"x": 2})
        );
        let back = [
            json!({"x": [1, 2]}),
            json!({"x": null}),
            json!({"x": [2]}),
            json!({"x": [2, 3]}),
        ];
        assert_eq!(united(&back), json!({"x": [2, 3]}));
        assert_eq!(
            united(&[json!({"x": [1, 1.0, "1"]})]),
            json!({"x": [1, 1.0, "1"]})
        );
        assert_eq!(united(&[json!({})]), json!({}));
    }
}
