//! Requests of the OCI distribution API to one upstream of a repository.
//!
//! Responses are not trusted: manifests are size-limited, decoded and compared with the requested digest; ranges are
//! compared with the requested range. Blob bytes pass through unhashed: the store that keeps them verifies them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header::ACCEPT};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    headers::{
        cache_status, content_digest, content_length, content_range, descriptor_of, has_next,
        is_requested_range, is_web_page, media_type,
    },
    request::RequestSpec,
    status,
};
use crate::client::{
    RegistryClient, Upstream,
    auth::AuthScope,
    transport::{
        Body, body,
        sender::{Answer, RegistryRequest},
    },
};
use crate::{
    content::{
        Blob, ByteRange, Cached, DecodedManifest, Descriptor, Digest, Freshness, MAX_MANIFEST_BYTES,
        Manifest, MediaType, Referrers, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::{RepositoryName, Tag},
    trace::RequestContext,
};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A repository at one of its upstreams, with the deadline for the response.
#[derive(Debug, Clone)]
pub(crate) struct RepositoryEndpoint {
    pub(crate) client: RegistryClient,
    pub(crate) repository: RepositoryName,
    pub(crate) upstream: Upstream,
    pub(crate) deadline: Instant,
}

/// A response, with the description of its request for errors.
pub(crate) struct ResponseContext {
    pub(crate) what: String,
    pub(crate) answer: Answer,
}

impl RepositoryEndpoint {
    /// Sends a request with the credential of the repository.
    async fn send(&self, spec: RequestSpec) -> Result<ResponseContext, SourceError> {
        self.send_with_body(spec, Bytes::new()).await
    }

    /// Like [`send`](Self::send), with a body.
    pub(crate) async fn send_with_body(
        &self,
        spec: RequestSpec,
        body: Bytes,
    ) -> Result<ResponseContext, SourceError> {
        let RequestSpec { method, name, rest, headers, deadline } = spec;
        let (kind, name) = name;
        let path = self.upstream.path_of(&self.repository);
        let what = format!("{method} {kind} {path}{name} from {}", self.upstream.base());
        let is_pull = method == Method::GET && kind == "manifest";
        let uri = self.url(&rest, &what)?;
        self.send_request(RegistryRequest {
            is_pull,
            deadline,
            ..self.build_request(what, method, uri, headers, body)
        })
        .await
    }

    /// Builds a request to any URL of this upstream.
    pub(crate) fn build_request(
        &self,
        what: String,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> RegistryRequest {
        RegistryRequest {
            what,
            is_pull: false,
            account: Default::default(),
            context: self.client.propagates_context.then(RequestContext::current).flatten(),
            method,
            uri,
            headers,
            body,
            deadline: self.deadline,
            over_http: false,
        }
    }

    /// Sends a request with the credential of the repository.
    pub(crate) async fn send_request(
        &self,
        request: RegistryRequest,
    ) -> Result<ResponseContext, SourceError> {
        let answer =
            self.client.authenticator.send(&self.client.sender, &request, &self.auth_scope()).await?;
        Ok(ResponseContext { what: request.what, answer })
    }

    /// Returns the authentication scope of the repository.
    pub(crate) fn auth_scope(&self) -> AuthScope {
        AuthScope {
            registry: self.upstream.base().to_owned(),
            path: self.upstream.path_of(&self.repository).to_owned(),
            credentials_of: self.upstream.credentials_of().clone(),
        }
    }

    /// Returns the URL of `rest` in the repository. `what` describes the request in errors.
    pub(crate) fn url(&self, rest: &str, what: &str) -> Result<Uri, SourceError> {
        let url = self.upstream.url(self.upstream.path_of(&self.repository), rest);
        url.map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, what, error))
    }

    /// Converts an error response into an error.
    pub(crate) async fn failure(&self, response: ResponseContext) -> SourceError {
        let (parts, body) = response.answer.response.into_parts();
        let time = self.client.sender.timeouts.stall.min(self.client.sender.timeouts.headers);
        let text = body::read_some(body, status::MAX_ERROR_BODY, time).await;
        status::failure(&response.what, parts.status, &parts.headers, &text, Timestamp::now())
    }

    /// Reads the whole body of a successful response that is expected to be small.
    pub(super) async fn small_body(
        &self,
        response: ResponseContext,
    ) -> Result<(String, HeaderMap, Bytes), SourceError> {
        if response.answer.status() != StatusCode::OK {
            return Err(self.failure(response).await);
        }
        let (parts, body) = response.answer.response.into_parts();
        let stall = self.client.sender.timeouts.stall;
        let bytes = body::read(&response.what, body, MAX_MANIFEST_BYTES, stall).await?;
        Ok((response.what, parts.headers, bytes))
    }

    async fn get_manifest(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        let spec = RequestSpec::manifest(Method::GET, at, freshness, self.deadline);
        let (what, headers, bytes) = self.small_body(self.send(spec).await?).await?;
        let invalid = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::InvalidContent, what.clone(), error)
        };
        let manifest =
            Manifest::new(media_type(&headers).as_ref(), bytes).map_err(|error| invalid(error.into()))?;
        let manifest = match (at, content_digest(&headers)) {
            (TagOrDigest::Digest(digest), _) => {
                manifest.verified_as(digest).map_err(|error| invalid(error.into()))?
            }
            // `Docker-Content-Digest` names the bytes of the tag: if they have another digest, they are damaged.
            (TagOrDigest::Tag(_), Some(digest)) if digest.algorithm().is_some() => {
                manifest.clone().verified_as(&digest).map_err(|error| invalid(error.into()))?;
                manifest
            }
            _ => manifest,
        };
        Ok(Cached { content: manifest, cache_status: cache_status(&headers) })
    }

    /// Returns the referrers from a registry without the referrers API: an index under a tag derived from the digest
    /// (OCI distribution specification, "Referrers Tag Schema").
    async fn tagged_referrers(&self, digest: &Digest) -> Result<Referrers, SourceError> {
        let empty = || Referrers { index: Bytes::from_static(EMPTY_INDEX.as_bytes()), filtered: false };
        let Ok(tag) = format!("{}-{}", digest.algorithm_name(), digest.encoded()).parse::<Tag>() else {
            return Ok(empty());
        };
        match self.get_manifest(&TagOrDigest::Tag(tag), Freshness::Cached).await {
            Ok(Cached { content: manifest, .. }) if manifest.media_type().is_index() => {
                Ok(Referrers { index: manifest.bytes().clone(), filtered: false })
            }
            Ok(_) => Ok(empty()),
            Err(error) if error.is_not_found() => Ok(empty()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn resolve(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Descriptor>, SourceError> {
        let spec = RequestSpec::manifest(Method::HEAD, at, freshness, self.deadline);
        let response = self.send(spec).await?;
        if response.answer.status() == StatusCode::OK {
            let headers = response.answer.response.headers();
            if let Some(descriptor) = descriptor_of(at, headers) {
                let content = described_as(at, descriptor, &response.what)?;
                return Ok(Cached { content, cache_status: cache_status(headers) });
            }
        } else if !lacks_head(response.answer.status()) {
            return Err(self.failure(response).await);
        }
        let manifest = self.get_manifest(at, freshness).await?;
        Ok(manifest.map(|manifest| manifest.descriptor()))
    }

    pub(crate) async fn manifest(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Cached<Manifest>, SourceError> {
        self.get_manifest(at, freshness).await
    }

    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<Cached<u64>, SourceError> {
        let spec = RequestSpec::blob(Method::HEAD, digest, ByteRange::Full, self.deadline);
        let response = self.send(spec).await?;
        let status = response.answer.status();
        if status == StatusCode::OK {
            let headers = response.answer.response.headers();
            if is_web_page(headers) {
                return Err(invalid(&response.what, "the response is a web page"));
            }
            let other = content_digest(headers)
                .is_some_and(|named| named.algorithm_name() == digest.algorithm_name() && named != *digest);
            if other {
                return Err(invalid(&response.what, "the response has another digest"));
            }
            if let Some(size) = content_length(headers) {
                return Ok(Cached { content: size, cache_status: cache_status(headers) });
            }
        } else if !lacks_head(status) && !response.answer.redirected {
            // Storage behind a redirect may allow only the GET that the signed URL is for.
            return Err(self.failure(response).await);
        }
        let spec = RequestSpec::blob(Method::GET, digest, ByteRange::Full, self.deadline);
        let response = self.send(spec).await?;
        if response.answer.status() != StatusCode::OK {
            return Err(self.failure(response).await);
        }
        let headers = response.answer.response.headers();
        match content_length(headers) {
            Some(size) => Ok(Cached { content: size, cache_status: cache_status(headers) }),
            None => Err(invalid(&response.what, "the response has no length")),
        }
    }

    pub(crate) async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Cached<Blob>, SourceError> {
        let spec = RequestSpec::blob(Method::GET, digest, range, self.deadline);
        let response = self.send(spec).await?;
        let headers = response.answer.response.headers();
        let (size, sent) = match response.answer.status() {
            // A server may ignore the range and send everything.
            StatusCode::OK => (content_length(headers), None),
            StatusCode::PARTIAL_CONTENT if range != ByteRange::Full => {
                let (sent, size) = content_range(headers)
                    .filter(|(sent, size)| is_requested_range(range, sent, *size))
                    .ok_or_else(|| {
                        invalid(&response.what, "the response has another range than requested")
                    })?;
                (size, Some(sent))
            }
            _ => return Err(self.failure(response).await),
        };
        let cache_status = cache_status(headers);
        let expected = sent.as_ref().map(|sent| sent.end - sent.start).or(size);
        let body: Body = response.answer.response.into_body();
        let body = body::stream(response.what, body, expected, self.client.sender.timeouts.stall);
        Ok(Cached { content: Blob { size, range: sent, body }, cache_status })
    }

    pub(crate) async fn tags(&self, page: &TagPage) -> Result<TagList, SourceError> {
        let mut query = Vec::new();
        query.extend(page.limit.map(|limit| format!("n={limit}")));
        query.extend(page.after.as_ref().map(|after| format!("last={}", escaped(after))));
        let spec = RequestSpec {
            method: Method::GET,
            name: ("tags of", String::new()),
            rest: with_query("tags/list", &query),
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
            deadline: self.deadline,
        };
        let (what, headers, body) = self.small_body(self.send(spec).await?).await?;
        let answer: TagAnswer = serde_json::from_slice(&body)
            .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, what, error))?;
        Ok(TagList { tags: answer.tags.unwrap_or_default(), more: has_next(&headers) })
    }

    pub(crate) async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let query: Vec<_> =
            artifact_type.map(|wanted| format!("artifactType={}", escaped(wanted))).into_iter().collect();
        let accepted = HeaderValue::from_str(MediaType::OCI_INDEX.as_str()).ok();
        let spec = RequestSpec {
            method: Method::GET,
            name: ("referrers of", format!("@{digest}")),
            rest: with_query(&format!("referrers/{digest}"), &query),
            headers: accepted.map(|value| (ACCEPT, value)).into_iter().collect(),
            deadline: self.deadline,
        };
        let response = self.send(spec).await?;
        if response.answer.status() == StatusCode::NOT_FOUND {
            body::discard(response.answer.response.into_body(), self.client.sender.timeouts.stall).await;
            return self.tagged_referrers(digest).await;
        }
        let (what, headers, bytes) = self.small_body(response).await?;
        let decoded = Manifest::new(None, bytes.clone())
            .and_then(|manifest| manifest.decode())
            .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, what.clone(), error))?;
        if !matches!(decoded, DecodedManifest::Index(_)) {
            return Err(invalid(&what, "the response is not an index"));
        }
        let filtered = headers.get_all(FILTERS_APPLIED).iter().any(|value| {
            value.to_str().is_ok_and(|text| text.split(',').any(|filter| filter.trim() == "artifactType"))
        });
        Ok(Referrers { index: bytes, filtered })
    }
}

#[derive(Deserialize)]
struct TagAnswer {
    tags: Option<Vec<String>>,
}

pub(crate) fn invalid(what: &str, problem: &str) -> SourceError {
    SourceError::new(SourceErrorKind::InvalidContent, format!("{what}: {problem}"))
}

/// Returns whether the status means that `HEAD` is not supported, not that the content is missing.
fn lacks_head(status: StatusCode) -> bool {
    matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST)
}

/// Returns the descriptor if its digest matches the requested one.
fn described_as(at: &TagOrDigest, descriptor: Descriptor, what: &str) -> Result<Descriptor, SourceError> {
    match at {
        TagOrDigest::Digest(digest)
            if digest.algorithm_name() == descriptor.digest.algorithm_name()
                && *digest != descriptor.digest =>
        {
            Err(invalid(what, "the response has another digest"))
        }
        TagOrDigest::Digest(digest) => Ok(Descriptor { digest: digest.clone(), ..descriptor }),
        TagOrDigest::Tag(_) => Ok(descriptor),
    }
}

pub(crate) fn escaped(value: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(value, NON_ALPHANUMERIC)
}

fn with_query(path: &str, query: &[String]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}
