//! Opt-out of single pods by a label, and the policy for pods that are kept as a whole.

use kuik_core::rewrite::{ContainerContext, Decision, KeepReason, RewritePolicy};
pub use kuik_core::rewrite::{OPT_OUT_LABEL, OPT_OUT_VALUE};
use serde_json::Value;

/// Returns true if a pod with these `labels` (an object of strings) opts out.
#[must_use]
pub fn opts_out(labels: &Value) -> bool {
    labels.get(OPT_OUT_LABEL).and_then(Value::as_str) == Some(OPT_OUT_VALUE)
}

/// The policy for a pod that is kept as a whole: keeps every image for this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAll(pub KeepReason);

impl RewritePolicy for KeepAll {
    fn decide(&self, _image: &str, _container: &ContainerContext<'_>) -> Decision {
        Decision::Keep(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_label_with_exact_value_opts_out() {
        assert!(opts_out(&json!({ OPT_OUT_LABEL: "ignore", "app": "web" })));
        for labels in
            [json!({ OPT_OUT_LABEL: "Ignore" }), json!({ OPT_OUT_LABEL: true }), json!({}), json!(null)]
        {
            assert!(!opts_out(&labels), "{labels}");
        }
    }
}
