//! Rewriting rules: every image field of a pod, and every way to opt out.

use serde_json::{Value, json};

use super::{
    Image, NAMESPACE, Scenario, Upstream, apply, json as get, kubectl,
    pod::{container, image_of, pod, rewritten},
    promise::{cached_image, kept, object_name},
    until,
};

/// A pod as the API server has it when it was just created.
async fn created(pod: &Value) -> Value {
    apply(std::slice::from_ref(pod)).await.unwrap();
    let metadata = &pod["metadata"];
    let named = format!("pod/{}", metadata["name"].as_str().unwrap());
    get(&["--namespace", metadata["namespace"].as_str().unwrap(), &named]).await.unwrap()
}

#[tokio::test]
async fn every_image_of_a_pod_is_rewritten_but_one_that_is_always_pulled() {
    let scenario = Scenario::begin("places").await;
    let upstream = Upstream::open(&scenario.place).await;
    let mut names = Vec::new();
    for part in ["init", "sidecar", "always", "debug"] {
        let image = Image::marked(&scenario.place.busybox, part);
        names.push(upstream.push(&image, &format!("places/{part}:1")).await);
    }
    let [init, sidecar, always, debug] = names.try_into().unwrap();
    let by_digest = Image::marked(&scenario.place.busybox, "digest");
    let tagged = upstream.push(&by_digest, "places/digest:1").await;
    let by_digest = format!("{}@{}", tagged.trim_end_matches(":1"), by_digest.digest);

    let mut pod = scenario.pod("every", &by_digest);
    let mut first = container("init", &init);
    first["command"] = json!(["/bin/sh", "-c", "exit 0"]);
    let mut beside = container("sidecar", &sidecar);
    beside["restartPolicy"] = json!("Always");
    pod["spec"]["initContainers"] = json!([first, beside]);
    let mut pulled = container("always", &always);
    pulled["imagePullPolicy"] = json!("Always");
    pod["spec"]["containers"].as_array_mut().unwrap().push(pulled);

    let pod = scenario.start(&pod).await;
    for (name, image) in [("init", &init), ("sidecar", &sidecar), ("main", &by_digest)] {
        assert_eq!(image_of(&pod, name), rewritten(image), "{name}");
    }
    assert_eq!(image_of(&pod, "always"), always);
    assert_eq!(scenario.mark("every", "main").await, "digest");
    assert_eq!(scenario.mark("every", "sidecar").await, "sidecar");

    let image = format!("--image={debug}");
    let namespace = format!("--namespace={}", scenario.namespace);
    let arguments =
        ["debug", "every", &namespace, &image, "--container=debug", "--image-pull-policy=IfNotPresent"];
    kubectl(&[&arguments[..], &["--profile=general", "--", "/bin/sleep", "1000"]].concat()).await.unwrap();
    until("the ephemeral container runs", || async {
        let pod = get(&[&namespace, "pod/every"]).await?;
        assert_eq!(image_of(&pod, "debug"), rewritten(&debug));
        let status = &pod["status"]["ephemeralContainerStatuses"][0];
        if status["state"]["running"].is_object() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    for image in [&init, &sidecar, &by_digest, &debug] {
        kept(image).await;
    }
    assert!(cached_image(&object_name(&always)).await.unwrap_err().contains("NotFound"));
}

#[tokio::test]
async fn opted_out_pods_and_ignored_namespaces_are_not_rewritten() {
    let values = [
        "controllers.webhook.ignoredNamespaces={e2e-ignored}",
        "controllers.webhook.objectSelector.matchExpressions[0].key=e2e-kuik",
        "controllers.webhook.objectSelector.matchExpressions[0].operator=NotIn",
        "controllers.webhook.objectSelector.matchExpressions[0].values={no}",
    ];
    let scenario = Scenario::with("choices", &values).await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "choices");
    let name = upstream.push(&image, "choices/asked:1").await;
    let left = upstream.push(&image, "choices/left:1").await;
    apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e-ignored"}})])
        .await
        .unwrap();

    let mut opted_out = scenario.pod("opted-out", &left);
    opted_out["metadata"]["labels"] = json!({"kube-image-keeper.enix.io/image-caching-policy": "ignore"});
    let mut unselected = scenario.pod("unselected", &left);
    unselected["metadata"]["labels"] = json!({"e2e-kuik": "no"});
    let elsewhere =
        ["e2e-ignored", "kube-system", NAMESPACE].map(|namespace| pod(namespace, "e2e-left", &left));
    for pod in [&opted_out, &unselected].into_iter().chain(&elsewhere) {
        let made = created(pod).await;
        assert_eq!(image_of(&made, "main"), left, "{}", made["metadata"]);
        assert_eq!(made["metadata"]["labels"]["kuik.enix.io/managed"], Value::Null);
    }
    // They are pulled by the node itself, and so start as if there were no kuik.
    scenario.ready("opted-out").await;
    scenario.ready("unselected").await;

    let asked = scenario.start(&scenario.pod("asked", &name)).await;
    assert_eq!(image_of(&asked, "main"), rewritten(&name));
    kept(&name).await;
    assert!(
        cached_image(&object_name(&left)).await.unwrap_err().contains("NotFound"),
        "it must not be created"
    );
    for namespace in ["kube-system", NAMESPACE] {
        kubectl(&["delete", "pod", "e2e-left", "--namespace", namespace, "--grace-period=0", "--force"])
            .await
            .unwrap();
    }
    kubectl(&["delete", "namespace", "e2e-ignored", "--wait=false"]).await.unwrap();
}
