//! Tests of the inventory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use kuik_core::{
    content::{ContentStore, Descriptor, ImageIndex, ImageManifest, Manifest, MediaType},
    testkit::MemoryStore,
};

use super::*;

pub(in crate::quota) fn hour_hence() -> SystemTime {
    SystemTime::now() + std::time::Duration::from_secs(3600)
}

pub(in crate::quota) fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

pub(in crate::quota) fn encoded_as(manifest: &impl serde::Serialize) -> Manifest {
    Manifest::new(None, serde_json::to_vec(manifest).unwrap().into()).unwrap()
}

/// An image whose configuration and layer have these contents.
pub(in crate::quota) fn image(
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

pub(in crate::quota) async fn put(store: &impl ContentStore, manifest: &Manifest, tag: Option<&str>) {
    let tag = tag.map(|tag| tag.parse().unwrap());
    store.put_manifest(&app(), manifest, tag.as_ref()).await.unwrap();
}

#[tokio::test]
async fn an_image_is_all_that_goes_with_it() {
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
    let expired = Mark { expires_at: Some(SystemTime::UNIX_EPOCH), ..Mark::default() };
    let single = TagOrDigest::Tag("single".parse().unwrap());
    Marks(&store).set(&app(), &single, Some(expired)).await.unwrap();

    let inventory = Inventory::take(&store, SystemTime::now(), hour_hence()).await.unwrap();
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
    assert_eq!(candidate(&index).standing, Standing::Usual, "a part's tag says nothing about the whole");
    assert_eq!(candidate(&other).standing, Standing::Expired);
    assert!(candidate(&index).last_pulled > SystemTime::now(), "who pulls a platform pulls the image");
    let young = Inventory::take(&store, SystemTime::now(), SystemTime::UNIX_EPOCH).await.unwrap();
    assert!(young.candidates.iter().all(|candidate| candidate.standing == Standing::Pinned), "all is young");
    assert!(candidate(&alone).last_pulled <= SystemTime::now(), "it was written, and never pulled");
}

#[tokio::test]
async fn a_pin_on_a_part_or_a_damaged_mark_holds_the_whole() {
    for damaged in [false, true] {
        let store = MemoryStore::new();
        let one = image(&store, "c1", "base", None);
        let index = encoded_as(&ImageIndex::new(vec![one.descriptor()]));
        put(&store, &one, None).await;
        put(&store, &index, Some("v1")).await;
        let at = TagOrDigest::Digest(one.digest().clone());
        if damaged {
            let name = format!("mark.{}", one.digest()).parse().unwrap();
            store.put_note(&app(), &name, Some("{".into())).await.unwrap();
            assert!(Marks(&store).get(&app(), &at).await.is_err());
        } else {
            let pinned = Mark { pinned: true, ..Mark::default() };
            Marks(&store).set(&app(), &at, Some(pinned)).await.unwrap();
            assert_eq!(Marks(&store).get(&app(), &at).await.unwrap(), Some(pinned));
        }
        let inventory = Inventory::take(&store, SystemTime::now(), hour_hence()).await.unwrap();
        assert_eq!(inventory.candidates.len(), 1);
        assert_eq!(inventory.candidates[0].standing, Standing::Pinned);
    }
}

#[tokio::test]
async fn what_is_in_one_repository_with_a_damaged_manifest_stays() {
    let store = MemoryStore::new();
    let (one, alone) = (image(&store, "c1", "base", None), image(&store, "c2", "other", None));
    let index = encoded_as(&ImageIndex::new(vec![one.descriptor()]));
    for (manifest, tag) in [(&one, None), (&index, Some("v1")), (&alone, Some("v2"))] {
        put(&store, manifest, tag).await;
    }
    for set_aside in [false, true] {
        store.damage(index.digest(), "damaged");
        if set_aside {
            store.quarantine_blob(index.digest()).await.unwrap();
        }
        let inventory = Inventory::take(&store, SystemTime::now(), hour_hence()).await.unwrap();
        let standing = |manifest: &Manifest| {
            let place = inventory.images.iter().position(|image| image.top == *manifest.digest()).unwrap();
            inventory.candidates[place].standing
        };
        assert_eq!((standing(&one), standing(&alone)), (Standing::Pinned, Standing::Pinned), "{set_aside}");
    }
    store.delete_manifest(&app(), index.digest()).await.unwrap();
    let inventory = Inventory::take(&store, SystemTime::now(), hour_hence()).await.unwrap();
    assert!(inventory.candidates.iter().all(|candidate| candidate.standing == Standing::Usual));
}
