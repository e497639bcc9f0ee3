//! Notes about repositories, beside the layout: Docker's registry never sees them.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use kuik_core::{
    content::{MAX_NOTE_BYTES, NoteName, SourceError},
    reference::RepositoryName,
};

use super::Shared;
use crate::store::layout;

impl Shared {
    pub(super) async fn note(
        &self,
        repository: &RepositoryName,
        name: &NoteName,
    ) -> Result<Option<Bytes>, SourceError> {
        let attempted = format!("read note {name} about {repository}");
        self.bucket.read(&attempted, &key(repository, name)?, MAX_NOTE_BYTES as u64).await
    }

    pub(super) async fn put_note(
        &self,
        repository: &RepositoryName,
        name: &NoteName,
        text: Option<Bytes>,
    ) -> Result<(), SourceError> {
        let key = key(repository, name)?;
        match text {
            Some(text) => self.bucket.put(&format!("keep note {name} about {repository}"), &key, text).await,
            None => self.bucket.delete(&format!("remove note {name} about {repository}"), &key).await,
        }
    }

    /// Every note.
    pub(super) fn notes(&self) -> BoxStream<'static, Result<(RepositoryName, NoteName), SourceError>> {
        let listed = self.bucket.list("list the notes".to_owned(), layout::NOTES, None);
        listed.try_filter_map(|found| std::future::ready(Ok(named(&found.key)))).boxed()
    }
}

fn key(repository: &RepositoryName, name: &NoteName) -> Result<String, SourceError> {
    Ok(format!("{}/{}/{}/{name}", layout::NOTES, layout::encoded(repository)?, layout::NOTES_OF_ONE))
}

fn named(key: &str) -> Option<(RepositoryName, NoteName)> {
    let (repository, name) = key.strip_prefix(layout::NOTES)?.strip_prefix('/')?.rsplit_once('/')?;
    let repository = repository.strip_suffix(layout::NOTES_OF_ONE)?.strip_suffix('/')?;
    Some((RepositoryName::local(repository).ok()?, name.parse().ok()?))
}
