//! Applies a policy to every image of a pod spec.

use kuik_core::rewrite::{ContainerContext, ImageRewrite, PodContext, PullPolicy, Rewriter, is_rewriting_of};
use serde_json::Value;

use super::{PodImage, Problem, Skipped, walk};

/// An image of a pod, and its rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided<'a> {
    /// The image in the pod.
    pub source: PodImage<'a>,
    /// The result of the policy.
    pub rewrite: ImageRewrite,
    /// The original, if the image was rewritten for a proxy on another port, as in a restored backup: an annotation of
    /// the pod proves it. The policy decides about this original, and the image changes in any case.
    pub earlier_original: Option<String>,
}

/// The decisions about every image of a pod, in the order of [`walk`], and the skipped parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodDecisions<'a> {
    /// One decision for each image.
    pub decided: Vec<Decided<'a>>,
    /// The malformed parts, about which nothing was decided.
    pub skipped: Vec<Skipped>,
}

impl<'a> Decided<'a> {
    /// Returns the replacement of the image, or `None` if it stays unchanged.
    #[must_use]
    pub fn change(&self) -> Option<&str> {
        match &self.rewrite {
            ImageRewrite::Rewritten { image } => Some(image),
            ImageRewrite::AlreadyRewritten | ImageRewrite::Kept(_) => self.earlier_original.as_deref(),
        }
    }

    /// Returns the image as its author wrote it, if the pod pulls it through the proxy after the [change](Self::change).
    #[must_use]
    pub fn original(&self, rewriter: &Rewriter) -> Option<String> {
        if let Some(original) = rewriter.original(self.source.image) {
            return Some(original.into_owned());
        }
        let is_rewritten = matches!(self.rewrite, ImageRewrite::Rewritten { .. });
        let written = || self.earlier_original.clone().unwrap_or_else(|| self.source.image.to_owned());
        is_rewritten.then(written)
    }

    fn new(source: PodImage<'a>, pod: PodContext<'_>, rewriter: &Rewriter) -> Result<Self, Skipped> {
        let Ok(pull_policy) = source.pull_policy.map(str::parse::<PullPolicy>).transpose() else {
            let PodImage { field, name, pointer, .. } = source;
            let name = name.map(str::to_owned);
            return Err(Skipped { field, name, pointer, problem: Problem::UnknownPullPolicy });
        };
        let name = source.name.unwrap_or_default();
        let container = ContainerContext::new(name).with_pull_policy(pull_policy).with_pod(pod);
        let earlier_original = earlier_original(&source, pod, rewriter);
        let rewrite = rewriter.rewrite(earlier_original.unwrap_or(source.image), &container);
        let earlier_original = earlier_original.map(str::to_owned);
        Ok(Self { source, rewrite, earlier_original })
    }
}

/// Returns the original of an image that was rewritten for another proxy, if the pod's annotation proves it.
fn earlier_original<'p>(source: &PodImage<'_>, pod: PodContext<'p>, rewriter: &Rewriter) -> Option<&'p str> {
    if rewriter.original(source.image).is_some() {
        return None;
    }
    let original = pod.annotation(&source.original_annotation()?)?;
    is_rewriting_of(source.image, original).then_some(original)
}

/// Applies the policy of `rewriter` to every image of `pod_spec`, which belongs to `pod`. `base` is prepended to each
/// JSON pointer (`/spec` for a pod).
///
/// ```
/// use kuik_core::{
///     reference::ProxyAuthority,
///     rewrite::{PodContext, Rewriter, StandardPolicy},
/// };
/// use serde_json::json;
///
/// let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
/// let spec = json!({ "containers": [{ "name": "web", "image": "nginx:1.25" }] });
/// let decisions = kuik_webhook::pod::decide(&spec, "/spec", PodContext::new("shop"), &rewriter);
/// assert_eq!(decisions.decided[0].change(), Some("localhost:7439/nginx:1.25"));
/// ```
#[must_use]
pub fn decide<'a>(
    pod_spec: &'a Value,
    base: &str,
    pod: PodContext<'_>,
    rewriter: &Rewriter,
) -> PodDecisions<'a> {
    let found = walk(pod_spec, base);
    let mut decisions =
        PodDecisions { decided: Vec::with_capacity(found.images.len()), skipped: found.skipped };
    for image in found.images {
        match Decided::new(image, pod, rewriter) {
            Ok(decided) => decisions.decided.push(decided),
            Err(skipped) => decisions.skipped.push(skipped),
        }
    }
    decisions
}

#[cfg(test)]
mod tests {
    use kuik_core::{
        reference::ProxyAuthority,
        rewrite::{KeepReason, StandardPolicy},
    };
    use serde_json::json;

    use super::*;

    fn decided(spec: &Value) -> PodDecisions<'_> {
        let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
        decide(spec, "", PodContext::default(), &rewriter)
    }

    #[test]
    fn each_image_is_decided_by_its_own_pull_policy() {
        let spec = json!({
            "initContainers": [{ "name": "a", "image": "busybox:1", "imagePullPolicy": "Never" }],
            "containers": [
                { "name": "b", "image": "busybox" },
                { "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent" },
            ],
            "volumes": [{ "name": "d", "image": { "reference": "busybox:2", "pullPolicy": "Always" } }],
        });
        let expected = [
            ("a", ImageRewrite::Kept(KeepReason::PullPolicyNever)),
            ("b", ImageRewrite::Kept(KeepReason::PullPolicyAlwaysByDefault)),
            ("c", ImageRewrite::Rewritten { image: "localhost:7439/busybox".into() }),
            ("d", ImageRewrite::Kept(KeepReason::PullPolicyAlways)),
        ];
        let decided: Vec<_> = decided(&spec)
            .decided
            .into_iter()
            .map(|decided| (decided.source.name.unwrap(), decided.rewrite))
            .collect();
        assert_eq!(decided, expected);
    }

    #[test]
    fn rewritten_image_does_not_change() {
        let spec = json!({ "containers": [{ "name": "a", "image": "localhost:7439/nginx:1" }] });
        assert_eq!(decided(&spec).decided[0].change(), None);
    }

    #[test]
    fn image_for_a_proxy_on_another_port_is_rewritten_again() {
        let annotations = [
            ("original-image-a", "nginx:1"),
            ("original-image-b", "nginx:1"),
            ("original-init-image-c", "r:5/x:1"),
        ];
        let spec = json!({
            "initContainers": [{ "name": "c", "image": "localhost:7440/r__5/x:1" }],
            "containers": [
                { "name": "a", "image": "localhost:7440/nginx:1" },
                { "name": "b", "image": "localhost:7440/nginx:2" },
                { "name": "d", "image": "localhost:7440/nginx:1" },
            ],
        });
        let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
        let pod = PodContext::default().with_annotations(&annotations);
        let decisions = decide(&spec, "", pod, &rewriter);
        let found: Vec<_> = decisions
            .decided
            .iter()
            .map(|decided| (decided.change(), decided.original(&rewriter).unwrap_or_default()))
            .collect();
        let kept = (None, String::new());
        let expected = [
            (Some("localhost:7439/r__5/x:1"), "r:5/x:1".to_owned()),
            (Some("localhost:7439/nginx:1"), "nginx:1".to_owned()),
            // Nothing proves these, so they can be images of a registry on the node.
            kept.clone(),
            kept,
        ];
        assert_eq!(found, expected);
        for decided in &decisions.decided[2..] {
            assert_eq!(decided.rewrite, ImageRewrite::Kept(KeepReason::LoopbackRegistry));
        }
    }

    #[test]
    fn unknown_pull_policy_is_skipped_and_reported() {
        let spec =
            json!({ "containers": [{ "name": "a", "image": "nginx:1", "imagePullPolicy": "always" }] });
        let decisions = decided(&spec);
        assert_eq!(decisions.decided, []);
        assert_eq!(decisions.skipped[0].problem, Problem::UnknownPullPolicy);
        assert_eq!(decisions.skipped[0].pointer, "/containers/0/image");
    }
}
