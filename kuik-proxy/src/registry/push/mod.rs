//! The push half of the OCI distribution API over any [`RegistryStore`]: it makes a store a complete registry.
//!
//! [`RegistryService`] accepts every request. Pulls go to a [`ProxyService`], over the store itself or over a cache
//! that fills it; this service handles everything that changes the store. Invariants: nothing unverified is
//! published; every body is bounded in size, in idle time and in minimum rate; refusals use the specification's error
//! codes. Access control comes before: see [`crate::registry::access`].

mod content_range;
mod manifest;
mod metrics;
mod min_rate;
mod operation;
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
use kuik_core::content::RegistryStore;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::metrics::RegistryMetrics;
use self::{
    operation::{Operation, Pull},
    receive::{BoxError, Incoming},
};
use crate::{
    maintenance::gc::LeasedStore,
    pull_through::PullThrough,
    registry::access::MayPush,
    service::{ProxyBody, ProxyService, Refusal},
};

/// Options of [`RegistryService`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Which manifests may reference missing content. Indexes.
    pub sparse: Sparse,
    /// Maximum number of concurrent blob uploads; further ones are refused with a retry hint. 64.
    pub max_uploads: usize,
    /// Idle timeout of a request body. 30 s.
    pub body_idle: Duration,
    /// Minimum rate of a body in bytes a second; the received part of a slower blob is stored, and its client may
    /// resume it. 1024; 0 is no minimum.
    pub min_upload_rate: u64,
    /// Window over which the rate is measured: no body is too slow before it has passed. 30 s.
    pub rate_window: Duration,
    /// Larger blobs are refused. 128 GiB.
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

/// Which manifests may be pushed before, or without, the content they reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sparse {
    /// None.
    Nothing,
    /// Indexes, which may lack manifests: an image is then stored with the platforms in use, under its original
    /// digest.
    Indexes,
    /// Images too, which may lack blobs. Pulls of such an image fail half-way, unless the missing blobs are fetched
    /// in time.
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
    store: LeasedStore<Arc<dyn RegistryStore>>,
    cache: Option<PullThrough>,
    options: RegistryOptions,
    metrics: RegistryMetrics,
    upload_slots: Arc<Semaphore>,
}

impl RegistryService {
    /// Returns a registry that stores pushes in `store`, under the leases of its collector, and passes pulls to
    /// `pull`, whose repository naming it uses.
    ///
    /// `cache` is the cache in front of `store` that `pull` reads through, if there is one: changes invalidate it.
    #[must_use]
    pub fn new(
        store: LeasedStore<Arc<dyn RegistryStore>>,
        pull: ProxyService,
        cache: Option<PullThrough>,
        options: RegistryOptions,
        metrics: RegistryMetrics,
    ) -> Self {
        let upload_slots = Arc::new(Semaphore::new(options.max_uploads.min(Semaphore::MAX_PERMITS)));
        Self { pull, shared: Arc::new(Shared { store, cache, options, metrics, upload_slots }) }
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
        let (operation, response, cache_status) =
            match Operation::parse(&method, uri.path(), uri.query(), names) {
                Ok(operation @ Operation::Pull(_)) => {
                    let (response, cache_status) = self.pull.answer_from(method, uri, headers).await;
                    // A client that checks for a blob before pushing it must push it if upstream is unavailable: there
                    // may be none.
                    let of_blob = matches!(operation, Operation::Pull(Pull::Blob));
                    let unknown = may_push && of_blob && response.status() == StatusCode::SERVICE_UNAVAILABLE;
                    let response = if unknown { refusal::unknown().into_response(true) } else { response };
                    (operation.name(), response, cache_status)
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
        let account = metrics.count(operation, response.status(), cache_status, began);
        response.map(|body| body.counted(account))
    }
}

/// Returns the response, or the refusal as a response, once its client is ready to read it.
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
                tracing::warn!(%method, path = uri.path(), ?refused, "request failed");
            } else {
                tracing::info!(%method, path = uri.path(), ?refused, "request refused");
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
    /// Executes an operation that changes the store or queries an upload.
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

    /// Takes an upload slot; it is free again when dropped.
    fn upload_slot(&self) -> Result<UploadSlot, Refusal> {
        let permit = self.upload_slots.clone().try_acquire_owned();
        let permit = permit.map_err(|_| refusal::too_many_uploads(self.options.max_uploads))?;
        let uploads = self.metrics.uploads.clone();
        uploads.inc();
        Ok(UploadSlot { _permit: permit, uploads })
    }
}

/// A slot for one running upload.
struct UploadSlot {
    _permit: OwnedSemaphorePermit,
    uploads: Gauge,
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.uploads.dec();
    }
}

/// Returns the part of a path that names the repository, as the client wrote it: `Location` headers are relative to
/// it.
fn base(path: &str) -> &str {
    let end = path.rfind("/blobs/").into_iter().chain(path.rfind("/manifests/")).max();
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn locations_use_the_repository_name_of_the_request() {
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
