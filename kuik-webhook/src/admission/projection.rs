//! JSON projection: deserializes only the fields in use and discards the rest.
//!
//! A pod has hundreds of fields, of which the webhook uses few; parsing all of them costs more than deciding. Projected
//! values keep their JSON type, also if it is not the expected one, and list items keep their index: every JSON pointer
//! into the result is valid in the text.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The part of a value to retain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Projection {
    /// All of it.
    Whole,
    /// These fields of an object; nothing of a list.
    Fields(&'static [(&'static str, Projection)]),
    /// Every item of a list, by the same projection; nothing of an object.
    Items(&'static Projection),
}

impl<'de> DeserializeSeed<'de> for Projection {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::Whole => Value::deserialize(deserializer),
            Self::Fields(_) | Self::Items(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Projection {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        match self {
            Self::Items(&each) => {
                while let Some(item) = list.next_element_seed(each)? {
                    items.push(item);
                }
            }
            Self::Whole | Self::Fields(_) => while list.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let known = match self {
            Self::Fields(known) => known,
            Self::Whole | Self::Items(_) => &[],
        };
        let mut fields = Map::new();
        while let Some(found) = object.next_key_seed(KnownField(known))? {
            match found {
                Some(&(name, projection)) => {
                    let value = object.next_value_seed(projection)?;
                    fields.insert(name.to_owned(), value);
                }
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(fields))
    }
}

/// Matches a key against the known fields.
struct KnownField(&'static [(&'static str, Projection)]);

impl<'de> DeserializeSeed<'de> for KnownField {
    type Value = Option<&'static (&'static str, Projection)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownField {
    type Value = Option<&'static (&'static str, Projection)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROJECTION: Projection = Projection::Fields(&[
        ("labels", Projection::Whole),
        ("containers", Projection::Items(&Projection::Fields(&[("image", Projection::Whole)]))),
    ]);

    fn read(text: &str) -> Value {
        PROJECTION.deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn projection_retains_known_fields_and_list_indexes() {
        let text = json!({
            "labels": { "a": "b", "deep": [1, { "c": null }] },
            "other": [[[{ "x": 1 }]]],
            "containers": [{ "image": "x", "name": "y" }, 7, null, { "env": [] }, ["z"], { "image": 5 }],
        });
        let expected = json!({
            "labels": { "a": "b", "deep": [1, { "c": null }] },
            "containers": [{ "image": "x" }, 7, null, {}, [], { "image": 5 }],
        });
        assert_eq!(read(&text.to_string()), expected);
    }

    #[test]
    fn projection_keeps_unexpected_json_types() {
        for (text, expected) in [
            (r#""text""#, json!("text")),
            ("-1", json!(-1)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("[1, {}]", json!([])),
            (r#"{"containers": {"image": "x"}}"#, json!({ "containers": {} })),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
