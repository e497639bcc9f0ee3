//! What a policy decides about every image of a pod spec.

use kuik_core::rewrite::{ContainerContext, Decision, PullPolicy, RewritePolicy};
use serde_json::Value;

use super::{ImageSite, Problem, Skipped, walk};

/// An image of a pod, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided<'a> {
    /// Where the image is.
    pub site: ImageSite<'a>,
    /// What the policy decided.
    pub decision: Decision,
}

/// The decisions about every image of a pod, in the order of [`walk`], and what was left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodDecisions<'a> {
    /// One for each image.
    pub decided: Vec<Decided<'a>>,
    /// The parts that have not the shape that Kubernetes demands: nothing was decided about them.
    pub skipped: Vec<Skipped>,
}

impl<'a> Decided<'a> {
    /// What the image becomes; `None` where it stays as it is, because it is kept or because it points to the proxy
    /// already.
    #[must_use]
    pub fn change(&self) -> Option<&str> {
        match &self.decision {
            Decision::Rewrite { image } if image != self.site.image => Some(image),
            Decision::Rewrite { .. } | Decision::Keep(_) => None,
        }
    }

    fn by(policy: &dyn RewritePolicy, site: ImageSite<'a>) -> Result<Self, Skipped> {
        let Ok(pull_policy) = site.pull_policy.map(str::parse::<PullPolicy>).transpose() else {
            let ImageSite { kind, name, pointer, .. } = site;
            let name = name.map(str::to_owned);
            return Err(Skipped { kind, name, pointer, problem: Problem::UnknownPullPolicy });
        };
        let container = ContainerContext::new(site.name.unwrap_or_default()).with_pull_policy(pull_policy);
        let decision = policy.decide(site.image, &container);
        Ok(Self { site, decision })
    }
}

/// Asks `policy` about every image of `pod_spec`; `base` is put before each JSON pointer (`/spec` for a pod's own).
///
/// ```
/// use kuik_core::{reference::ProxyAuthority, rewrite::StandardPolicy};
/// use serde_json::json;
///
/// let policy = StandardPolicy::new(ProxyAuthority::localhost(7439));
/// let spec = json!({ "containers": [{ "name": "web", "image": "nginx:1.25" }] });
/// let decisions = kuik_webhook::pod::decide(&spec, "/spec", &policy);
/// assert_eq!(decisions.decided[0].change(), Some("localhost:7439/nginx:1.25"));
/// ```
#[must_use]
pub fn decide<'a>(pod_spec: &'a Value, base: &str, policy: &dyn RewritePolicy) -> PodDecisions<'a> {
    let images = walk(pod_spec, base);
    let mut decisions =
        PodDecisions { decided: Vec::with_capacity(images.sites.len()), skipped: images.skipped };
    for site in images.sites {
        match Decided::by(policy, site) {
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

    fn policy() -> StandardPolicy {
        StandardPolicy::new(ProxyAuthority::localhost(7439))
    }

    #[test]
    fn each_image_is_decided_with_its_own_pull_policy() {
        let spec = json!({
            "initContainers": [{ "name": "a", "image": "busybox:1", "imagePullPolicy": "Never" }],
            "containers": [
                { "name": "b", "image": "busybox" },
                { "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent" },
            ],
            "volumes": [{ "name": "d", "image": { "reference": "busybox:2", "pullPolicy": "Always" } }],
        });
        let policy = policy();
        let decisions = decide(&spec, "", &policy);
        let expected = [
            ("a", Decision::Keep(KeepReason::PullPolicyNever)),
            ("b", Decision::Keep(KeepReason::PullPolicyAlwaysByDefault)),
            ("c", Decision::Rewrite { image: "localhost:7439/busybox".into() }),
            ("d", Decision::Keep(KeepReason::PullPolicyAlways)),
        ];
        let decided: Vec<_> =
            decisions.decided.iter().map(|d| (d.site.name.unwrap(), d.decision.clone())).collect();
        assert_eq!(decided, expected);
    }

    #[test]
    fn what_points_to_the_proxy_already_changes_nothing() {
        let spec = json!({ "containers": [{ "name": "a", "image": "localhost:7439/nginx:1" }] });
        let decisions = decide(&spec, "", &policy());
        assert_eq!(decisions.decided[0].change(), None);
    }

    #[test]
    fn an_unknown_pull_policy_is_reported_and_nothing_is_decided() {
        let spec =
            json!({ "containers": [{ "name": "a", "image": "nginx:1", "imagePullPolicy": "always" }] });
        let decisions = decide(&spec, "", &policy());
        assert_eq!(decisions.decided, []);
        assert_eq!(decisions.skipped[0].problem, Problem::UnknownPullPolicy);
        assert_eq!(decisions.skipped[0].pointer, "/containers/0/image");
    }
}
