//! RBAC rules: the Kubernetes permissions of each component, each with its reason.
//!
//! `kuik rbac` prints the roles from this table, and a test runs the controllers with exactly these permissions.

/// A process that talks to the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// `kuik-controller`.
    Controllers,
    /// `kuik-webhook` with a self-managed certificate; with certificate files it needs no permissions.
    Webhook,
    /// `kuik-registry` with `--kubernetes`, and `kuik-proxy` if it fetches private images itself.
    Puller,
}

/// Scope of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole cluster.
    Cluster,
    /// The namespace that kuik runs in.
    Own,
    /// The namespace `default`, which holds the events of cluster-scoped objects.
    Default,
}

/// A permission and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Components that have it.
    pub components: &'static [Component],
    /// Scope.
    pub scope: Scope,
    /// The API group.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// Names of the objects; empty for all.
    pub names: &'static [&'static str],
    /// Allowed verbs.
    pub verbs: &'static [&'static str],
    /// Reason.
    pub reason: &'static str,
}

/// Name of the leader's Lease.
pub const LEASE: &str = "kuik-controller";

/// Default name of the Secret with the token of the cache registry.
pub const TOKEN_SECRET: &str = "kuik-registry-token";

/// Default name of the Secret with the certificate of the webhook.
pub const CERTIFICATE_SECRET: &str = "kube-image-keeper-webhook-certificate";

/// Default name of the MutatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "kube-image-keeper-webhook";

const KUIK: &str = kuik_core::crd::GROUP;

const fn rule(
    components: &'static [Component],
    scope: Scope,
    (group, resource): (&'static str, &'static str),
    verbs: &'static [&'static str],
    reason: &'static str,
) -> Rule {
    Rule { components, scope, group, resource, names: &[], verbs, reason }
}

impl Rule {
    /// Returns whether `component` has it.
    #[must_use]
    pub fn is_of(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    const fn only(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }
}

/// Permissions of all components.
pub const RULES: &[Rule] = {
    use Component::{Controllers, Puller, Webhook};
    use Scope::{Cluster, Default, Own};
    &[
        rule(
            &[Controllers],
            Cluster,
            ("", "pods"),
            &["list", "watch"],
            "the images in use, and the pods that use them",
        ),
        rule(
            &[Controllers],
            Cluster,
            ("", "serviceaccounts"),
            &["list", "watch"],
            "the pull secrets that ServiceAccounts name",
        ),
        rule(&[Controllers], Cluster, ("", "nodes"), &["list"], "the platforms of the nodes (--arch auto)"),
        rule(
            &[Controllers],
            Cluster,
            ("", "namespaces"),
            &["get"],
            "the ID of the cluster, under which the cache knows its images (--cluster-id)",
        )
        .only(&["kube-system"]),
        rule(
            &[Controllers],
            Cluster,
            ("", "secrets"),
            &["get"],
            "the pull secrets that Repositories name, to query and copy from registries",
        ),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "cachedimages"),
            &["list", "watch", "get", "create", "patch", "delete"],
            "an object for each image in use; expiry and deletion",
        ),
        rule(&[Controllers], Cluster, (KUIK, "cachedimages/status"), &["patch"], "the status of each image"),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "repositories"),
            &["list", "watch", "get", "create", "patch"],
            "an object for each repository of an image in use; its finalizer",
        ),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "repositories/status"),
            &["patch"],
            "the status of each repository, and the pull secrets that pods use for it",
        ),
        rule(
            &[Controllers, Webhook],
            Cluster,
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
            &["get", "patch"],
            "the caBundle of the webhook, so that API servers trust its certificate",
        )
        .only(&[WEBHOOK_CONFIGURATION]),
        rule(
            &[Controllers],
            Default,
            ("events.k8s.io", "events"),
            &["create"],
            "the events of CachedImages and Repositories, for kubectl describe",
        ),
        rule(
            &[Controllers],
            Own,
            ("coordination.k8s.io", "leases"),
            &["create"],
            "leader election: to create the Lease",
        ),
        rule(
            &[Controllers],
            Own,
            ("coordination.k8s.io", "leases"),
            &["get", "update"],
            "leader election: to acquire and renew the Lease",
        )
        .only(&[LEASE]),
        rule(
            &[Controllers],
            Own,
            ("", "secrets"),
            &["create"],
            "the token of the cache registry and the certificate of the webhook, on first start",
        ),
        rule(
            &[Controllers],
            Own,
            ("", "secrets"),
            &["get"],
            "the token of the cache registry, to write to it",
        )
        .only(&[TOKEN_SECRET]),
        rule(&[Webhook], Own, ("", "secrets"), &["create"], "the certificate of the webhook, on first start"),
        rule(
            &[Controllers, Webhook],
            Own,
            ("", "secrets"),
            &["get", "patch"],
            "the certificate of the webhook, to serve it and to renew it",
        )
        .only(&[CERTIFICATE_SECRET]),
        rule(
            &[Puller],
            Cluster,
            (KUIK, "repositories"),
            &["list", "watch"],
            "the names of the pull secrets of each repository",
        ),
        rule(&[Puller], Cluster, ("", "secrets"), &["get"], "the pull secrets, by name"),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_never_list_secrets_or_modify_pods() {
        for rule in RULES {
            let own = rule.names == [CERTIFICATE_SECRET];
            let allowed = |verb: &&str| ["get", "create"].contains(verb) || (own && *verb == "patch");
            assert!(rule.resource != "secrets" || rule.verbs.iter().all(allowed));
            assert!(rule.resource != "pods" || rule.verbs == ["list", "watch"]);
            assert!(!rule.verbs.contains(&"*") && rule.resource != "*" && rule.group != "*");
            assert!(!rule.reason.is_empty());
        }
    }
}
