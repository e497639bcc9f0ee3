//! Placement of a pod: whether the node that it needs can have a proxy by the time it pulls.
//!
//! Only what the pod itself says counts. A pod that a node affinity or a scheduler sends to a virtual node looks like any
//! other, and needs the opt-out label.

/// The class of pods without which a node does not work.
const NODE_CRITICAL_CLASS: &str = "system-node-critical";

/// Taint of a node whose network is not ready yet.
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";

/// Taint of the nodes of Virtual Kubelet.
const VIRTUAL_KUBELET_TAINT: &str = "virtual-kubelet.io/provider";

/// Node labels that hold the operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// Node labels of virtual nodes: AWS Fargate and Virtual Kubelet.
const VIRTUAL_NODES: [(&str, &str); 2] =
    [("eks.amazonaws.com/compute-type", "fargate"), ("type", "virtual-kubelet")];

/// Label that AWS sets on pods that run on Fargate.
const FARGATE_PROFILE_LABEL: &str = "eks.amazonaws.com/fargate-profile";

/// Requirements of a pod on its node.
///
/// ```
/// use kuik_core::rewrite::{Placement, Toleration};
///
/// let everything = Toleration { key: "", operator: "Exists", effect: "" };
/// let cni = Placement::default().with_host_network(true).with_toleration(everything);
/// assert!(cni.is_node_critical());
/// assert!(!Placement::default().with_toleration(everything).is_node_critical());
/// assert!(Placement::default().with_node_label("kubernetes.io/os", "windows").is_windows());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    has_critical_class: bool,
    uses_host_network: bool,
    tolerates_not_ready: bool,
    windows: bool,
    virtual_node: bool,
}

/// A toleration of a pod, as written; absent fields are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Toleration<'a> {
    /// Key of the taint; empty means every key.
    pub key: &'a str,
    /// `Exists`, or `Equal` if empty.
    pub operator: &'a str,
    /// Effect of the taint; empty means every effect.
    pub effect: &'a str,
}

impl Placement {
    /// Adds `spec.priorityClassName`.
    #[must_use]
    pub fn with_priority_class(self, class: &str) -> Self {
        Self { has_critical_class: self.has_critical_class || class == NODE_CRITICAL_CLASS, ..self }
    }

    /// Adds `spec.hostNetwork`.
    #[must_use]
    pub fn with_host_network(self, uses_host_network: bool) -> Self {
        Self { uses_host_network, ..self }
    }

    /// Adds one of `spec.tolerations`.
    #[must_use]
    pub fn with_toleration(self, toleration: Toleration<'_>) -> Self {
        Self {
            tolerates_not_ready: self.tolerates_not_ready || toleration.admits_to_node_that_is_not_ready(),
            virtual_node: self.virtual_node || toleration.key == VIRTUAL_KUBELET_TAINT,
            ..self
        }
    }

    /// Adds `spec.os.name`.
    #[must_use]
    pub fn with_os(self, os: &str) -> Self {
        Self { windows: self.windows || os == "windows", ..self }
    }

    /// Adds an entry of `spec.nodeSelector`.
    #[must_use]
    pub fn with_node_label(self, key: &str, value: &str) -> Self {
        Self {
            windows: self.windows || (OS_LABELS.contains(&key) && value == "windows"),
            virtual_node: self.virtual_node || VIRTUAL_NODES.contains(&(key, value)),
            ..self
        }
    }

    /// Adds a label of the pod.
    #[must_use]
    pub fn with_pod_label(self, key: &str) -> Self {
        Self { virtual_node: self.virtual_node || key == FARGATE_PROFILE_LABEL, ..self }
    }

    /// Returns true if the node may need this pod before it can run any proxy: a network plugin, a storage driver.
    ///
    /// Such pods have the priority class `system-node-critical`, or use the host's network and are admitted to a node
    /// that is not ready.
    #[must_use]
    pub fn is_node_critical(&self) -> bool {
        self.has_critical_class || (self.uses_host_network && self.tolerates_not_ready)
    }

    /// Returns true if the pod runs on Windows nodes, which have no proxy.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        self.windows
    }

    /// Returns true if the pod names a virtual node, which runs no DaemonSet and so has no proxy.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.virtual_node
    }
}

impl Toleration<'_> {
    /// Matches the taint that keeps pods from a node until its network is ready. API servers add a toleration of the
    /// effect `NoExecute` to every pod, which does not count.
    fn admits_to_node_that_is_not_ready(&self) -> bool {
        let key = self.key == NOT_READY_TAINT || (self.key.is_empty() && self.operator == "Exists");
        key && matches!(self.effect, "" | "NoSchedule")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerating(key: &str, operator: &str, effect: &str) -> Placement {
        Placement::default().with_toleration(Toleration { key, operator, effect })
    }

    #[test]
    fn node_critical_pods_have_the_class_or_host_network_and_toleration() {
        assert!(Placement::default().with_priority_class("system-node-critical").is_node_critical());
        assert!(!Placement::default().with_priority_class("system-cluster-critical").is_node_critical());
        assert!(!Placement::default().with_host_network(true).is_node_critical());
        for (key, operator, effect, expected) in [
            ("node.kubernetes.io/not-ready", "Exists", "NoSchedule", true),
            ("node.kubernetes.io/not-ready", "", "", true),
            ("", "Exists", "NoSchedule", true),
            ("", "Exists", "", true),
            // Added to every pod by the API server.
            ("node.kubernetes.io/not-ready", "Exists", "NoExecute", false),
            ("", "Exists", "NoExecute", false),
            ("", "", "", false),
            ("node.kubernetes.io/disk-pressure", "Exists", "NoSchedule", false),
        ] {
            let pod = tolerating(key, operator, effect);
            assert!(!pod.is_node_critical(), "{key} without host network");
            assert_eq!(pod.with_host_network(true).is_node_critical(), expected, "{key} {operator} {effect}");
        }
    }

    #[test]
    fn windows_and_virtual_nodes_are_recognized() {
        let label = |key, value| Placement::default().with_node_label(key, value);
        assert!(Placement::default().with_os("windows").is_windows());
        assert!(label("beta.kubernetes.io/os", "windows").is_windows());
        assert!(!label("kubernetes.io/os", "linux").with_os("linux").is_windows());
        assert!(label("eks.amazonaws.com/compute-type", "fargate").is_virtual());
        assert!(label("type", "virtual-kubelet").is_virtual());
        assert!(tolerating("virtual-kubelet.io/provider", "Exists", "").is_virtual());
        assert!(Placement::default().with_pod_label("eks.amazonaws.com/fargate-profile").is_virtual());
        assert!(!label("type", "gpu").with_pod_label("app").is_virtual());
        assert!(!tolerating("", "Exists", "").is_virtual());
    }
}
