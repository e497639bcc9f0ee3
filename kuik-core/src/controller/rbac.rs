//! What each component asks of the Kubernetes API: the rights that it needs, each with the reason for it.
//!
//! This table is all that is granted: `kuik rbac` prints the roles from it, and a test runs the controllers with exactly
//! these rights.

/// A process that talks to the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// `kuik-controller`.
    Controllers,
    /// `kuik-webhook`, where it makes its certificate itself; with one in files it asks for nothing.
    Webhook,
    /// `kuik-registry` with `--kubernetes`, and `kuik-proxy` where it is to fetch private images itself.
    Puller,
}

/// Where a right holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everywhere.
    Cluster,
    /// In the namespace that kuik runs in.
    Own,
    /// In the namespace `default`, where events about objects of no namespace are.
    Default,
}

/// A right, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Whose it is.
    pub components: &'static [Component],
    /// Where it holds.
    pub scope: Scope,
    /// The API group.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The objects that it holds for, where it does not hold for all.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What for.
    pub reason: &'static str,
}

/// The Lease of the leader.
pub const LEASE: &str = "kuik-controller";

/// The Secret with the token of the cache registry, unless another one is named.
pub const TOKEN_SECRET: &str = "kuik-registry-token";

/// The Secret with the certificate of the webhook, unless another one is named.
pub const CERTIFICATE_SECRET: &str = "kube-image-keeper-webhook-certificate";

/// The MutatingWebhookConfiguration, unless another one is named.
pub const WEBHOOK_CONFIGURATION: &str = "kube-image-keeper-webhook";

const KUIK: &str = crate::crd::GROUP;

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
    /// Whether `component` has it.
    #[must_use]
    pub fn is_of(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    const fn only(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }
}

/// Every right of every component.
pub const RULES: &[Rule] = {
    use Component::{Controllers, Puller, Webhook};
    use Scope::{Cluster, Default, Own};
    &[
        rule(&[Controllers], Cluster, ("", "pods"), &["list", "watch"], "which images are used, and by whom"),
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
            ("", "secrets"),
            &["get"],
            "the pull secrets that Repositories name, to ask registries and to copy from them",
        ),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "cachedimages"),
            &["list", "watch", "get", "create", "patch", "delete"],
            "an object for every image that is used; expiry and its end",
        ),
        rule(&[Controllers], Cluster, (KUIK, "cachedimages/status"), &["patch"], "how each image is"),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "repositories"),
            &["list", "watch", "get", "create", "patch"],
            "an object for every repository of an image that is used; its finalizer",
        ),
        rule(
            &[Controllers],
            Cluster,
            (KUIK, "repositories/status"),
            &["patch"],
            "how each repository is, and the pull secrets that pods use for it",
        ),
        rule(
            &[Controllers, Webhook],
            Cluster,
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
            &["get", "patch"],
            "the authority of the webhook's certificate, for API servers to trust it",
        )
        .only(&[WEBHOOK_CONFIGURATION]),
        rule(
            &[Controllers],
            Default,
            ("events.k8s.io", "events"),
            &["create"],
            "what happens to CachedImages and Repositories, for kubectl describe",
        ),
        rule(
            &[Controllers],
            Own,
            ("coordination.k8s.io", "leases"),
            &["create"],
            "to elect the first leader",
        ),
        rule(
            &[Controllers],
            Own,
            ("coordination.k8s.io", "leases"),
            &["get", "update"],
            "to elect a leader, and to stay it",
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
            "which pull secrets open which repository",
        ),
        rule(&[Puller], Cluster, ("", "secrets"), &["get"], "those pull secrets, by their names"),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_list_secrets_or_touch_pods() {
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
