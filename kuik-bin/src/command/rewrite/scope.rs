//! Selection of pods by namespace, label and annotation, as the webhook selects them.

use std::collections::BTreeSet;

use kuik_core::rewrite::{KeepReason, OPT_OUT_LABEL, OPT_OUT_VALUE, REWRITE_IMAGES_ANNOTATION};

use super::workload::Workload;

/// The namespace that the webhook always ignores.
const KUBE_SYSTEM: &str = "kube-system";

/// Annotation of the API object of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The pods to rewrite.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Ignored namespaces, in addition to kube-system.
    pub(super) ignored: BTreeSet<String>,
    /// Namespace of objects that set none.
    pub(super) default_namespace: Option<String>,
}

impl Scope {
    /// Returns why no image of a pod is rewritten, if none is.
    pub(super) fn excludes(&self, workload: &Workload<'_>) -> Option<KeepReason> {
        let pod = workload.metadata.context();
        let namespace = workload.of.namespace.or(self.default_namespace.as_deref()).unwrap_or_default();
        match () {
            () if namespace == KUBE_SYSTEM || self.ignored.contains(namespace) => {
                Some(KeepReason::NamespaceIgnored)
            }
            () if pod.label(OPT_OUT_LABEL) == Some(OPT_OUT_VALUE) => Some(KeepReason::PodOptedOut),
            () if pod.annotation(MIRROR).is_some() => Some(KeepReason::MirrorPod),
            () if pod.annotation(REWRITE_IMAGES_ANNOTATION) == Some("false") => {
                Some(KeepReason::RewritingDisabled)
            }
            () => None,
        }
    }
}
