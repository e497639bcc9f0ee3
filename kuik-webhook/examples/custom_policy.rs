//! A custom rewrite policy: it decides by namespace and label of the pod, with keep reasons of its own.
//!
//! A policy is one pure function. It sees every image as its author wrote it and knows nothing about the proxy: the
//! [`Rewriter`] decodes images before the policy decides, and encodes them afterwards. So the same policy works in the
//! webhook, which API servers may call more than once for a pod, and here, on plain JSON.
//!
//! `cargo run -p kuik-webhook --example custom_policy`

use kuik_core::{
    reference::ProxyAuthority,
    rewrite::{
        ContainerContext, Decision, ImageRewrite, KeepReason, RewritePolicy, Rewriter, StandardPolicy,
    },
};
use kuik_webhook::pod::{PodMetadata, decide};
use serde_json::{Value, json};

/// Sandboxes pull directly, and so do pods with a label. kuik's own rules decide about all others.
struct TeamPolicy {
    standard: StandardPolicy,
}

impl RewritePolicy for TeamPolicy {
    fn decide(&self, image: &str, container: &ContainerContext<'_>) -> Decision {
        let pod = container.pod;
        if pod.namespace.starts_with("sandbox-") {
            // The first argument is a metric label, so it is a constant. The second one is for logs: it may be computed.
            let message = format!("{} is a sandbox", pod.namespace);
            return Decision::Keep(KeepReason::custom("sandbox", message));
        }
        if pod.label("example.com/direct-pull") == Some("true") {
            return Decision::Keep(KeepReason::custom("direct_pull", "the pod pulls directly"));
        }
        self.standard.decide(image, container)
    }
}

/// Returns one line for each image of a pod: what the policy does with it.
fn report(pod: &Value) -> Vec<String> {
    // The address by which every node reaches its proxy. It is stated once, here.
    let proxy = ProxyAuthority::localhost(7439);
    let rewriter = Rewriter::new(proxy, TeamPolicy { standard: StandardPolicy::new() });

    let metadata = PodMetadata::new(&pod["metadata"], &pod["spec"]);
    let decisions = decide(&pod["spec"], "/spec", metadata.context(), &rewriter);
    let lines = decisions.decided.iter().map(|decided| {
        let image = decided.source.image;
        match &decided.rewrite {
            ImageRewrite::Rewritten { image: new } => format!("{image} -> {new}"),
            ImageRewrite::AlreadyRewritten => format!("{image} goes through the proxy"),
            ImageRewrite::Kept(reason) => format!("{image} kept: {reason}"),
        }
    });
    lines.collect()
}

fn pod(namespace: &str, image: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace },
        "spec": { "containers": [{ "name": "web", "image": image }] },
    })
}

#[expect(clippy::print_stdout, reason = "the result of the example")]
fn main() {
    for namespace in ["shop", "sandbox-7"] {
        println!("{namespace}: {}", report(&pod(namespace, "nginx:1.25")).join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::{json, main, pod, report};

    #[test]
    fn policy_decides_by_namespace_and_label() {
        main();
        assert_eq!(report(&pod("shop", "nginx:1.25")), ["nginx:1.25 -> localhost:7439/nginx:1.25"]);
        assert_eq!(report(&pod("sandbox-7", "nginx:1.25")), ["nginx:1.25 kept: sandbox-7 is a sandbox"]);
        let mut labeled = pod("shop", "nginx:1.25");
        labeled["metadata"]["labels"] = json!({ "example.com/direct-pull": "true" });
        assert_eq!(report(&labeled), ["nginx:1.25 kept: the pod pulls directly"]);
    }

    #[test]
    fn policy_sees_original_of_rewritten_image() {
        let rewritten = pod("shop", "localhost:7439/nginx:1.25");
        assert_eq!(report(&rewritten), ["localhost:7439/nginx:1.25 goes through the proxy"]);
    }
}
