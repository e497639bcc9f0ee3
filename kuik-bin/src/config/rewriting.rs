//! Image rewriting settings: the proxy's port, image patterns, and pod selection. The webhook rewrites, and the
//! controllers cache, by the same settings.

use std::{collections::BTreeSet, fs};

use kube_client::core::Selector;
use kuik_core::{
    controller::pods::PodRules,
    reference::ProxyAuthority,
    rewrite::{ImagePatterns, Rewriter, StandardPolicy},
};
use kuik_webhook::admission::AdmissionOptions;

use super::{
    ConfigFile, Problems,
    file::SELECTOR,
    origins::insecure_hosts,
    selector::selector,
    value::{parsed, switch},
};

/// File with the namespace of a pod, mounted by Kubernetes.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Unvalidated rewriting settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawRewriting {
    /// Port of the proxy on every node [default: 8082]
    #[arg(long, env = "KUIK_PROXY_PORT", hide_env_values = true, value_name = "PORT")]
    pub(super) proxy_port: Option<String>,
    /// Do not rewrite images that match this regular expression; repeatable
    #[arg(long, env = "KUIK_IGNORE_IMAGES", hide_env_values = true, value_name = "REGEX")]
    pub(super) ignore_images: Vec<String>,
    /// Rewrite only images that match one of these regular expressions; repeatable [default: all]
    #[arg(long, env = "KUIK_ACCEPT_IMAGES", hide_env_values = true, value_name = "REGEX")]
    pub(super) accept_images: Vec<String>,
    /// Do not rewrite images whose pull policy is Always, or defaults to it because the tag is latest or missing
    /// [default: true]
    #[arg(long, env = "KUIK_IGNORE_PULL_POLICY_ALWAYS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) ignore_pull_policy_always: Option<String>,
    /// Do not rewrite pods that a node may need before it can run the proxy: those with the priority class
    /// system-node-critical, and those on the host network that tolerate the taint node.kubernetes.io/not-ready
    /// [default: true]
    #[arg(long, env = "KUIK_IGNORE_NODE_CRITICAL_PODS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) ignore_node_critical_pods: Option<String>,
    /// Namespace whose pods are not rewritten, in addition to kube-system and kuik's own; repeatable
    #[arg(
        long,
        env = "KUIK_IGNORE_NAMESPACES",
        hide_env_values = true,
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub(super) ignore_namespaces: Vec<String>,
    /// Label selector of the pods to rewrite, in YAML or JSON, as in a MutatingWebhookConfiguration [default: all]
    #[arg(long, env = "KUIK_OBJECT_SELECTOR", hide_env_values = true, value_name = "SELECTOR")]
    pub(super) object_selector: Option<String>,
    /// Namespace of this process [default: that of the pod's ServiceAccount]
    #[arg(long, env = "POD_NAMESPACE", hide_env_values = true, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
}

/// Validated rewriting settings.
#[derive(Debug)]
pub struct RewritingConfig {
    /// The proxy that rewritten images point to.
    pub proxy: ProxyAuthority,
    /// Selects the images to rewrite.
    pub policy: StandardPolicy,
    /// Namespaces whose pods are not rewritten, including kube-system and kuik's own.
    pub ignored: BTreeSet<String>,
    /// Label selector of the pods to rewrite in other namespaces.
    pub selector: Selector,
    /// Namespace of this process, if known.
    pub namespace: Option<String>,
}

const PORT: &str = "proxy-port";
const IGNORE: &str = "ignore-images";
const ACCEPT: &str = "accept-images";
const ALWAYS: &str = "ignore-pull-policy-always";
const CRITICAL: &str = "ignore-node-critical-pods";
const NAMESPACES: &str = "ignore-namespaces";
const NAMESPACE: &str = "namespace";

impl RawRewriting {
    /// Keys of these settings in the configuration file.
    pub(super) const KEYS: [&str; 8] =
        [PORT, IGNORE, ACCEPT, ALWAYS, CRITICAL, NAMESPACES, SELECTOR, NAMESPACE];

    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            proxy_port: file.one(PORT, self.proxy_port),
            ignore_images: file.list(IGNORE, self.ignore_images),
            accept_images: file.list(ACCEPT, self.accept_images),
            ignore_pull_policy_always: file.one(ALWAYS, self.ignore_pull_policy_always),
            ignore_node_critical_pods: file.one(CRITICAL, self.ignore_node_critical_pods),
            ignore_namespaces: file.list(NAMESPACES, self.ignore_namespaces),
            object_selector: self.object_selector.or_else(|| Some(file.form(SELECTOR)?.to_string())),
            namespace: file.one(NAMESPACE, self.namespace),
        }
    }

    /// Returns `None` only if a problem was added. Loopback registries among the `insecure` ones are rewritten.
    pub(super) fn read(self, insecure: &[String], problems: &mut Problems) -> Option<RewritingConfig> {
        let port: u16 = parsed(PORT, self.proxy_port.as_deref(), 8082, "a port", problems);
        let always = switch(ALWAYS, self.ignore_pull_policy_always.as_deref(), true, problems);
        let critical = switch(CRITICAL, self.ignore_node_critical_pods.as_deref(), true, problems);
        let patterns = ImagePatterns::new(&self.ignore_images, &self.accept_images);
        let patterns = problems.check(&format!("{IGNORE}, {ACCEPT}"), patterns);
        let selector = self.object_selector.as_deref().map(selector).transpose();
        let selector = problems.check(SELECTOR, selector);
        let (patterns, selector) = (patterns?, selector?.unwrap_or_default());
        let proxy = ProxyAuthority::localhost(port);
        let policy = StandardPolicy::new()
            .with_patterns(patterns)
            .with_always_kept(always)
            .with_node_critical_kept(critical)
            .with_loopback_registries(insecure_hosts(insecure));
        let namespace = self.namespace.or_else(|| fs::read_to_string(NAMESPACE_FILE).ok());
        let namespace = namespace.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let always_ignored = ["kube-system".to_owned()].into_iter().chain(namespace.clone());
        let ignored = self.ignore_namespaces.into_iter().chain(always_ignored).collect();
        Some(RewritingConfig { proxy, policy, ignored, selector, namespace })
    }
}

impl RewritingConfig {
    /// Returns the options of the admission webhook.
    #[must_use]
    pub fn admission(&self) -> AdmissionOptions {
        AdmissionOptions::new(self.rewriter())
            .with_ignored_namespaces(self.ignored.iter().cloned())
            .with_selector(self.selector.clone())
    }

    fn rewriter(&self) -> Rewriter {
        Rewriter::new(self.proxy.clone(), self.policy.clone())
    }

    /// Returns the rules that select the images to cache: those that are rewritten.
    #[must_use]
    pub fn pod_rules(&self) -> PodRules {
        PodRules::new(self.rewriter())
            .ignoring_namespaces(self.ignored.iter().cloned())
            .selecting(self.selector.clone())
    }
}
