//! HTTP endpoint of retention documents: `PUT`, `GET`, `HEAD` and `DELETE /kuik/v1/retention/<cluster ID>`.
//!
//! It wraps a registry, inside its access control. It also sees deletions of tags that name their cluster, and refuses
//! those of tags that another cluster has in its document.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kuik_core::{
    content::TagOrDigest,
    reference::{RepositoryName, Tag},
    retention::{
        CLUSTER_HEADER, ClusterId, InvalidClusterId, InvalidDocument, MAX_DOCUMENT_BYTES, RETENTION_PATH,
        TAG_RETAINED,
    },
};

use super::{RejectedDocument, RetentionIndex};
use crate::{
    route::{Names, Route},
    service::{ProxyBody, Refusal, insert},
};

/// Time limit for receiving a document.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves requests for retention documents, refuses to delete tags that other clusters need, and passes other requests
/// on.
#[derive(Debug, Clone)]
pub struct RetentionService<S> {
    index: RetentionIndex,
    names: Names,
    registry: S,
}

/// Layer that adds the retention endpoint to a registry.
#[derive(Debug, Clone)]
pub struct RetentionLayer {
    index: RetentionIndex,
    names: Names,
}

impl RetentionLayer {
    /// Creates a layer for the documents of `index`; the registry's repositories are named according to `names`.
    #[must_use]
    pub fn new(index: RetentionIndex, names: Names) -> Self {
        Self { index, names }
    }
}

impl<S> tower::Layer<S> for RetentionLayer {
    type Service = RetentionService<S>;

    fn layer(&self, registry: S) -> Self::Service {
        RetentionService { index: self.index.clone(), names: self.names, registry }
    }
}

impl<S, B> tower::Service<Request<B>> for RetentionService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.registry.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(cluster) = request.uri().path().strip_prefix(RETENTION_PATH) else {
            let Some(deletion) = self.deletion(&request) else {
                return Either::Left(self.registry.call(request));
            };
            let (index, waiting) = (self.index.clone(), self.registry.clone());
            // The one that is ready.
            let mut registry = std::mem::replace(&mut self.registry, waiting);
            return Either::Right(Box::pin(async move {
                match deletion {
                    Ok(deletion) => match deletion.refused(&index).await {
                        None => registry.call(request).await,
                        Some(refusal) => Ok(refusal.into_response(false)),
                    },
                    Err(error) => Ok(invalid_cluster(&error).into_response(false)),
                }
            }));
        };
        let (index, cluster) = (self.index.clone(), cluster.parse::<ClusterId>());
        Either::Right(Box::pin(async move {
            let head = request.method() == Method::HEAD;
            let answer = match cluster {
                Ok(cluster) => answer(&index, &cluster, request).await,
                Err(error) => Err(invalid_cluster(&error)),
            };
            Ok(answer.unwrap_or_else(|refused| refused.into_response(head)))
        }))
    }
}

/// Deletion of a tag by a cluster.
struct Deletion {
    cluster: ClusterId,
    repository: RepositoryName,
    tag: Tag,
}

impl<S> RetentionService<S> {
    /// Parses a request that deletes a tag and names its cluster.
    fn deletion<B>(&self, request: &Request<B>) -> Option<Result<Deletion, InvalidClusterId>> {
        let cluster = request.headers().get(CLUSTER_HEADER).filter(|_| request.method() == Method::DELETE)?;
        let cluster = match cluster.to_str().unwrap_or_default().parse::<ClusterId>() {
            Ok(cluster) => cluster,
            Err(error) => return Some(Err(error)),
        };
        match Route::parse(request.uri().path(), request.uri().query(), self.names) {
            Ok(Route::Manifest { repository, at: TagOrDigest::Tag(tag) }) => {
                Some(Ok(Deletion { cluster, repository, tag }))
            }
            _ => None,
        }
    }
}

impl Deletion {
    /// Returns why it is refused, if another cluster has the tag in its document, or may have: the documents are as they
    /// are in the store now.
    async fn refused(&self, index: &RetentionIndex) -> Option<Refusal> {
        let Self { cluster, repository, tag } = self;
        if let Err(error) = index.refresh(true).await {
            return Some(Refusal::source(&error, "MANIFEST_UNKNOWN"));
        }
        if !index.is_held_by_others(cluster, repository, tag) {
            return None;
        }
        index.metrics().kept_tags.inc();
        tracing::info!(%repository, %tag, %cluster, "keeping a tag that another cluster needs");
        let message = "another cluster has this tag in its retention document, so the tag is kept";
        Some(Refusal::new(StatusCode::CONFLICT, TAG_RETAINED, message))
    }
}

fn invalid_cluster(error: &InvalidClusterId) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", error.to_string())
}

async fn answer<B>(
    index: &RetentionIndex,
    cluster: &ClusterId,
    request: Request<B>,
) -> Result<Response<ProxyBody>, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |error| Refusal::source(&error, "MANIFEST_UNKNOWN");
    let unknown =
        || Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "this cluster has no retention document");
    match *request.method() {
        Method::HEAD => {
            let etag = index.etag(cluster).await.map_err(failed)?.ok_or_else(unknown)?;
            Ok(with_etag(StatusCode::OK, ProxyBody::empty(), &etag))
        }
        Method::GET => {
            let text = index.get(cluster).await.map_err(failed)?.ok_or_else(unknown)?;
            let etag = kuik_core::retention::etag(&text);
            let mut response = with_etag(StatusCode::OK, ProxyBody::full(text), &etag);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            Ok(response)
        }
        Method::PUT => {
            let text = receive(request).await?;
            let etag = index.put(cluster, &text).await.map_err(|error| rejected(&error))?;
            Ok(with_etag(StatusCode::NO_CONTENT, ProxyBody::empty(), &etag))
        }
        Method::DELETE => {
            index.remove(cluster).await.map_err(failed)?;
            let mut response = Response::new(ProxyBody::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        _ => {
            let message = "retention documents support GET, HEAD, PUT and DELETE";
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
                .with(header::ALLOW, "GET, HEAD, PUT, DELETE"))
        }
    }
}

fn rejected(error: &RejectedDocument) -> Refusal {
    match error {
        RejectedDocument::Store(error) => Refusal::source(error, "MANIFEST_UNKNOWN"),
        RejectedDocument::Invalid(InvalidDocument::TooLarge(_)) => too_large(),
        RejectedDocument::Invalid(_) => {
            Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", error.to_string())
        }
        RejectedDocument::TooManyClusters => {
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE", error.to_string())
        }
    }
}

fn too_large() -> Refusal {
    let message = format!("a retention document has at most {MAX_DOCUMENT_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
}

async fn receive<B>(request: Request<B>) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(request.into_body(), MAX_DOCUMENT_BYTES).collect();
    let body = tokio::time::timeout(RECEIVE_TIMEOUT, Box::pin(body)).await.map_err(|_| {
        let message = "timed out waiting for the retention document";
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "UNSUPPORTED", message)
    })?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => too_large(),
        false => {
            let message = format!("failed to receive the retention document: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
        }
    })?;
    Ok(body.to_bytes())
}

fn with_etag(status: StatusCode, body: ProxyBody, etag: &str) -> Response<ProxyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    insert(response.headers_mut(), header::ETAG, etag);
    response
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
