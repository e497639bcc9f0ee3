//! Where things lie in a directory: the names of [`crate::store::layout`] as paths below it, and what a directory has
//! beside them.

use std::path::{Path, PathBuf};

use kuik_core::{
    content::{Digest, NoteName, SourceError, UploadId},
    reference::{RepositoryName, Tag},
};

use crate::store::layout;

/// The layout below one data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    data_dir: PathBuf,
}

/// Where one repository is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RepositoryDir(PathBuf);

/// Where the notes about one repository are kept.
#[derive(Debug, Clone)]
pub(super) struct NotesDir(PathBuf);

/// Where one upload is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct UploadDir(PathBuf);

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// The directory that was given to us.
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

    /// What is being written. On the file system of the rest, so that a rename publishes it; outside the layout, so
    /// that nobody mistakes it for content.
    pub(super) fn unpublished(&self) -> PathBuf {
        self.data_dir.join(".kuik/unpublished")
    }

    /// Damaged bytes, outside the layout: nobody is served them.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.data_dir.join(layout::QUARANTINE)
    }

    /// The damaged bytes that were kept under a digest.
    pub(super) fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.data_dir.join(layout::quarantined(digest))
    }

    /// What is noted about repositories, one directory each as in the layout, and outside of it.
    pub(super) fn notes(&self) -> PathBuf {
        self.data_dir.join(layout::NOTES)
    }

    /// Held by the one process that has the directory open.
    pub(super) fn lock(&self) -> PathBuf {
        self.data_dir.join(".kuik/lock")
    }

    /// The bytes of a blob or manifest.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.data_dir.join(layout::blob(digest))
    }

    /// Where a repository is kept.
    pub(super) fn repository(&self, repository: &RepositoryName) -> Result<RepositoryDir, SourceError> {
        Ok(RepositoryDir(self.repositories().join(layout::encoded(repository)?)))
    }

    /// Where the notes about a repository are kept.
    pub(super) fn notes_about(&self, repository: &RepositoryName) -> Result<NotesDir, SourceError> {
        Ok(NotesDir::below(&self.notes().join(layout::encoded(repository)?)))
    }
}

impl NotesDir {
    /// The notes about the repository that has the directory `path`, in which repositories below it have theirs.
    pub(super) fn below(path: &Path) -> Self {
        Self(path.join(layout::NOTES_OF_ONE))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// One note.
    pub(super) fn note(&self, name: &NoteName) -> PathBuf {
        self.0.join(name.as_str())
    }
}

impl RepositoryDir {
    /// The repository that is kept in `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// What says which blobs belong to the repository.
    pub(super) fn layers(&self) -> PathBuf {
        self.0.join(layout::LAYERS)
    }

    /// What says that a blob belongs to the repository.
    pub(super) fn layer_link(&self, digest: &Digest) -> PathBuf {
        self.0.join(layout::layer_link(digest))
    }

    /// What says which manifests belong to the repository.
    pub(super) fn revisions(&self) -> PathBuf {
        self.0.join(layout::REVISIONS)
    }

    /// What says that a manifest belongs to the repository.
    pub(super) fn revision_link(&self, digest: &Digest) -> PathBuf {
        self.0.join(layout::revision_link(digest))
    }

    /// The tags of the repository, one directory each.
    pub(super) fn tags(&self) -> PathBuf {
        self.0.join(layout::TAGS)
    }

    /// All that is kept about a tag.
    pub(super) fn tag(&self, tag: &Tag) -> PathBuf {
        self.0.join(layout::tag(tag))
    }

    /// What a tag points at now.
    pub(super) fn tag_link(&self, tag: &Tag) -> PathBuf {
        self.0.join(layout::tag_link(tag))
    }

    /// What says that a tag pointed at a manifest once.
    pub(super) fn tag_history_link(&self, tag: &Tag, digest: &Digest) -> PathBuf {
        self.0.join(layout::tag_history_link(tag, digest))
    }

    /// What says which manifests are referrers of which. Docker's registry does not know this directory, and leaves
    /// it alone.
    pub(super) fn referrers(&self) -> PathBuf {
        self.0.join(layout::REFERRERS)
    }

    /// The referrers of `subject`.
    pub(super) fn referrers_of(&self, subject: &Digest) -> PathBuf {
        self.0.join(layout::referrers_of(subject))
    }

    /// What says that a manifest may be a referrer of `subject`.
    pub(super) fn referrer_link(&self, subject: &Digest, referrer: &Digest) -> PathBuf {
        self.0.join(layout::referrer_link(subject, referrer))
    }

    /// What says that every manifest that is older than this file has its referrer link. (No algorithm begins with an
    /// underscore.)
    pub(super) fn referrers_marker(&self) -> PathBuf {
        self.0.join(layout::REFERRERS_MARKER)
    }

    /// What is being pushed, one directory each.
    pub(super) fn uploads(&self) -> PathBuf {
        self.0.join(layout::UPLOADS)
    }

    /// One upload.
    pub(super) fn upload(&self, id: &UploadId) -> UploadDir {
        UploadDir(self.0.join(layout::upload(id)))
    }
}

impl UploadDir {
    /// The upload that is kept in `path`.
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

    /// When it was begun, as RFC 3339 has it.
    pub(super) fn started_at(&self) -> PathBuf {
        self.0.join(layout::STARTED_AT)
    }
}
