//! Nodes as they come: whose containerd pulls through kuik, whose network its proxy is in, and one that comes later.

use std::fs;

use serde_json::json;

use super::{
    Image, NAMESPACE, Scenario, Upstream, apply, kubectl,
    pod::{image_of, rewritten},
    promise::{kept, start_again, start_and_keep},
    scenario::{PROXY, rolled_out},
};

/// A scenario with a new installation in this mode, whose proxies configure the containerd of their nodes.
///
/// They do so when they start, and an upgrade that does not change the proxy starts none: the scenario before may have
/// removed what its own proxies wrote.
async fn configuring_nodes(mode: &str) -> Scenario {
    let mut scenario = Scenario::without_kuik(mode).await;
    scenario.uninstall().await;
    let folder = format!("proxy.containerd.certsDir={}", scenario.place.certs_dir.display());
    scenario.install(&[&format!("proxy.mode={mode}"), &folder]).await;
    scenario
}

#[tokio::test]
async fn mirror_configured_node_pulls_through_kuik_without_rewriting() {
    let scenario = configuring_nodes("containerd").await;
    let mut upstream = Upstream::open(&scenario.place).await;
    upstream.untold();
    let image = Image::marked(&scenario.place.busybox, "containerd");
    let name = upstream.push(&image, "containerd/app:1").await;
    let pod = scenario.start(&scenario.pod("first", &name)).await;
    assert_eq!(image_of(&pod, "main"), name);
    let metadata = pod["metadata"].to_string();
    assert!(!metadata.contains("kuik.enix.io") && !metadata.contains("original-image"), "{metadata}");
    kept(&name).await;

    upstream.stop().await;
    scenario.delete("first").await;
    scenario.place.forget("containerd/app").await;
    let pod = scenario.start(&scenario.pod("again", &name)).await;
    assert_eq!(image_of(&pod, "main"), name);
    assert_eq!(scenario.mark("again", "main").await, "containerd");
    // As NOTES say, of the one folder that was made.
    fs::remove_dir_all(scenario.place.certs_dir.join("_default")).unwrap();
}

/// containerd asks its mirror for what is rewritten as well, as for an image of a registry called `localhost:7439`.
#[tokio::test]
async fn mirror_configured_node_pulls_rewritten_images_at_the_first_try() {
    let scenario = configuring_nodes("both").await;
    let told = scenario.place.certs_dir.join("_default");
    assert!(told.join("hosts.toml").exists());
    let mut upstream = Upstream::open(&scenario.place).await;
    upstream.untold();
    let image = Image::marked(&scenario.place.busybox, "both");
    let name = upstream.push(&image, "both/app:1").await;
    let pod = scenario.start(&scenario.pod("first", &name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    kept(&name).await;
    upstream.stop().await;
    scenario.delete("first").await;
    scenario.place.forget("both/app").await;
    scenario.start(&scenario.pod("again", &name)).await;
    let log = kubectl(&["logs", "--namespace", NAMESPACE, PROXY]).await.unwrap();
    let refused: Vec<_> =
        log.lines().filter(|line| line.contains("both/app") && line.contains("status=4")).collect();
    assert_eq!(refused, [""; 0]);
    fs::remove_dir_all(told).unwrap();
}

#[tokio::test]
async fn proxies_in_the_network_of_their_nodes_serve_them() {
    let scenario = Scenario::with("host-network", &["proxy.hostNetwork=true"]).await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "host-network").await;
    upstream.stop().await;
    start_again(&scenario, &name, "host-network").await;
}

/// To the node that `tools/cluster` adds, `localhost` is `::1` first, where nothing listens.
#[tokio::test]
async fn a_node_that_is_added_starts_pods_whose_registry_is_gone() {
    let scenario = Scenario::begin("node-added").await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let name = start_and_keep(&scenario, &upstream, "node-added").await;
    upstream.stop().await;

    let node = scenario.place.add_node().await;
    rolled_out(PROXY).await;
    let mut pod = scenario.pod("there", &name);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node.name});
    let pod = scenario.start(&pod).await;
    assert_eq!((&pod["spec"]["nodeName"], image_of(&pod, "main")), (&node.name.into(), &*rewritten(&name)));
    assert_eq!(scenario.mark("there", "main").await, "node-added");
    scenario.delete("there").await;
    drop(node);
    scenario.settled().await;
}

/// The pod has the shape of a network plugin: host network, and a toleration of every taint, in a namespace that kuik does
/// not ignore. Its node is not ready, and so runs no proxy, before the pod has started.
#[tokio::test]
async fn a_node_whose_network_plugin_is_a_pod_becomes_ready_and_pulls_through_kuik() {
    let scenario = Scenario::begin("node-network").await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "node-network");
    let name = upstream.push(&image, "node-network/plugin:1").await;
    let file = scenario.place.network_file().await;
    let (folder, pending) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
    let ready = pending.strip_suffix(".pending").unwrap();
    let mut plugin = scenario.pod("plugin", &name)["spec"].clone();
    plugin["hostNetwork"] = json!(true);
    plugin["tolerations"] = json!([{"operator": "Exists"}]);
    plugin["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    plugin["volumes"] = json!([{"name": "cni", "hostPath": {"path": folder}}]);
    let container = &mut plugin["containers"][0];
    container["command"] =
        json!(["/bin/sh", "-c", format!("busybox mv /cni/{pending} /cni/{ready}; exec sleep 2147483647")]);
    container["volumeMounts"] = json!([{"name": "cni", "mountPath": "/cni"}]);
    let labels = json!({"app": "plugin"});
    let template = json!({"metadata": {"labels": labels}, "spec": plugin});
    let daemons = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "plugin", "namespace": scenario.namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    });
    apply(&[daemons]).await.unwrap();

    let node = scenario.place.add_node_without_network().await;
    let used = ["get", "pods", "--namespace", &scenario.namespace, "--selector=app=plugin"];
    let images = "--output=jsonpath={.items[*].spec.containers[*].image}";
    assert_eq!(kubectl(&[&used[..], &[images]].concat()).await.unwrap(), name);
    rolled_out(PROXY).await;
    let mut pod = scenario.pod("there", &name);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node.name});
    let pod = scenario.start(&pod).await;
    assert_eq!(image_of(&pod, "main"), rewritten(&name));
    scenario.delete("there").await;
    drop(node);
    scenario.settled().await;
}
