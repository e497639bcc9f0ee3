//! The pull half of the OCI distribution API, over any [`ContentSource`], as a tower service.
//!
//! Every response starts within a deadline: its headers, or a refusal that lets the client retry. The service never
//! fails; its errors are responses.

mod body;
mod durations;
mod metrics;
mod refusal;
mod respond;
mod self_namespace;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use kuik_core::{
    content::{BlobLocation, ByteRange, CacheStatus, ContentSource, Digest, Freshness, SourceError, TagPage},
    reference::RepositoryName,
};

pub(crate) use self::refusal::{Refusal, insert, is_full};
pub(crate) use self::respond::DIGEST;
pub(crate) use self::{body::Account, durations::Durations};
pub use self::{body::ProxyBody, metrics::ProxyMetrics};
use self::{metrics::Outcome, respond::Answer};
use crate::route::{Names, Route};

/// Maximum number of tags that a local registry lists in one response; a link leads to the rest.
const MAX_TAGS: usize = 10_000;

/// Timeout of the lookup of a redirect location; it leaves time to serve the blob directly.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(5);

const SERVING_DIRECTLY: &str = "no redirect URL for the blob, serving it directly";

/// Options of [`ProxyService`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// How paths name repositories.
    pub names: Names,
    /// Deadline for the start of a response. 19 s: containerd times out after 30, and a client needs time to retry.
    pub deadline: Duration,
    /// Lifetime of redirect URLs for blobs, if the source can provide them; `None`, the default, disables redirects.
    pub redirects: Option<Duration>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self { names: Names::default(), deadline: Duration::from_secs(19), redirects: None }
    }
}

/// The pull half of the OCI distribution API over a source. Cheap to clone.
///
/// It accepts requests with any body, and does not read it.
#[derive(Debug, Clone)]
pub struct ProxyService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Arc<dyn ContentSource>,
    options: ProxyOptions,
    metrics: ProxyMetrics,
}

impl ProxyService {
    /// Returns a service that answers from `source`, and counts in `metrics`.
    #[must_use]
    pub fn new(source: Arc<dyn ContentSource>, options: ProxyOptions, metrics: ProxyMetrics) -> Self {
        Self { shared: Arc::new(Shared { source, options, metrics }) }
    }

    /// How paths name repositories.
    pub(crate) fn names(&self) -> Names {
        self.shared.options.names
    }

    /// Answers one request.
    pub async fn answer(&self, method: Method, uri: Uri, headers: HeaderMap) -> Response<ProxyBody> {
        self.answer_from(method, uri, headers).await.0
    }

    /// Answers one request; also returns the cache status of its content, if it has any.
    pub(crate) async fn answer_from(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
    ) -> (Response<ProxyBody>, Option<CacheStatus>) {
        self.shared.answer(&method, &uri, &headers).await
    }
}

impl<B> tower::Service<Request<B>> for ProxyService {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        let (parts, _) = request.into_parts();
        Box::pin(async move { Ok(shared.answer(&parts.method, &parts.uri, &parts.headers).await.0) })
    }
}

impl Shared {
    async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> (Response<ProxyBody>, Option<CacheStatus>) {
        let began = Instant::now();
        let head = method == Method::HEAD;
        if !head && method != Method::GET {
            return (Refusal::method().into_response(false), None);
        }
        let query = uri.query().map(|query| self_namespace::without(query, headers));
        let route = match Route::parse(uri.path(), query.as_deref(), self.options.names) {
            Ok(route) => route,
            Err(error) => return (Refusal::route(&error).into_response(head), None),
        };
        let limit = self.options.deadline;
        let (response, cache_status) =
            match tokio::time::timeout(limit, self.fetch(&route, head, uri, headers)).await {
                Ok(Ok(Answer { response, cache_status })) => (response, cache_status),
                Ok(Err(error)) => {
                    tracing::info!(%method, %uri, error = error.chain(), "request refused");
                    (Refusal::source(&error, unknown(&route)).into_response(head), None)
                }
                Err(_) => {
                    tracing::warn!(%method, %uri, ?limit, "request refused: deadline exceeded");
                    (Refusal::deadline(limit).into_response(head), None)
                }
            };
        if let Some(repository) = route.repository() {
            let outcome = cache_status.map_or(Outcome::Miss, Outcome::from);
            let account = self.metrics.count(repository.registry(), response.status(), outcome, began);
            return (response.map(|body| body.counted(account)), cache_status);
        }
        (response, cache_status)
    }

    async fn fetch(
        &self,
        route: &Route,
        head: bool,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Answer, SourceError> {
        match route {
            Route::Version => Ok(respond::version()),
            Route::Manifest { repository, at } => {
                let served = self.source.manifest(repository, at, freshness(headers)).await?;
                Ok(respond::manifest(served, head, headers))
            }
            Route::Blob { repository, digest } if head => {
                let served = self.source.blob_size(repository, digest).await?;
                Ok(respond::blob_size(&served, digest, headers))
            }
            Route::Blob { repository, digest } => {
                if headers.contains_key(header::IF_NONE_MATCH) {
                    let size = self.source.blob_size(repository, digest).await?;
                    if let Some(answer) = respond::unchanged(digest, size.cache_status, headers) {
                        return Ok(answer);
                    }
                }
                if let Some(location) = self.redirect_location(repository, digest).await {
                    return Ok(respond::redirect(&location, digest));
                }
                let served = self.source.blob(repository, digest, byte_range(headers, digest)).await?;
                Ok(respond::blob(served, digest))
            }
            Route::Tags { repository, page } => {
                let page = self.bounded(page);
                let list = self.source.tags(repository, &page).await?;
                Ok(respond::tags(repository, uri, page.limit, &list))
            }
            Route::Referrers { repository, digest, artifact_type } => {
                let found = self.source.referrers(repository, digest, artifact_type.as_deref()).await?;
                Ok(respond::referrers(found))
            }
        }
    }

    /// Returns the redirect location of a blob. On any failure, the blob is served directly.
    async fn redirect_location(&self, repository: &RepositoryName, digest: &Digest) -> Option<BlobLocation> {
        let found = self.source.blob_location(repository, digest, self.options.redirects?);
        match tokio::time::timeout(REDIRECT_TIMEOUT, found).await {
            Ok(Ok(location)) => location,
            Ok(Err(error)) => {
                tracing::warn!(error = error.chain(), "{SERVING_DIRECTLY}");
                None
            }
            Err(_) => {
                tracing::warn!(error = "timed out", "{SERVING_DIRECTLY}");
                None
            }
        }
    }
}

impl Shared {
    /// Bounds the page to a reasonable number of tags. A cache of other registries passes the page on unchanged: some
    /// refuse a number that they did not choose.
    fn bounded(&self, page: &TagPage) -> TagPage {
        let limit = match self.options.names {
            Names::Local => Some(page.limit.map_or(MAX_TAGS, |limit| limit.min(MAX_TAGS))),
            Names::Upstream(_) => page.limit,
        };
        TagPage { limit, after: page.after.clone() }
    }
}

/// Error code of the specification for missing content.
fn unknown(route: &Route) -> &'static str {
    match route {
        Route::Blob { .. } => "BLOB_UNKNOWN",
        Route::Manifest { .. } => "MANIFEST_UNKNOWN",
        Route::Version | Route::Tags { .. } | Route::Referrers { .. } => "NAME_UNKNOWN",
    }
}

/// RFC 9111, section 5.2.1: `no-cache` requests revalidation at the origin, `only-if-cached` a response without a
/// request to it.
fn freshness(headers: &HeaderMap) -> Freshness {
    let has = |name: &str| {
        headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|directive| directive.trim().eq_ignore_ascii_case(name))
    };
    if has("only-if-cached") {
        Freshness::OnlyIfCached
    } else if has("no-cache") {
        Freshness::Revalidate
    } else {
        Freshness::Cached
    }
}

/// Returns the requested range. RFC 9110, section 13.1.5: if an `If-Range` does not match this content, all of it.
fn byte_range(headers: &HeaderMap, digest: &Digest) -> ByteRange {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(header::RANGE), text(header::IF_RANGE)) {
        (None, _) => ByteRange::Full,
        (Some(range), None) => ByteRange::from_header(range),
        // Only a strong entity tag counts: there is no date to compare.
        (Some(range), Some(tag)) => {
            match tag.trim().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
                Some(tag) if tag == digest.as_str() => ByteRange::from_header(range),
                _ => ByteRange::Full,
            }
        }
    }
}
