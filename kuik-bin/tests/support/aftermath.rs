//! Store check after garbage collection: it contains exactly the content of its images.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::TryStreamExt as _;
use kuik_core::content::{Digest, Manifest};
use kuik_testkit::SampleImage;

use super::{Kuik, Storage, get, within};

/// A long soak leaves as much garbage as it makes in a minute or two, and a bucket takes its time.
const PATIENCE: Duration = Duration::from_secs(600);

/// Collects without a grace period: unreferenced content and idle uploads are removed.
const COLLECT: [&str; 10] = [
    "--allow-anonymous-push",
    "--gc-delete-untagged",
    "--gc-grace",
    "0s",
    "--gc-interval",
    "50ms",
    "--gc-notice",
    "1s",
    "--upload-idle",
    "0s",
];

/// Has all garbage collected; then asserts that the repositories have their `images`, and nothing else is there.
pub(crate) async fn assert_contains_only(storage: &Storage, images: &BTreeMap<String, Vec<SampleImage>>) {
    let of = |image: &SampleImage| -> BTreeMap<Digest, u64> {
        let manifests = manifests(image).map(|manifest| (manifest.digest().clone(), manifest.bytes().len()));
        let blobs = image.blobs().iter().map(|(digest, content)| (digest.clone(), content.len()));
        blobs.chain(manifests).map(|(digest, size)| (digest, size as u64)).collect()
    };
    let reachable: BTreeMap<Digest, u64> = images.values().flatten().flat_map(of).collect();
    let stored = collected(storage).await;
    let store = storage.open();
    assert_eq!(stored, reachable, "what is stored is what can be reached");
    if let Some(bytes) = storage.blob_bytes() {
        assert_eq!(bytes, reachable.values().sum::<u64>(), "no other content");
    }
    assert!(storage.unfinished().is_empty(), "{:?} is unfinished", storage.unfinished());

    let repositories: Vec<_> = store.repositories().try_collect().await.unwrap();
    for repository in repositories {
        let here = images.get(repository.path()).unwrap_or_else(|| panic!("{repository} is unexpected"));
        let expected: BTreeSet<Digest> =
            here.iter().flat_map(manifests).map(|manifest| manifest.digest().clone()).collect();
        let listed: BTreeSet<Digest> = store.manifests(&repository).try_collect().await.unwrap();
        assert!(listed.is_superset(&expected), "{repository} has {listed:?}, and not all of {expected:?}");
        // A manifest without a tag stays in a repository while another one needs its bytes: it costs nothing.
        let unknown: Vec<_> = listed.iter().filter(|digest| !stored.contains_key(digest)).collect();
        assert!(unknown.is_empty(), "{repository} has {unknown:?}, which are gone");
        let linked: Vec<Digest> = store.linked_blobs(&repository).try_collect().await.unwrap();
        let dangling: Vec<_> = linked.iter().filter(|digest| !stored.contains_key(digest)).collect();
        assert!(dangling.is_empty(), "{repository} has links to {dangling:?}, which are gone");
    }
}

/// Content after two runs.
async fn collected(storage: &Storage) -> BTreeMap<Digest, u64> {
    let mut kuik = storage.registry(&COLLECT).await;
    within(PATIENCE, "garbage is collected twice", || async {
        kuik.metric("kube_image_keeper_registry_gc_runs_total").await >= 2
    })
    .await;
    kuik.terminate();
    assert!(kuik.ended().await.success(), "{}", kuik.log());
    let store = storage.open();
    store.blobs().map_ok(|blob| (blob.digest, blob.size)).try_collect().await.unwrap()
}

fn manifests(image: &SampleImage) -> impl Iterator<Item = &Manifest> {
    image.manifests().iter().chain([image.index()])
}

impl Kuik {
    /// One of its counters.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(get(self.address(), "/metrics").await.body).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).parse().unwrap()
    }
}
