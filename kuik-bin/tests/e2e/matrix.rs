//! The promise, wherever the cache keeps its content, and whichever way nodes come to pull through kuik.
//!
//! `make e2e-old` runs this with the oldest release of Kubernetes that is supported.

use super::{
    Image, NAMESPACE, Scenario, Upstream, kubectl,
    pod::{image_of, rewritten},
    promise::kept,
    scenario::{CACHE, rolled_out},
    storage::{ON_A_VOLUME, minio, uninstall_with_volume, volume},
};

/// With these values more, a pod starts in each mode, and again without its registry; where content `outlives` the pod of
/// the cache, also without the one that pulled the image.
async fn kept_in_every_mode(scenario: &mut Scenario, values: &[&str], outlives: bool) {
    for mode in ["webhook", "containerd"] {
        let folder = format!("proxy.containerd.certsDir={}", scenario.place.certs_dir.display());
        let way = format!("proxy.mode={mode}");
        scenario.install(&[values, &[&way, &folder]].concat()).await;
        let mut upstream = Upstream::open(&scenario.place).await;
        upstream.untold();
        let mark = format!("{} {mode}", scenario.namespace);
        let image = Image::marked(&scenario.place.busybox, &mark);
        let name = upstream.push(&image, &format!("{}/{mode}:1", scenario.namespace)).await;
        let expected = if mode == "webhook" { rewritten(&name) } else { name.clone() };
        let pod = scenario.start(&scenario.pod("first", &name)).await;
        assert_eq!(image_of(&pod, "main"), expected);
        kept(&name).await;

        upstream.stop().await;
        if outlives {
            let pods = "--selector=app.kubernetes.io/component=registry";
            kubectl(&["delete", "pod", "--namespace", NAMESPACE, pods]).await.unwrap();
            rolled_out(CACHE).await;
        }
        scenario.delete("first").await;
        scenario.place.forget(&format!("{}/{mode}", scenario.namespace)).await;
        scenario.start(&scenario.pod("again", &name)).await;
        assert_eq!(scenario.mark("again", "main").await, mark);
        scenario.delete("again").await;
    }
    // As NOTES say, of the one folder that was made.
    std::fs::remove_dir_all(scenario.place.certs_dir.join("_default")).unwrap();
}

#[tokio::test]
async fn in_memory() {
    let mut scenario = Scenario::without_kuik("matrix-memory").await;
    kept_in_every_mode(&mut scenario, &[], false).await;
}

#[tokio::test]
async fn on_a_volume() {
    let mut scenario = Scenario::without_kuik("matrix-volume").await;
    volume(&scenario).await;
    // The volume claim of a StatefulSet is immutable.
    scenario.uninstall().await;
    kept_in_every_mode(&mut scenario, &ON_A_VOLUME, true).await;
    uninstall_with_volume(&mut scenario).await;
}

#[tokio::test]
async fn in_a_bucket() {
    let mut scenario = Scenario::without_kuik("matrix-bucket").await;
    let (_minio, values) = minio(&scenario.place).await;
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    kept_in_every_mode(&mut scenario, &values, true).await;
    scenario.uninstall().await;
}
