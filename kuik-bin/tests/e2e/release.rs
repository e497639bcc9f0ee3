//! Release changes: pods during upgrade, rollback and uninstallation.

use serde_json::{Value, json};

use super::{
    Image, NAMESPACE, Scenario, Upstream, apply, helm, json as get, kubectl,
    pod::{container, image_of, rewritten},
    promise::{cached_image, kept, object_name},
    scenario::{PROXY, RELEASE},
    until,
};

/// Identity of a running container: equal before and after, unless it restarted.
fn run_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["containerID"]
}

#[tokio::test]
async fn upgrade_and_rollback_do_not_restart_pods() {
    let mut scenario = Scenario::begin("upgrade").await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "upgrade");
    let name = upstream.push(&image, "upgrade/app:1").await;
    let before = scenario.start(&scenario.pod("before", &name)).await;
    kept(&name).await;

    let log = async || {
        let proxy = get(&["--namespace", NAMESPACE, PROXY]).await.unwrap();
        let arguments = &proxy["spec"]["template"]["spec"]["containers"][0]["args"];
        arguments.as_array().unwrap().iter().any(|argument| argument == "--log=debug")
    };
    scenario.install(&["proxy.verbosity=DEBUG", "controllers.replicas=1", "registry.maxSize=1Gi"]).await;
    assert!(log().await);
    scenario.start(&scenario.pod("upgraded", &name)).await;

    scenario.changed();
    helm(&["rollback", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=150s"]).await.unwrap();
    scenario.settled().await;
    assert!(!log().await);
    let pod = scenario.start(&scenario.pod("rolled-back", &name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    kept(&name).await;
    assert_eq!(run_of(&scenario.ready("before").await), run_of(&before));
}

/// The pod that a Deployment has now.
async fn pod_of(namespace: &str, deployment: &str) -> Value {
    let selector = format!("--selector=app={deployment}");
    until(&format!("{deployment} has one pod"), || async {
        let pods = get(&["pods", "--namespace", namespace, &selector]).await?;
        match &pods["items"].as_array().unwrap()[..] {
            [pod] if pod["metadata"]["deletionTimestamp"].is_null() => Ok(pod.clone()),
            others => Err(format!("{others:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn running_pods_survive_uninstallation_and_new_pods_are_not_rewritten() {
    let mut scenario = Scenario::begin("uninstalled").await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "uninstalled");
    let name = upstream.push(&image, "uninstalled/app:1").await;
    let template = json!({
        "metadata": {"labels": {"app": "server"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container("main", &name)]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server", "namespace": scenario.namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "server"}}, "template": template},
    });
    apply(&[deployment]).await.unwrap();
    let pod = pod_of(&scenario.namespace, "server").await;
    let old = pod["metadata"]["name"].as_str().unwrap();
    let before = scenario.ready(old).await;
    assert_eq!(image_of(&before, "main"), rewritten(&name));
    kept(&name).await;

    scenario.uninstall().await;
    assert_eq!(run_of(&scenario.ready(old).await), run_of(&before), "it was restarted");
    let pod = scenario.start(&scenario.pod("new", &name)).await;
    assert_eq!(image_of(&pod, "main"), name);
    // A pod that a controller creates has the image of the template, which was never changed.
    scenario.delete(old).await;
    let pod = pod_of(&scenario.namespace, "server").await;
    let pod = scenario.ready(pod["metadata"]["name"].as_str().unwrap()).await;
    assert_eq!(image_of(&pod, "main"), name);
    assert!(cached_image(&object_name(&name)).await.is_ok(), "the definitions stay, with all objects");

    // A pod that says localhost in its own words waits until kuik is there again, where its node has no such image.
    scenario.place.untag("__").await;
    apply(&[scenario.pod("waits", &rewritten(&name))]).await.unwrap();
    until("the reason of the wait is reported", || async {
        let pod = get(&["--namespace", &scenario.namespace, "pod/waits"]).await?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let refused = waiting["message"].as_str().is_some_and(|text| text.contains("7439"));
        if refused { Ok(()) } else { Err(pod["status"].to_string()) }
    })
    .await;
    scenario.install(&[]).await;
    scenario.ready("waits").await;
    kubectl(&["delete", "deployment", "server", "--namespace", &scenario.namespace]).await.unwrap();
}
