//! Reads: manifests, blobs, tags and referrers.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use kuik_core::{
    content::{
        Blob, ByteRange, Cached, ContentSource, Descriptor, Digest, Freshness, MAX_MANIFEST_BYTES, Manifest,
        Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::RepositoryName,
};

use super::{
    FilesystemStore, Shared, blocking, layout::RepositoryDir, links::read_link, mappings::Reading, tags,
};
use crate::store::{Damaged, map};

fn damaged(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, Damaged(cause.into()))
}

#[async_trait]
impl ContentSource for FilesystemStore {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        Ok(self.manifest(repository, at, freshness).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let attempted = format!("read manifest {at} of {repository} from the store");
        let (dir, at) = (self.shared.layout.repository(repository)?, at.clone());
        let manifest = self.disk(attempted, move |shared| shared.manifest(&dir, &at)).await?;
        Ok(Cached::from_cache(manifest))
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Cached<u64>, SourceError> {
        let attempted = format!("find blob {digest} of {repository} in the store");
        let (_, size) = self.open_blob(attempted, repository, digest).await?;
        Ok(Cached::from_cache(size))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Cached<Blob>, SourceError> {
        let attempted = format!("read blob {digest} of {repository} from the store");
        let link = self.shared.layout.repository(repository)?.layer_link(digest);
        let wanted = digest.clone();
        let opened = self.disk(attempted.clone(), move |shared| {
            let (file, size) = shared.open_linked(&link, &wanted)?;
            Ok((shared.mappings.read(file)?, size))
        });
        let (reading, size) = opened.await?;
        let bytes = range.resolve(size).map_err(|error| {
            SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, attempted.clone(), error)
        })?;
        let blob = Blob {
            size: Some(size),
            range: (range != ByteRange::Full).then(|| bytes.clone()),
            body: windows(reading, bytes, attempted).boxed(),
        };
        Ok(Cached::from_cache(blob))
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let (dir, page) = (self.shared.layout.repository(repository)?, page.clone());
        self.disk(format!("list the tags of {repository} in the store"), move |_| tags::list(&dir, &page))
            .await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let attempted = format!("list the referrers of {digest} in {repository} in the store");
        let dir = self.shared.layout.repository(repository)?;
        let descriptors = self.referrers_of(attempted, dir, digest.clone()).await?;
        Ok(Referrers::list(descriptors, artifact_type))
    }
}

impl FilesystemStore {
    async fn open_blob(
        &self,
        attempted: String,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(File, u64), SourceError> {
        let link = self.shared.layout.repository(repository)?.layer_link(digest);
        let digest = digest.clone();
        self.disk(attempted, move |shared| shared.open_linked(&link, &digest)).await
    }
}

impl Shared {
    /// Returns a manifest of the repository, verified.
    pub(super) fn manifest(&self, repository: &RepositoryDir, at: &TagOrDigest) -> io::Result<Manifest> {
        let digest = match at {
            TagOrDigest::Digest(digest) => digest.clone(),
            TagOrDigest::Tag(tag) => read_link(&repository.tag_link(tag))?.ok_or(io::ErrorKind::NotFound)?,
        };
        let (file, size) = self.open_linked(&repository.revision_link(&digest), &digest)?;
        if size > MAX_MANIFEST_BYTES as u64 {
            return Err(damaged(format!("its size of {size} bytes is over the limit for a manifest")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(size).read_to_end(&mut bytes)?;
        Manifest::new(None, bytes.into()).map_err(damaged)?.verified_as(&digest).map_err(damaged)
    }
}

/// Streams a file window by window; the next window is loaded while the last one is sent.
fn windows(
    reading: Reading,
    bytes: Range<u64>,
    attempted: String,
) -> impl Stream<Item = Result<Bytes, SourceError>> {
    let step = usize::try_from(map::WINDOW).unwrap_or(usize::MAX);
    stream::iter(bytes.clone().step_by(step))
        .map(move |start| {
            let (reading, end, attempted) = (reading.clone(), bytes.end, attempted.clone());
            blocking(attempted, move || reading.window(start, end))
        })
        .buffered(2)
}
