//! Where things lie, whatever they lie on: the relative names of the Docker registry's v2 storage layout, with `/`
//! between their parts. A directory has them as paths, a bucket as keys.
//!
//! Invariant: every name is below the root. Repository names and digests are validated by their types, and neither
//! grammar can write `..`, an absolute path, or a component that starts with `_`.

use kuik_core::{
    content::{Digest, SourceError, SourceErrorKind, UploadId},
    reference::{RepositoryName, Tag},
};

/// All repositories, each below its own name, however deep.
pub(super) const REPOSITORIES: &str = "docker/registry/v2/repositories";

/// All blobs and manifests: below their algorithm and the first two digits of their digest.
pub(super) const BLOBS: &str = "docker/registry/v2/blobs";

/// Damaged bytes, outside the layout: nobody is served them.
pub(super) const QUARANTINE: &str = ".kuik/quarantine";

/// What is noted about repositories, each below its own name as in the layout, and outside of it.
pub(super) const NOTES: &str = ".kuik/notes";

/// Within a repository's notes: the notes themselves, apart from those of repositories below it.
pub(super) const NOTES_OF_ONE: &str = "_notes";

/// Within a repository: which blobs belong to it.
pub(super) const LAYERS: &str = "_layers";

/// Within a repository: which manifests belong to it.
pub(super) const REVISIONS: &str = "_manifests/revisions";

/// Within a repository: its tags.
pub(super) const TAGS: &str = "_manifests/tags";

/// Below a tag: what it points at now.
pub(super) const CURRENT: &str = "current/link";

/// Within a repository: which manifests are referrers of which. Docker's registry does not know this, and leaves it
/// alone.
pub(super) const REFERRERS: &str = "_manifests/referrers";

/// Within a repository: what says that every manifest that is older than this has its referrer link. (No algorithm
/// begins with an underscore.)
pub(super) const REFERRERS_MARKER: &str = "_manifests/referrers/_complete";

/// Within a repository: what is being pushed.
pub(super) const UPLOADS: &str = "_uploads";

/// Below an upload: when it was begun, as RFC 3339 has it.
pub(super) const STARTED_AT: &str = "startedat";

/// The bytes of a blob or manifest.
pub(super) fn blob(digest: &Digest) -> String {
    let encoded = digest.encoded();
    let shard = encoded.get(..2).unwrap_or(encoded);
    format!("{BLOBS}/{}/{shard}/{encoded}/data", digest.algorithm_name())
}

/// The damaged bytes that were kept under a digest.
pub(super) fn quarantined(digest: &Digest) -> String {
    format!("{QUARANTINE}/{}-{}", digest.algorithm_name(), digest.encoded())
}

/// The name that a repository is kept by: that which clients pull it by, `registry__5000/app` for
/// `registry:5000/app`, which Docker's registry accepts as a name too.
pub(super) fn encoded(repository: &RepositoryName) -> Result<String, SourceError> {
    repository.encoded().map_err(|error| {
        SourceError::caused_by(
            SourceErrorKind::Unsupported,
            format!("find where {repository} is kept: its name has no form as a path"),
            error,
        )
    })
}

/// Within a repository: what says that a blob belongs to it.
pub(super) fn layer_link(digest: &Digest) -> String {
    format!("{LAYERS}/{}", link(digest))
}

/// Within a repository: what says that a manifest belongs to it.
pub(super) fn revision_link(digest: &Digest) -> String {
    format!("{REVISIONS}/{}", link(digest))
}

/// Within a repository: all that is kept about a tag.
pub(super) fn tag(tag: &Tag) -> String {
    format!("{TAGS}/{tag}")
}

/// Within a repository: what a tag points at now.
pub(super) fn tag_link(tag: &Tag) -> String {
    format!("{TAGS}/{tag}/{CURRENT}")
}

/// Within a repository: what says that a tag pointed at a manifest once.
pub(super) fn tag_history_link(tag: &Tag, digest: &Digest) -> String {
    format!("{TAGS}/{tag}/index/{}", link(digest))
}

/// Within a repository: the referrers of `subject`.
pub(super) fn referrers_of(subject: &Digest) -> String {
    format!("{REFERRERS}/{}/{}", subject.algorithm_name(), subject.encoded())
}

/// Within a repository: what says that a manifest may be a referrer of `subject`.
pub(super) fn referrer_link(subject: &Digest, referrer: &Digest) -> String {
    format!("{}/{}", referrers_of(subject), link(referrer))
}

/// Within a repository: one upload.
pub(super) fn upload(id: &UploadId) -> String {
    format!("{UPLOADS}/{}", id.as_str())
}

fn link(digest: &Digest) -> String {
    format!("{}/{}/link", digest.algorithm_name(), digest.encoded())
}
