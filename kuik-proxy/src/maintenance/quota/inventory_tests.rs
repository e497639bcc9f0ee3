//! Tests of the inventory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use kuik_core::content::{ContentStore, Descriptor, ImageIndex, ImageManifest, Manifest, MediaType};
use kuik_core::retention::{ImageRetention, RetentionDocument};
use kuik_testkit::MemoryStore;

use super::*;

/// Returns an index in which one cluster says this about images of the repository `app`.
pub(in crate::maintenance::quota) async fn retention(images: &[(&str, ImageRetention)]) -> RetentionIndex {
    let store = std::sync::Arc::new(MemoryStore::new());
    let index = RetentionIndex::new(store, Default::default(), Default::default());
    index.load().await.unwrap();
    put_document(&index, images).await;
    index
}

/// Sends the document of that cluster.
pub(in crate::maintenance::quota) async fn put_document(
    index: &RetentionIndex,
    images: &[(&str, ImageRetention)],
) {
    let mut document = RetentionDocument::default();
    for (name, image) in images {
        let name = match name.parse() {
            Ok(digest) => TagOrDigest::Digest(digest),
            Err(_) => TagOrDigest::Tag(name.parse().unwrap()),
        };
        document.insert(&app(), &name, *image);
    }
    index.put(&"cluster".parse().unwrap(), &document.to_json()).await.unwrap();
}

pub(in crate::maintenance::quota) fn hour_hence() -> SystemTime {
    SystemTime::now() + std::time::Duration::from_secs(3600)
}

pub(in crate::maintenance::quota) fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

pub(in crate::maintenance::quota) fn encoded_as(manifest: &impl serde::Serialize) -> Manifest {
    Manifest::new(None, serde_json::to_vec(manifest).unwrap().into()).unwrap()
}

/// Returns an image whose configuration and layer have these contents.
pub(in crate::maintenance::quota) fn image(
    store: &MemoryStore,
    config: &str,
    layer: &str,
    subject: Option<&Manifest>,
) -> Manifest {
    let descriptor = |text: &str, media_type: MediaType| {
        let digest = Digest::sha256(text.as_bytes());
        store.damage(&digest, text.to_owned());
        Descriptor::new(media_type, digest, text.len() as u64)
    };
    let mut image = ImageManifest::new(
        descriptor(config, MediaType::OCI_CONFIG),
        vec![descriptor(layer, MediaType::OCI_LAYER_GZIP)],
    );
    image.subject = subject.map(Manifest::descriptor);
    encoded_as(&image)
}

pub(in crate::maintenance::quota) async fn put(
    store: &impl ContentStore,
    manifest: &Manifest,
    tag: Option<&str>,
) {
    let tag = tag.map(|tag| tag.parse().unwrap());
    store.put_manifest(&app(), manifest, tag.as_ref()).await.unwrap();
}

#[tokio::test]
async fn image_includes_platforms_and_referrers() {
    let store = MemoryStore::new();
    let (one, other) = (image(&store, "c1", "base", None), image(&store, "c2", "base", None));
    let index = encoded_as(&ImageIndex::new(vec![one.descriptor(), other.descriptor()]));
    let signature = image(&store, "c3", "signature", Some(&index));
    let alone = image(&store, "c4", "other", None);
    for (manifest, tag) in [
        (&one, None),
        (&other, Some("single")),
        (&index, Some("v1")),
        (&index, Some("v2")),
        (&signature, None),
        (&alone, None),
    ] {
        put(&store, manifest, tag).await;
    }
    let far = SystemTime::now() + std::time::Duration::from_secs(3600);
    let pulls = super::super::Pulls::default();
    pulls.record(&app(), one.digest(), far);
    pulls.flush(&store).await.unwrap();
    let told = &retention(&[("single", ImageRetention::unused(Some(1)))]).await;

    let inventory = Inventory::take(&store, told, hour_hence()).await.unwrap();
    let find = |top: &Manifest| inventory.images.iter().position(|image| image.top == *top.digest()).unwrap();
    assert_eq!(inventory.images.len(), 3, "platforms and signatures are parts: {:?}", inventory.images);
    let of_index = &inventory.images[find(&index)];
    let mut tags: Vec<_> = of_index.tags.iter().map(Tag::as_str).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["v1", "v2"]);
    assert_eq!(of_index.manifests[0], *index.digest());
    let manifests: HashSet<_> = of_index.manifests.iter().collect();
    assert_eq!(manifests, [&index, &one, &other, &signature].map(Manifest::digest).into());
    let members = |place: usize| {
        let members = &inventory.candidates[place].members;
        members.iter().map(|id| inventory.sizes[*id as usize]).sum::<u64>()
    };
    let manifest_bytes: usize =
        [&index, &one, &other, &signature].map(|manifest| manifest.bytes().len()).iter().sum();
    let blobs = "c1c2c3".len() + "base".len() + "signature".len();
    assert_eq!(members(find(&index)), (manifest_bytes + blobs) as u64, "each thing once");

    let candidate = |manifest| &inventory.candidates[find(manifest)];
    assert_eq!(candidate(&index).rank, Rank::Recent, "a platform's tag does not stand for the index");
    assert_eq!(candidate(&other).rank, Rank::Expired(1));
    assert!(candidate(&index).last_pulled > SystemTime::now(), "a pull of a platform counts for the image");
    let young = Inventory::take(&store, told, SystemTime::UNIX_EPOCH).await.unwrap();
    assert!(young.candidates.iter().all(|candidate| candidate.rank == Rank::Kept), "all is young");
    assert!(candidate(&alone).last_pulled <= SystemTime::now(), "written, never pulled");
}

#[tokio::test]
async fn needed_platform_keeps_the_image() {
    let store = MemoryStore::new();
    let one = image(&store, "c1", "base", None);
    let index = encoded_as(&ImageIndex::new(vec![one.descriptor()]));
    put(&store, &one, None).await;
    put(&store, &index, Some("v1")).await;
    let unused = ("v1", ImageRetention::unused(None));
    for (told, expected) in [
        (vec![unused], Rank::Unused(u64::MAX)),
        (vec![unused, (one.digest().as_str(), ImageRetention::in_use())], Rank::Kept),
        (vec![unused, (one.digest().as_str(), ImageRetention::retained())], Rank::Kept),
    ] {
        let inventory = Inventory::take(&store, &retention(&told).await, hour_hence()).await.unwrap();
        assert_eq!(inventory.candidates.len(), 1);
        assert_eq!(inventory.candidates[0].rank, expected);
    }
}

#[tokio::test]
async fn tagged_signature_is_kept_as_long_as_its_image() {
    let store = MemoryStore::new();
    let (signed, signature) = (image(&store, "c1", "app", None), image(&store, "c2", "signature", None));
    put(&store, &signed, Some("v1")).await;
    for suffix in ["", ".sig"] {
        put(&store, &signature, Some(&format!("sha256-{}{suffix}", signed.digest().encoded()))).await;
    }
    for (retention, expected) in
        [(ImageRetention::in_use(), Rank::Kept), (ImageRetention::unused(Some(1)), Rank::Expired(1))]
    {
        let told = self::retention(&[("v1", retention)]).await;
        let inventory = Inventory::take(&store, &told, hour_hence()).await.unwrap();
        assert_eq!(inventory.candidates.len(), 2);
        assert!(inventory.candidates.iter().all(|candidate| candidate.rank == expected), "{inventory:?}");
    }
}

#[tokio::test]
async fn image_is_kept_while_documents_are_unknown() {
    let store = MemoryStore::new();
    put(&store, &image(&store, "c1", "base", None), Some("v1")).await;
    let unread =
        RetentionIndex::new(std::sync::Arc::new(store.clone()), Default::default(), Default::default());
    let inventory = Inventory::take(&store, &unread, hour_hence()).await.unwrap();
    assert_eq!(inventory.candidates[0].rank, Rank::Kept);
    unread.load().await.unwrap();
    let inventory = Inventory::take(&store, &unread, hour_hence()).await.unwrap();
    assert_eq!(inventory.candidates[0].rank, Rank::Recent);
}

#[tokio::test]
async fn image_that_became_more_needed_is_not_chosen_again() {
    let store = MemoryStore::new();
    let (one, other) = (image(&store, "c1", "one", None), image(&store, "c2", "other", None));
    put(&store, &one, Some("v1")).await;
    put(&store, &other, Some("v2")).await;
    let told = retention(&[("v1", ImageRetention::unused(Some(1)))]).await;
    let before = Inventory::take(&store, &told, hour_hence()).await.unwrap();
    assert_eq!(before.again(&before, &[0, 1]).len(), 2);
    put_document(&told, &[("v1", ImageRetention::unused(None)), ("v2", ImageRetention::unused(Some(1)))])
        .await;
    let now = Inventory::take(&store, &told, hour_hence()).await.unwrap();
    let again: Vec<_> =
        now.again(&before, &[0, 1]).iter().map(|place| now.images[*place].top.clone()).collect();
    assert_eq!(again, [other.digest().clone()], "one expires later than before, the other sooner");
}

#[tokio::test]
async fn damaged_manifest_keeps_its_repository() {
    let store = MemoryStore::new();
    let (one, alone) = (image(&store, "c1", "base", None), image(&store, "c2", "other", None));
    let index = encoded_as(&ImageIndex::new(vec![one.descriptor()]));
    for (manifest, tag) in [(&one, None), (&index, Some("v1")), (&alone, Some("v2"))] {
        put(&store, manifest, tag).await;
    }
    let told = retention(&[]).await;
    for quarantined in [false, true] {
        store.damage(index.digest(), "damaged");
        if quarantined {
            store.quarantine_blob(index.digest()).await.unwrap();
        }
        let inventory = Inventory::take(&store, &told, hour_hence()).await.unwrap();
        let standing = |manifest: &Manifest| {
            let place = inventory.images.iter().position(|image| image.top == *manifest.digest()).unwrap();
            inventory.candidates[place].rank
        };
        assert_eq!((standing(&one), standing(&alone)), (Rank::Kept, Rank::Kept), "{quarantined}");
    }
    store.delete_manifest(&app(), index.digest()).await.unwrap();
    let inventory = Inventory::take(&store, &told, hour_hence()).await.unwrap();
    assert!(inventory.candidates.iter().all(|candidate| candidate.rank == Rank::Recent));
}
