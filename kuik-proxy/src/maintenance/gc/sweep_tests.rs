//! Announced candidates include everything that keeps them.

use kuik_core::content::ContentStore as _;
use kuik_testkit::{MemoryStore, SampleImage};

use super::*;
use crate::maintenance::gc::{Leases, mark};

async fn push(store: &MemoryStore, image: &SampleImage) {
    let repository = RepositoryName::local("app").unwrap();
    for (digest, content) in image.blobs() {
        let id = store.start_upload(&repository).await.unwrap();
        let mut upload = store.upload(&repository, &id).await.unwrap();
        upload.append(std::slice::from_ref(content)).await.unwrap();
        upload.finish(digest).await.unwrap();
    }
    for manifest in image.manifests().iter().chain([image.index()]) {
        store.put_manifest(&repository, manifest, None).await.unwrap();
    }
}

#[tokio::test]
async fn candidates_include_their_referrers() {
    let store = MemoryStore::new();
    for seed in 0..3 {
        let builder = SampleImage::builder().seed(seed).platform("linux", "amd64");
        push(&store, &builder.platform("linux", "arm64").layer(10).layer(20).build()).await;
    }
    let store: Arc<dyn RegistryStore> = Arc::new(store);
    let options = GcOptions { grace: Default::default(), delete_untagged: true, dry_run: true };
    let old = AgeFilter { before: SystemTime::now() + std::time::Duration::from_secs(60), also: None };
    let leases = Leases::default();
    let run = leases.begin(options.grace).unwrap();
    let graph = mark::graph(store.as_ref(), true, old.before, Graph::default()).await.unwrap();
    let keepers = |kept: Key| {
        let keeps = |keeper: &Key| {
            let mut reachable = Reachable::default();
            graph.extend(&mut reachable, [*keeper]);
            *keeper != kept && reachable.contains(kept)
        };
        graph.top_down().into_keys().filter(keeps).collect::<Vec<_>>()
    };
    let all = graph.top_down().len();
    for most in 1..=all {
        let sweep = Sweep::new(&store, &run, &graph, &options, old, |_| {});
        let candidates = sweep.candidates(most).await.unwrap();
        assert_eq!((candidates.digests.len(), candidates.complete), (most, most == all));
        let keys: HashSet<Key> = candidates.digests.iter().map(Key::from).collect();
        for key in &keys {
            assert!(keepers(*key).iter().all(|keeper| keys.contains(keeper)), "{most} of {all}");
        }
    }
}

#[tokio::test]
async fn request_during_a_run_protects_until_its_end() {
    let store = MemoryStore::new();
    let image = SampleImage::builder().seed(1).platform("linux", "amd64").layer(10).build();
    push(&store, &image).await;
    let store: Arc<dyn RegistryStore> = Arc::new(store);
    let options = GcOptions { grace: Default::default(), delete_untagged: true, dry_run: true };
    let old = AgeFilter { before: SystemTime::now() + std::time::Duration::from_secs(60), also: None };
    let leases = Leases::default();
    let run = leases.begin(options.grace).unwrap();
    let graph = mark::graph(store.as_ref(), true, old.before, Graph::default()).await.unwrap();
    leases.accessed(image.index().digest(), std::time::Instant::now());
    for sweep in ["the first", "another"] {
        let candidates =
            Sweep::new(&store, &run, &graph, &options, old, |_| {}).candidates(100).await.unwrap();
        assert_eq!(candidates.digests, [], "{sweep} sweep");
    }
}
