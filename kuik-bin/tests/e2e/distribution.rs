//! Docker's registry as the cache: it is restarted to collect its garbage, pods start meanwhile, and multi-platform images
//! keep all their platforms.

use std::{fs, path::Path};

use kuik_testkit::real::run_within;

use super::{
    Image, NAMESPACE, PATIENCE, Scenario, Upstream,
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

/// Pulls an image from the cache, as a client of each platform does.
async fn pull_each_platform(image: &str) {
    let repository = image.replacen(':', "__", 1);
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "set -euo pipefail; cd {:?}\nkubectl port-forward --namespace {NAMESPACE} service/kube-image-keeper-registry \
         5987:5000 >/dev/null & forward=$!; trap 'kill $forward' EXIT\n\
         until curl --silent --output /dev/null http://localhost:5987/v2/; do sleep 0.1; done\n\
         for platform in amd64 arm64; do skopeo --override-arch $platform copy --quiet --src-tls-verify=false \
         docker://localhost:5987/{repository} oci:$platform; \
         skopeo inspect --config oci:$platform | grep --quiet '\"architecture\": *\"'$platform; done",
        folder.path()
    );
    run_within(PATIENCE, "bash", "bash", ["-c", &script]).await.unwrap();
}

/// Runs the garbage collection once, as the CronJob does, with a pod that starts meanwhile.
async fn collect(scenario: &Scenario, job: &str, pod: &str, image: &str) {
    let made = format!("job/{job}");
    let create =
        ["create", "job", job, "--from=cronjob/kube-image-keeper-registry-gc", "--namespace", NAMESPACE];
    kubectl(&create).await.unwrap();
    until("the registry is restarted", || async {
        let cache = json(&["--namespace", NAMESPACE, CACHE]).await?;
        let by = &cache["spec"]["template"]["metadata"]["annotations"]["kuik.enix.io/collected-by"];
        if by.as_str().is_some_and(|by| by.starts_with(job)) { Ok(()) } else { Err(by.to_string()) }
    })
    .await;
    scenario.start(&scenario.pod(pod, image)).await;
    let done = ["wait", "--for=condition=Complete", "--timeout=180s", &made, "--namespace", NAMESPACE];
    kubectl(&done).await.unwrap();
    rolled_out(CACHE).await;
    kubectl(&["delete", &made, "--namespace", NAMESPACE]).await.unwrap();
}

#[tokio::test]
async fn docker_s_registry_collects_twice_without_losing_a_platform_and_pods_start_meanwhile() {
    let mut scenario = Scenario::without_kuik("distribution").await;
    let (repository, tag) = scenario.place.distribution.rsplit_once(':').unwrap();
    let image = format!("repository={repository}");
    let image_tag = format!("tag={tag}");
    let parts = ["registry.image", "registry.garbageCollection.image"]
        .map(|part| format!("{part}.{image},{part}.{image_tag}"));
    let values = [
        &ON_A_VOLUME[..],
        &[
            "registry.kind=distribution",
            "registry.garbageCollection.schedule=0 3 * * 0",
            "registry.garbageCollection.deleteUntagged=true",
            "architectures={amd64,arm64}",
        ],
    ];
    let values: Vec<_> = values.concat().into_iter().chain(parts.iter().map(String::as_str)).collect();
    volume(&scenario).await;
    scenario.uninstall().await;
    scenario.install(&values).await;

    let mut upstream = Upstream::open(&scenario.place).await;
    let large = "goes ".repeat(1_000_000);
    let mut names = Vec::new();
    let marks = [("goes", &*large), ("stays", "stays"), ("meanwhile-1", "1"), ("meanwhile-2", "2")];
    for (part, mark) in marks {
        let image = Image::multi_platform(&scenario.place.busybox, mark);
        names.push(upstream.push(&image, &format!("distribution/{part}:1")).await);
    }
    let [goes, stays, first, second] = names.try_into().unwrap();
    for (pod, image) in [("goes", &goes), ("stays", &stays)] {
        scenario.start(&scenario.pod(pod, image)).await;
        kept(image).await;
    }
    scenario.delete("goes").await;
    expire(&goes).await;

    let folder = Path::new(&scenario.place.volume);
    let before = blobs(folder);
    collect(&scenario, "collect-1", "meanwhile-1", &first).await;
    let reclaimed = before.saturating_sub(blobs(folder));
    assert!(reclaimed >= large.len() as u64 * 9 / 10, "{reclaimed} of {before} bytes were reclaimed");
    kept(&first).await;
    collect(&scenario, "collect-2", "meanwhile-2", &second).await;
    kept(&second).await;

    // Every platform is in the cache still, and what the node needs starts from there.
    upstream.stop().await;
    for (pod, image) in [("stays", &stays), ("meanwhile-1", &first), ("meanwhile-2", &second)] {
        pull_each_platform(image).await;
        scenario.delete(pod).await;
        scenario.place.forget(&format!("distribution/{pod}")).await;
        scenario.start(&scenario.pod(pod, image)).await;
    }
    uninstall_with_volume(&mut scenario).await;
}
