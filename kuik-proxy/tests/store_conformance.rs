//! Every store of ours does what every store must do, and the one on disk still does it when it is opened again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{path::Path, sync::Arc};

use kuik_core::{
    content::ManagedStore,
    testkit::{MemoryStore, store_conformance},
};
use kuik_proxy::store::FilesystemStore;

async fn conforms(store: impl ManagedStore) {
    let store: Arc<dyn ManagedStore> = Arc::new(store);
    for behaviour in store_conformance::BEHAVIOURS {
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
    let store = open(dir.path());
    tokio::join!(conforms(store.clone()), conforms(store));
    conforms(open(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filesystem_as_a_cache_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(open(dir.path()).as_cache()).await;
}
