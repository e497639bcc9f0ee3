//! Parser of registry requests: method, path and query. It is pure, and the first code that sees hostile input. Pulls
//! are recognized, and parsed by [`Route`](crate::route::Route).

use http::Method;
use kuik_core::{
    content::{Digest, TagOrDigest, UploadId},
    reference::{RepositoryName, Tag},
};

use crate::route::{Endpoint, Names, RouteError, digest, tag_or_digest};

/// Maximum number of tags in one manifest push: the query cannot hold more of a sensible length.
const MAX_TAGS: usize = 64;

/// A registry operation (OCI distribution specification, "Endpoints").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Read content of this kind.
    Pull(Pull),
    /// Start an upload, or store a blob without a session.
    StartUpload { repository: RepositoryName, how: Start },
    /// Append a chunk to an upload.
    Append(UploadName),
    /// Finish an upload as the blob of this digest.
    Finish { upload: UploadName, digest: Digest },
    /// Query the progress of an upload.
    Status(UploadName),
    /// Cancel an upload.
    Cancel(UploadName),
    /// Store a manifest, and point tags at it.
    PutManifest { repository: RepositoryName, at: TagOrDigest, tags: Vec<Tag> },
    /// Delete a tag, or a manifest with all its tags.
    DeleteManifest { repository: RepositoryName, at: TagOrDigest },
    /// Delete a blob.
    DeleteBlob { repository: RepositoryName, digest: Digest },
}

/// Kind of content read. Used for metrics only: the pull service decides whether the content exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    Version,
    Manifest,
    Blob,
    Tags,
    Referrers,
    Nothing,
}

/// How an upload starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// With a session.
    Session,
    /// In one request: the body is the blob of this digest.
    Whole(Digest),
    /// By mounting: the store may have the blob, in the named repository or in any.
    Mount { digest: Digest, from: Option<RepositoryName> },
}

/// An upload of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadName {
    pub(super) repository: RepositoryName,
    pub(super) id: UploadId,
}

/// Why a request is not a valid operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoOperation {
    /// The path or the query is invalid.
    Route(RouteError),
    /// The upload id is invalid.
    UploadName,
    /// The upload is to finish, and the digest is missing.
    NoDigest,
    /// The endpoint exists, but supports only these methods.
    Method(&'static str),
}

impl From<RouteError> for NoOperation {
    fn from(error: RouteError) -> Self {
        Self::Route(error)
    }
}

impl Operation {
    /// Parses a request's head.
    pub(super) fn parse(
        method: &Method,
        path: &str,
        query: Option<&str>,
        names: Names,
    ) -> Result<Self, NoOperation> {
        let Some(endpoint) = Endpoint::read(path, query)? else { return pull(method, Pull::Version) };
        if let Some(uploads) = uploads(endpoint) {
            return on_uploads(method, uploads, names);
        }
        match (endpoint.kind, method) {
            ("manifests", &Method::PUT) => {
                let (repository, at) = (endpoint.repository(names)?, tag_or_digest(endpoint.last)?);
                Ok(Self::PutManifest { repository, at, tags: tags(endpoint)? })
            }
            ("manifests", &Method::DELETE) => {
                let (repository, at) = (endpoint.repository(names)?, tag_or_digest(endpoint.last)?);
                Ok(Self::DeleteManifest { repository, at })
            }
            ("blobs", &Method::DELETE) => Ok(Self::DeleteBlob {
                repository: endpoint.repository(names)?,
                digest: digest(endpoint.last)?,
            }),
            ("manifests", _) => pull(method, Pull::Manifest),
            ("blobs", _) => pull(method, Pull::Blob),
            ("tags", _) => pull(method, Pull::Tags),
            ("referrers", _) => pull(method, Pull::Referrers),
            _ => pull(method, Pull::Nothing),
        }
    }

    /// Returns the operation's name in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Pull(Pull::Version) => "version",
            Self::Pull(Pull::Manifest) => "manifest_pull",
            Self::Pull(Pull::Blob) => "blob_pull",
            Self::Pull(Pull::Tags) => "tags",
            Self::Pull(Pull::Referrers) => "referrers",
            Self::Pull(Pull::Nothing) => "other",
            Self::StartUpload { how: Start::Mount { .. }, .. } => "blob_mount",
            Self::StartUpload { how: Start::Whole(_), .. } => "upload_whole",
            Self::StartUpload { how: Start::Session, .. } => "upload_start",
            Self::Append(_) => "upload_chunk",
            Self::Finish { .. } => "upload_finish",
            Self::Status(_) => "upload_status",
            Self::Cancel(_) => "upload_cancel",
            Self::PutManifest { .. } => "manifest_push",
            Self::DeleteManifest { at: TagOrDigest::Tag(_), .. } => "tag_delete",
            Self::DeleteManifest { at: TagOrDigest::Digest(_), .. } => "manifest_delete",
            Self::DeleteBlob { .. } => "blob_delete",
        }
    }
}

fn pull(method: &Method, what: Pull) -> Result<Operation, NoOperation> {
    match (method, what) {
        (&Method::GET | &Method::HEAD, _) => Ok(Operation::Pull(what)),
        (_, Pull::Nothing) => Err(NoOperation::Route(RouteError::NoEndpoint)),
        (_, Pull::Manifest) => Err(NoOperation::Method("GET, HEAD, PUT, DELETE")),
        (_, Pull::Blob) => Err(NoOperation::Method("GET, HEAD, DELETE")),
        _ => Err(NoOperation::Method("GET, HEAD")),
    }
}

/// Recognizes `/v2/NAME/blobs/uploads/` (some clients omit the last slash) and `/v2/NAME/blobs/uploads/ID`.
fn uploads(endpoint: Endpoint<'_>) -> Option<Endpoint<'_>> {
    match (endpoint.kind, endpoint.last) {
        ("blobs", "uploads") => Some(Endpoint { last: "", ..endpoint }),
        ("uploads", _) => endpoint.name.strip_suffix("/blobs").map(|name| Endpoint { name, ..endpoint }),
        _ => None,
    }
}

fn on_uploads(method: &Method, endpoint: Endpoint<'_>, names: Names) -> Result<Operation, NoOperation> {
    let repository = endpoint.repository(names)?;
    if endpoint.last.is_empty() {
        return match *method {
            Method::POST => Ok(Operation::StartUpload { how: start(endpoint, names)?, repository }),
            _ => Err(NoOperation::Method("POST")),
        };
    }
    let id = endpoint.last.parse().map_err(|_| NoOperation::UploadName)?;
    let upload = UploadName { repository, id };
    match *method {
        Method::PATCH => Ok(Operation::Append(upload)),
        Method::PUT => match endpoint.parameters.get("digest")? {
            Some(text) => Ok(Operation::Finish { upload, digest: digest(&text)? }),
            None => Err(NoOperation::NoDigest),
        },
        Method::GET | Method::HEAD => Ok(Operation::Status(upload)),
        Method::DELETE => Ok(Operation::Cancel(upload)),
        _ => Err(NoOperation::Method("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

fn start(endpoint: Endpoint<'_>, names: Names) -> Result<Start, NoOperation> {
    if let Some(text) = endpoint.parameters.get("mount")? {
        let from = endpoint.parameters.get("from")?;
        let from = from.map(|name| names.repository(&name, None)).transpose()?;
        return Ok(Start::Mount { digest: digest(&text)?, from });
    }
    match endpoint.parameters.get("digest")? {
        Some(text) => Ok(Start::Whole(digest(&text)?)),
        None => Ok(Start::Session),
    }
}

/// Returns the `tag` parameters: a manifest pushed by digest can get tags at once.
fn tags(endpoint: Endpoint<'_>) -> Result<Vec<Tag>, RouteError> {
    let texts = endpoint.parameters.all("tag").take(MAX_TAGS);
    texts.map(|text| text?.parse().map_err(|_| RouteError::Parameter("tag"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const ID: &str = "ffffffff-ffff-4fff-bfff-ffffffffffff";

    fn parse(request: &str) -> Result<Operation, NoOperation> {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Operation::parse(&method.parse().unwrap(), path, query, Names::Local)
    }

    #[test]
    fn every_operation() {
        for (request, name) in [
            ("GET /v2/", "version"),
            ("HEAD /v2/a/manifests/1", "manifest_pull"),
            (&format!("GET /v2/a/blobs/{HEX}"), "blob_pull"),
            ("GET /v2/a/tags/list", "tags"),
            (&format!("GET /v2/a/referrers/{HEX}"), "referrers"),
            ("GET /v2/_catalog", "other"),
            ("POST /v2/a/b/blobs/uploads/", "upload_start"),
            ("POST /v2/a/b/blobs/uploads", "upload_start"),
            (&format!("POST /v2/a/blobs/uploads/?digest={HEX}"), "upload_whole"),
            (&format!("POST /v2/a/blobs/uploads/?mount={HEX}&from=b%2Fc"), "blob_mount"),
            (&format!("POST /v2/a/blobs/uploads/?mount={HEX}"), "blob_mount"),
            (&format!("PATCH /v2/a/blobs/uploads/{ID}"), "upload_chunk"),
            (&format!("PUT /v2/a/blobs/uploads/{ID}?digest=sha256%3A{}", &HEX[7..]), "upload_finish"),
            (&format!("GET /v2/a/blobs/uploads/{ID}"), "upload_status"),
            (&format!("DELETE /v2/a/blobs/uploads/{ID}"), "upload_cancel"),
            ("PUT /v2/a/manifests/1", "manifest_push"),
            ("DELETE /v2/a/manifests/1", "tag_delete"),
            (&format!("DELETE /v2/a/manifests/{HEX}"), "manifest_delete"),
            (&format!("DELETE /v2/a/blobs/{HEX}"), "blob_delete"),
        ] {
            // `_catalog` has too few segments to belong to a repository.
            let parsed = parse(request);
            match name {
                "other" => assert_eq!(parsed, Err(NoOperation::Route(RouteError::NoEndpoint)), "{request}"),
                name => assert_eq!(parsed.map(|operation| operation.name()), Ok(name), "{request}"),
            }
        }
    }

    #[test]
    fn manifest_push_by_digest_accepts_tags() {
        let put = parse(&format!("PUT /v2/a/manifests/{HEX}?tag=1&tag=1.2")).unwrap();
        let tags = ["1", "1.2"].map(|tag| tag.parse().unwrap()).to_vec();
        let repository = RepositoryName::local("a").unwrap();
        assert_eq!(
            put,
            Operation::PutManifest { repository, at: TagOrDigest::Digest(HEX.parse().unwrap()), tags }
        );
    }

    #[test]
    fn hostile_requests_are_refused() {
        use NoOperation as E;
        for request in ["POST /v2/../blobs/uploads/", "PUT /v2/A/manifests/1", "DELETE /v2/a//b/manifests/1"]
        {
            assert!(matches!(parse(request), Err(E::Route(RouteError::Name(_)))), "{request}");
        }
        for id in ["..", "%2e%2e", "x", &ID.to_uppercase()] {
            assert_eq!(parse(&format!("PATCH /v2/a/blobs/uploads/{id}")), Err(E::UploadName), "{id}");
        }
        assert_eq!(parse(&format!("PUT /v2/a/blobs/uploads/{ID}")), Err(E::NoDigest));
        for request in [
            &format!("PUT /v2/a/blobs/uploads/{ID}?digest=sha256:abc"),
            "POST /v2/a/blobs/uploads/?digest=x",
            "POST /v2/a/blobs/uploads/?mount=x",
            "DELETE /v2/a/blobs/latest",
            "PUT /v2/a/manifests/sha256:baddigeststring",
        ] {
            assert!(matches!(parse(request), Err(E::Route(RouteError::Digest(..)))), "{request}");
        }
        let mount = format!("POST /v2/a/blobs/uploads/?mount={HEX}&from=../b");
        assert!(matches!(parse(&mount), Err(E::Route(RouteError::Name(_)))));
        assert_eq!(parse("PUT /v2/a/manifests/1?tag=.x"), Err(E::Route(RouteError::Parameter("tag"))));
        assert_eq!(parse("PATCH /v2/a/manifests/1"), Err(E::Method("GET, HEAD, PUT, DELETE")));
        assert_eq!(parse("PUT /v2/a/blobs/uploads/"), Err(E::Method("POST")));
        assert_eq!(parse("POST /v2/a/tags/list"), Err(E::Method("GET, HEAD")));
        assert_eq!(parse("POST /v2/a/other/x"), Err(E::Route(RouteError::NoEndpoint)));
    }
}
