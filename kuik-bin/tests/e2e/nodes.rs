//! Nodes as they come: whose containerd pulls through kuik, whose network its proxy is in, and one that comes later.

use std::fs;

use serde_json::json;

use super::{
    Image, NAMESPACE, Scenario, Upstream, kubectl,
    pod::{image_of, rewritten},
    promise::{kept, start_again, start_and_keep},
    scenario::{PROXY, rolled_out},
};

#[tokio::test]
async fn a_node_that_is_told_pulls_through_kuik_and_no_pod_changes() {
    let place = super::Place::here();
    let folder = format!("proxy.containerd.certsDir={}", place.certs_dir.display());
    let scenario = Scenario::with("containerd", &["proxy.mode=containerd", &folder]).await;
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
async fn a_node_that_is_told_pulls_what_is_rewritten_at_its_first_try() {
    let mut scenario = Scenario::without_kuik("both").await;
    // Nodes are told when a proxy starts, and an upgrade that changes no proxy starts none.
    scenario.uninstall().await;
    let folder = format!("proxy.containerd.certsDir={}", scenario.place.certs_dir.display());
    scenario.install(&["proxy.mode=both", &folder]).await;
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
