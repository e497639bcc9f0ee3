//! Assertions of the suite: a store, repositories unique to the run, and claims that name the behavior on failure.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use bytes::Bytes;
use futures::TryStreamExt as _;

use kuik_core::{
    content::{
        ByteRange, Descriptor, Digest, Freshness, ImageManifest, Manifest, MediaType, RegistryStore,
        SourceError, SourceErrorKind, TagOrDigest, Verified, Verifier,
    },
    reference::{RepositoryName, Tag},
};

/// A store violates a required behavior.
#[derive(Debug)]
pub struct Violation {
    behavior: &'static str,
    claim: String,
    cause: Option<SourceError>,
}

impl Violation {
    /// The name of the behavior.
    #[must_use]
    pub fn behavior(&self) -> &'static str {
        self.behavior
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: claim does not hold: {}", self.behavior, self.claim)
    }
}

impl std::error::Error for Violation {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// A behavior under test.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) store: Arc<dyn RegistryStore>,
    behavior: &'static str,
    /// Makes the repositories and content of this run unique.
    unique: String,
}

type Outcome<T = ()> = Result<T, Violation>;

impl Check {
    pub(super) fn new(behavior: &'static str, store: Arc<dyn RegistryStore>) -> Self {
        let unique = format!("{:016x}", RandomState::new().build_hasher().finish());
        Self { store, behavior, unique }
    }

    /// Claims that something holds.
    pub(super) fn that(&self, holds: bool, claim: impl Into<String>) -> Outcome {
        if holds { Ok(()) } else { Err(self.violation(claim, None)) }
    }

    /// Claims that two things are equal.
    pub(super) fn same<T: PartialEq + fmt::Debug>(&self, claim: &str, found: &T, expected: &T) -> Outcome {
        self.that(found == expected, format!("{claim} (found {found:?}, expected {expected:?})"))
    }

    /// Claims that something succeeds.
    pub(super) fn succeeds<T>(&self, claim: &str, result: Result<T, SourceError>) -> Outcome<T> {
        result.map_err(|error| self.violation(format!("{claim} ({})", error.chain()), Some(error)))
    }

    /// Claims that something fails, and how.
    pub(super) fn fails<T>(
        &self,
        claim: &str,
        kind: SourceErrorKind,
        result: Result<T, SourceError>,
    ) -> Outcome {
        match result {
            Ok(_) => Err(self.violation(format!("{claim}, with {kind:?} (it succeeded)"), None)),
            Err(error) if error.kind() == kind => Ok(()),
            Err(error) => {
                let claim = format!("{claim}, with {kind:?} (it was {:?})", error.kind());
                Err(self.violation(claim, Some(error)))
            }
        }
    }

    pub(super) fn violation(&self, claim: impl Into<String>, cause: Option<SourceError>) -> Violation {
        Violation { behavior: self.behavior, claim: claim.into(), cause }
    }

    /// A repository of this run.
    pub(super) fn repository(&self, name: &str) -> Outcome<RepositoryName> {
        let path = format!("conformance/{}/{}/{name}", self.behavior, self.unique);
        RepositoryName::local(&path).map_err(|error| self.violation(error.to_string(), None))
    }

    pub(super) fn tag(&self, text: &str) -> Outcome<Tag> {
        text.parse().map_err(|error| self.violation(format!("{text} is a tag ({error})"), None))
    }

    /// Returns bytes unique to this run and `name`.
    pub(super) fn content(&self, name: &str, size: usize) -> Bytes {
        let seed = format!("{} {} {name}\n", self.behavior, self.unique);
        seed.bytes().cycle().take(size.max(seed.len())).collect()
    }

    /// Returns a manifest unique to this run and `name`.
    pub(super) fn manifest(&self, name: &str, change: impl FnOnce(&mut ImageManifest)) -> Outcome<Manifest> {
        let config = self.content(name, 0);
        let config = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
        let mut image = ImageManifest::new(config, Vec::new());
        image.annotations = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        change(&mut image);
        self.encoded(&image)
    }

    pub(super) fn encoded(&self, manifest: &impl serde::Serialize) -> Outcome<Manifest> {
        let encoded = serde_json::to_vec(manifest).ok();
        encoded
            .and_then(|bytes| Manifest::new(None, bytes.into()).ok())
            .ok_or_else(|| self.violation("the suite's own manifest is valid", None))
    }

    pub(super) fn verified(&self, content: &[u8]) -> Outcome<Verified> {
        let mut verifier = Verifier::new(&Digest::sha256(content));
        verifier.iter_mut().for_each(|verifier| verifier.update(content));
        let verified = verifier.and_then(|verifier| verifier.finish().ok());
        verified.ok_or_else(|| self.violation("bytes verify against their own digest", None))
    }

    /// Writes a blob and publishes it.
    pub(super) async fn put_blob(&self, repositories: &[RepositoryName], content: &Bytes) -> Outcome<Digest> {
        let mut writer = self.succeeds("a blob write can be started", self.store.write_blob().await)?;
        let written = writer.append(std::slice::from_ref(content)).await;
        self.succeeds("a blob can be written", written)?;
        let published = writer.publish(self.verified(content)?, repositories).await;
        self.succeeds("a blob can be published", published)?;
        Ok(Digest::sha256(content))
    }

    pub(super) async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Outcome {
        let kept = self.store.put_manifest(repository, manifest, tag).await;
        self.succeeds("a manifest can be stored", kept)
    }

    /// Reads a blob, or a part of it.
    pub(super) async fn read(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Bytes, SourceError> {
        let blob = self.store.blob(repository, digest, range).await?.content;
        let chunks: Vec<Bytes> = blob.body.try_collect().await?;
        Ok(chunks.concat().into())
    }

    pub(super) async fn blob_is(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &Bytes,
    ) -> Outcome {
        let size = self.store.blob_size(repository, digest).await;
        let size = self.succeeds("a blob that was published has a size", size)?.content;
        self.same("the size of a blob is the number of its bytes", &size, &(content.len() as u64))?;
        let read = self.read(repository, digest, ByteRange::Full).await;
        let read = self.succeeds("a blob that was published can be read", read)?;
        self.that(read == content, "a blob has the bytes that were written")
    }

    pub(super) async fn blob_is_absent(
        &self,
        claim: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Outcome {
        let size = self.store.blob_size(repository, digest).await;
        self.fails(claim, SourceErrorKind::NotFound, size)?;
        self.fails(claim, SourceErrorKind::NotFound, self.read(repository, digest, ByteRange::Full).await)
    }

    pub(super) async fn manifest_at(
        &self,
        repository: &RepositoryName,
        at: impl Into<At<'_>>,
    ) -> Result<Manifest, SourceError> {
        let at = match at.into() {
            At::Tag(tag) => TagOrDigest::Tag(tag.clone()),
            At::Digest(digest) => TagOrDigest::Digest(digest.clone()),
        };
        Ok(self.store.manifest(repository, &at, Freshness::Cached).await?.content)
    }

    pub(super) async fn manifest_is(
        &self,
        claim: &str,
        repository: &RepositoryName,
        at: impl Into<At<'_>>,
        manifest: &Manifest,
    ) -> Outcome {
        let found = self.succeeds(claim, self.manifest_at(repository, at).await)?;
        self.that(found == *manifest, claim)
    }

    pub(super) async fn manifest_is_absent(
        &self,
        claim: &str,
        repository: &RepositoryName,
        at: impl Into<At<'_>>,
    ) -> Outcome {
        self.fails(claim, SourceErrorKind::NotFound, self.manifest_at(repository, at).await)
    }
}

/// Borrowed tag or digest of a manifest.
#[derive(Debug)]
pub(super) enum At<'a> {
    Tag(&'a Tag),
    Digest(&'a Digest),
}

impl<'a> From<&'a Tag> for At<'a> {
    fn from(tag: &'a Tag) -> Self {
        Self::Tag(tag)
    }
}

impl<'a> From<&'a Digest> for At<'a> {
    fn from(digest: &'a Digest) -> Self {
        Self::Digest(digest)
    }
}
