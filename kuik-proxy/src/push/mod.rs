//! The push half of the OCI distribution API over any [`ManagedStore`]: with it, a store is a complete registry.
//!
//! [`RegistryService`] takes every request. Pulls it leaves to a [`ProxyService`], over the store itself or over a
//! cache that fills it; what changes the store is done here. Invariants: nothing is published that was not verified;
//! every body is bounded in size, in how long its client may be silent, and in how slow it may be; what
//! is refused says why in the specification's words. Who may push is decided before: see [`crate::access`].

mod content_range;
mod manifest;
mod metrics;
mod operation;
mod pace;
mod receive;
mod refusal;
mod respond;
mod upload;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, request::Parts};
use http_body::Body;
use http_body_util::BodyExt as _;
use kuik_core::content::ManagedStore;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::metrics::RegistryMetrics;
use self::{
    operation::{Operation, Pull},
    receive::{BoxError, Incoming},
};
use crate::{
    access::MayPush,
    gc::Leased,
    pull_through::PullThrough,
    service::{ProxyBody, ProxyService, Refusal},
};

/// How a [`RegistryService`] behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// What may refer to content that is not there. Indexes.
    pub sparse: Sparse,
    /// How many requests may be sending a blob at one time; others are told to try again. 64.
    pub max_uploads: usize,
    /// How long a client that sends a body may be silent. 30 s.
    pub body_idle: Duration,
    /// With how many bytes a second a body has to come at least; what came of a slower blob is kept, and its client may
    /// go on with it. 1024; 0 is any pace.
    pub min_upload_rate: u64,
    /// Over how long that is measured: nobody is too slow before it has passed. 30 s.
    pub rate_window: Duration,
    /// A blob that is larger is refused. 128 GiB.
    pub max_blob_bytes: u64,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            sparse: Sparse::Indexes,
            max_uploads: 64,
            body_idle: Duration::from_secs(30),
            min_upload_rate: 1024,
            rate_window: Duration::from_secs(30),
            max_blob_bytes: 128 << 30,
        }
    }
}

/// What may be pushed before all that it refers to, or without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sparse {
    /// Nothing.
    Nothing,
    /// Indexes, which may lack manifests: an image is then kept with the platforms that somebody needs, under the
    /// digest that it has everywhere.
    Indexes,
    /// Images too, which may lack blobs. Whoever pulls such an image fails half-way, unless somebody fetches what is
    /// missing.
    Images,
}

/// A complete registry over a store, as a tower service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryService {
    pull: ProxyService,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Leased<Arc<dyn ManagedStore>>,
    cache: Option<PullThrough>,
    options: RegistryOptions,
    metrics: RegistryMetrics,
    places: Arc<Semaphore>,
}

impl RegistryService {
    /// A registry that keeps what is pushed in `store`, under the leases of its collector, and leaves pulls to `pull`, whose names of repositories it
    /// takes over.
    ///
    /// `cache` is the cache in front of `store` that `pull` reads through, where there is one: it is told what
    /// changes.
    #[must_use]
    pub fn new(
        store: Leased<Arc<dyn ManagedStore>>,
        pull: ProxyService,
        cache: Option<PullThrough>,
        options: RegistryOptions,
        metrics: RegistryMetrics,
    ) -> Self {
        let places = Arc::new(Semaphore::new(options.max_uploads.min(Semaphore::MAX_PERMITS)));
        Self { pull, shared: Arc::new(Shared { store, cache, options, metrics, places }) }
    }

    async fn answer<B>(self, request: Request<B>) -> Response<ProxyBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (Parts { method, uri, headers, extensions, .. }, body) = request.into_parts();
        let may_push = extensions.get::<MayPush>().is_some();
        let names = self.pull.names();
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        let (operation, response, origin) = match Operation::parse(&method, uri.path(), uri.query(), names) {
            Ok(operation @ Operation::Pull(_)) => {
                let (response, origin) = self.pull.answer_from(method, uri, headers).await;
                // Who asks for a blob before pushing it is to push it where upstream cannot be asked: there may be none.
                let of_blob = matches!(operation, Operation::Pull(Pull::Blob));
                let unknown = may_push && of_blob && response.status() == StatusCode::SERVICE_UNAVAILABLE;
                let response = if unknown { refusal::unknown().into_response(true) } else { response };
                (operation.name(), response, origin)
            }
            parsed => {
                let body = body.map_err(Into::into).boxed_unsync();
                let options = &self.shared.options;
                let mut body = Incoming::new(body, &headers, options, metrics.received.clone());
                let name = parsed.as_ref().map_or("other", Operation::name);
                let done = match parsed {
                    Ok(operation) => self.shared.change(operation, &uri, &headers, &mut body).await,
                    Err(error) => Err(refusal::no_operation(&error)),
                };
                (name, answered(done, &method, &uri, &mut body).await, None)
            }
        };
        let account = metrics.count(operation, response.status(), origin, began);
        response.map(|body| body.counted(account))
    }
}

/// The response, or the refusal as one, once its client is ready to read it.
async fn answered(
    done: Result<Response<ProxyBody>, Refusal>,
    method: &Method,
    uri: &Uri,
    body: &mut Incoming,
) -> Response<ProxyBody> {
    match done {
        Ok(response) => response,
        Err(refused) => {
            if refused.status().is_server_error() {
                tracing::warn!(%method, path = uri.path(), ?refused, "a request failed");
            } else {
                tracing::info!(%method, path = uri.path(), ?refused, "a request is refused");
            }
            body.discard().await;
            refused.into_response(method == Method::HEAD)
        }
    }
}

impl<B> tower::Service<Request<B>> for RegistryService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl Shared {
    /// Does what changes the store, or asks about an upload.
    async fn change(
        &self,
        operation: Operation,
        uri: &Uri,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let base = base(uri.path());
        match operation {
            Operation::StartUpload { repository, how } => {
                self.start_upload(base, &repository, how, body).await
            }
            Operation::Append(upload) => self.append(base, &upload, headers, body).await,
            Operation::Finish { upload, digest } => self.finish(base, &upload, &digest, headers, body).await,
            Operation::Status(upload) => self.upload_status(base, &upload).await,
            Operation::Cancel(upload) => self.cancel(&upload).await,
            Operation::PutManifest { repository, at, tags } => {
                self.put_manifest(base, &repository, &at, tags, headers, body).await
            }
            Operation::DeleteManifest { repository, at } => self.delete_manifest(&repository, &at).await,
            Operation::DeleteBlob { repository, digest } => self.delete_blob(&repository, &digest).await,
            Operation::Pull(_) => Err(Refusal::route(&crate::route::RouteError::NoEndpoint)),
        }
    }

    /// A place among the uploads that are running, until it is dropped.
    fn place(&self) -> Result<Place, Refusal> {
        let permit = self.places.clone().try_acquire_owned();
        let permit = permit.map_err(|_| refusal::too_many_uploads(self.options.max_uploads))?;
        let uploads = self.metrics.uploads.clone();
        uploads.inc();
        Ok(Place { _permit: permit, uploads })
    }
}

/// One of the uploads that may run.
struct Place {
    _permit: OwnedSemaphorePermit,
    uploads: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.uploads.dec();
    }
}

/// The part of a path that names the repository, as the client wrote it: locations are below it.
fn base(path: &str) -> &str {
    let end = path.rfind("/blobs/").into_iter().chain(path.rfind("/manifests/")).max();
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn locations_are_below_the_name_that_the_client_wrote() {
        for (path, expected) in [
            ("/v2/a/b/blobs/uploads/", "/v2/a/b"),
            ("/v2/a/blobs/uploads", "/v2/a"),
            ("/v2/a/blobs/blobs/uploads/x", "/v2/a/blobs"),
            ("/v2/manifests/blobs/x/manifests/1", "/v2/manifests/blobs/x"),
            ("/v2/registry__5000/app/manifests/1", "/v2/registry__5000/app"),
        ] {
            assert_eq!(base(path), expected);
        }
    }
}
