//! Which images of a pod are kept, and what they are: pure, from a pod and the rules that the webhook has too.

use std::{collections::BTreeSet, fmt, sync::Arc};

use kube_core::{Selector, SelectorExt as _};

use super::slim::{PodImage, SlimPod};
use crate::{
    reference::{ImageReference, ProxyAuthority, RepositoryName, decode, encode},
    rewrite::{ContainerContext, Decision, OPT_OUT_LABEL, OPT_OUT_VALUE, RewritePolicy},
};

/// Says which images of which pods are kept.
///
/// An image that points to the proxy is kept: it goes through the cache. Any other is kept where the policy would have
/// rewritten it, so that pods which are older than the webhook have their images kept too, and stay as they are.
#[derive(Clone)]
pub struct PodRules {
    proxy: ProxyAuthority,
    policy: Arc<dyn RewritePolicy>,
    ignored_namespaces: BTreeSet<String>,
    selector: Selector,
}

/// An image that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WantedImage {
    /// Its full name, which is what makes it the same image or another one.
    pub normalized: Arc<str>,
    /// The image as a pod has it.
    pub written: Arc<str>,
    /// The repository that it is in.
    pub repository: RepositoryName,
}

impl PodRules {
    /// The rules of the webhook: `policy`, and the proxy that images are rewritten to.
    #[must_use]
    pub fn new(proxy: ProxyAuthority, policy: Arc<dyn RewritePolicy>) -> Self {
        Self { proxy, policy, ignored_namespaces: BTreeSet::new(), selector: Selector::default() }
    }

    /// The same rules, without the pods of `namespaces`.
    #[must_use]
    pub fn ignoring_namespaces(self, namespaces: impl IntoIterator<Item = String>) -> Self {
        Self { ignored_namespaces: namespaces.into_iter().collect(), ..self }
    }

    /// The same rules, for the pods that `selector` has alone, and for what others pull through the proxy: that was
    /// rewritten before somebody left them out.
    #[must_use]
    pub fn selecting(self, selector: Selector) -> Self {
        Self { selector, ..self }
    }

    /// The images of a pod that are to be kept, one for each container that uses one.
    #[must_use]
    pub fn images_of(&self, pod: &SlimPod) -> Vec<WantedImage> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let opted_out = pod.labels.get(OPT_OUT_LABEL).map(String::as_str) == Some(OPT_OUT_VALUE);
        if opted_out || self.ignored_namespaces.contains(namespace) {
            return Vec::new();
        }
        let is_selected = self.selector.matches(&pod.labels);
        pod.images.iter().filter_map(|image| self.image(image, is_selected)).collect()
    }

    fn image(&self, image: &PodImage, is_selected: bool) -> Option<WantedImage> {
        if let Some(decoded) = decode(&image.image, &self.proxy) {
            let original = image.original.as_deref().filter(|original| self.leads_to(original, &image.image));
            return WantedImage::parse(original.unwrap_or(&decoded));
        }
        if !is_selected {
            return None;
        }
        // A policy that cannot be read is not one of Kubernetes': the webhook leaves such a container alone as well.
        let pull_policy = image.pull_policy.as_deref().filter(|policy| !policy.is_empty());
        let pull_policy = pull_policy.map(str::parse).transpose().ok()?;
        let container = ContainerContext::new(&image.name).with_pull_policy(pull_policy);
        match self.policy.decide(&image.image, &container) {
            Decision::Rewrite { .. } => WantedImage::parse(&image.image),
            Decision::Keep(_) => None,
        }
    }

    /// Whether `original` is what `rewritten` was made from. An annotation says so, also of a pod that kuik 1.x rewrote,
    /// with a `-` before a registry's port. But a container can have got another image since.
    fn leads_to(&self, original: &str, rewritten: &str) -> bool {
        let Ok(reference) = ImageReference::parse(original) else { return false };
        if encode(&reference, &self.proxy).is_ok_and(|encoded| encoded == rewritten) {
            return true;
        }
        let host_port = original.split_once('/').and_then(|(host, path)| Some((host.split_once(':')?, path)));
        let rest = rewritten.strip_prefix(self.proxy.as_str()).and_then(|rest| rest.strip_prefix('/'));
        host_port.zip(rest).is_some_and(|(((host, port), path), rest)| {
            let parts = rest.strip_prefix(host).and_then(|rest| rest.strip_prefix('-')?.strip_prefix(port));
            parts.and_then(|rest| rest.strip_prefix('/')) == Some(path)
        })
    }
}

impl fmt::Debug for PodRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodRules")
            .field("proxy", &self.proxy)
            .field("ignored_namespaces", &self.ignored_namespaces)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

impl WantedImage {
    /// `None` where it is no reference: then no node can pull it either.
    #[must_use]
    pub fn parse(written: &str) -> Option<Self> {
        let reference = ImageReference::parse(written).ok()?;
        Some(Self {
            normalized: reference.normalized().into(),
            written: written.into(),
            repository: reference.repository(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rewrite::{ImagePatterns, StandardPolicy};

    fn rules() -> PodRules {
        let proxy = ProxyAuthority::localhost(7439);
        let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).unwrap();
        PodRules::new(proxy.clone(), Arc::new(StandardPolicy::new(proxy).with_patterns(patterns)))
            .ignoring_namespaces(["kube-system".to_owned()])
    }

    fn kept(metadata: serde_json::Value, image: &str, policy: Option<&str>) -> Option<String> {
        kept_by(&rules(), metadata, image, policy)
    }

    fn kept_by(
        rules: &PodRules,
        metadata: serde_json::Value,
        image: &str,
        policy: Option<&str>,
    ) -> Option<String> {
        let container = json!({ "name": "a", "image": image, "imagePullPolicy": policy });
        let mut pod = json!({ "spec": { "containers": [container] } });
        pod["metadata"] = metadata;
        let images = rules.images_of(&serde_json::from_value(pod).unwrap());
        images.first().map(|image| image.normalized.to_string())
    }

    fn annotated(original: &str) -> serde_json::Value {
        json!({ "namespace": "shop", "annotations": { "original-image-a": original } })
    }

    #[test]
    fn what_goes_through_the_proxy_is_kept_under_its_original_name() {
        for (original, image, expected) in [
            ("nginx:1.25", "localhost:7439/nginx:1.25", "docker.io/library/nginx:1.25"),
            ("registry:5000/app", "localhost:7439/registry__5000/app", "registry:5000/app:latest"),
            // As kuik 1.x wrote it: the annotation knows.
            ("registry:5000/app:1", "localhost:7439/registry-5000/app:1", "registry:5000/app:1"),
            ("team-5000/app:1", "localhost:7439/team-5000/app:1", "docker.io/team-5000/app:1"),
            // Not what this image was made from.
            ("nginx:1.25", "localhost:7439/nginx:1.26", "docker.io/library/nginx:1.26"),
            ("%%", "localhost:7439/quay.io/a/b@sha256:aa", ""),
            ("", "localhost:7439/quay.io/a/b:1", "quay.io/a/b:1"),
        ] {
            let found = kept(annotated(original), image, Some("Always"));
            assert_eq!(found.unwrap_or_default(), expected, "{original} {image}");
        }
    }

    #[test]
    fn what_is_older_than_the_webhook_is_kept_by_its_rules() {
        let shop = json!({ "namespace": "shop" });
        for (image, policy, expected) in [
            ("nginx:1.25", Some("IfNotPresent"), Some("docker.io/library/nginx:1.25")),
            ("nginx", Some("Always"), None),
            ("nginx:1.25", Some("Never"), None),
            ("nginx:1.25", Some("sometimes"), None),
            ("ignored/app:1", Some("IfNotPresent"), None),
            ("UPPER/app", None, None),
        ] {
            assert_eq!(kept(shop.clone(), image, policy).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn pods_that_are_left_alone_keep_no_image() {
        let image = "localhost:7439/nginx:1.25";
        assert!(kept(json!({ "namespace": "kube-system" }), image, None).is_none());
        let labels = json!({ "namespace": "shop", "labels": { OPT_OUT_LABEL: OPT_OUT_VALUE } });
        assert!(kept(labels, image, None).is_none());
        let rules = rules().selecting([("team", "shop")].into_iter().collect());
        for (team, image, is_kept) in
            [("shop", "nginx:1.25", true), ("search", "nginx:1.25", false), ("search", image, true)]
        {
            let labels = json!({ "namespace": "shop", "labels": { "team": team } });
            assert_eq!(kept_by(&rules, labels, image, None).is_some(), is_kept, "{team} {image}");
        }
    }
}
