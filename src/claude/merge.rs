//! Three-way merge of JSON, as a version control system does it.

use serde_json::{Map, Value};

/// Merges `mine` and `theirs`, which both come from `base`. If both changed the same thing, `mine` stays.
pub(super) fn three_way(
    base: &Map<String, Value>,
    mine: &Map<String, Value>,
    theirs: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = Map::new();
    let added = theirs.keys().filter(|key| !mine.contains_key(*key));
    for key in mine.keys().chain(added) {
        if let Some(value) = value(base.get(key), mine.get(key), theirs.get(key)) {
            merged.insert(key.clone(), value);
        }
    }
    merged
}

fn value(base: Option<&Value>, mine: Option<&Value>, theirs: Option<&Value>) -> Option<Value> {
    if mine == base {
        return theirs.cloned();
    }
    if theirs == base {
        return mine.cloned();
    }
    match (mine?, theirs) {
        (Value::Object(mine), Some(Value::Object(theirs))) => {
            let empty = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&empty);
            Some(Value::Object(three_way(base, mine, theirs)))
        }
        (Value::Array(mine), Some(Value::Array(theirs))) => {
            let base = base
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            Some(Value::Array(list(base, mine, theirs)))
        }
        (mine, _) => Some(mine.clone()),
    }
}

/// Lists in settings are sets: theirs, without what was taken out of mine, with what was added to it.
fn list(base: &[Value], mine: &[Value], theirs: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = theirs
        .iter()
        .filter(|item| !base.contains(item) || mine.contains(item))
        .cloned()
        .collect();
    for item in mine {
        if !base.contains(item) && !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(base: Value, mine: Value, theirs: Value) -> Value {
        let object = |value: Value| value.as_object().cloned().expect("an object");
        Value::Object(three_way(&object(base), &object(mine), &object(theirs)))
    }

    #[test]
    fn changes_of_both_sides_are_kept() {
        assert_eq!(
            merge(json!({}), json!({}), json!({"a": 1})),
            json!({"a": 1})
        );
        assert_eq!(
            merge(json!({"a": 1}), json!({"a": 1}), json!({})),
            json!({})
        );
        assert_eq!(
            merge(json!({"a": 1}), json!({"a": 2}), json!({"a": 3})),
            json!({"a": 2})
        );
        assert_eq!(
            merge(json!({"a": 1}), json!({}), json!({"a": 1})),
            json!({})
        );
        assert_eq!(
            merge(
                json!({"permissions": {"allow": ["A", "B"], "deny": ["X"]}}),
                json!({"permissions": {"allow": ["A", "B", "mine"], "deny": ["X"]}, "theme": "light"}),
                json!({"permissions": {"allow": ["B", "C"], "deny": ["X", "Y"]}, "verbose": true})
            ),
            json!({"permissions": {"allow": ["B", "C", "mine"], "deny": ["X", "Y"]}, "theme": "light", "verbose": true})
        );
    }
}
