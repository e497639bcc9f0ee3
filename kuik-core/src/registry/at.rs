//! The OCI distribution API at one upstream of a repository.
//!
//! What a registry sends is not believed: manifests are bounded, decoded and compared with the digest they were asked
//! for by, ranges are compared with what was asked for. The bytes of blobs pass through unhashed; who keeps them
//! verifies them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header::ACCEPT};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    RegistryClient, Upstream,
    about::About,
    auth::Door,
    body,
    exchange::{Answer, Question},
    headers::{
        answers, content_digest, content_length, content_range, described, has_next, is_web_page, media_type,
        origin,
    },
    status,
    transport::Body,
};
use crate::{
    content::{
        Blob, ByteRange, DecodedManifest, Descriptor, Digest, Freshness, MAX_MANIFEST_BYTES, Manifest,
        MediaType, Referrers, Served, SourceError, SourceErrorKind, TagList, TagOrDigest, TagPage,
    },
    reference::{RepositoryName, Tag},
    trace::RequestContext,
};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A repository at one of its upstreams, which is to answer by a deadline.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) client: RegistryClient,
    pub(super) repository: RepositoryName,
    pub(super) upstream: Upstream,
    pub(super) deadline: Instant,
}

/// A question by its name, and the answer.
pub(super) struct Asked {
    pub(super) what: String,
    pub(super) answer: Answer,
}

impl At {
    /// Asks about the repository, as what opens it.
    async fn ask(&self, about: About) -> Result<Asked, SourceError> {
        self.ask_with(about, Bytes::new()).await
    }

    /// The same, with a body.
    pub(super) async fn ask_with(&self, about: About, body: Bytes) -> Result<Asked, SourceError> {
        let About { method, name, rest, headers, deadline } = about;
        let (kind, name) = name;
        let path = self.upstream.path_of(&self.repository);
        let what = format!("{method} {kind} {path}{name} from {}", self.upstream.base());
        let is_pull = method == Method::GET && kind == "manifest";
        let uri = self.url(&rest, &what)?;
        self.ask_question(Question { is_pull, deadline, ..self.question(what, method, uri, headers, body) })
            .await
    }

    /// A question to this upstream, at any address of it.
    pub(super) fn question(
        &self,
        what: String,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Question {
        Question {
            what,
            is_pull: false,
            account: Default::default(),
            context: self.client.tells_requests.then(RequestContext::current).flatten(),
            method,
            uri,
            headers,
            body,
            deadline: self.deadline,
            over_http: false,
        }
    }

    /// Asks a question as what opens the repository.
    pub(super) async fn ask_question(&self, question: Question) -> Result<Asked, SourceError> {
        let answer = self.client.authenticator.ask(&self.client.exchange, &question, &self.door()).await?;
        Ok(Asked { what: question.what, answer })
    }

    /// What opens the repository.
    pub(super) fn door(&self) -> Door {
        Door {
            registry: self.upstream.base().to_owned(),
            path: self.upstream.path_of(&self.repository).to_owned(),
            credentials_of: self.upstream.credentials_of().clone(),
        }
    }

    /// The address of `rest` in the repository, to do `what`.
    pub(super) fn url(&self, rest: &str, what: &str) -> Result<Uri, SourceError> {
        let url = self.upstream.url(self.upstream.path_of(&self.repository), rest);
        url.map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, what, error))
    }

    /// The error that an answer stands for.
    pub(super) async fn failure(&self, asked: Asked) -> SourceError {
        let (parts, body) = asked.answer.response.into_parts();
        let time = self.client.exchange.timeouts.stall.min(self.client.exchange.timeouts.headers);
        let said = body::read_some(body, status::MAX_ERROR_BODY, time).await;
        status::failure(&asked.what, parts.status, &parts.headers, &said, Timestamp::now())
    }

    /// The whole body of a successful answer, which is expected to be small.
    async fn small(&self, asked: Asked) -> Result<(String, HeaderMap, Bytes), SourceError> {
        if asked.answer.status() != StatusCode::OK {
            return Err(self.failure(asked).await);
        }
        let (parts, body) = asked.answer.response.into_parts();
        let stall = self.client.exchange.timeouts.stall;
        let bytes = body::read(&asked.what, body, MAX_MANIFEST_BYTES, stall).await?;
        Ok((asked.what, parts.headers, bytes))
    }

    async fn get_manifest(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let about = About::manifest(Method::GET, at, freshness, self.deadline);
        let (what, headers, bytes) = self.small(self.ask(about).await?).await?;
        let invalid = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceError::caused_by(SourceErrorKind::InvalidContent, what.clone(), error)
        };
        let manifest =
            Manifest::new(media_type(&headers).as_ref(), bytes).map_err(|error| invalid(error.into()))?;
        let manifest = match (at, content_digest(&headers)) {
            (TagOrDigest::Digest(digest), _) => {
                manifest.verified_as(digest).map_err(|error| invalid(error.into()))?
            }
            // The header names the bytes that a tag stands for: where it is another digest, the bytes are damaged.
            (TagOrDigest::Tag(_), Some(digest)) if digest.algorithm().is_some() => {
                manifest.clone().verified_as(&digest).map_err(|error| invalid(error.into()))?;
                manifest
            }
            _ => manifest,
        };
        Ok(Served { content: manifest, origin: origin(&headers) })
    }

    /// The referrers that were pushed to a registry without the referrers API: an index under a tag that is made of
    /// the digest (OCI distribution specification, "Referrers Tag Schema").
    async fn tagged_referrers(&self, digest: &Digest) -> Result<Referrers, SourceError> {
        let empty = || Referrers { index: Bytes::from_static(EMPTY_INDEX.as_bytes()), filtered: false };
        let Ok(tag) = format!("{}-{}", digest.algorithm_name(), digest.encoded()).parse::<Tag>() else {
            return Ok(empty());
        };
        match self.get_manifest(&TagOrDigest::Tag(tag), Freshness::Cached).await {
            Ok(Served { content: manifest, .. }) if manifest.media_type().is_index() => {
                Ok(Referrers { index: manifest.bytes().clone(), filtered: false })
            }
            Ok(_) => Ok(empty()),
            Err(error) if error.is_not_found() => Ok(empty()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn resolve(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        let about = About::manifest(Method::HEAD, at, freshness, self.deadline);
        let asked = self.ask(about).await?;
        if asked.answer.status() == StatusCode::OK {
            let headers = asked.answer.response.headers();
            if let Some(descriptor) = described(at, headers) {
                let content = described_as(at, descriptor, &asked.what)?;
                return Ok(Served { content, origin: origin(headers) });
            }
        } else if !lacks_head(asked.answer.status()) {
            return Err(self.failure(asked).await);
        }
        let manifest = self.get_manifest(at, freshness).await?;
        Ok(manifest.map(|manifest| manifest.descriptor()))
    }

    pub(super) async fn manifest(
        &self,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        self.get_manifest(at, freshness).await
    }

    pub(super) async fn blob_size(&self, digest: &Digest) -> Result<Served<u64>, SourceError> {
        let about = About::blob(Method::HEAD, digest, ByteRange::Full, self.deadline);
        let asked = self.ask(about).await?;
        let status = asked.answer.status();
        if status == StatusCode::OK {
            let headers = asked.answer.response.headers();
            if is_web_page(headers) {
                return Err(invalid(&asked.what, "the answer is a web page"));
            }
            let other = content_digest(headers)
                .is_some_and(|named| named.algorithm_name() == digest.algorithm_name() && named != *digest);
            if other {
                return Err(invalid(&asked.what, "the answer is about another digest"));
            }
            if let Some(size) = content_length(headers) {
                return Ok(Served { content: size, origin: origin(headers) });
            }
        } else if !lacks_head(status) && !asked.answer.elsewhere {
            // Storage that a redirect leads to may be open for this one GET alone.
            return Err(self.failure(asked).await);
        }
        let about = About::blob(Method::GET, digest, ByteRange::Full, self.deadline);
        let asked = self.ask(about).await?;
        if asked.answer.status() != StatusCode::OK {
            return Err(self.failure(asked).await);
        }
        let headers = asked.answer.response.headers();
        match content_length(headers) {
            Some(size) => Ok(Served { content: size, origin: origin(headers) }),
            None => Err(invalid(&asked.what, "the answer does not say how long it is")),
        }
    }

    pub(super) async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Served<Blob>, SourceError> {
        let about = About::blob(Method::GET, digest, range, self.deadline);
        let asked = self.ask(about).await?;
        let headers = asked.answer.response.headers();
        let (size, sent) = match asked.answer.status() {
            // A server may ignore a range, and then sends everything.
            StatusCode::OK => (content_length(headers), None),
            StatusCode::PARTIAL_CONTENT if range != ByteRange::Full => {
                let (sent, size) = content_range(headers)
                    .filter(|(sent, size)| answers(range, sent, *size))
                    .ok_or_else(|| invalid(&asked.what, "another range was sent than was asked for"))?;
                (size, Some(sent))
            }
            _ => return Err(self.failure(asked).await),
        };
        let origin = origin(headers);
        let expected = sent.as_ref().map(|sent| sent.end - sent.start).or(size);
        let body: Body = asked.answer.response.into_body();
        let body = body::stream(asked.what, body, expected, self.client.exchange.timeouts.stall);
        Ok(Served { content: Blob { size, range: sent, body }, origin })
    }

    pub(super) async fn tags(&self, page: &TagPage) -> Result<TagList, SourceError> {
        let mut query = Vec::new();
        query.extend(page.limit.map(|limit| format!("n={limit}")));
        query.extend(page.after.as_ref().map(|after| format!("last={}", escaped(after))));
        let about = About {
            method: Method::GET,
            name: ("tags of", String::new()),
            rest: with_query("tags/list", &query),
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
            deadline: self.deadline,
        };
        let (what, headers, body) = self.small(self.ask(about).await?).await?;
        let answer: TagAnswer = serde_json::from_slice(&body)
            .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, what, error))?;
        Ok(TagList { tags: answer.tags.unwrap_or_default(), more: has_next(&headers) })
    }

    pub(super) async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        let query: Vec<_> =
            artifact_type.map(|wanted| format!("artifactType={}", escaped(wanted))).into_iter().collect();
        let accepted = HeaderValue::from_str(MediaType::OCI_INDEX.as_str()).ok();
        let about = About {
            method: Method::GET,
            name: ("referrers of", format!("@{digest}")),
            rest: with_query(&format!("referrers/{digest}"), &query),
            headers: accepted.map(|value| (ACCEPT, value)).into_iter().collect(),
            deadline: self.deadline,
        };
        let asked = self.ask(about).await?;
        if asked.answer.status() == StatusCode::NOT_FOUND {
            body::discard(asked.answer.response.into_body(), self.client.exchange.timeouts.stall).await;
            return self.tagged_referrers(digest).await;
        }
        let (what, headers, bytes) = self.small(asked).await?;
        let decoded = Manifest::new(None, bytes.clone())
            .and_then(|manifest| manifest.decode())
            .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, what.clone(), error))?;
        if !matches!(decoded, DecodedManifest::Index(_)) {
            return Err(invalid(&what, "the answer is not an index"));
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

pub(super) fn invalid(what: &str, problem: &str) -> SourceError {
    SourceError::new(SourceErrorKind::InvalidContent, format!("{what}: {problem}"))
}

/// Whether the status says that the registry does not do `HEAD` here, rather than that the content is not there.
fn lacks_head(status: StatusCode) -> bool {
    matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST)
}

/// The descriptor, unless it is of something else than was asked for.
fn described_as(at: &TagOrDigest, descriptor: Descriptor, what: &str) -> Result<Descriptor, SourceError> {
    match at {
        TagOrDigest::Digest(digest)
            if digest.algorithm_name() == descriptor.digest.algorithm_name()
                && *digest != descriptor.digest =>
        {
            Err(invalid(what, "the answer is about another digest"))
        }
        TagOrDigest::Digest(digest) => Ok(Descriptor { digest: digest.clone(), ..descriptor }),
        TagOrDigest::Tag(_) => Ok(descriptor),
    }
}

pub(super) fn escaped(value: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(value, NON_ALPHANUMERIC)
}

fn with_query(path: &str, query: &[String]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}
