//! A custom content store, in one map, that passes the conformance suite for caches.
//!
//! A pull-through cache keeps its content in a [`ContentStore`]. The trait has two halves: what can be read
//! ([`ContentSource`]), and what can be written. Three rules matter: content is visible only when it is complete and its
//! digest is verified, a repository sees only what was stored or linked for it, and readers see old or new, never parts.
//! Replace the map with a database, and let the suite say what is missing.
//!
//! `cargo run -p kuik-proxy --example custom_store`

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::stream::{StreamExt as _, once};
use kuik_core::{
    async_trait,
    content::{
        Blob, BlobSpool, BlobWriter, ByteRange, Cached, ContentSource, ContentStore, Descriptor, Digest,
        Freshness, Manifest, Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
        Verified,
    },
    reference::{RepositoryName, Tag},
};

/// Every method says what was attempted if it fails, and how: `NotFound` lets the cache ask its upstream.
fn failure(kind: SourceErrorKind, attempted: impl fmt::Display) -> SourceError {
    SourceError::new(kind, attempted.to_string())
}

/// The content, behind one lock: every change is atomic.
#[derive(Debug, Default)]
struct Tables {
    /// Blobs and manifests by digest: content is stored once, for all repositories.
    content: HashMap<Digest, Bytes>,
    /// Which repository may read which digest.
    links: HashMap<RepositoryName, BTreeSet<Digest>>,
    /// Tags of a repository, in order.
    tags: HashMap<RepositoryName, BTreeMap<Tag, Digest>>,
}

/// The store. Clones share the content.
#[derive(Debug, Clone, Default)]
struct MapStore {
    tables: Arc<Mutex<Tables>>,
}

impl MapStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns content that is linked into the repository.
    fn linked(&self, repository: &RepositoryName, digest: &Digest) -> Result<Bytes, SourceError> {
        let tables = self.tables();
        let is_linked = tables.links.get(repository).is_some_and(|linked| linked.contains(digest));
        let content = tables.content.get(digest).filter(|_| is_linked).cloned();
        content
            .ok_or_else(|| failure(SourceErrorKind::NotFound, format_args!("find {digest} of {repository}")))
    }

    fn find(&self, repository: &RepositoryName, at: &TagOrDigest) -> Result<Manifest, SourceError> {
        let digest = match at {
            TagOrDigest::Digest(digest) => Some(digest.clone()),
            TagOrDigest::Tag(tag) => {
                self.tables().tags.get(repository).and_then(|tags| tags.get(tag).cloned())
            }
        };
        let missing =
            || failure(SourceErrorKind::NotFound, format_args!("find manifest {at} of {repository}"));
        let digest = digest.ok_or_else(missing)?;
        // The media type is in the document itself. `verified_as` also covers other digests than SHA-256.
        let manifest = Manifest::new(None, self.linked(repository, &digest)?);
        let manifest =
            manifest.map_err(|_| failure(SourceErrorKind::InvalidContent, format_args!("read {digest}")))?;
        manifest.verified_as(&digest).map_err(|_| missing())
    }
}

/// The reading half.
#[async_trait]
impl ContentSource for MapStore {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        Ok(Cached::from_cache(self.find(repository, at)?.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        Ok(Cached::from_cache(self.find(repository, at)?))
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        Ok(Cached::from_cache(self.linked(repository, digest)?.len() as u64))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let content = self.linked(repository, digest)?;
        let size = content.len() as u64;
        // `resolve` clamps the range to the blob, and rejects one that is outside.
        let part = range.resolve(size).map_err(|error| {
            SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, format!("read {digest}"), error)
        })?;
        let body = slice(&content, &part)?;
        // `range` is `None` for the whole blob: the response is then a 200, not a 206.
        let range = (range != ByteRange::Full).then_some(part);
        Ok(Cached::from_cache(Blob { size: Some(size), range, body: once(async { Ok(body) }).boxed() }))
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let tables = self.tables();
        if !tables.links.contains_key(repository) {
            return Err(failure(SourceErrorKind::NotFound, format_args!("list the tags of {repository}")));
        }
        let tags = tables.tags.get(repository).into_iter().flatten();
        let after = |tag: &&str| page.after.as_deref().is_none_or(|after| *tag > after);
        let mut tags = tags.map(|(tag, _)| tag.as_str()).filter(after).map(str::to_owned);
        let listed = tags.by_ref().take(page.limit.unwrap_or(usize::MAX)).collect();
        Ok(TagList { tags: listed, more: tags.next().is_some() })
    }

    async fn referrers(
        &self,
        _repository: &RepositoryName,
        _digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        // A cache asks its upstream first. This store knows none.
        Ok(Referrers::list(Vec::new(), artifact_type))
    }
}

/// The writing half.
#[async_trait]
impl ContentStore for MapStore {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        Ok(Box::new(MapWriter { store: self.clone(), spool: Arc::default() }))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let mut tables = self.tables();
        if !tables.content.contains_key(digest) {
            return Err(failure(SourceErrorKind::NotFound, format_args!("link {digest} into {repository}")));
        }
        tables.links.entry(repository.clone()).or_default().insert(digest.clone());
        Ok(())
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        Ok(self.tables().content.get(digest).map(|content| content.len() as u64))
    }

    async fn read_stored(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes, SourceError> {
        let content = self.tables().content.get(digest).cloned();
        let content =
            content.ok_or_else(|| failure(SourceErrorKind::NotFound, format_args!("read {digest}")))?;
        slice(&content, &range)
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let digest = manifest.digest().clone();
        let mut tables = self.tables();
        tables.content.insert(digest.clone(), manifest.bytes().clone());
        tables.links.entry(repository.clone()).or_default().insert(digest.clone());
        if let Some(tag) = tag {
            tables.tags.entry(repository.clone()).or_default().insert(tag.clone(), digest);
        }
        Ok(())
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A blob that is being written. Dropped without `publish`, it leaves nothing behind.
#[derive(Debug)]
struct MapWriter {
    store: MapStore,
    spool: Arc<Spool>,
}

/// The bytes written so far. Clients of the cache read them while the rest still arrives.
#[derive(Debug, Default)]
struct Spool(Mutex<Vec<u8>>);

impl Spool {
    fn written(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobSpool for Spool {
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError> {
        slice(&Bytes::copy_from_slice(&self.written()), &(start..end))
    }
}

#[async_trait]
impl BlobWriter for MapWriter {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        let mut written = self.spool.written();
        chunks.iter().for_each(|chunk| written.extend_from_slice(chunk));
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        self.spool.clone()
    }

    /// `verified` is the proof that bytes of this digest were seen; only a `Verifier` makes one.
    async fn publish(
        self: Box<Self>,
        verified: Verified,
        repositories: &[RepositoryName],
    ) -> Result<(), SourceError> {
        let content = Bytes::copy_from_slice(&self.spool.written());
        if content.len() as u64 != verified.size() {
            let attempted = format!("publish {}: it has other bytes than were written", verified.digest());
            return Err(failure(SourceErrorKind::Storage, attempted));
        }
        let mut tables = self.store.tables();
        tables.content.insert(verified.digest().clone(), content);
        for repository in repositories {
            tables.links.entry(repository.clone()).or_default().insert(verified.digest().clone());
        }
        Ok(())
    }
}

/// Returns a part of the content without copying it.
fn slice(content: &Bytes, range: &Range<u64>) -> Result<Bytes, SourceError> {
    let outside =
        || failure(SourceErrorKind::Storage, format_args!("read bytes {range:?}, which are not stored"));
    let offset = |position: u64| usize::try_from(position).map_err(|_| outside());
    let (start, end) = (offset(range.start)?, offset(range.end)?.min(content.len()));
    if start > end { Err(outside()) } else { Ok(content.slice(start..end)) }
}

#[expect(clippy::print_stdout, reason = "the result of the example")]
fn main() {
    println!(
        "a store is used by a cache: see the example pull_through_proxy, and put MapStore::default() into it"
    );
    let _store: Arc<dyn ContentStore> = Arc::new(MapStore::default());
}

#[cfg(test)]
mod tests {
    use kuik_testkit::store_conformance::run_cache;

    use super::{Arc, MapStore};

    #[tokio::test]
    async fn map_store_conforms() {
        if let Err(violation) = run_cache(Arc::new(MapStore::default())).await {
            panic!("{violation}");
        }
    }
}
