//! Reads of a JSON text only what somebody looks at: the rest is passed over without being kept.
//!
//! A pod has hundreds of fields, of which its images are few, and reading all of them costs more than deciding. What is
//! read keeps the shape that it has in the text, also where that is not the one that was expected, and the items of a
//! list keep their places: what is found in the result is in the text under the same JSON pointer.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// What is kept of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mask {
    /// All of it.
    Whole,
    /// Of an object these fields, and nothing of a list.
    Fields(&'static [(&'static str, Mask)]),
    /// Of a list every item, each by the same mask, and nothing of an object.
    Items(&'static Mask),
}

impl<'de> DeserializeSeed<'de> for Mask {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::Whole => Value::deserialize(deserializer),
            Self::Fields(_) | Self::Items(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Mask {
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
        while let Some(found) = object.next_key_seed(OneOf(known))? {
            match found {
                Some(&(name, mask)) => {
                    let value = object.next_value_seed(mask)?;
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

/// Which of the known fields a key is.
struct OneOf(&'static [(&'static str, Mask)]);

impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = Option<&'static (&'static str, Mask)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for OneOf {
    type Value = Option<&'static (&'static str, Mask)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MASK: Mask = Mask::Fields(&[
        ("labels", Mask::Whole),
        ("containers", Mask::Items(&Mask::Fields(&[("image", Mask::Whole)]))),
    ]);

    fn read(text: &str) -> Value {
        MASK.deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn only_what_is_looked_at_is_kept_and_it_keeps_its_place() {
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
    fn another_shape_stays_the_shape_that_it_is() {
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
