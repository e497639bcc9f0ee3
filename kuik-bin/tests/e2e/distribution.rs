//! Docker's registry as the cache: it is stopped to collect its garbage, and pods start meanwhile.

use std::{fs, path::Path};

use super::{
    Image, NAMESPACE, Scenario, Upstream,
    expiry::expire,
    json, kubectl,
    promise::kept,
    scenario::{CACHE, rolled_out},
    storage::{ON_A_VOLUME, uninstall_with_volume, volume},
    until,
};

/// How many bytes of blobs a volume has.
fn blobs(volume: &Path) -> u64 {
    fn below(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
        entries
            .map(|entry| {
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path())
                } else {
                    entry.metadata().unwrap().len()
                }
            })
            .sum()
    }
    below(&volume.join("docker/registry/v2/blobs"))
}

#[tokio::test]
async fn docker_s_registry_is_stopped_to_be_collected_and_pods_start_meanwhile() {
    let mut scenario = Scenario::without_kuik("distribution").await;
    let (repository, tag) = scenario.place.distribution.rsplit_once(':').unwrap();
    let image = format!("repository={repository}");
    let image_tag = format!("tag={tag}");
    let parts = ["registry.image", "registry.garbageCollection.image"]
        .map(|part| format!("{part}.{image},{part}.{image_tag}"));
    let values =
        [&ON_A_VOLUME[..], &["registry.kind=distribution", "registry.garbageCollection.schedule=0 3 * * 0"]];
    let values: Vec<_> = values.concat().into_iter().chain(parts.iter().map(String::as_str)).collect();
    volume(&scenario).await;
    scenario.uninstall().await;
    scenario.install(&values).await;

    let mut upstream = Upstream::open(&scenario.place).await;
    let large = "goes ".repeat(1_000_000);
    let mut names = Vec::new();
    for (part, mark) in [("goes", &*large), ("stays", "stays"), ("meanwhile", "meanwhile")] {
        let image = Image::marked(&scenario.place.busybox, mark);
        names.push(upstream.push(&image, &format!("distribution/{part}:1")).await);
    }
    let [goes, stays, meanwhile] = names.try_into().unwrap();
    for (pod, image) in [("goes", &goes), ("stays", &stays)] {
        scenario.start(&scenario.pod(pod, image)).await;
        kept(image).await;
    }
    scenario.delete("goes").await;
    expire(&goes).await;

    let folder = Path::new(&scenario.place.volume);
    let before = blobs(folder);
    let job = ["create", "job", "collect", "--from=cronjob/kube-image-keeper-registry-gc"];
    kubectl(&[&job[..], &["--namespace", NAMESPACE]].concat()).await.unwrap();
    until("the registry is stopped", || async {
        let cache = json(&["--namespace", NAMESPACE, CACHE]).await?;
        if cache["spec"]["replicas"] == 0 { Ok(()) } else { Err(cache["spec"]["replicas"].to_string()) }
    })
    .await;
    scenario.start(&scenario.pod("meanwhile", &meanwhile)).await;
    let done = ["wait", "--for=condition=Complete", "--timeout=90s", "job/collect", "--namespace", NAMESPACE];
    kubectl(&done).await.unwrap();
    rolled_out(CACHE).await;
    let reclaimed = before.saturating_sub(blobs(folder));
    assert!(reclaimed >= large.len() as u64 * 9 / 10, "{reclaimed} of {before} bytes were reclaimed");

    kept(&meanwhile).await;
    upstream.stop().await;
    for (pod, image) in [("stays", &stays), ("meanwhile", &meanwhile)] {
        scenario.delete(pod).await;
        scenario.place.forget(&format!("distribution/{pod}")).await;
        scenario.start(&scenario.pod(pod, image)).await;
    }
    kubectl(&["delete", "job", "collect", "--namespace", NAMESPACE]).await.unwrap();
    uninstall_with_volume(&mut scenario).await;
}
