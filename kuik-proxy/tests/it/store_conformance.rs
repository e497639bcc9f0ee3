//! Store conformance of all stores, and of the file system store after it is reopened.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{
    TryStreamExt as _,
    future::{join, join_all},
};
use kuik_core::{
    content::{
        ContentSource as _, ContentStore as _, Descriptor, Digest, Freshness, ImageManifest, Manifest,
        MediaType, RegistryStore, TagOrDigest,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;
use kuik_testkit::{MemoryStore, store_conformance};
use tokio::time::timeout;

async fn conforms(store: impl RegistryStore) {
    has(Arc::new(store), store_conformance::BEHAVIORS).await;
}

async fn has(
    store: Arc<dyn RegistryStore>,
    behaviors: impl IntoIterator<Item = store_conformance::Behavior>,
) {
    for behavior in behaviors {
        if let Err(violation) = behavior.check(store.clone()).await {
            panic!("{violation}");
        }
    }
}

fn open(dir: &Path) -> FilesystemStore {
    FilesystemStore::open(dir).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conforms(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filesystem_store_conforms_under_concurrency_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn RegistryStore> = Arc::new(open(dir.path()));
    let at_once = || {
        let behaviors = store_conformance::BEHAVIORS.into_iter();
        has(store.clone(), behaviors.filter(|behavior| !behavior.requires_exclusive_store()))
    };
    tokio::join!(at_once(), at_once());
    drop(store);
    conforms(open(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filesystem_store_as_a_cache_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(open(dir.path()).as_cache()).await;
}

/// More than there are threads for disk work, so that they would deadlock if each held one while it waits for the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_deletes_and_pushes_do_not_deadlock() {
    const MANY: u64 = 1200;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).as_cache();
    let (app, tag) = (RepositoryName::local("app").unwrap(), "latest".parse().unwrap());
    let manifest = |number: u64| {
        let config = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(&number.to_be_bytes()), 8);
        let bytes = serde_json::to_vec(&ImageManifest::new(config, Vec::new())).unwrap();
        Manifest::new(None, bytes.into()).unwrap()
    };
    let put = |number| {
        let (store, app, tag, manifest) = (store.clone(), &app, &tag, manifest(number));
        async move { store.put_manifest(app, &manifest, Some(tag)).await.unwrap() }
    };
    let delete = |number| {
        let (store, app, manifest) = (store.clone(), &app, manifest(number));
        async move { store.delete_manifest(app, manifest.digest()).await.unwrap() }
    };
    let all = async {
        join_all((0..MANY).map(put)).await;
        join(join_all((0..MANY).map(delete)), join_all((MANY..2 * MANY).map(put))).await;
    };
    timeout(Duration::from_secs(120), all).await.expect("deadlock");
    let left: Vec<_> = store.manifests(&app).try_collect().await.unwrap();
    assert_eq!(left.len() as u64, MANY);
    let tagged = store.manifest(&app, &TagOrDigest::Tag(tag), Freshness::Cached).await.unwrap().content;
    assert!(left.contains(tagged.digest()));
}
