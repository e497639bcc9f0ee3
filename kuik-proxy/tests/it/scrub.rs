//! Scrubbing: damaged content is quarantined and fetched again, intact content is kept.

use std::{fs, num::NonZeroU64, path::Path, sync::Arc, time::Duration};

use crate::harness::{ask, client_of, open, options, service};
use bytes::Bytes;
use http::{Method, StatusCode};
use kuik_core::{
    client::Timeouts,
    content::{ContentStore as _, Digest, RegistryStore, Verifier},
    reference::RepositoryName,
};
use kuik_proxy::{
    maintenance::gc::{LeasedStore, Leases},
    maintenance::scrub::{ScrubMetrics, ScrubReport, Scrubber},
    pull_through::{PullThrough, Revalidate},
};
use kuik_testkit::{MemoryStore, SampleImage, ScriptedRegistry};

fn scrubber(store: Arc<dyn RegistryStore>, leases: Leases, rate: u64) -> Scrubber {
    Scrubber::new(store, leases, NonZeroU64::new(rate).unwrap(), ScrubMetrics::default())
}

fn data(dir: &Path, digest: &Digest) -> std::path::PathBuf {
    let hex = digest.encoded();
    dir.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

fn specimen(dir: &Path, digest: &Digest) -> std::path::PathBuf {
    dir.join(".kuik/quarantine").join(format!("sha256-{}", digest.encoded()))
}

async fn publish(store: &dyn RegistryStore, content: &Bytes) -> Digest {
    let digest = Digest::sha256(content);
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(content);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(content)).await.unwrap();
    let app = RepositoryName::local("app").unwrap();
    writer.publish(verifier.finish().unwrap(), &[app]).await.unwrap();
    digest
}

#[tokio::test]
async fn damaged_content_is_quarantined_and_fetched_again_on_the_next_pull() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::builder().seed(1).platform("linux", "amd64").layer(3 << 20).layer(1000).build();
    upstream.add_image("app", "latest", &image);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let name = upstream.repository("app").unwrap().encoded().unwrap();
    let manifests = image.manifests().iter().map(|it| (format!("manifests/{}", it.digest()), it.bytes()));
    let blobs = image.blobs().iter().map(|(digest, bytes)| (format!("blobs/{digest}"), bytes));
    let wanted: Vec<_> =
        manifests.chain(blobs).map(|(path, bytes)| (format!("/v2/{name}/{path}"), bytes)).collect();
    // A new process has nothing in memory.
    let pull = async || {
        let cache = PullThrough::new(
            store.clone(),
            Arc::new(client_of(&upstream, Timeouts::default())),
            options(Revalidate::Never),
        );
        let (proxy, _) = service(cache.clone());
        let mut fetched = Vec::new();
        for (path, bytes) in &wanted {
            let reply = ask(&proxy, Method::GET, path, &[]).await;
            assert_eq!((reply.status, reply.bytes()), (StatusCode::OK, *bytes), "{path}");
            if reply.header("cache-status") == "kuik; fwd=miss" {
                fetched.push(path.clone());
            }
        }
        cache.drain().await;
        fetched
    };
    assert_eq!(pull().await.len(), wanted.len());
    let scrubber = scrubber(store.clone(), Leases::default(), 1 << 40);
    let clean = scrubber.pass().await.unwrap();
    assert_eq!((clean.damaged, clean.intact), (0, wanted.len() as u64));
    assert!(pull().await.is_empty());

    let (layers, manifest) = (image.layers(), image.manifests()[0].digest());
    let (flipped, truncated) = (&layers[0].digest, &layers[1].digest);
    let mut bytes = fs::read(data(dir.path(), flipped)).unwrap();
    bytes[2 << 20] ^= 1;
    fs::write(data(dir.path(), flipped), &bytes).unwrap();
    fs::File::options().write(true).open(data(dir.path(), truncated)).unwrap().set_len(100).unwrap();
    fs::write(data(dir.path(), manifest), "{}").unwrap();
    let found = scrubber.pass().await.unwrap();
    assert_eq!((found.damaged, found.intact), (3, clean.intact - 3));
    for digest in [flipped, truncated, manifest] {
        assert!(!data(dir.path(), digest).exists() && specimen(dir.path(), digest).exists(), "{digest}");
    }
    assert_eq!(fs::read(specimen(dir.path(), flipped)).unwrap(), bytes, "an operator can inspect it");

    let mut fetched = pull().await;
    fetched.sort();
    let mut expected = vec![
        format!("/v2/{name}/manifests/{manifest}"),
        format!("/v2/{name}/blobs/{flipped}"),
        format!("/v2/{name}/blobs/{truncated}"),
    ];
    expected.sort();
    assert_eq!(fetched, expected, "only damaged content is fetched again");
    assert!(pull().await.is_empty());
    assert_eq!(scrubber.pass().await.unwrap().intact, clean.intact);
}

#[tokio::test]
async fn oldest_quarantined_content_is_removed_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..40_u8 {
        let digest = publish(store.as_ref(), &vec![number; 100].into()).await;
        store.quarantine_blob(&digest).await.unwrap();
        assert!(specimen(dir.path(), &digest).exists());
    }
    assert_eq!(fs::read_dir(dir.path().join(".kuik/quarantine")).unwrap().count(), 16);
}

#[tokio::test(start_paused = true)]
async fn replaced_content_is_not_quarantined() {
    let (store, leases) = (MemoryStore::new(), Leases::default());
    let content = Bytes::from_static(b"hello");
    let digest = Digest::sha256(&content);
    store.damage(&digest, "hallo");
    let scrubber = scrubber(Arc::new(store.clone()), leases.clone(), 1 << 40);
    let lease = leases.lease([&digest]).await;
    let writing = async {
        // Time advances when the scrubber has verified once, and waits for the lease.
        tokio::time::sleep(Duration::from_millis(500)).await;
        publish(&LeasedStore::new(store.clone(), leases.clone()), &content).await;
        drop(lease);
    };
    let (found, ()) = tokio::join!(scrubber.pass(), writing);
    assert_eq!(found.unwrap().damaged, 0);
    assert!(store.has_blob(&digest).await.unwrap().is_some() && store.quarantined(&digest).is_none());
}

#[tokio::test(start_paused = true)]
async fn leased_content_is_deferred_to_the_next_pass() {
    let (store, leases) = (MemoryStore::new(), Leases::default());
    let digest = Digest::sha256(b"hello");
    store.damage(&digest, "hallo");
    let scrubber = scrubber(Arc::new(store.clone()), leases.clone(), 1 << 40);
    let lease = leases.lease([&digest]).await;
    assert_eq!(scrubber.pass().await.unwrap().damaged, 0);
    assert!(store.quarantined(&digest).is_none());
    drop(lease);
    assert_eq!(scrubber.pass().await.unwrap().damaged, 1);
}

#[tokio::test(start_paused = true)]
async fn pass_keeps_its_rate_and_resumes_after_an_interruption() {
    const EACH: u64 = 100_000;
    let store = MemoryStore::new();
    for number in 0..50_u8 {
        publish(&store, &vec![number; usize::try_from(EACH).unwrap()].into()).await;
    }
    let scrubber = scrubber(Arc::new(store), Leases::default(), EACH);
    let began = tokio::time::Instant::now();
    let cut_off = tokio::time::timeout(Duration::from_secs(20), scrubber.pass()).await;
    assert!(cut_off.is_err(), "50 blobs take 50 seconds and more");
    let ScrubReport { intact, damaged, bytes, .. } = scrubber.pass().await.unwrap();
    assert_eq!((intact, damaged), (50, 0));
    assert!((50 * EACH..=51 * EACH).contains(&bytes), "verified content is not read again: {bytes}");
    let took = began.elapsed();
    assert!((Duration::from_secs(50)..Duration::from_secs(70)).contains(&took), "{took:?}");
}
