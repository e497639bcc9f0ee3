//! Reviews of pods and CachedImages: each patch is applied, and the resulting object compared.
#![cfg(feature = "admission")]

use kuik_core::rewrite::{ContainerContext, Decision, KeepReason, RewritePolicy, StandardPolicy};
use serde_json::{Value, json};

use crate::support::{Webhook, pod};

const REWRITE: &str = "kuik.enix.io/rewrite-images";

/// Returns `pod` with kuik's label, the `rewrite-images` annotation and these annotations.
fn seen(mut pod: Value, rewrite: &str, annotations: &[(&str, &str)]) -> Value {
    pod["metadata"]["labels"]["kuik.enix.io/managed"] = json!("true");
    pod["metadata"]["annotations"][REWRITE] = json!(rewrite);
    for (key, value) in annotations {
        pod["metadata"]["annotations"][*key] = json!(value);
    }
    pod
}

fn rewritten(name: &str, image: &str) -> Value {
    let proxied = format!("localhost:7439/{image}");
    seen(pod(&[(name, &proxied)]), "true", &[(&format!("original-image-{name}"), image)])
}

#[test]
fn create_rewrites_every_image_field() {
    let mut new = pod(&[
        ("web", "nginx:1.25"),
        ("side", "registry:5000/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ]);
    new["spec"]["initContainers"] = json!([
        { "name": "setup", "image": "busybox:1", "imagePullPolicy": "IfNotPresent" },
        { "name": "mesh", "image": "quay.io/mesh:2", "restartPolicy": "Always", "imagePullPolicy": "IfNotPresent" },
    ]);
    new["spec"]["volumes"] = json!([
        { "name": "tmp", "emptyDir": {} },
        { "name": "model", "image": { "reference": "ghcr.io/m/weights:v1", "pullPolicy": "IfNotPresent" } },
    ]);
    let digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut expected = seen(
        new.clone(),
        "true",
        &[
            ("original-image-web", "nginx:1.25"),
            ("original-image-side", &format!("registry:5000/app@{digest}")),
            ("original-init-image-setup", "busybox:1"),
            ("original-init-image-mesh", "quay.io/mesh:2"),
        ],
    );
    let spec = &mut expected["spec"];
    spec["containers"][0]["image"] = json!("localhost:7439/nginx:1.25");
    spec["containers"][1]["image"] = json!(format!("localhost:7439/registry__5000/app@{digest}"));
    spec["initContainers"][0]["image"] = json!("localhost:7439/busybox:1");
    spec["initContainers"][1]["image"] = json!("localhost:7439/quay.io/mesh:2");
    spec["volumes"][1]["image"]["reference"] = json!("localhost:7439/ghcr.io/m/weights:v1");
    let webhook = Webhook::default();
    let made = webhook.create(&new);
    assert_eq!(made, expected);
    let again = webhook.pod(json!({ "operation": "CREATE", "object": made }));
    assert_eq!(again.patch, json!([]), "reinvocation changes nothing");
}

#[test]
fn kept_images_are_counted_by_reason() {
    let mut new =
        pod(&[("a", "ignored:1"), ("b", "nginx"), ("c", "nginx:1"), ("d", "Not An Image"), ("e", "redis:7")]);
    new["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    new["spec"]["containers"][2]["imagePullPolicy"] = json!("Never");
    let webhook = Webhook::default();
    let mut expected = seen(new.clone(), "true", &[("original-image-e", "redis:7")]);
    expected["spec"]["containers"][4]["image"] = json!("localhost:7439/redis:7");
    assert_eq!(webhook.create(&new), expected);
    let count = |decision: &str, reason: &str| {
        format!(r#"kube_image_keeper_webhook_images_total{{decision="{decision}",reason="{reason}"}} 1"#)
    };
    let mut counted = webhook.metrics("webhook_images_total");
    counted.sort();
    let expected = [
        count("kept", "ignored"),
        count("kept", "invalid_reference"),
        count("kept", "pull_policy_always"),
        count("kept", "pull_policy_never"),
        count("rewritten", ""),
    ];
    assert_eq!(counted, expected);
}

#[test]
fn pod_can_opt_out_of_rewriting_by_annotation() {
    let mut new = pod(&[("web", "nginx:1.25")]);
    new["metadata"]["annotations"] = json!({ REWRITE: "false" });
    let webhook = Webhook::default();
    let made = webhook.create(&new);
    assert_eq!(made, seen(new, "false", &[("original-image-web", "nginx:1.25")]));
    assert_eq!(webhook.update(&made, &made), made);
}

#[test]
fn copied_pod_gets_correct_annotations() {
    let webhook = Webhook::default();
    let mut copy = rewritten("web", "nginx:1.25");
    copy["spec"]["containers"][0]["image"] = json!("nginx:2");
    copy["metadata"]["annotations"]["original-image-other"] = json!("stays:1");
    let expected = {
        let mut expected = rewritten("web", "nginx:2");
        expected["metadata"]["annotations"]["original-image-other"] = json!("stays:1");
        expected
    };
    assert_eq!(webhook.create(&copy), expected);

    let mut kept = rewritten("web", "nginx:1.25");
    kept["spec"]["containers"][0]["image"] = json!("ignored:2");
    let expected = seen(pod(&[("web", "ignored:2")]), "true", &[]);
    assert_eq!(webhook.create(&kept), expected, "a kept image has no original");
}

#[test]
fn annotation_of_kuik_1_for_registry_port_is_kept() {
    let webhook = Webhook::default();
    let mut old = rewritten("web", "registry-5000/app:1");
    old["metadata"]["annotations"]["original-image-web"] = json!("registry:5000/app:1");
    assert_eq!(webhook.create(&old), old);
    let mut labeled = old.clone();
    labeled["metadata"]["labels"]["new"] = json!("label");
    assert_eq!(webhook.update(&old, &labeled), labeled);
}

#[test]
fn update_of_rewritten_pod_rewrites_new_images() {
    let webhook = Webhook::default();
    let old = rewritten("web", "nginx:1.25");
    let mut labeled = old.clone();
    labeled["metadata"]["labels"]["new"] = json!("label");
    assert_eq!(webhook.update(&old, &labeled), labeled);

    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("nginx:2");
    assert_eq!(webhook.update(&old, &new), rewritten("web", "nginx:2"));

    new["spec"]["containers"][0]["image"] = json!("ignored:2");
    let expected = seen(pod(&[("web", "ignored:2")]), "true", &[]);
    assert_eq!(webhook.update(&old, &new), expected);

    let applied = pod(&[("web", "nginx:1.25")]);
    assert_eq!(webhook.update(&old, &applied), old, "applying a manifest again changes nothing");
}

#[test]
fn update_does_not_restart_containers_rewritten_by_another_configuration() {
    let webhook = Webhook::default();
    let other_port = seen(
        pod(&[("web", "localhost:8082/nginx:1.25"), ("kept", "redis:7")]),
        "true",
        &[("original-image-web", "nginx:1.25")],
    );
    let mut labeled = other_port.clone();
    labeled["metadata"]["labels"]["new"] = json!("label");
    let updated = webhook.update(&other_port, &labeled);
    assert_eq!(updated["spec"], other_port["spec"]);
    assert_eq!(updated["metadata"]["annotations"]["original-image-web"], "nginx:1.25");
}

#[test]
fn pod_older_than_kuik_is_annotated_and_not_rewritten() {
    let webhook = Webhook::default();
    let old = pod(&[("web", "nginx:1.25")]);
    let noted = seen(old.clone(), "false", &[("original-image-web", "nginx:1.25")]);
    assert_eq!(webhook.update(&old, &old), noted);
    let mut moved = noted.clone();
    moved["spec"]["containers"][0]["image"] = json!("nginx:2");
    let expected = seen(pod(&[("web", "nginx:2")]), "false", &[("original-image-web", "nginx:2")]);
    assert_eq!(webhook.update(&noted, &moved), expected, "the annotation follows the image");

    let mut asked = noted.clone();
    asked["metadata"]["annotations"][REWRITE] = json!("true");
    assert_eq!(
        webhook.update(&noted, &asked),
        rewritten("web", "nginx:1.25"),
        "unless requested by annotation"
    );
}

#[test]
fn update_does_not_touch_immutable_fields() {
    let webhook = Webhook::default();
    let mut old = rewritten("web", "nginx:1.25");
    old["spec"]["volumes"] = json!([{ "name": "m", "image": { "reference": "weights:v1" } }]);
    old["spec"]["ephemeralContainers"] =
        json!([{ "name": "d", "image": "tools:1", "imagePullPolicy": "IfNotPresent" }]);
    assert_eq!(webhook.update(&old, &old), old);
    let mut before = old.clone();
    before["spec"].as_object_mut().unwrap().remove("volumes");
    before["spec"].as_object_mut().unwrap().remove("ephemeralContainers");
    assert_eq!(webhook.update(&before, &old), old);
}

#[test]
fn only_new_ephemeral_containers_are_rewritten() {
    let webhook = Webhook::default();
    let debug = |old: &Value, new: &Value| {
        let request = json!({
            "operation": "UPDATE", "subResource": "ephemeralcontainers", "object": new, "oldObject": old,
        });
        webhook.pod(request).patch
    };
    let first = json!({ "name": "d1", "image": "tools:1", "imagePullPolicy": "IfNotPresent" });
    let second = json!({ "name": "d2", "image": "tools:2", "imagePullPolicy": "IfNotPresent" });
    for (mut pod, rewrites) in [(rewritten("web", "nginx:1"), true), (pod(&[("web", "nginx:1")]), false)] {
        let mut old = pod.clone();
        old["spec"]["ephemeralContainers"] = json!([first]);
        pod["spec"]["ephemeralContainers"] = json!([first, second]);
        let path = "/spec/ephemeralContainers/1/image";
        let patch = json!([{ "op": "replace", "path": path, "value": "localhost:7439/tools:2" }]);
        assert_eq!(debug(&old, &pod), if rewrites { patch } else { json!([]) });
    }
}

#[test]
fn skipped_pods_are_counted_by_reason() {
    let webhook = Webhook::default();
    let plain = pod(&[("web", "nginx:1.25")]);
    let with = |at: &str, key: &str, value: Value| {
        let mut pod = plain.clone();
        pod["metadata"][at][key] = value;
        pod
    };
    let mut ends = plain.clone();
    ends["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let label = "kube-image-keeper.enix.io/image-caching-policy";
    let deployment = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
    for (why, request) in [
        ("namespace", json!({ "operation": "CREATE", "namespace": "kube-system", "object": plain })),
        ("namespace", json!({ "operation": "CREATE", "namespace": "kuik-system", "object": plain })),
        ("opted_out", json!({ "operation": "CREATE", "object": with("labels", label, json!("ignore")) })),
        (
            "mirror",
            json!({ "operation": "CREATE", "object": with("annotations", "kubernetes.io/config.mirror", json!("x")) }),
        ),
        ("terminating", json!({ "operation": "UPDATE", "object": ends, "oldObject": plain })),
        ("operation", json!({ "operation": "DELETE", "oldObject": plain })),
        ("operation", json!({ "operation": "CONNECT", "subResource": "exec", "object": {} })),
        (
            "subresource",
            json!({ "operation": "UPDATE", "subResource": "status", "object": plain, "oldObject": plain }),
        ),
        (
            "other_kind",
            json!({ "operation": "CREATE", "kind": deployment, "object": { "spec": { "replicas": 1 } } }),
        ),
        ("malformed", json!({ "operation": "CREATE", "object": [1, 2] })),
        ("malformed", json!({ "operation": "CREATE" })),
    ] {
        let line = format!(r#"outcome="skipped",reason="{why}""#);
        let count = || {
            webhook.metrics(&line).first().map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let before: u64 = count();
        let answer = webhook.pod(request);
        assert!(answer.allowed && answer.patch == json!([]), "{why}: {answer:?}");
        assert_eq!(count(), before + 1, "{why}");
    }
    assert_eq!(webhook.metrics("webhook_images_total"), Vec::<String>::new());
}

#[test]
fn dry_run_gets_same_response_and_is_not_counted() {
    let webhook = Webhook::default();
    let new = pod(&[("web", "nginx:1.25")]);
    let dry = webhook.pod(json!({ "operation": "CREATE", "object": new, "dryRun": true }));
    assert_eq!(webhook.metrics("webhook_images_total"), Vec::<String>::new());
    assert_eq!(dry, webhook.pod(json!({ "operation": "CREATE", "object": new })));
}

#[test]
fn pod_with_200_containers_is_rewritten() {
    let webhook = Webhook::default();
    let images: Vec<_> =
        (0..200).map(|n| (format!("c{n}"), format!("registry.example.org/app/n{n}:1"))).collect();
    let images: Vec<_> = images.iter().map(|(name, image)| (name.as_str(), image.as_str())).collect();
    let new = pod(&images);
    let made = webhook.create(&new);
    for (index, (name, image)) in images.iter().enumerate() {
        assert_eq!(made["spec"]["containers"][index]["image"], format!("localhost:7439/{image}"));
        assert_eq!(made["metadata"]["annotations"][format!("original-image-{name}")], *image);
    }
    assert_eq!(webhook.update(&made, &made), made);
}

#[test]
fn annotations_over_size_limit_are_not_added() {
    let webhook = Webhook::default();
    let image = format!("registry.example.org/{}:1", "a".repeat(200));
    let mut new = pod(&[("web", &image)]);
    new["metadata"]["annotations"] = json!({ "big": "x".repeat((256 << 10) - 150) });
    let made = webhook.create(&new);
    assert_eq!(made["spec"]["containers"][0]["image"], format!("localhost:7439/{image}"));
    let annotations = made["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.get("original-image-web").is_none());
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().unwrap().len()).sum();
    assert!(bytes <= 256 << 10);
}

#[test]
fn long_container_names_have_valid_annotation_keys() {
    let name = "a".repeat(63);
    let made = Webhook::default().create(&pod(&[(&name, "nginx:1")]));
    let annotations = made["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.keys().all(|key| key.rsplit('/').next().unwrap().len() <= 63), "{annotations:?}");
    assert!(annotations.values().any(|value| value == "nginx:1"));
}

#[test]
fn cached_image_is_labeled_or_denied() {
    let webhook = Webhook::default();
    let object = json!({ "metadata": { "name": "x" }, "spec": { "sourceImage": "nginx:1.25" } });
    let answer = webhook.cached_image(json!({ "operation": "CREATE", "namespace": "", "object": object }));
    let label = "docker.io-library-nginx";
    assert_eq!(answer.applied_to(&object)["metadata"]["labels"]["kuik.enix.io/repository"], label);

    let wrong = json!({ "metadata": { "name": "x" }, "spec": { "sourceImage": "nginx:1.25:2" } });
    let answer = webhook.cached_image(json!({ "operation": "CREATE", "object": wrong }));
    assert!(!answer.allowed);
    let words = kuik_core::reference::ImageReference::parse("nginx:1.25:2").unwrap_err().to_string();
    assert!(answer.message.as_ref().unwrap().contains(&words), "{answer:?}");

    let gone = webhook.cached_image(json!({ "operation": "DELETE", "oldObject": wrong }));
    assert!(gone.allowed && gone.patch == json!([]));
}

/// A policy that knows nothing about the proxy, as an embedder would write it first.
struct QuayOnly;

impl RewritePolicy for QuayOnly {
    fn decide(&self, image: &str, _: &ContainerContext<'_>) -> Decision {
        if image.starts_with("quay.io/") {
            Decision::Rewrite
        } else {
            Decision::Keep(KeepReason::custom("not_quay", format!("{image} is not on quay.io")))
        }
    }
}

#[test]
fn reinvocation_with_custom_policy_changes_nothing() {
    let webhook = Webhook::new(QuayOnly);
    let made = webhook.create(&pod(&[("web", "quay.io/app:1"), ("side", "nginx:1")]));
    let mut expected = rewritten("web", "quay.io/app:1");
    expected["spec"] = pod(&[("web", "localhost:7439/quay.io/app:1"), ("side", "nginx:1")])["spec"].clone();
    assert_eq!(made, expected);
    assert_eq!(webhook.create(&made), made);
    assert_eq!(webhook.update(&made, &made), made);
    let kept = webhook.metrics(r#"decision="kept",reason="not_quay""#);
    assert_eq!(kept.len(), 1, "the reason of the policy is a label");
}

#[test]
fn keep_of_rewritten_image_removes_nothing() {
    let webhook = Webhook::default();
    let mut always = rewritten("web", "nginx:1.25");
    always["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    assert_eq!(webhook.create(&always), always, "another webhook has changed the pull policy since");
    let ignored = rewritten("web", "ignored:1");
    assert_eq!(webhook.create(&ignored), ignored);
    assert_eq!(webhook.update(&ignored, &ignored), ignored);
}

#[test]
fn pod_that_a_policy_keeps_as_a_whole_does_not_change() {
    let webhook = Webhook::new(QuayOnly);
    let kept = pod(&[("web", "nginx:1")]);
    let made = webhook.create(&kept);
    assert_eq!(made, kept);
    assert_eq!(webhook.update(&made, &made), made);
    // A webhook that runs later injects a sidecar, and kuik is reinvoked.
    let mut injected = made;
    injected["spec"] = pod(&[("web", "nginx:1"), ("mesh", "quay.io/mesh:2")])["spec"].clone();
    let made = webhook.create(&injected);
    assert_eq!(made["spec"]["containers"][1]["image"], "localhost:7439/quay.io/mesh:2");
    assert_eq!(
        made["metadata"]["annotations"],
        json!({ REWRITE: "true", "original-image-mesh": "quay.io/mesh:2" })
    );
}

#[test]
fn pod_whose_images_are_kept_is_managed_and_its_next_image_is_rewritten() {
    let webhook = Webhook::default();
    let mut latest = pod(&[("web", "nginx")]);
    latest["spec"]["containers"][0].as_object_mut().unwrap().remove("imagePullPolicy");
    let made = webhook.create(&latest);
    assert_eq!(made, seen(latest, "true", &[]));
    let mut updated = made.clone();
    updated["spec"]["containers"][0]["image"] = json!("nginx:1.25");
    let updated = webhook.update(&made, &updated);
    assert_eq!(updated["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
    assert_eq!(updated["metadata"]["annotations"]["original-image-web"], "nginx:1.25");
}

#[test]
fn pods_that_cannot_use_the_proxy_do_not_change() {
    let everything = json!([{ "operator": "Exists", "effect": "NoSchedule" }]);
    for (reason, fields) in [
        ("node_critical", json!({ "priorityClassName": "system-node-critical" })),
        ("node_critical", json!({ "hostNetwork": true, "tolerations": everything })),
        ("windows_node", json!({ "os": { "name": "windows" } })),
        ("windows_node", json!({ "nodeSelector": { "kubernetes.io/os": "windows" } })),
        ("virtual_node", json!({ "nodeSelector": { "eks.amazonaws.com/compute-type": "fargate" } })),
    ] {
        let webhook = Webhook::default();
        let mut new = pod(&[("agent", "nginx:1.25")]);
        for (key, value) in fields.as_object().unwrap() {
            new["spec"][key] = value.clone();
        }
        assert_eq!(webhook.create(&new), new, "{reason}");
        assert_eq!(webhook.update(&new, &new), new, "{reason}");
        let counted = webhook.metrics(&format!(r#"decision="kept",reason="{reason}""#));
        assert_eq!(counted.len(), 1, "{reason}");
    }
}

#[test]
fn pod_of_the_host_network_that_waits_for_its_node_is_rewritten() {
    let mut new = pod(&[("agent", "nginx:1.25")]);
    new["spec"]["hostNetwork"] = json!(true);
    // API servers add this toleration to every pod.
    new["spec"]["tolerations"] = json!([
        { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
    ]);
    let made = Webhook::default().create(&new);
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
}

#[test]
fn node_critical_pods_are_rewritten_if_asked() {
    let webhook = Webhook::new(StandardPolicy::new().with_node_critical_kept(false));
    let mut new = pod(&[("agent", "nginx:1.25")]);
    new["spec"]["priorityClassName"] = json!("system-node-critical");
    let made = webhook.create(&new);
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
}

#[test]
fn images_of_loopback_registries_are_kept_unless_named() {
    for image in
        ["localhost:32000/x:1", "localhost:5001/x:1", "127.0.0.1:5000/x:1", "[::1]:5000/x:1", "localhost/x:1"]
    {
        let webhook = Webhook::default();
        let new = pod(&[("web", image)]);
        assert_eq!(webhook.create(&new), seen(new, "true", &[]), "{image}");
        assert_eq!(webhook.metrics(r#"reason="loopback_registry""#).len(), 1, "{image}");
    }
    let webhook = Webhook::new(StandardPolicy::new().with_loopback_registries(["localhost:5001"]));
    let made = webhook.create(&pod(&[("web", "localhost:5001/x:1")]));
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/localhost__5001/x:1");
}

#[test]
fn restored_pod_is_rewritten_again_for_the_present_port() {
    let webhook = Webhook::default();
    let at = |image: &str, original: &str| {
        seen(pod(&[("web", image)]), "true", &[("original-image-web", original)])
    };
    for (image, original) in [
        ("localhost:7440/nginx:1.25", "nginx:1.25"),
        ("localhost:7440/registry__5000/app:1", "registry:5000/app:1"),
        ("localhost:7440/registry-5000/app:1", "registry:5000/app:1"),
    ] {
        let restored = webhook.create(&at(image, original));
        let expected = format!("localhost:7439/{}", original.replace("registry:5000", "registry__5000"));
        assert_eq!(restored, at(&expected, original), "{image}");
        assert_eq!(webhook.create(&restored), restored, "{image}");
    }
    // The policy keeps this image now, and nothing listens at the earlier port.
    let restored = webhook.create(&at("localhost:7440/ignored:1", "ignored:1"));
    assert_eq!(restored, seen(pod(&[("web", "ignored:1")]), "true", &[]));
    // Without proof, nothing is removed.
    let unproven = pod(&[("web", "localhost:7440/nginx:1.25")]);
    assert_eq!(webhook.create(&unproven)["spec"], unproven["spec"]);
    // Opted out by annotation: the image and its proof stay.
    let mut out = at("localhost:7440/nginx:1.25", "nginx:1.25");
    out["metadata"]["annotations"][REWRITE] = json!("false");
    assert_eq!(webhook.create(&out), out);
}

/// Rewrites by namespace, label, annotation and service account.
struct ByPod;

impl RewritePolicy for ByPod {
    fn decide(&self, _: &str, container: &ContainerContext<'_>) -> Decision {
        let pod = container.pod;
        let found = (pod.namespace, pod.label("app"), pod.annotation("cache"), pod.service_account);
        if found == ("shop", Some("web"), Some("yes"), "robot") {
            Decision::Rewrite
        } else {
            Decision::Keep(KeepReason::custom("other", format!("{found:?}")))
        }
    }
}

#[test]
fn policy_sees_namespace_labels_annotations_and_service_account() {
    let webhook = Webhook::new(ByPod);
    let mut new = pod(&[("web", "nginx:1")]);
    new["metadata"]["annotations"] = json!({ "cache": "yes" });
    assert_eq!(webhook.create(&new), new, "no service account");
    new["spec"]["serviceAccountName"] = json!("robot");
    assert_eq!(webhook.create(&new)["spec"]["containers"][0]["image"], "localhost:7439/nginx:1");
}
