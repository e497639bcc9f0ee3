//! JSON Patch (RFC 6902): the changes for the API server to make.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// A list of changes, applied in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Operation>);

/// One change, at a JSON pointer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Adds a field.
    Add {
        /// JSON pointer to the field.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Replaces the value of a field.
    Replace {
        /// JSON pointer to the field.
        path: String,
        /// The new value.
        value: Value,
    },
    /// Removes a field.
    Remove {
        /// JSON pointer to the field.
        path: String,
    },
}

impl Patch {
    /// Returns the changes.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// Returns true if nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the string at `pointer`.
    pub(super) fn replace(&mut self, pointer: &str, value: &str) {
        self.0.push(Operation::Replace { path: pointer.to_owned(), value: value.into() });
    }

    /// Sets or removes (`None`) the `wanted` entries of the string map at `pointer` in `object`. A missing map is created
    /// if its parent is an object; a value of another type is not changed.
    pub(super) fn entries(&mut self, object: &Value, pointer: &str, wanted: &[(String, Option<String>)]) {
        let present = object.pointer(pointer);
        let Some(Value::Object(present)) = present else {
            let parent = pointer.rsplit_once('/').and_then(|(parent, _)| object.pointer(parent));
            if present.is_none_or(Value::is_null) && parent.is_some_and(Value::is_object) {
                let set = wanted.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?.into())));
                let value: Map<String, Value> = set.collect();
                if !value.is_empty() {
                    self.0.push(Operation::Add { path: pointer.to_owned(), value: value.into() });
                }
            }
            return;
        };
        // If a key is wanted twice, the last value wins: two changes of one key would conflict.
        let wanted: BTreeMap<&String, &Option<String>> =
            wanted.iter().map(|(key, value)| (key, value)).collect();
        for (key, value) in wanted {
            let path = || format!("{pointer}/{}", escaped(key));
            match (present.get(key), value) {
                (Some(Value::String(now)), Some(value)) if now == value => {}
                (None, None) => {}
                (Some(_), Some(value)) => self.replace(&path(), value),
                (None, Some(value)) => {
                    self.0.push(Operation::Add { path: path(), value: value.as_str().into() });
                }
                (Some(_), None) => self.0.push(Operation::Remove { path: path() }),
            }
        }
    }
}

/// Escapes a key for a JSON pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(present: &Value, wanted: &[(&str, Option<&str>)]) -> Value {
        let wanted: Vec<_> =
            wanted.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        let mut patch = Patch::default();
        patch.entries(present, "/m", &wanted);
        serde_json::to_value(patch).unwrap()
    }

    #[test]
    fn entries_changes_only_differences() {
        let present = json!({ "m": { "a/b~c": "1", "same": "2", "gone": "3", "other": "4" } });
        let wanted =
            [("a/b~c", Some("9")), ("same", Some("2")), ("gone", None), ("none", None), ("new", Some("5"))];
        let expected = json!([
            { "op": "replace", "path": "/m/a~1b~0c", "value": "9" },
            { "op": "remove", "path": "/m/gone" },
            { "op": "add", "path": "/m/new", "value": "5" },
        ]);
        assert_eq!(entries(&present, &wanted), expected);
    }

    #[test]
    fn entries_creates_missing_map() {
        for present in [json!({}), json!({ "m": null })] {
            let expected = json!([{ "op": "add", "path": "/m", "value": { "a": "1" } }]);
            assert_eq!(entries(&present, &[("a", Some("1")), ("b", None)]), expected);
            assert_eq!(entries(&present, &[("b", None)]), json!([]));
        }
        assert_eq!(entries(&json!({ "m": "text" }), &[("a", Some("1"))]), json!([]), "not an object");
    }

    #[test]
    fn entries_does_nothing_without_parent_object() {
        for object in [json!({}), json!({ "metadata": null }), json!({ "metadata": [] })] {
            let mut patch = Patch::default();
            patch.entries(&object, "/metadata/labels", &[("a".to_owned(), Some("1".to_owned()))]);
            assert!(patch.is_empty(), "{object}");
        }
    }
}
