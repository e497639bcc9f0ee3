//! What a schema does not say, though the types do.
//!
//! A field that was left out reads as empty by `serde(default)`. A cluster needs no such default written into its objects.

use schemars::Schema;

/// To be applied to a struct: no field of it has a default.
pub(super) fn without_defaults(schema: &mut Schema) {
    let fields = schema.get_mut("properties").and_then(|fields| fields.as_object_mut());
    for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
        if let Some(field) = field.as_object_mut() {
            field.remove("default");
        }
    }
}
