//! Storage of the cache: content on a volume survives the pod; replicas share a bucket.

use std::net::TcpListener;

use kuik_testkit::real::{InstallSource, Launch, Program, Ready};
use serde_json::json;

use super::{
    Image, NAMESPACE, Place, Scenario, Upstream, apply, json as get, kubectl,
    promise::{kept, start_again, start_and_keep},
    scenario::{CACHE, rolled_out},
    until,
};

const SELECTOR: &str = "--selector=app.kubernetes.io/component=registry";

/// Values for a cache on a volume of [`volume`].
pub(crate) const ON_A_VOLUME: [&str; 3] = [
    "registry.persistence.enabled=true",
    "registry.persistence.size=1Gi",
    "registry.persistence.storageClass=kuik-e2e",
];

/// A world-writable directory of the node, as a volume.
pub(crate) async fn volume(scenario: &Scenario) {
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "kuik-e2e"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "kuik-e2e",
            "hostPath": {"path": scenario.place.volume},
        },
    });
    apply(&[volume]).await.unwrap();
}

#[tokio::test]
async fn on_a_volume_images_outlive_the_pod_of_the_cache() {
    let mut scenario = Scenario::without_kuik("volume").await;
    let mut upstream = Upstream::open(&scenario.place).await;
    volume(&scenario).await;
    // The volume claim of a StatefulSet is immutable.
    scenario.uninstall().await;
    scenario.install(&ON_A_VOLUME).await;
    let name = start_and_keep(&scenario, &upstream, "volume").await;

    upstream.stop().await;
    kubectl(&["delete", "pod", "--namespace", NAMESPACE, SELECTOR]).await.unwrap();
    rolled_out(CACHE).await;
    start_again(&scenario, &name, "volume").await;

    uninstall_with_volume(&mut scenario).await;
    scenario.delete("again").await;
}

/// Uninstalls kuik with its claim, which outlives it, and the volume that this had.
pub(crate) async fn uninstall_with_volume(scenario: &mut Scenario) {
    scenario.uninstall().await;
    kubectl(&["delete", "persistentvolumeclaim", "--namespace", NAMESPACE, "--all"]).await.unwrap();
    kubectl(&["delete", "persistentvolume", "kuik-e2e"]).await.unwrap();
    for entry in std::fs::read_dir(&scenario.place.volume).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

/// A MinIO that pods reach, with a bucket; its keys are those of this test alone. And what has the cache there.
pub(crate) async fn minio(place: &Place) -> (Program, Vec<String>) {
    let address = TcpListener::bind((place.address, 0)).unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("kuik")).unwrap();
    let launch =
        Launch::new("minio", InstallSource::BuiltFromGo, Ready::Ok(address, "/minio/health/cluster"))
            .arguments(["server", "--quiet", "--address", &address.to_string()].map(Into::into))
            .arguments([
                "--certs-dir".into(),
                folder.path().join("certs").into_os_string(),
                data.into_os_string(),
            ])
            .environment("MINIO_ROOT_USER", "kuik-e2e")
            .environment("MINIO_ROOT_PASSWORD", "only-for-this-test")
            .environment("MINIO_BROWSER", "off")
            .environment("MINIO_UPDATE", "off");
    let values = [
        "bucket=kuik",
        "region=us-east-1",
        "forcepathstyle=true",
        "accesskey=kuik-e2e",
        "secretkey=only-for-this-test",
        &format!("regionendpoint=http://{address}"),
    ];
    let values = values.map(|value| format!("registry.persistence.s3.{value}"));
    (Program::start(launch, folder).await.unwrap(), values.into())
}

#[tokio::test]
async fn in_a_bucket_one_replica_serves_what_the_other_has_kept() {
    let mut scenario = Scenario::without_kuik("bucket").await;
    let (_minio, values) = minio(&scenario.place).await;
    let values: Vec<_> = values.iter().map(String::as_str).chain(["registry.replicas=2"]).collect();
    scenario.install(&values).await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "bucket");
    let name = upstream.push(&image, "bucket/app:1").await;
    scenario.start(&scenario.pod("first", &name)).await;
    kept(&name).await;

    upstream.stop().await;
    scenario.delete("first").await;
    // Whichever of them had it: each in its turn is killed, and the other does.
    let pods = get(&["pods", "--namespace", NAMESPACE, SELECTOR]).await.unwrap();
    let replicas: Vec<_> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(replicas.len(), 2);
    for (number, replica) in replicas.iter().enumerate() {
        let name_of = replica.as_str().unwrap();
        kubectl(&["delete", "pod", "--namespace", NAMESPACE, name_of, "--grace-period=0", "--force"])
            .await
            .unwrap();
        let pod = format!("again-{number}");
        scenario.place.forget("bucket/app").await;
        scenario.start(&scenario.pod(&pod, &name)).await;
        scenario.delete(&pod).await;
        until("both replicas are ready", || async {
            rolled_out("deployment/kube-image-keeper-registry").await;
            Ok(())
        })
        .await;
    }
    scenario.uninstall().await;
}
