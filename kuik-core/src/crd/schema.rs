//! Schema transformation: removes defaults.
//!
//! Missing fields decode as empty because of `serde(default)`. That default must not be written into objects by the API
//! server.

use schemars::Schema;

/// Removes the defaults of all fields of a struct.
pub(super) fn without_defaults(schema: &mut Schema) {
    let fields = schema.get_mut("properties").and_then(|fields| fields.as_object_mut());
    for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
        if let Some(field) = field.as_object_mut() {
            field.remove("default");
        }
    }
}
