//! How marks are set: `GET`, `PUT` and `DELETE /kuik/v1/marks/<repository>/<tag or digest>`.
//!
//! It stands in front of a registry and behind its access control, for which `PUT` and `DELETE` are writes like any
//! others. Repositories are named as in pulls.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use kuik_core::{
    content::{ManagedStore, TagOrDigest},
    reference::RepositoryName,
};

use super::{Mark, Marks};
use crate::{
    route::{Names, Route},
    service::{ProxyBody, Refusal},
};

/// Where marks are.
const PATH: &str = "/kuik/v1/marks/";

/// A mark is smaller than this.
const MAX_BYTES: usize = 4096;

/// How long a client may take to send one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers requests about marks, and passes the others on.
#[derive(Debug, Clone)]
pub struct MarksService<S> {
    store: Arc<dyn ManagedStore>,
    names: Names,
    registry: S,
}

impl<S> MarksService<S> {
    /// Marks in `store`, whose repositories are named as `names` says, in front of `registry`.
    pub fn new(store: Arc<dyn ManagedStore>, names: Names, registry: S) -> Self {
        Self { store, names, registry }
    }
}

impl<S, B> tower::Service<Request<B>> for MarksService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
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
        let Some(name) = request.uri().path().strip_prefix(PATH) else {
            return Either::Left(self.registry.call(request));
        };
        let named = parse(name, request.uri().query(), self.names);
        let store = self.store.clone();
        Either::Right(Box::pin(async move {
            let head = request.method() == Method::HEAD;
            let answer = match named {
                Ok((repository, at)) => answer(store.as_ref(), &repository, &at, request).await,
                Err(refused) => Err(refused),
            };
            Ok(answer.unwrap_or_else(|refused| refused.into_response(head)))
        }))
    }
}

/// What is named: the route of its manifest has the same parts.
fn parse(name: &str, query: Option<&str>, names: Names) -> Result<(RepositoryName, TagOrDigest), Refusal> {
    let unknown =
        || Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "write marks/REPOSITORY/TAG or DIGEST");
    let (repository, at) = name.rsplit_once('/').ok_or_else(unknown)?;
    let path = format!("/v2/{repository}/manifests/{at}");
    match Route::parse(&path, query, names) {
        Ok(Route::Manifest { repository, at }) => Ok((repository, at)),
        Ok(_) => Err(unknown()),
        Err(error) => Err(Refusal::route(&error)),
    }
}

async fn answer<B>(
    store: &dyn ManagedStore,
    repository: &RepositoryName,
    at: &TagOrDigest,
    request: Request<B>,
) -> Result<Response<ProxyBody>, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let marks = Marks(store);
    let failed = |error| Refusal::source(&error, "MANIFEST_UNKNOWN");
    match *request.method() {
        Method::GET | Method::HEAD => match marks.get(repository, at).await.map_err(failed)? {
            Some(mark) => Ok(json(mark.to_json(), request.method() == Method::HEAD)),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "there is no such mark")),
        },
        Method::PUT => {
            let mark = read(request).await?;
            // One that says nothing is none.
            marks
                .set(repository, at, Some(mark).filter(|mark| *mark != Mark::default()))
                .await
                .map_err(failed)?;
            Ok(empty())
        }
        Method::DELETE => {
            marks.set(repository, at, None).await.map_err(failed)?;
            Ok(empty())
        }
        _ => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "marks are read, put and deleted",
        )
        .with(header::ALLOW, "GET, HEAD, PUT, DELETE")),
    }
}

async fn read<B>(request: Request<B>) -> Result<Mark, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(request.into_body(), MAX_BYTES).collect();
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "UNSUPPORTED", "the mark did not come in time");
    let body = tokio::time::timeout(PATIENCE, Box::pin(body)).await.map_err(late)?;
    let broken =
        |_| Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", "the mark is too large, or broke off");
    let body = body.map_err(broken)?.to_bytes();
    // An object: the fields in a row, which a derived struct would take too, are no mark.
    let fields = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body);
    fields.and_then(|fields| serde_json::from_value(fields.into())).map_err(|error| {
        let message = format!("no mark, which is like {{\"pinned\":true}} or {{\"expiresAt\":\"2030-01-01T00:00:00Z\"}}: {error}");
        Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    })
}

fn json(body: Bytes, head: bool) -> Response<ProxyBody> {
    let length = body.len();
    let mut response = Response::new(if head { ProxyBody::empty() } else { ProxyBody::full(body) });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn empty() -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
