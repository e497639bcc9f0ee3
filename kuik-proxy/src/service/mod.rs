//! The pull half of the OCI distribution API, over any [`ContentSource`], as a tower service.
//!
//! Every answer comes within a deadline: its headers, or a refusal that lets the client try again. The service
//! never fails; its errors are responses.

mod body;
mod durations;
mod metrics;
mod namesake;
mod refusal;
mod respond;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use kuik_core::{
    content::{BlobLocation, ByteRange, ContentSource, Digest, Freshness, Origin, SourceError, TagPage},
    reference::RepositoryName,
};

pub(crate) use self::refusal::{Refusal, insert, is_full};
pub(crate) use self::respond::DIGEST;
pub(crate) use self::{body::Account, durations::Durations};
pub use self::{body::ProxyBody, metrics::ProxyMetrics};
use self::{metrics::Outcome, respond::Answer};
use crate::route::{Names, Route};

/// How many tags of its own a registry lists in one answer; a link leads to the rest.
const MOST_TAGS: usize = 10_000;

/// How long it may take to learn where else a blob is, so that there is time to serve it after all.
const ELSEWHERE: Duration = Duration::from_secs(5);

const FROM_HERE: &str = "it is not known where else a blob is to be had; it is served from here";

/// How a [`ProxyService`] behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// How paths name repositories.
    pub names: Names,
    /// Within what time a response begins, or is refused. 19 s: containerd gives up after 30, and a client that
    /// tries again needs time for that.
    pub deadline: Duration,
    /// How long the addresses are good for that clients are sent to for blobs, where the source can say where a blob
    /// is to be had; `None`, as it is unless said otherwise, sends nobody away.
    pub redirects: Option<Duration>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self { names: Names::default(), deadline: Duration::from_secs(19), redirects: None }
    }
}

/// The pull half of the OCI distribution API over a source. Cheap to clone.
///
/// It takes requests with any body, and does not read it.
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
    /// A service that answers from `source`, and counts in `metrics`.
    #[must_use]
    pub fn new(source: Arc<dyn ContentSource>, options: ProxyOptions, metrics: ProxyMetrics) -> Self {
        Self { shared: Arc::new(Shared { source, options, metrics }) }
    }

    /// How it reads the names of repositories.
    pub(crate) fn names(&self) -> Names {
        self.shared.options.names
    }

    /// Answers one request.
    pub async fn answer(&self, method: Method, uri: Uri, headers: HeaderMap) -> Response<ProxyBody> {
        self.answer_from(method, uri, headers).await.0
    }

    /// Answers one request, and says where the content of the answer came from, where it has some.
    pub(crate) async fn answer_from(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
    ) -> (Response<ProxyBody>, Option<Origin>) {
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
    ) -> (Response<ProxyBody>, Option<Origin>) {
        let began = Instant::now();
        let head = method == Method::HEAD;
        if !head && method != Method::GET {
            return (Refusal::method().into_response(false), None);
        }
        let query = uri.query().map(|query| namesake::without(query, headers));
        let route = match Route::parse(uri.path(), query.as_deref(), self.options.names) {
            Ok(route) => route,
            Err(error) => return (Refusal::route(&error).into_response(head), None),
        };
        let limit = self.options.deadline;
        let (response, origin) = match tokio::time::timeout(limit, self.fetch(&route, head, uri, headers))
            .await
        {
            Ok(Ok(Answer { response, origin })) => (response, origin),
            Ok(Err(error)) => {
                tracing::info!(%method, %uri, error = error.chain(), "a request is refused");
                (Refusal::source(&error, unknown(&route)).into_response(head), None)
            }
            Err(_) => {
                tracing::warn!(%method, %uri, ?limit, "a request is refused: there was no answer in time");
                (Refusal::deadline(limit).into_response(head), None)
            }
        };
        if let Some(repository) = route.repository() {
            let outcome = origin.map_or(Outcome::Miss, Outcome::from);
            let account = self.metrics.count(repository.registry(), response.status(), outcome, began);
            return (response.map(|body| body.counted(account)), origin);
        }
        (response, origin)
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
                    if let Some(answer) = respond::unchanged(digest, size.origin, headers) {
                        return Ok(answer);
                    }
                }
                if let Some(location) = self.elsewhere(repository, digest).await {
                    return Ok(respond::elsewhere(&location, digest));
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

    /// Where the client is sent for a blob. Whatever speaks against it, the bytes can be served instead.
    async fn elsewhere(&self, repository: &RepositoryName, digest: &Digest) -> Option<BlobLocation> {
        let found = self.source.blob_location(repository, digest, self.options.redirects?);
        match tokio::time::timeout(ELSEWHERE, found).await {
            Ok(Ok(location)) => location,
            Ok(Err(error)) => {
                tracing::warn!(error = error.chain(), "{FROM_HERE}");
                None
            }
            Err(_) => {
                tracing::warn!(error = "there was no answer in time", "{FROM_HERE}");
                None
            }
        }
    }
}

impl Shared {
    /// The page, of so many tags that an answer is no burden. What lists the tags of other registries asks them as it
    /// was asked: some refuse a number that they did not choose.
    fn bounded(&self, page: &TagPage) -> TagPage {
        let limit = match self.options.names {
            Names::Local => Some(page.limit.map_or(MOST_TAGS, |limit| limit.min(MOST_TAGS))),
            Names::Upstream(_) => page.limit,
        };
        TagPage { limit, after: page.after.clone() }
    }
}

/// Which of the specification's codes says that a thing does not exist.
fn unknown(route: &Route) -> &'static str {
    match route {
        Route::Blob { .. } => "BLOB_UNKNOWN",
        Route::Manifest { .. } => "MANIFEST_UNKNOWN",
        Route::Version | Route::Tags { .. } | Route::Referrers { .. } => "NAME_UNKNOWN",
    }
}

/// RFC 9111, section 5.2.1.4: `no-cache` asks for an answer that the origin has confirmed.
fn freshness(headers: &HeaderMap) -> Freshness {
    let no_cache = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"));
    if no_cache { Freshness::Revalidate } else { Freshness::Cached }
}

/// The range that is asked for. RFC 9110, section 13.1.5: with an `If-Range` that is not about this content, all of it.
fn byte_range(headers: &HeaderMap, digest: &Digest) -> ByteRange {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(header::RANGE), text(header::IF_RANGE)) {
        (None, _) => ByteRange::Full,
        (Some(range), None) => ByteRange::from_header(range),
        // Only a strong entity tag will do: there is no date that could be compared.
        (Some(range), Some(tag)) => {
            match tag.trim().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
                Some(tag) if tag == digest.as_str() => ByteRange::from_header(range),
                _ => ByteRange::Full,
            }
        }
    }
}
