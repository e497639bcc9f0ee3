//! Every store of ours does what every store must do, and the one on disk still does it when it is opened again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::{path::Path, sync::Arc, time::Duration};

use futures::{
    TryStreamExt as _,
    future::{join, join_all},
};
use kuik_core::{
    content::{
        ContentSource as _, ContentStore as _, Descriptor, Digest, Freshness, ImageManifest, ManagedStore,
        Manifest, MediaType, TagOrDigest,
    },
    reference::RepositoryName,
    testkit::{MemoryStore, store_conformance},
};
use kuik_proxy::store::FilesystemStore;
use tokio::time::timeout;

async fn conforms(store: impl ManagedStore) {
    has(Arc::new(store), store_conformance::BEHAVIOURS).await;
}

async fn has(
    store: Arc<dyn ManagedStore>,
    behaviours: impl IntoIterator<Item = store_conformance::Behaviour>,
) {
    for behaviour in behaviours {
        if let Err(violation) = behaviour.check(store.clone()).await {
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
async fn the_filesystem_conforms_for_several_at_once_and_when_it_is_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ManagedStore> = Arc::new(open(dir.path()));
    let at_once = || {
        let behaviours = store_conformance::BEHAVIOURS.into_iter();
        has(store.clone(), behaviours.filter(|behaviour| !behaviour.needs_the_store_alone()))
    };
    tokio::join!(at_once(), at_once());
    drop(store);
    conforms(open(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filesystem_as_a_cache_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(open(dir.path()).as_cache()).await;
}

/// More than there are threads for disk work, so that none is left if each holds one while it waits for the others.
#[tokio::test(flavor = "multi_thread")]
async fn very_many_deletes_and_pushes_at_once_all_end() {
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
    timeout(Duration::from_secs(120), all).await.expect("somebody waits for ever");
    let left: Vec<_> = store.manifests(&app).try_collect().await.unwrap();
    assert_eq!(left.len() as u64, MANY);
    let tagged = store.manifest(&app, &TagOrDigest::Tag(tag), Freshness::Cached).await.unwrap().content;
    assert!(left.contains(tagged.digest()));
}
