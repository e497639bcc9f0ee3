//! Selection of the images to cache: a pure function of a pod and the rules it shares with the webhook.

use std::{collections::BTreeSet, fmt, sync::Arc};

use kube_core::{Selector, SelectorExt as _};

use super::slim::{PodImage, SlimPod};
use crate::{
    reference::{ImageReference, RepositoryName},
    rewrite::{
        ContainerContext, ImageRewrite, OPT_OUT_LABEL, OPT_OUT_VALUE, PodContext, Rewriter, is_rewriting_of,
    },
};

/// Selects the images of pods to cache.
///
/// An image that points to the proxy is cached, also one for a proxy on another port, if the pod's annotation proves that
/// kuik wrote it. Any other is cached if the policy would have rewritten it, so that
/// images of pods older than the webhook are cached too, while those pods stay unchanged.
#[derive(Clone)]
pub struct PodRules {
    rewriter: Rewriter,
    ignored_namespaces: BTreeSet<String>,
    selector: Selector,
}

/// An image to cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WantedImage {
    /// Its normalized reference, which identifies it.
    pub normalized: Arc<str>,
    /// The image as written in a pod.
    pub written: Arc<str>,
    /// Its repository.
    pub repository: RepositoryName,
}

impl PodRules {
    /// Creates the webhook's rules, with its `rewriter`.
    #[must_use]
    pub fn new(rewriter: Rewriter) -> Self {
        Self { rewriter, ignored_namespaces: BTreeSet::new(), selector: Selector::default() }
    }

    /// Excludes the pods of `namespaces`.
    #[must_use]
    pub fn ignoring_namespaces(self, namespaces: impl IntoIterator<Item = String>) -> Self {
        Self { ignored_namespaces: namespaces.into_iter().collect(), ..self }
    }

    /// Limits the rules to pods that match `selector`. Images that other pods pull through the proxy are still cached:
    /// those pods were rewritten before they were excluded.
    #[must_use]
    pub fn selecting(self, selector: Selector) -> Self {
        Self { selector, ..self }
    }

    /// Returns the images of a pod to cache, one per container.
    #[must_use]
    pub fn images_of(&self, pod: &SlimPod) -> Vec<WantedImage> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let opted_out = pod.labels.get(OPT_OUT_LABEL).map(String::as_str) == Some(OPT_OUT_VALUE);
        if opted_out || self.ignored_namespaces.contains(namespace) {
            return Vec::new();
        }
        let is_selected = self.selector.matches(&pod.labels);
        let labels: Vec<_> = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let context = PodContext::new(namespace)
            .with_labels(&labels)
            .with_service_account(&pod.service_account)
            .with_placement(pod.placement);
        pod.images.iter().filter_map(|image| self.image(image, context, is_selected)).collect()
    }

    fn image(&self, image: &PodImage, pod: PodContext<'_>, is_selected: bool) -> Option<WantedImage> {
        // A container may have got another image since its original was annotated.
        let annotated = image.original.as_deref().filter(|original| is_rewriting_of(&image.image, original));
        if let Some(original) = annotated {
            return WantedImage::parse(original);
        }
        if let Some(decoded) = self.rewriter.original(&image.image) {
            return WantedImage::parse(&decoded);
        }
        if !is_selected {
            return None;
        }
        // An unknown pull policy is not valid in Kubernetes: the webhook skips such a container as well.
        let pull_policy = image.pull_policy.as_deref().filter(|policy| !policy.is_empty());
        let pull_policy = pull_policy.map(str::parse).transpose().ok()?;
        let container = ContainerContext::new(&image.name).with_pull_policy(pull_policy).with_pod(pod);
        match self.rewriter.rewrite(&image.image, &container) {
            ImageRewrite::Rewritten { .. } => WantedImage::parse(&image.image),
            ImageRewrite::AlreadyRewritten | ImageRewrite::Kept(_) => None,
        }
    }
}

impl fmt::Debug for PodRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodRules")
            .field("rewriter", &self.rewriter)
            .field("ignored_namespaces", &self.ignored_namespaces)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

impl WantedImage {
    /// Parses a reference; `None` if invalid: then no node can pull it either.
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
    use crate::{
        reference::ProxyAuthority,
        rewrite::{ImagePatterns, StandardPolicy},
    };

    fn rules() -> PodRules {
        let patterns = ImagePatterns::new(&["ignored"], &[] as &[&str]).unwrap();
        let policy = StandardPolicy::new().with_patterns(patterns);
        PodRules::new(Rewriter::new(ProxyAuthority::localhost(7439), policy))
            .ignoring_namespaces(["kube-system".to_owned()])
    }

    fn cached(metadata: serde_json::Value, image: &str, policy: Option<&str>) -> Option<String> {
        cached_by(&rules(), metadata, image, policy)
    }

    fn cached_by(
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
    fn proxied_image_is_cached_under_its_original_name() {
        for (original, image, expected) in [
            ("nginx:1.25", "localhost:7439/nginx:1.25", "docker.io/library/nginx:1.25"),
            ("registry:5000/app", "localhost:7439/registry__5000/app", "registry:5000/app:latest"),
            // Written by kuik 1.x: resolved by the annotation.
            ("registry:5000/app:1", "localhost:7439/registry-5000/app:1", "registry:5000/app:1"),
            ("team-5000/app:1", "localhost:7439/team-5000/app:1", "docker.io/team-5000/app:1"),
            // The annotation belongs to another image.
            ("nginx:1.25", "localhost:7439/nginx:1.26", "docker.io/library/nginx:1.26"),
            ("%%", "localhost:7439/quay.io/a/b@sha256:aa", ""),
            ("", "localhost:7439/quay.io/a/b:1", "quay.io/a/b:1"),
            // The proxy's port has changed since.
            ("nginx:1.25", "localhost:7440/nginx:1.25", "docker.io/library/nginx:1.25"),
            ("registry:5000/app:1", "localhost:7440/registry-5000/app:1", "registry:5000/app:1"),
            // A registry on the node.
            ("nginx:1.24", "localhost:7440/nginx:1.25", ""),
        ] {
            let found = cached(annotated(original), image, Some("Always"));
            assert_eq!(found.unwrap_or_default(), expected, "{original} {image}");
        }
    }

    #[test]
    fn image_of_a_pod_older_than_the_webhook_is_cached_by_its_rules() {
        let shop = json!({ "namespace": "shop" });
        for (image, policy, expected) in [
            ("nginx:1.25", Some("IfNotPresent"), Some("docker.io/library/nginx:1.25")),
            ("nginx", Some("Always"), None),
            ("nginx:1.25", Some("Never"), None),
            ("nginx:1.25", Some("sometimes"), None),
            ("ignored/app:1", Some("IfNotPresent"), None),
            ("UPPER/app", None, None),
            ("localhost:5000/app:1", Some("IfNotPresent"), None),
        ] {
            assert_eq!(cached(shop.clone(), image, policy).as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn image_of_a_node_critical_pod_is_not_cached_unless_it_is_rewritten() {
        for (image, expected) in [("nginx:1.25", None), ("localhost:7439/nginx:1.25", Some("nginx:1.25"))] {
            let container = json!({ "name": "a", "image": image });
            let spec = json!({ "priorityClassName": "system-node-critical", "containers": [container] });
            let pod = json!({ "metadata": { "namespace": "shop" }, "spec": spec });
            let found = rules().images_of(&serde_json::from_value(pod).unwrap());
            assert_eq!(found.first().map(|image| &*image.written), expected, "{image}");
        }
    }

    #[test]
    fn excluded_pods_select_no_image() {
        let image = "localhost:7439/nginx:1.25";
        assert!(cached(json!({ "namespace": "kube-system" }), image, None).is_none());
        let labels = json!({ "namespace": "shop", "labels": { OPT_OUT_LABEL: OPT_OUT_VALUE } });
        assert!(cached(labels, image, None).is_none());
        let rules = rules().selecting([("team", "shop")].into_iter().collect());
        for (team, image, is_cached) in
            [("shop", "nginx:1.25", true), ("search", "nginx:1.25", false), ("search", image, true)]
        {
            let labels = json!({ "namespace": "shop", "labels": { "team": team } });
            assert_eq!(cached_by(&rules, labels, image, None).is_some(), is_cached, "{team} {image}");
        }
    }
}
