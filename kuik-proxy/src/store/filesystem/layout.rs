//! Where things lie: the paths of the Docker registry's v2 storage layout.
//!
//! Invariant: every path is below the root. Repository names and digests are validated by their types, and neither
//! grammar can write `..`, an absolute path, or a component that starts with `_`.

use std::path::{Path, PathBuf};

use kuik_core::{
    content::{Digest, SourceError, SourceErrorKind},
    reference::{RepositoryName, Tag},
};

/// The layout below one data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    data_dir: PathBuf,
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), root: data_dir.join("docker/registry/v2") }
    }

    /// The directory that was given to us.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What is being written. On the file system of the rest, so that a rename publishes it; outside the layout, so
    /// that nobody mistakes it for content.
    pub(super) fn unpublished(&self) -> PathBuf {
        self.data_dir.join(".kuik/unpublished")
    }

    /// Held by the one process that has the directory open.
    pub(super) fn lock(&self) -> PathBuf {
        self.data_dir.join(".kuik/lock")
    }

    /// The bytes of a blob or manifest.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let encoded = digest.encoded();
        let shard = encoded.get(..2).unwrap_or(encoded);
        self.root.join("blobs").join(digest.algorithm_name()).join(shard).join(encoded).join("data")
    }

    /// What says that a blob belongs to a repository.
    pub(super) fn layer_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<PathBuf, SourceError> {
        Ok(self.repository(repository)?.join("_layers").join(digest_path(digest)).join("link"))
    }

    /// What says that a manifest belongs to a repository.
    pub(super) fn revision_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<PathBuf, SourceError> {
        Ok(self.repository(repository)?.join("_manifests/revisions").join(digest_path(digest)).join("link"))
    }

    /// The tags of a repository, one directory each.
    pub(super) fn tags(&self, repository: &RepositoryName) -> Result<PathBuf, SourceError> {
        Ok(self.repository(repository)?.join("_manifests/tags"))
    }

    /// What a tag points at now.
    pub(super) fn tag_link(&self, repository: &RepositoryName, tag: &Tag) -> Result<PathBuf, SourceError> {
        Ok(self.tags(repository)?.join(tag.as_str()).join("current/link"))
    }

    /// What says that a tag pointed at a manifest once.
    pub(super) fn tag_history_link(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<PathBuf, SourceError> {
        Ok(self.tags(repository)?.join(tag.as_str()).join("index").join(digest_path(digest)).join("link"))
    }

    /// A repository is kept under the path that clients pull it by: `registry__5000/app` for `registry:5000/app`,
    /// which Docker's registry accepts as a name too.
    fn repository(&self, repository: &RepositoryName) -> Result<PathBuf, SourceError> {
        let name = repository.encoded().map_err(|error| {
            SourceError::caused_by(
                SourceErrorKind::Unsupported,
                format!("find where {repository} is kept: its name has no form as a path"),
                error,
            )
        })?;
        Ok(self.root.join("repositories").join(name))
    }
}

fn digest_path(digest: &Digest) -> PathBuf {
    Path::new(digest.algorithm_name()).join(digest.encoded())
}
