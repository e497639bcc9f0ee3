//! Metadata of repositories, outside the layout: Docker's registry never sees it.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use kuik_core::{
    content::{MAX_METADATA_BYTES, MetadataName, SourceError},
    reference::RepositoryName,
};

use super::Shared;
use crate::store::layout;

impl Shared {
    pub(super) async fn metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
    ) -> Result<Option<Bytes>, SourceError> {
        let attempted = format!("read metadata {name} of {repository}");
        self.bucket.read(&attempted, &key(repository, name)?, MAX_METADATA_BYTES as u64).await
    }

    pub(super) async fn put_metadata(
        &self,
        repository: &RepositoryName,
        name: &MetadataName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        let key = key(repository, name)?;
        match text {
            Some(text) => {
                self.bucket.put(&format!("store metadata {name} of {repository}"), &key, text).await
            }
            None => self.bucket.delete(&format!("remove metadata {name} of {repository}"), &key).await,
        }
    }

    /// Returns every metadata entry.
    pub(super) fn all_metadata(
        &self,
    ) -> BoxStream<'static, Result<(RepositoryName, MetadataName), SourceError>> {
        let listed = self.bucket.list("list the metadata".to_owned(), layout::NOTES, None);
        listed.try_filter_map(|found| std::future::ready(Ok(named(&found.key)))).boxed()
    }
}

fn key(repository: &RepositoryName, name: &MetadataName) -> Result<String, SourceError> {
    Ok(format!("{}/{}/{}/{name}", layout::NOTES, layout::encoded(repository)?, layout::NOTES_OF_ONE))
}

fn named(key: &str) -> Option<(RepositoryName, MetadataName)> {
    let (repository, name) = key.strip_prefix(layout::NOTES)?.strip_prefix('/')?.rsplit_once('/')?;
    let repository = repository.strip_suffix(layout::NOTES_OF_ONE)?.strip_suffix('/')?;
    Some((RepositoryName::local(repository).ok()?, name.parse().ok()?))
}
