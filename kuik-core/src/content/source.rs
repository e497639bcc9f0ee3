//! Content source trait, and the values it returns.

use std::{fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::{BlobLocation, ByteRange, Descriptor, Digest, Manifest, SourceError, SourceErrorKind};
use crate::reference::{RepositoryName, Tag};

/// Reads images from an origin registry, a mirror, a cache or a store.
///
/// Sources compose: a pull-through cache is a source over a store and another source. Implementations bound every
/// wait and every size; dropping a future or a stream cancels the request.
#[async_trait]
pub trait ContentSource: fmt::Debug + Send + Sync + 'static {
    /// Resolves a tag or digest to a descriptor (a `HEAD` of a manifest).
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError>;

    /// Returns a whole manifest or index. Its bytes are verified if it was requested by digest.
    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError>;

    /// Returns the size of a blob in bytes, if it exists (a `HEAD` of a blob).
    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError>;

    /// Returns a blob, or a part of it, as a stream.
    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError>;

    /// Returns a URL from which a client can download the blob directly for the next `valid_for`, whole or in ranges.
    /// `None` if there is no such URL or no such blob: call [`blob`](Self::blob) then.
    async fn blob_location(
        &self,
        _repository: &RepositoryName,
        _digest: &Digest,
        _valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        Ok(None)
    }

    /// Returns a page of the repository's tags, in lexical order.
    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError>;

    /// Returns the manifests whose `subject` is `digest`; only those of `artifact_type`, if given and if the source can
    /// filter.
    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError>;

    /// Reports that the last bytes of a blob from this source did not match their digest. A source with several upstreams
    /// tries another upstream first on the next request.
    fn report_corrupt(&self, _repository: &RepositoryName, _digest: &Digest) {}
}

/// Tag or digest of a manifest in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// A tag, which may move.
    Tag(Tag),
    /// A digest, which may not.
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

/// Whether a cached response is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Freshness {
    /// A cached response is acceptable while its cache considers it fresh.
    #[default]
    Cached,
    /// Revalidate tags with upstream (`Cache-Control: no-cache`).
    Revalidate,
    /// Only what a cache stores is wanted, fresh or stale (`Cache-Control: only-if-cached`): a cache sends no request
    /// upstream, and returns `NotFound` for a manifest that it does not store. A source without a cache ignores it.
    OnlyIfCached,
}

/// Whether a response came from a cache or from upstream (compare `Cache-Status`, RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStatus {
    /// Served from a cache.
    Cache,
    /// Served stale from a cache, because revalidation failed with this error. `NotFound` is a response too: upstream no
    /// longer has the content.
    Stale(SourceErrorKind),
    /// Fetched from upstream for this request, or for a concurrent one that it was coalesced with.
    Upstream,
}

/// A response with its cache status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached<T> {
    /// The response.
    pub content: T,
    /// Whether the response came from a cache.
    pub cache_status: CacheStatus,
}

impl<T> Cached<T> {
    /// Creates a response from a cache.
    pub fn from_cache(content: T) -> Self {
        Self { content, cache_status: CacheStatus::Cache }
    }

    /// Creates a response from upstream.
    pub fn from_upstream(content: T) -> Self {
        Self { content, cache_status: CacheStatus::Upstream }
    }

    /// Transforms the content and keeps the cache status.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Cached<U> {
        Cached { content: change(self.content), cache_status: self.cache_status }
    }
}

/// The bytes of a blob as they arrive. An error ends the stream early.
pub type BlobStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// A blob, or a part of it.
pub struct Blob {
    /// The size of the whole blob in bytes; `None` if the source does not know it yet.
    pub size: Option<u64>,
    /// The range of bytes in the stream; `None` means the whole blob.
    pub range: Option<Range<u64>>,
    /// The bytes.
    pub body: BlobStream,
}

impl Blob {
    /// Number of bytes in the stream, if known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        match &self.range {
            Some(range) => Some(range.end.saturating_sub(range.start)),
            None => self.size,
        }
    }

    /// Whether the stream has no bytes.
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

/// Pagination of a tag list (OCI distribution specification, "Listing Tags").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagPage {
    /// Maximum number of tags (`n`).
    pub limit: Option<usize>,
    /// Only tags after this one (`last`).
    pub after: Option<String>,
}

/// A page of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList {
    /// The tags.
    pub tags: Vec<String>,
    /// Whether more tags follow.
    pub more: bool,
}

/// The referrers of a manifest (OCI distribution specification, "Listing Referrers").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// An image index, as received from its source.
    pub index: Bytes,
    /// Whether the source filtered by artifact type.
    pub filtered: bool,
}
