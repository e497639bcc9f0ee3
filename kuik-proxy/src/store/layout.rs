//! Storage layout: the relative names of the Docker registry's v2 storage layout, with `/` between their parts. A
//! directory has them as paths, a bucket as keys.
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

/// Damaged bytes, outside the layout: they are never served.
pub(super) const QUARANTINE: &str = ".kuik/quarantine";

/// Metadata of repositories, each below its own name as in the layout, and outside of it.
pub(super) const NOTES: &str = ".kuik/notes";

/// Within a repository's metadata: its entries, apart from those of repositories below it.
pub(super) const NOTES_OF_ONE: &str = "_notes";

/// Within a repository: which blobs belong to it.
pub(super) const LAYERS: &str = "_layers";

/// Within a repository: which manifests belong to it.
pub(super) const REVISIONS: &str = "_manifests/revisions";

/// Within a repository: its tags.
pub(super) const TAGS: &str = "_manifests/tags";

/// Below a tag: its current target.
pub(super) const CURRENT: &str = "current/link";

/// Within a repository: the referrers index. Docker's registry ignores this directory.
pub(super) const REFERRERS: &str = "_manifests/referrers";

/// Within a repository: marker that every manifest older than it has its referrer link. (No algorithm begins with an
/// underscore.)
pub(super) const REFERRERS_MARKER: &str = "_manifests/referrers/_complete";

/// Within a repository: uploads.
pub(super) const UPLOADS: &str = "_uploads";

/// Below an upload: its start time in RFC 3339.
pub(super) const STARTED_AT: &str = "startedat";

/// The bytes of a blob or manifest.
pub(super) fn blob(digest: &Digest) -> String {
    let encoded = digest.encoded();
    let shard = encoded.get(..2).unwrap_or(encoded);
    format!("{BLOBS}/{}/{shard}/{encoded}/data", digest.algorithm_name())
}

/// The damaged bytes of a digest.
pub(super) fn quarantined(digest: &Digest) -> String {
    format!("{QUARANTINE}/{}-{}", digest.algorithm_name(), digest.encoded())
}

/// Returns the stored name of a repository: the one in pulls, `registry__5000/app` for `registry:5000/app`, which
/// Docker's registry accepts as a name too.
pub(super) fn encoded(repository: &RepositoryName) -> Result<String, SourceError> {
    repository.encoded().map_err(|error| {
        SourceError::caused_by(
            SourceErrorKind::Unsupported,
            format!("find the directory of {repository}: its name cannot be encoded as a path"),
            error,
        )
    })
}

/// Within a repository: the link of a blob.
pub(super) fn layer_link(digest: &Digest) -> String {
    format!("{LAYERS}/{}", link(digest))
}

/// Within a repository: the link of a manifest.
pub(super) fn revision_link(digest: &Digest) -> String {
    format!("{REVISIONS}/{}", link(digest))
}

/// Within a repository: the directory of a tag.
pub(super) fn tag(tag: &Tag) -> String {
    format!("{TAGS}/{tag}")
}

/// Within a repository: the current link of a tag.
pub(super) fn tag_link(tag: &Tag) -> String {
    format!("{TAGS}/{tag}/{CURRENT}")
}

/// Within a repository: the history link of a tag to a manifest.
pub(super) fn tag_history_link(tag: &Tag, digest: &Digest) -> String {
    format!("{TAGS}/{tag}/index/{}", link(digest))
}

/// Within a repository: the referrers of `subject`.
pub(super) fn referrers_of(subject: &Digest) -> String {
    format!("{REFERRERS}/{}/{}", subject.algorithm_name(), subject.encoded())
}

/// Within a repository: the referrer link of a manifest to `subject`.
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
