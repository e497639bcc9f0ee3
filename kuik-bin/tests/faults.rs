//! What goes wrong around `kuik serve`: crashes, a full disk, two of it, being told to stop, being told nonsense.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::path::Path;

use bytes::Bytes;
use kuik_core::{
    content::Digest,
    testkit::{Behaviour, Gate, Rule, SampleImage, ScriptedRegistry, Target},
};
use support::{
    Kuik, Tmpfs, Transfer, blob_data, blob_path, entries, eventually, get, head, kuik, proxied,
    pull_with_skopeo, unpublished,
};

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
    let stall = Behaviour::Stall { after, until: gate.clone() };
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
    assert_eq!(registry.count(Target::Blob), asked + 2, "upstream is asked again, by HEAD and by GET");
    pull_with_skopeo(&format!("{}/{}:v1", kuik.host(), proxied(&registry.host(), "app")), &image).await;
}

#[tokio::test]
async fn the_second_process_on_a_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let first = Kuik::serve(data.path(), &[]).await;
    let path = data.path().to_str().unwrap();
    let arguments = ["serve", "--bind-address", "127.0.0.1:0", "--data-dir", path];
    let second = support::output(&arguments).await;
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(path) && said.contains(&format!("pid {}", first.pid())), "{said}");
    assert_eq!(get(first.address(), "/readyz").await.status, 200, "the first one is not disturbed");

    first.kill().await;
    Kuik::serve(data.path(), &[]).await;
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
    kuik.logs("the store cannot keep a blob").await;
    nothing_is_left_of(disk.path(), digest).await;

    // Without a cached copy it is fetched again; the disk is not worse for it.
    let again = Transfer::begin(kuik.address(), "GET", &blob_path(&registry.host(), "app", digest), "").await;
    again.is(&content).await.unwrap();
    assert_eq!(fetches(&registry, digest), 2);
    nothing_is_left_of(disk.path(), digest).await;
    // A removed file takes its room until nobody has it open: until the last reader's connection has ended.
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

async fn nothing_is_left_of(data_dir: &Path, digest: &Digest) {
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

    // What was being fetched at the end is kept.
    registry.stop().await;
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let kept = Transfer::begin(kuik.address(), "GET", &blob_path(&registry.host(), "app", digest), "").await;
    kept.is(&content).await.unwrap();
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kuik.yaml");
    std::fs::write(&file, "dataDri: /typo\nlogFormat: xml\n").unwrap();
    let output = kuik(["serve", "--bind-address", "nowhere", "--upstream", "docker.io", "--docker-config"])
        .args(["/does/not/exist.json", "--revalidate-after", "soon", "--config"])
        .arg(&file)
        .env("KUIK_SHUTDOWN_TIMEOUT", "-5m")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    let expected = [
        "bind-address",
        "data-dir",
        "dataDri",
        "docker-config",
        "log-format",
        "revalidate-after",
        "shutdown-timeout",
        "upstream",
    ];
    for key in expected {
        assert!(said.contains(&format!("\n  {key}: ")), "{key} is not reported:\n{said}");
    }
    assert!(said.contains(&format!("{} mistakes", expected.len())), "{said}");
    assert_eq!(entries(folder.path()), 1, "nothing was made");
}

#[tokio::test]
async fn what_does_not_exist_on_the_command_line_is_a_mistake() {
    for arguments in [&["serve", "--data-dirr", "x"][..], &["serf"], &["serve", "--data-dir"]] {
        let output = support::output(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[tokio::test]
async fn what_the_machine_refuses_is_a_failure_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (file, data) = (file.to_str().unwrap(), folder.path().join("data"));
    for (bind, data_dir, named) in [("127.0.0.1:0", file, file), (&address, data.to_str().unwrap(), &address)]
    {
        let output = support::output(&["serve", "--bind-address", bind, "--data-dir", data_dir]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
}
