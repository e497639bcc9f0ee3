//! Pods that want to be left alone say so with a label.

use kuik_core::rewrite::{ContainerContext, Decision, KeepReason, RewritePolicy};
pub use kuik_core::rewrite::{OPT_OUT_LABEL, OPT_OUT_VALUE};
use serde_json::Value;

/// Whether a pod with these `labels` (an object of strings) opts out.
#[must_use]
pub fn opts_out(labels: &Value) -> bool {
    labels.get(OPT_OUT_LABEL).and_then(Value::as_str) == Some(OPT_OUT_VALUE)
}

/// The policy for a pod that opts out: every image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptedOut;

impl RewritePolicy for OptedOut {
    fn decide(&self, _image: &str, _container: &ContainerContext<'_>) -> Decision {
        Decision::Keep(KeepReason::PodOptedOut)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_label_with_its_value_opts_out() {
        assert!(opts_out(&json!({ OPT_OUT_LABEL: "ignore", "app": "web" })));
        for labels in
            [json!({ OPT_OUT_LABEL: "Ignore" }), json!({ OPT_OUT_LABEL: true }), json!({}), json!(null)]
        {
            assert!(!opts_out(&labels), "{labels}");
        }
    }
}
