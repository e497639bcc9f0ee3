//! Images kept although they were chosen for eviction.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::time::{Duration, SystemTime};

use kuik_core::{
    content::{ContentSource as _, ImageIndex, Manifest},
    retention::ImageRetention,
};
use kuik_testkit::MemoryStore;

use super::{
    super::inventory::tests::{app, encoded_as, hour_hence, image, put, put_document, retention},
    *,
};
use crate::maintenance::gc::{LeasedStore, Leases};

/// A store during an eviction, and its users.
struct Round {
    memory: MemoryStore,
    store: Arc<dyn RegistryStore>,
    leases: Leases,
    retention: RetentionIndex,
    pulls: Pulls,
    run: Run,
    inventory: Inventory,
}

impl Round {
    async fn begin(memory: &MemoryStore, leases: &Leases) -> Self {
        let run = leases.begin(Duration::ZERO).unwrap();
        let retention = retention(&[]).await;
        let inventory = Inventory::take(memory, &retention, hour_hence()).await.unwrap();
        Self {
            retention,
            pulls: Pulls::default(),
            memory: memory.clone(),
            store: Arc::new(memory.clone()),
            leases: leases.clone(),
            run,
            inventory,
        }
    }

    /// Returns the store as its users see it.
    fn users(&self) -> LeasedStore<MemoryStore> {
        LeasedStore::new(self.memory.clone(), self.leases.clone())
    }

    /// Removes these from their repository, one after the other; returns which were removed.
    async fn unlink(&self, tops: &[&Manifest]) -> Vec<bool> {
        let uses = Uses { retention: &self.retention, pulls: &self.pulls };
        let mut unlinking = Unlinking::new(&self.store, uses, &self.inventory, &self.run, None);
        let mut gone = Vec::new();
        for top in tops {
            let place = self.inventory.images.iter().position(|image| image.top == *top.digest()).unwrap();
            gone.push(unlinking.unlink(place).await.unwrap().is_some());
        }
        gone
    }

    async fn has(&self, manifest: &Manifest) -> bool {
        let at = TagOrDigest::Digest(manifest.digest().clone());
        self.memory.manifest(&app(), &at, Freshness::Cached).await.is_ok()
    }

    async fn tag(&self, tag: &str) -> Option<Digest> {
        let at = TagOrDigest::Tag(tag.parse().unwrap());
        Some(self.memory.resolve(&app(), &at, Freshness::Cached).await.ok()?.content.digest)
    }
}

/// An index `v1` with a platform that another index `v2` has too, and an unrelated image.
struct Images {
    shared: Manifest,
    one: Manifest,
    other: Manifest,
    alone: Manifest,
}

async fn images() -> (MemoryStore, Images) {
    let memory = MemoryStore::new();
    let shared = image(&memory, "c1", "base", None);
    let own = image(&memory, "c2", "base", None);
    let one = encoded_as(&ImageIndex::new(vec![shared.descriptor()]));
    let other = encoded_as(&ImageIndex::new(vec![shared.descriptor(), own.descriptor()]));
    let alone = image(&memory, "c3", "alone", None);
    for (manifest, tag) in
        [(&shared, None), (&own, None), (&one, Some("v1")), (&other, Some("v2")), (&alone, Some("v3"))]
    {
        put(&memory, manifest, tag).await;
    }
    (memory, Images { shared, one, other, alone })
}

#[tokio::test]
async fn shared_manifests_are_removed_with_the_last_image() {
    let (memory, images) = images().await;
    let round = Round::begin(&memory, &Leases::default()).await;
    assert_eq!(round.unlink(&[&images.one]).await, [true]);
    assert!(
        !round.has(&images.one).await && round.has(&images.shared).await && round.has(&images.other).await
    );
    let (memory, images) = self::images().await;
    let round = Round::begin(&memory, &Leases::default()).await;
    assert_eq!(round.unlink(&[&images.one, &images.other]).await, [true, true]);
    assert!(
        !round.has(&images.shared).await && !round.has(&images.other).await && round.has(&images.alone).await
    );
}

#[tokio::test]
async fn push_or_tag_keeps_an_image_and_a_read_does_not() {
    let (memory, images) = images().await;
    let leases = Leases::default();
    let round = Round::begin(&memory, &leases).await;
    put(&round.users(), &images.alone, Some("again")).await;
    let at = TagOrDigest::Tag("v1".parse().unwrap());
    round.users().resolve(&app(), &at, Freshness::Cached).await.unwrap();
    assert_eq!(round.unlink(&[&images.alone, &images.one]).await, [false, true]);
    assert_eq!(round.tag("again").await.as_ref(), Some(images.alone.digest()));
    drop(round);
    let round = Round::begin(&memory, &leases).await;
    assert_eq!(round.unlink(&[&images.alone]).await, [true], "no use since");
}

#[tokio::test]
async fn leased_images_are_kept() {
    let (memory, images) = images().await;
    let leases = Leases::default();
    let before = leases.lease_manifest(&images.alone).await.unwrap();
    let round = Round::begin(&memory, &leases).await;
    drop(before);
    let during = leases.lease([images.other.digest()]).await;
    assert_eq!(round.unlink(&[&images.other, &images.alone]).await, [false, false]);
    assert!(
        round.has(&images.other).await && round.has(&images.shared).await && round.has(&images.alone).await
    );
    drop((round, during));
    let round = Round::begin(&memory, &leases).await;
    assert_eq!(round.unlink(&[&images.other, &images.alone]).await, [true, true]);
}

#[tokio::test]
async fn image_needed_or_pulled_during_eviction_is_kept() {
    let (memory, images) = images().await;
    let round = Round::begin(&memory, &Leases::default()).await;
    put_document(&round.retention, &[("v3", ImageRetention::in_use())]).await;
    assert_eq!(round.unlink(&[&images.alone]).await, [false]);
    put_document(&round.retention, &[]).await;
    round.pulls.record(&app(), images.alone.digest(), SystemTime::now());
    assert_eq!(round.unlink(&[&images.alone]).await, [false]);
    round.pulls.flush(&memory).await.unwrap();
    assert_eq!(round.unlink(&[&images.alone]).await, [true]);
}

#[tokio::test]
async fn moved_tag_is_kept() {
    let memory = MemoryStore::new();
    let part = image(&memory, "c1", "base", None);
    let whole = encoded_as(&ImageIndex::new(vec![part.descriptor()]));
    let newer = image(&memory, "c2", "newer", None);
    for (manifest, tag) in [(&part, Some("v1")), (&part, Some("v2")), (&whole, Some("all"))] {
        put(&memory, manifest, tag).await;
    }
    let round = Round::begin(&memory, &Leases::default()).await;
    put(&round.users(), &newer, Some("v1")).await;
    assert_eq!(round.unlink(&[&part]).await, [true], "it loses its tag, and remains a part");
    assert_eq!(round.tag("v1").await.as_ref(), Some(newer.digest()));
    assert_eq!(round.tag("v2").await, None);
    assert!(round.has(&part).await && round.has(&whole).await);
}
