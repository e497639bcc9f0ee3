//! Lenient deserialization: a phase added by another version is read as none.
//!
//! Decoding a list fails as a whole, so an unknown value in one status must not make every list fail.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

pub(super) fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}
