//! Paths of the storage layout: the names of [`crate::store::layout`] below a directory, and the directories outside
//! of it.

use std::path::{Path, PathBuf};

use kuik_core::{
    content::{Digest, MetadataName, SourceError, UploadId},
    reference::{RepositoryName, Tag},
};

use crate::store::layout;

/// The layout below one data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    data_dir: PathBuf,
}

/// Directory of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RepositoryDir(PathBuf);

/// Directory of the metadata of one repository.
#[derive(Debug, Clone)]
pub(super) struct MetadataDir(PathBuf);

/// Directory of one upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct UploadDir(PathBuf);

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// All repositories, one directory each, however deep.
    pub(super) fn repositories(&self) -> PathBuf {
        self.data_dir.join(layout::REPOSITORIES)
    }

    /// All blobs and manifests: below their algorithm and the first two digits of their digest.
    pub(super) fn blobs(&self) -> PathBuf {
        self.data_dir.join(layout::BLOBS)
    }

    /// Directory of unpublished files. On the same file system, so that a rename publishes them; outside the layout,
    /// so that they are not mistaken for content.
    pub(super) fn unpublished(&self) -> PathBuf {
        self.data_dir.join(".kuik/unpublished")
    }

    /// Damaged bytes, outside the layout: they are never served.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.data_dir.join(layout::QUARANTINE)
    }

    /// The damaged bytes of a digest.
    pub(super) fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.data_dir.join(layout::quarantined(digest))
    }

    /// Metadata of repositories, one directory each as in the layout, and outside of it.
    pub(super) fn all_metadata(&self) -> PathBuf {
        self.data_dir.join(layout::NOTES)
    }

    /// Lock file of the process that has the directory open.
    pub(super) fn lock(&self) -> PathBuf {
        self.data_dir.join(".kuik/lock")
    }

    /// The bytes of a blob or manifest.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.data_dir.join(layout::blob(digest))
    }

    /// Directory of a repository.
    pub(super) fn repository(&self, repository: &RepositoryName) -> Result<RepositoryDir, SourceError> {
        Ok(RepositoryDir(self.repositories().join(layout::encoded(repository)?)))
    }

    /// Directory of the metadata of a repository.
    pub(super) fn notes_about(&self, repository: &RepositoryName) -> Result<MetadataDir, SourceError> {
        Ok(MetadataDir::below(&self.all_metadata().join(layout::encoded(repository)?)))
    }
}

impl MetadataDir {
    /// Metadata of the repository with the directory `path`, in which repositories below it have theirs.
    pub(super) fn below(path: &Path) -> Self {
        Self(path.join(layout::NOTES_OF_ONE))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// One metadata entry.
    pub(super) fn metadata(&self, name: &MetadataName) -> PathBuf {
        self.0.join(name.as_str())
    }
}

impl RepositoryDir {
    /// The repository stored in `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Links of the repository's blobs.
    pub(super) fn layers(&self) -> PathBuf {
        self.0.join(layout::LAYERS)
    }

    /// Link of a blob.
    pub(super) fn layer_link(&self, digest: &Digest) -> PathBuf {
        self.0.join(layout::layer_link(digest))
    }

    /// Links of the repository's manifests.
    pub(super) fn revisions(&self) -> PathBuf {
        self.0.join(layout::REVISIONS)
    }

    /// Link of a manifest.
    pub(super) fn revision_link(&self, digest: &Digest) -> PathBuf {
        self.0.join(layout::revision_link(digest))
    }

    /// The tags of the repository, one directory each.
    pub(super) fn tags(&self) -> PathBuf {
        self.0.join(layout::TAGS)
    }

    /// Directory of a tag.
    pub(super) fn tag(&self, tag: &Tag) -> PathBuf {
        self.0.join(layout::tag(tag))
    }

    /// Current link of a tag.
    pub(super) fn tag_link(&self, tag: &Tag) -> PathBuf {
        self.0.join(layout::tag_link(tag))
    }

    /// History link of a tag to a manifest.
    pub(super) fn tag_history_link(&self, tag: &Tag, digest: &Digest) -> PathBuf {
        self.0.join(layout::tag_history_link(tag, digest))
    }

    /// Referrers index. Docker's registry ignores this directory.
    pub(super) fn referrers(&self) -> PathBuf {
        self.0.join(layout::REFERRERS)
    }

    /// The referrers of `subject`.
    pub(super) fn referrers_of(&self, subject: &Digest) -> PathBuf {
        self.0.join(layout::referrers_of(subject))
    }

    /// Referrer link of a manifest to `subject`.
    pub(super) fn referrer_link(&self, subject: &Digest, referrer: &Digest) -> PathBuf {
        self.0.join(layout::referrer_link(subject, referrer))
    }

    /// Marker that every manifest older than this file has its referrer link. (No algorithm begins with an
    /// underscore.)
    pub(super) fn referrers_marker(&self) -> PathBuf {
        self.0.join(layout::REFERRERS_MARKER)
    }

    /// Uploads, one directory each.
    pub(super) fn uploads(&self) -> PathBuf {
        self.0.join(layout::UPLOADS)
    }

    /// One upload.
    pub(super) fn upload(&self, id: &UploadId) -> UploadDir {
        UploadDir(self.0.join(layout::upload(id)))
    }
}

impl UploadDir {
    /// The upload stored in `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The bytes so far.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Its start time in RFC 3339.
    pub(super) fn started_at(&self) -> PathBuf {
        self.0.join(layout::STARTED_AT)
    }
}
