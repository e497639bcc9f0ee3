//! Reads what this build may not know of: a phase that another version has added is read as none.
//!
//! Whoever lists objects reads all of them or none, so one word in one status is not to be the end of every list.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

pub(super) fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}
