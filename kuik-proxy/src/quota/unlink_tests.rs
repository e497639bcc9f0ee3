//! What stays, of what was chosen to go.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::time::Duration;

use kuik_core::{
    content::{ContentSource as _, ImageIndex, Manifest},
    testkit::MemoryStore,
};

use super::{
    super::inventory::tests::{app, encoded_as, hour_hence, image, put},
    *,
};
use crate::gc::{Leased, Leases};

/// A store that somebody evicts from, and its users.
struct Round {
    memory: MemoryStore,
    store: Arc<dyn ManagedStore>,
    leases: Leases,
    run: Run,
    inventory: Inventory,
}

impl Round {
    async fn begin(memory: &MemoryStore, leases: &Leases) -> Self {
        let run = leases.begin(Duration::ZERO).unwrap();
        let inventory = Inventory::take(memory, SystemTime::now(), hour_hence()).await.unwrap();
        Self {
            memory: memory.clone(),
            store: Arc::new(memory.clone()),
            leases: leases.clone(),
            run,
            inventory,
        }
    }

    /// The store as its users have it.
    fn users(&self) -> Leased<MemoryStore> {
        Leased::new(self.memory.clone(), self.leases.clone())
    }

    /// Takes these out of their repository, one after the other; which of them have gone.
    async fn unlink(&self, tops: &[&Manifest]) -> Vec<bool> {
        let mut unlinking = Unlinking::new(&self.store, &self.inventory, &self.run, None);
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

/// An index `v1` of a platform that another index `v2` has too, and an image beside them.
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
async fn images_go_as_a_whole_and_what_another_needs_goes_with_the_last() {
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
async fn what_somebody_pushes_or_tags_meanwhile_stays_and_who_only_looks_keeps_nothing() {
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
    assert_eq!(round.unlink(&[&images.alone]).await, [true], "nobody has come for it since");
}

#[tokio::test]
async fn of_what_is_in_use_nothing_goes() {
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
async fn a_mark_that_is_set_meanwhile_counts() {
    let (memory, images) = images().await;
    let round = Round::begin(&memory, &Leases::default()).await;
    let pinned = Mark { pinned: true, ..Mark::default() };
    let at = TagOrDigest::Tag("v3".parse().unwrap());
    Marks(&memory).set(&app(), &at, Some(pinned)).await.unwrap();
    assert_eq!(round.unlink(&[&images.alone]).await, [false]);
    Marks(&memory).set(&app(), &at, None).await.unwrap();
    assert_eq!(round.unlink(&[&images.alone]).await, [true]);
}

#[tokio::test]
async fn a_tag_that_was_moved_meanwhile_stays_where_it_is() {
    let memory = MemoryStore::new();
    let part = image(&memory, "c1", "base", None);
    let whole = encoded_as(&ImageIndex::new(vec![part.descriptor()]));
    let newer = image(&memory, "c2", "newer", None);
    for (manifest, tag) in [(&part, Some("v1")), (&part, Some("v2")), (&whole, Some("all"))] {
        put(&memory, manifest, tag).await;
    }
    let round = Round::begin(&memory, &Leases::default()).await;
    put(&round.users(), &newer, Some("v1")).await;
    assert_eq!(round.unlink(&[&part]).await, [true], "it loses its name, and stays a part");
    assert_eq!(round.tag("v1").await.as_ref(), Some(newer.digest()));
    assert_eq!(round.tag("v2").await, None);
    assert!(round.has(&part).await && round.has(&whole).await);
}
