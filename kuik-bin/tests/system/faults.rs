//! Fault tests of `kuik serve`: crashes, a full disk, shutdown.

use std::path::Path;

use crate::support::{
    Kuik, Tmpfs, Transfer, blob_data, blob_path, eventually, get, head, proxied, pull_with_skopeo,
    unpublished,
};
use bytes::Bytes;
use kuik_core::content::Digest;
use kuik_testkit::{Behavior, Gate, Rule, SampleImage, ScriptedRegistry, Target};

const MIB: usize = 1 << 20;

/// Bytes that are the same nowhere, so that a piece in the wrong place is seen.
fn bytes(length: usize) -> Bytes {
    (0..length as u64 / 8).flat_map(u64::to_le_bytes).collect::<Vec<_>>().into()
}

/// How often upstream was asked for this blob itself.
fn fetches(registry: &ScriptedRegistry, digest: &Digest) -> usize {
    let log = registry.log();
    log.iter().filter(|entry| entry.method == "GET" && entry.path.contains(digest.as_str())).count()
}

/// Starts a transfer of a blob that upstream stops sending after `after` bytes, until the gate opens.
async fn stalled_transfers(
    registry: &ScriptedRegistry,
    kuik: &Kuik,
    digest: &Digest,
    after: u64,
    clients: usize,
) -> (Gate, Vec<Transfer>) {
    let gate = Gate::new();
    let stall = Behavior::Stall { after, until: gate.clone() };
    registry.script(Rule::on(Target::Blob).path(digest.as_str()).times(1).does(stall));
    let target = blob_path(&registry.host(), "app", digest);
    let mut transfers = Vec::new();
    for _ in 0..clients {
        transfers.push(Transfer::begin(kuik.address(), "GET", &target, "").await);
    }
    registry.wait_for(|log| log.iter().any(|entry| entry.bytes_sent >= after)).await;
    (gate, transfers)
}

#[tokio::test]
async fn a_killed_fill_leaves_nothing_behind() {
    let registry = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::builder().seed(21).platform("linux", "amd64").layer(4 * MIB).build();
    registry.add_image("app", "v1", &image);
    let digest = &image.layers()[0].digest;
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &registry.host()];

    let kuik = Kuik::serve(data.path(), &arguments).await;
    let (_gate, _transfers) = stalled_transfers(&registry, &kuik, digest, 2 * MIB as u64, 1).await;
    eventually("the fill is being written", async || unpublished(data.path()) == 1).await;
    kuik.kill().await;
    assert_eq!(unpublished(data.path()), 1, "the crash was in the middle of the fill");

    let kuik = Kuik::serve(data.path(), &arguments).await;
    assert_eq!(unpublished(data.path()), 0, "the start removes what was not finished");
    assert!(!blob_data(data.path(), digest).exists());
    let asked = registry.count(Target::Blob);
    let target = blob_path(&registry.host(), "app", digest);
    let found = head(kuik.address(), &target).await;
    assert_eq!((found.status, found.header("cache-status")), (200, "kuik; fwd=miss"), "{}", found.head);
    let blob = Transfer::begin(kuik.address(), "GET", &target, "").await;
    blob.is(&image.blobs()[digest]).await.unwrap();
    assert_eq!(registry.count(Target::Blob), asked + 2, "upstream gets another HEAD and GET");
    pull_with_skopeo(&format!("{}/{}:v1", kuik.host(), proxied(&registry.host(), "app")), &image).await;
}

#[tokio::test]
async fn a_full_disk_stops_no_client_and_damages_nothing() {
    let registry = ScriptedRegistry::start().await.unwrap();
    let small = SampleImage::small(22);
    registry.add_image("app", "v1", &small);
    let content = bytes(32 * MIB);
    let digest = &registry.add_blob("app", content.clone());
    let disk = Tmpfs::mount(8).await;
    let kuik = Kuik::serve(disk.path(), &["--insecure-registries", &registry.host()]).await;

    // All of them wait for the same fill when the disk fills up.
    let (gate, transfers) = stalled_transfers(&registry, &kuik, digest, 2 * MIB as u64, 4).await;
    gate.open();
    let clients = transfers.into_iter().map(|transfer| {
        let content = content.clone();
        tokio::spawn(async move { transfer.is(&content).await })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap().unwrap();
    }
    assert_eq!(fetches(&registry, digest), 1, "four clients, and upstream sent it once");
    kuik.logs("the store cannot store a blob").await;
    no_file_remains_of(disk.path(), digest).await;

    // Without a cached copy it is fetched again; the disk is not worse for it.
    let again = Transfer::begin(kuik.address(), "GET", &blob_path(&registry.host(), "app", digest), "").await;
    again.is(&content).await.unwrap();
    assert_eq!(fetches(&registry, digest), 2);
    no_file_remains_of(disk.path(), digest).await;
    // A removed file takes space while it is open: until the last reader's connection has ended.
    let probe = disk.path().join("probe");
    eventually("the room is free again", async || std::fs::write(&probe, vec![1; MIB]).is_ok()).await;
    std::fs::remove_file(probe).unwrap();

    let reference = format!("{}/{}:v1", kuik.host(), proxied(&registry.host(), "app"));
    pull_with_skopeo(&reference, &small).await;
    for digest in small.blobs().keys() {
        eventually("a small blob is kept", async || blob_data(disk.path(), digest).exists()).await;
    }
    registry.stop().await;
    pull_with_skopeo(&reference, &small).await;
    assert_eq!(get(kuik.address(), "/readyz").await.status, 200);
}

async fn no_file_remains_of(data_dir: &Path, digest: &Digest) {
    eventually("what could not be kept is removed", async || unpublished(data_dir) == 0).await;
    assert!(!blob_data(data_dir, digest).exists());
}

#[tokio::test]
async fn a_disk_without_any_room_is_no_reason_to_refuse() {
    let registry = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(23);
    registry.add_image("app", "v1", &image);
    let disk = Tmpfs::mount(1).await;
    let kuik = Kuik::serve(disk.path(), &["--insecure-registries", &registry.host()]).await;
    let filler = disk.path().join("somebody-else's");
    // Fails where the disk is full, as it is meant to.
    let _ = std::fs::write(&filler, vec![1; 2 * MIB]);

    let reference = format!("{}/{}:v1", kuik.host(), proxied(&registry.host(), "app"));
    pull_with_skopeo(&reference, &image).await;
    let readiness = get(kuik.address(), "/readyz").await;
    assert_eq!(readiness.status, 503, "{readiness:?}");
    assert!(String::from_utf8_lossy(&readiness.body).starts_with("store: "), "{readiness:?}");

    std::fs::remove_file(filler).unwrap();
    assert_eq!(get(kuik.address(), "/readyz").await.status, 200);
    pull_with_skopeo(&reference, &image).await;
    for digest in image.blobs().keys().chain([image.index().digest()]) {
        eventually("all is kept once there is room", async || blob_data(disk.path(), digest).exists()).await;
    }
}

#[tokio::test]
async fn running_pulls_finish_when_it_is_told_to_stop() {
    let registry = ScriptedRegistry::start().await.unwrap();
    let content = bytes(4 * MIB);
    let digest = &registry.add_blob("app", content.clone());
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &registry.host()];
    let mut kuik = Kuik::serve(data.path(), &arguments).await;
    let address = kuik.address();
    let idle = tokio::net::TcpStream::connect(address).await.unwrap();

    let (gate, transfers) = stalled_transfers(&registry, &kuik, digest, MIB as u64, 1).await;
    kuik.terminate();
    eventually("new connections are refused", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    gate.open();
    for transfer in transfers {
        transfer.is(&content).await.unwrap();
    }
    let status = kuik.ended().await;
    assert_eq!(status.code(), Some(0), "{}", kuik.log());
    drop(idle);

    // Content that was being fetched at shutdown is stored.
    registry.stop().await;
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let kept = Transfer::begin(kuik.address(), "GET", &blob_path(&registry.host(), "app", digest), "").await;
    kept.is(&content).await.unwrap();
}
