//! Negative tests of the conformance suite: each store has one fault, and the suite names the violated behavior.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use kuik_core::{
    content::{
        Blob, ByteRange, Cached, ContentSource, ContentStore, Digest, Freshness, Manifest, MetadataName,
        Referrers, RegistryStore, SourceError, TagList, TagOrDigest, TagPage, Upload, UploadId,
    },
    forward,
    reference::{RepositoryName, Tag},
};
use kuik_testkit::MemoryStore;
use kuik_testkit::store_conformance;

type Outcome<T> = Result<T, SourceError>;

/// Fault of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    DeletesByDigest,
    IgnoresRanges,
    LinksEveryBlobEverywhere,
    ForgetsUploads,
    TruncatesPages,
    IgnoresFilters,
    OmitsRepositories,
    KeepsRemovedBytes,
    ServesQuarantined,
    ForgetsMetadata,
    MovesNoTags,
    KeepsIdleUploads,
}

#[derive(Debug)]
struct Faulty {
    store: MemoryStore,
    fault: Fault,
}

impl Faulty {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl ContentSource for Faulty {
    async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Outcome<Cached<u64>> {
        if self.has(Fault::LinksEveryBlobEverywhere) {
            let _ = self.store.link_blob(repository, digest).await;
        }
        self.store.blob_size(repository, digest).await
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Outcome<Cached<Blob>> {
        let range = if self.has(Fault::IgnoresRanges) { ByteRange::Full } else { range };
        self.store.blob(repository, digest, range).await
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Outcome<TagList> {
        let mut list = self.store.tags(repository, page).await?;
        list.more &= !self.has(Fault::TruncatesPages);
        Ok(list)
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Outcome<Referrers> {
        let artifact_type = artifact_type.filter(|_| !self.has(Fault::IgnoresFilters));
        self.store.referrers(repository, digest, artifact_type).await
    }

    forward!(this => &this.store; resolve, manifest);
}

#[async_trait]
impl ContentStore for Faulty {
    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Outcome<()> {
        if let Some(tag) = tag.filter(|_| self.has(Fault::MovesNoTags)) {
            let at = TagOrDigest::Tag(tag.clone());
            if self.store.manifest(repository, &at, Freshness::Cached).await.is_ok() {
                return self.store.put_manifest(repository, manifest, None).await;
            }
        }
        self.store.put_manifest(repository, manifest, tag).await
    }

    forward!(this => &this.store; write_blob, link_blob, has_blob, read_stored, check_writable);
}

#[async_trait]
impl RegistryStore for Faulty {
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Outcome<()> {
        if self.has(Fault::DeletesByDigest) {
            let at = TagOrDigest::Tag(tag.clone());
            let manifest = self.store.manifest(repository, &at, Freshness::Cached).await?.content;
            return self.store.delete_manifest(repository, manifest.digest()).await;
        }
        self.store.delete_tag(repository, tag).await
    }

    async fn upload(&self, repository: &RepositoryName, id: &UploadId) -> Outcome<Box<dyn Upload>> {
        let upload = self.store.upload(repository, id).await?;
        if self.has(Fault::ForgetsUploads) && upload.offset() > 0 {
            upload.cancel().await?;
            return self.store.upload(repository, id).await;
        }
        Ok(upload)
    }

    fn repositories(&self) -> BoxStream<'_, Outcome<RepositoryName>> {
        let omitted = |name: &Outcome<RepositoryName>| {
            self.has(Fault::OmitsRepositories)
                && name.as_ref().is_ok_and(|name| name.path().ends_with("/below"))
        };
        self.store.repositories().filter(move |name| std::future::ready(!omitted(name))).boxed()
    }

    async fn purge_uploads(&self, idle_since: SystemTime) -> Outcome<u64> {
        if self.has(Fault::KeepsIdleUploads) { Ok(1) } else { self.store.purge_uploads(idle_since).await }
    }

    async fn remove_blob(&self, digest: &Digest) -> Outcome<()> {
        if self.has(Fault::KeepsRemovedBytes) { Ok(()) } else { self.store.remove_blob(digest).await }
    }

    async fn quarantine_blob(&self, digest: &Digest) -> Outcome<()> {
        if self.has(Fault::ServesQuarantined) { Ok(()) } else { self.store.quarantine_blob(digest).await }
    }

    async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<bytes::Bytes>,
    ) -> Outcome<()> {
        let text = text.filter(|_| !self.has(Fault::ForgetsMetadata));
        self.store.put_metadata(repository, name, text).await
    }

    forward!(this => &this.store;
        delete_manifest, unlink_blob, start_upload, manifests, linked_blobs, blobs, metadata, all_metadata, free_bytes);
}

#[tokio::test]
async fn suite_names_violated_behavior_for_each_fault() {
    for (fault, behavior) in [
        (Fault::DeletesByDigest, "delete-tag-alone"),
        (Fault::IgnoresRanges, "blob-ranges"),
        (Fault::LinksEveryBlobEverywhere, "isolation"),
        (Fault::ForgetsUploads, "upload-resumed"),
        (Fault::TruncatesPages, "tag-pages"),
        (Fault::IgnoresFilters, "referrers"),
        (Fault::OmitsRepositories, "enumeration"),
        (Fault::KeepsRemovedBytes, "remove-bytes"),
        (Fault::ServesQuarantined, "quarantine"),
        (Fault::ForgetsMetadata, "metadata"),
        (Fault::MovesNoTags, "tag-moves"),
        (Fault::KeepsIdleUploads, "upload-purged"),
    ] {
        let store = Arc::new(Faulty { store: MemoryStore::new(), fault });
        let mut violated = Vec::new();
        for behavior in store_conformance::BEHAVIORS {
            if let Err(violation) = behavior.check(store.clone()).await {
                assert_eq!(violation.behavior(), behavior.name());
                assert!(violation.to_string().starts_with(behavior.name()), "{violation}");
                violated.push(behavior.name());
            }
        }
        assert!(violated.contains(&behavior), "{fault:?} violates {violated:?}");
        let violation = store_conformance::run(store).await.unwrap_err();
        assert_eq!(violation.behavior(), violated[0], "the first violation ends the run");
    }
}
