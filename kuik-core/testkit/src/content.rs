//! Content of a [`ScriptedRegistry`](super::ScriptedRegistry), and its unscripted responses.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, LINK, RANGE},
};

use super::{Target, reply::Reply};
use kuik_core::content::{ByteRange, DecodedManifest, Digest, Manifest, MediaType};

/// The content of a registry, by repository.
#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: BTreeMap<String, Repository>,
    /// Whether there is no referrers API.
    pub(super) lacks_referrers: bool,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeMap<Digest, Manifest>,
    tags: BTreeMap<String, Digest>,
    blobs: BTreeMap<Digest, Bytes>,
}

/// A parsed API path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) target: Target,
    repository: &'a str,
    reference: &'a str,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        let other = |target| Route { target, repository: "", reference: "" };
        let Some(rest) = path.strip_prefix("/v2/") else {
            return other(if path == "/token" { Target::Token } else { Target::Other });
        };
        if rest.is_empty() {
            return other(Target::Ping);
        }
        let mut parts = rest.rsplitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(reference), Some(kind), Some(repository)) => {
                let target = match (kind, reference) {
                    ("manifests", _) => Target::Manifest,
                    ("blobs", _) => Target::Blob,
                    ("tags", "list") => Target::Tags,
                    ("referrers", _) => Target::Referrers,
                    _ => Target::Other,
                };
                Route { target, repository, reference }
            }
            _ => other(Target::Other),
        }
    }
}

impl Content {
    pub(super) fn add_manifest(&mut self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(manifest.digest().clone(), manifest.clone());
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), manifest.digest().clone());
        }
    }

    pub(super) fn add_blob(&mut self, repository: &str, bytes: Bytes) -> Digest {
        let digest = Digest::sha256(&bytes);
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone(), bytes);
        digest
    }

    pub(super) fn remove(&mut self, repository: &str) {
        self.repositories.remove(repository);
    }

    /// Returns the response to a `GET`; a `HEAD` gets it without the body.
    pub(super) fn answer(&self, route: &Route<'_>, query: &str, headers: &HeaderMap) -> Reply {
        if route.target == Target::Ping {
            return Reply::json(&serde_json::json!({}));
        }
        let unknown = || Reply::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known");
        let Some(repository) = self.repositories.get(route.repository) else { return unknown() };
        match route.target {
            Target::Manifest => repository.manifest(route.reference),
            Target::Blob => repository.blob(route.reference, headers),
            Target::Tags => repository.tags(route.repository, query),
            Target::Referrers if !self.lacks_referrers => repository.referrers(route.reference, query),
            _ => Reply::new(StatusCode::NOT_FOUND, Bytes::from_static(b"404 page not found\n")),
        }
    }
}

impl Repository {
    fn manifest(&self, reference: &str) -> Reply {
        let digest = self.tags.get(reference).cloned().or_else(|| reference.parse().ok());
        match digest.and_then(|digest| self.manifests.get(&digest)) {
            Some(manifest) => Reply::new(StatusCode::OK, manifest.bytes().clone())
                .with(CONTENT_TYPE.as_str(), manifest.media_type().as_str())
                .with("docker-content-digest", manifest.digest().as_str()),
            None => Reply::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn blob(&self, reference: &str, headers: &HeaderMap) -> Reply {
        let Some(bytes) = reference.parse().ok().and_then(|digest: Digest| self.blobs.get(&digest)) else {
            return Reply::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let size = bytes.len() as u64;
        let range = headers
            .get(RANGE)
            .and_then(|value| value.to_str().ok())
            .map_or(ByteRange::Full, ByteRange::from_header);
        let reply = match (range, range.resolve(size)) {
            (ByteRange::Full, _) => Reply::new(StatusCode::OK, bytes.clone()),
            (_, Ok(range)) => {
                let (start, end) = (offset(range.start), offset(range.end));
                Reply::new(StatusCode::PARTIAL_CONTENT, bytes.slice(start..end)).with(
                    CONTENT_RANGE.as_str(),
                    &format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)),
                )
            }
            (_, Err(_)) => Reply::new(StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
                .with(CONTENT_RANGE.as_str(), &format!("bytes */{size}")),
        };
        reply
            .with(CONTENT_TYPE.as_str(), "application/octet-stream")
            .with(ACCEPT_RANGES.as_str(), "bytes")
            .with("docker-content-digest", reference)
    }

    fn tags(&self, name: &str, query: &str) -> Reply {
        let limit = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let last = parameter(query, "last").unwrap_or_default();
        let after: Vec<&String> =
            self.tags.keys().filter(|tag| last.is_empty() || tag.as_str() > last.as_str()).collect();
        let page: Vec<&String> = after.iter().copied().take(limit).collect();
        let reply = Reply::json(&serde_json::json!({"name": name, "tags": page}));
        match page.last() {
            Some(last) if page.len() < after.len() => reply
                .with(LINK.as_str(), &format!("</v2/{name}/tags/list?n={limit}&last={last}>; rel=\"next\"")),
            _ => reply,
        }
    }

    fn referrers(&self, reference: &str, query: &str) -> Reply {
        let wanted = parameter(query, "artifactType");
        let mut seen = BTreeSet::new();
        let manifests: Vec<_> = self
            .manifests
            .values()
            .filter(|manifest| subject(manifest).is_some_and(|subject| subject.as_str() == reference))
            .filter(|manifest| seen.insert(manifest.digest().clone()))
            .map(|manifest| (manifest.descriptor(), artifact_type(manifest)))
            .filter(|(_, kind)| wanted.is_none() || *kind == wanted)
            .map(|(mut descriptor, kind)| {
                descriptor.artifact_type = kind;
                descriptor
            })
            .collect();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_INDEX.as_str(),
            "manifests": manifests,
        });
        let reply = Reply::json(&index).with(CONTENT_TYPE.as_str(), MediaType::OCI_INDEX.as_str());
        if wanted.is_some() { reply.with("oci-filters-applied", "artifactType") } else { reply }
    }
}

fn subject(manifest: &Manifest) -> Option<Digest> {
    let subject = match manifest.decode().ok()? {
        DecodedManifest::Image(image) => image.subject,
        DecodedManifest::Index(index) => index.subject,
        _ => None,
    };
    subject.map(|subject| subject.digest)
}

fn artifact_type(manifest: &Manifest) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(manifest.bytes()).ok()?;
    value.get("artifactType")?.as_str().map(str::to_owned)
}

/// Returns the percent-decoded value of a query parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'%').then(|| rest.clone().take(2).collect::<Vec<_>>());
        let digits = escaped.and_then(|digits| String::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(&digits, 16).ok()) {
            Some(unescaped) => {
                bytes.push(unescaped);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Converts an offset into bytes in memory.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
