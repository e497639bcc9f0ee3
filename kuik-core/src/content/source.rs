//! The trait of everything that images can be read from, and what it hands out.

use std::{fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::{BlobLocation, ByteRange, Descriptor, Digest, Manifest, SourceError, SourceErrorKind};
use crate::reference::{RepositoryName, Tag};

/// Something that images can be read from: an origin registry, a mirror, a cache, a store.
///
/// Sources compose: a pull-through cache is a source over a store and another source. Implementations bound every
/// wait and every size themselves; dropping a future or a stream abandons the request.
#[async_trait]
pub trait ContentSource: fmt::Debug + Send + Sync + 'static {
    /// What a tag or digest names, without its content (a `HEAD` of a manifest).
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError>;

    /// A manifest or index, whole. Its bytes are verified where it was asked for by digest.
    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError>;

    /// The size of a blob in bytes, where it exists (a `HEAD` of a blob).
    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError>;

    /// A blob, or a part of it, as a stream.
    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError>;

    /// Where a client can get a blob for the next `valid_for` without us, whole or in parts. `None` where there is no
    /// such place, or no such blob: then [`blob`](Self::blob) knows more.
    async fn blob_location(
        &self,
        _repository: &RepositoryName,
        _digest: &Digest,
        _valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        Ok(None)
    }

    /// A page of the repository's tags, in lexical order.
    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError>;

    /// The manifests whose `subject` is `digest`; only those of `artifact_type`, where one is given and the source
    /// can filter.
    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError>;

    /// Takes note that the bytes that it gave for a blob last were not those that the digest names: whoever has several
    /// places to fetch from asks another one first, the next time.
    fn distrust(&self, _repository: &RepositoryName, _digest: &Digest) {}
}

/// How a manifest is named in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// By a tag, which may move.
    Tag(Tag),
    /// By its digest, which may not.
    Digest(Digest),
}

impl TagOrDigest {
    /// The tag or digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a cached answer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Freshness {
    /// A cached answer will do for as long as its cache thinks it fresh.
    #[default]
    Cached,
    /// The origin is to be asked whether a tag has moved (`Cache-Control: no-cache`).
    Revalidate,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A cache had it.
    Cache,
    /// A cache had it, could not learn whether it is still current, and served it all the same: what came of asking was
    /// this. `NotFound` is an answer too: upstream has it no more.
    Stale(SourceErrorKind),
    /// It was fetched, or is being fetched, from upstream for this request or one that came just before.
    Upstream,
}

/// An answer, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served<T> {
    /// The answer.
    pub content: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Served<T> {
    /// An answer out of a cache.
    pub fn from_cache(content: T) -> Self {
        Self { content, origin: Origin::Cache }
    }

    /// An answer from upstream.
    pub fn from_upstream(content: T) -> Self {
        Self { content, origin: Origin::Upstream }
    }

    /// Another answer of the same origin.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Served<U> {
        Served { content: change(self.content), origin: self.origin }
    }
}

/// The bytes of a blob as they arrive. An error ends the stream; bytes before it may not be all.
pub type BlobStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// A blob, or a part of it.
pub struct Blob {
    /// The size of the whole blob in bytes; `None` where the source does not know it yet.
    pub size: Option<u64>,
    /// Which bytes the stream carries; `None` is all of them.
    pub range: Option<Range<u64>>,
    /// The bytes.
    pub body: BlobStream,
}

impl Blob {
    /// How many bytes the stream carries, where that is known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match &self.range {
            Some(range) => Some(range.end.saturating_sub(range.start)),
            None => self.size,
        }
    }

    /// Whether the stream carries no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Which page of a tag list is asked for (OCI distribution specification, "Listing Tags").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagPage {
    /// At most so many tags (`n`).
    pub limit: Option<usize>,
    /// Only tags after this one (`last`).
    pub after: Option<String>,
}

/// A page of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList {
    /// The tags.
    pub tags: Vec<String>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// The referrers of a manifest (OCI distribution specification, "Listing Referrers").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// An image index, as its source wrote it.
    pub index: Bytes,
    /// Whether the source filtered by artifact type.
    pub filtered: bool,
}
