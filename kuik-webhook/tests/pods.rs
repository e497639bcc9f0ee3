//! What becomes of pods, review by review: each patch is applied, and the pod that comes of it compared.
#![cfg(feature = "admission")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use serde_json::{Value, json};
use support::{Webhook, pod};

const REWRITE: &str = "kuik.enix.io/rewrite-images";

/// `pod` as kuik leaves it: labelled, with `rewrite-images` and these annotations besides.
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
fn a_new_pod_is_rewritten_in_every_place_that_names_an_image() {
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
    assert_eq!(again.patch, json!([]), "asked again, as other webhooks can cause, nothing changes");
}

#[test]
fn what_is_kept_is_kept_and_counted_with_its_reason() {
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
fn who_makes_a_pod_may_ask_that_its_images_stay() {
    let mut new = pod(&[("web", "nginx:1.25")]);
    new["metadata"]["annotations"] = json!({ REWRITE: "false" });
    let webhook = Webhook::default();
    let made = webhook.create(&new);
    assert_eq!(made, seen(new, "false", &[("original-image-web", "nginx:1.25")]));
    assert_eq!(webhook.update(&made, &made), made);
}

#[test]
fn a_copied_pod_gets_annotations_that_are_true() {
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
    assert_eq!(webhook.create(&kept), expected, "what stays has no original");
}

#[test]
fn an_annotation_of_kuik_1_for_a_port_stays() {
    let webhook = Webhook::default();
    let mut old = rewritten("web", "registry-5000/app:1");
    old["metadata"]["annotations"]["original-image-web"] = json!("registry:5000/app:1");
    assert_eq!(webhook.create(&old), old);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"]["new"] = json!("label");
    assert_eq!(webhook.update(&old, &labelled), labelled);
}

#[test]
fn an_update_of_a_rewritten_pod_rewrites_what_it_brings() {
    let webhook = Webhook::default();
    let old = rewritten("web", "nginx:1.25");
    let mut labelled = old.clone();
    labelled["metadata"]["labels"]["new"] = json!("label");
    assert_eq!(webhook.update(&old, &labelled), labelled);

    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("nginx:2");
    assert_eq!(webhook.update(&old, &new), rewritten("web", "nginx:2"));

    new["spec"]["containers"][0]["image"] = json!("ignored:2");
    let expected = seen(pod(&[("web", "ignored:2")]), "true", &[]);
    assert_eq!(webhook.update(&old, &new), expected);

    let applied = pod(&[("web", "nginx:1.25")]);
    assert_eq!(webhook.update(&old, &applied), old, "a manifest that is applied again changes nothing");
}

#[test]
fn an_update_does_not_restart_what_another_configuration_left() {
    let webhook = Webhook::default();
    let other_port = seen(
        pod(&[("web", "localhost:8082/nginx:1.25"), ("kept", "redis:7")]),
        "true",
        &[("original-image-web", "nginx:1.25")],
    );
    let mut labelled = other_port.clone();
    labelled["metadata"]["labels"]["new"] = json!("label");
    let updated = webhook.update(&other_port, &labelled);
    assert_eq!(updated["spec"], other_port["spec"]);
    assert_eq!(updated["metadata"]["annotations"]["original-image-web"], "nginx:1.25");
}

#[test]
fn a_pod_that_predates_kuik_is_noted_and_not_rewritten() {
    let webhook = Webhook::default();
    let old = pod(&[("web", "nginx:1.25")]);
    let noted = seen(old.clone(), "false", &[("original-image-web", "nginx:1.25")]);
    assert_eq!(webhook.update(&old, &old), noted);
    let mut moved = noted.clone();
    moved["spec"]["containers"][0]["image"] = json!("nginx:2");
    let expected = seen(pod(&[("web", "nginx:2")]), "false", &[("original-image-web", "nginx:2")]);
    assert_eq!(webhook.update(&noted, &moved), expected, "the note follows the image");

    let mut asked = noted.clone();
    asked["metadata"]["annotations"][REWRITE] = json!("true");
    assert_eq!(webhook.update(&noted, &asked), rewritten("web", "nginx:1.25"), "unless that is asked for");
}

#[test]
fn of_a_pod_that_runs_only_what_can_change_is_touched() {
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
fn of_debug_containers_the_new_ones_are_rewritten_and_nothing_else() {
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
fn pods_that_are_left_alone_are_counted_by_why() {
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
        let line = format!(r#"outcome="left_alone",reason="{why}""#);
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
fn a_dry_run_is_answered_alike_and_leaves_no_trace() {
    let webhook = Webhook::default();
    let new = pod(&[("web", "nginx:1.25")]);
    let dry = webhook.pod(json!({ "operation": "CREATE", "object": new, "dryRun": true }));
    assert_eq!(webhook.metrics("webhook_images_total"), Vec::<String>::new());
    assert_eq!(dry, webhook.pod(json!({ "operation": "CREATE", "object": new })));
}

#[test]
fn a_pod_with_200_containers_is_rewritten_whole() {
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
fn annotations_that_would_have_the_pod_refused_are_not_added() {
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
fn long_container_names_have_annotations_that_are_valid() {
    let name = "a".repeat(63);
    let made = Webhook::default().create(&pod(&[(&name, "nginx:1")]));
    let annotations = made["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.keys().all(|key| key.rsplit('/').next().unwrap().len() <= 63), "{annotations:?}");
    assert!(annotations.values().any(|value| value == "nginx:1"));
}

#[test]
fn a_cached_image_is_labelled_or_refused() {
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
