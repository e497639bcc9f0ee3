//! The settings of everything that has to know which images are pulled through the proxy: the proxy's port, the images that
//! are kept as they are, and the namespaces that are left alone.

use std::{collections::BTreeSet, fs, sync::Arc};

use kube_client::core::Selector;
use kuik_core::{
    controller::pods::PodRules,
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, StandardPolicy},
};
use kuik_webhook::admission::{Admission, IgnoredNamespaces};

use super::{
    ConfigFile, Problems,
    selector::selector,
    value::{parsed, switch},
};

/// Where a pod of a cluster reads which namespace it is in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What is said about rewriting, before anybody has looked at it.
#[derive(Debug, Default, clap::Args)]
pub struct RawRewriting {
    /// The port of the proxy on every node [default: 8082]
    #[arg(long, env = "KUIK_PROXY_PORT", hide_env_values = true, value_name = "PORT")]
    pub(super) proxy_port: Option<String>,
    /// Keep the images that this regular expression matches; may be given several times
    #[arg(long, env = "KUIK_IGNORE_IMAGES", hide_env_values = true, value_name = "REGEX")]
    pub(super) ignore_images: Vec<String>,
    /// Keep the images that none of these regular expressions matches; may be given several times
    #[arg(long, env = "KUIK_ACCEPT_IMAGES", hide_env_values = true, value_name = "REGEX")]
    pub(super) accept_images: Vec<String>,
    /// Keep images whose pull policy is Always, or becomes that because their tag is latest or none: true or false
    /// [default: true]
    #[arg(long, env = "KUIK_IGNORE_PULL_POLICY_ALWAYS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) ignore_pull_policy_always: Option<String>,
    /// A namespace whose pods are left alone, besides kube-system and our own; may be given several times
    #[arg(
        long,
        env = "KUIK_IGNORE_NAMESPACES",
        hide_env_values = true,
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub(super) ignore_namespaces: Vec<String>,
    /// The pods that are looked at, by their labels: a label selector in YAML or JSON, as in a webhook's configuration
    /// [default: all]
    #[arg(long, env = "KUIK_OBJECT_SELECTOR", hide_env_values = true, value_name = "SELECTOR")]
    pub(super) object_selector: Option<String>,
    /// Our own namespace [default: the one of the pod's service account]
    #[arg(long, env = "POD_NAMESPACE", hide_env_values = true, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
}

/// Which images are rewritten, and in which namespaces none is.
#[derive(Debug)]
pub struct RewritingConfig {
    /// The proxy that they are pulled through.
    pub proxy: ProxyAuthority,
    /// Which they are.
    pub policy: StandardPolicy,
    /// The namespaces that are left alone: kube-system and our own are among them.
    pub ignored: BTreeSet<String>,
    /// The pods of the others that are not left alone.
    pub selector: Selector,
    /// Our own, where there is one.
    pub namespace: Option<String>,
}

const PORT: &str = "proxy-port";
const IGNORE: &str = "ignore-images";
const ACCEPT: &str = "accept-images";
const ALWAYS: &str = "ignore-pull-policy-always";
const NAMESPACES: &str = "ignore-namespaces";
pub(super) const SELECTOR: &str = "object-selector";
const NAMESPACE: &str = "namespace";

impl RawRewriting {
    /// The settings that a file can have.
    pub(super) const KEYS: [&str; 7] = [PORT, IGNORE, ACCEPT, ALWAYS, NAMESPACES, SELECTOR, NAMESPACE];

    /// What was given here, and for the rest what the file says.
    pub(super) fn over(self, file: &ConfigFile) -> Self {
        Self {
            proxy_port: file.one(PORT, self.proxy_port),
            ignore_images: file.list(IGNORE, self.ignore_images),
            accept_images: file.list(ACCEPT, self.accept_images),
            ignore_pull_policy_always: file.one(ALWAYS, self.ignore_pull_policy_always),
            ignore_namespaces: file.list(NAMESPACES, self.ignore_namespaces),
            object_selector: self.object_selector.or_else(|| Some(file.form(SELECTOR)?.to_string())),
            namespace: file.one(NAMESPACE, self.namespace),
        }
    }

    /// `None` only where a problem was added.
    pub(super) fn read(self, problems: &mut Problems) -> Option<RewritingConfig> {
        let port: u16 = parsed(PORT, self.proxy_port.as_deref(), 8082, "a port", problems);
        let always = switch(ALWAYS, self.ignore_pull_policy_always.as_deref(), true, problems);
        let patterns = ImagePatterns::new(&self.ignore_images, &self.accept_images);
        let patterns = problems.check(&format!("{IGNORE}, {ACCEPT}"), patterns);
        let selector = self.object_selector.as_deref().map(selector).transpose();
        let selector = problems.check(SELECTOR, selector);
        let (patterns, selector) = (patterns?, selector?.unwrap_or_default());
        let proxy = ProxyAuthority::localhost(port);
        let policy = StandardPolicy::new(proxy.clone()).with_patterns(patterns).with_always_kept(always);
        let namespace = self.namespace.or_else(|| fs::read_to_string(NAMESPACE_FILE).ok());
        let namespace = namespace.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let always_ignored = ["kube-system".to_owned()].into_iter().chain(namespace.clone());
        let ignored = self.ignore_namespaces.into_iter().chain(always_ignored).collect();
        Some(RewritingConfig { proxy, policy, ignored, selector, namespace })
    }
}

impl RewritingConfig {
    /// What reviews of pods are answered by.
    #[must_use]
    pub fn admission(&self) -> Admission {
        let ignored = IgnoredNamespaces::new(self.ignored.iter().cloned());
        Admission::new(Arc::new(self.policy.clone()), self.proxy.clone(), ignored)
            .selecting(self.selector.clone())
    }

    /// Which images of pods are kept: those that are rewritten.
    #[must_use]
    pub fn pod_rules(&self) -> PodRules {
        PodRules::new(self.proxy.clone(), Arc::new(self.policy.clone()))
            .ignoring_namespaces(self.ignored.iter().cloned())
            .selecting(self.selector.clone())
    }
}
