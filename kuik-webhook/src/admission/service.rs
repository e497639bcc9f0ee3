//! The webhook as a tower service: from an HTTP request to a review response.
//!
//! A request that is not a review gets an HTTP error that states what was expected. An object of an unexpected kind is
//! allowed unchanged.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;

use super::{
    body::{BodyReader, Rejection},
    cached_image::patch_cached_image,
    filter::SkipReason,
    options::AdmissionOptions,
    patch::Patch,
    pod::{PodChange, patch_pod},
    response,
    review::{self, Operation},
};

/// Responds to admission reviews. Cheap to clone.
///
/// Accepts any request body; the body of a response is in memory. To mount it in a server with a body type of its own,
/// convert the response with `tower::ServiceExt::map_response`.
///
/// ```
/// use kuik_core::{
///     reference::ProxyAuthority,
///     rewrite::{Rewriter, StandardPolicy},
/// };
/// use kuik_webhook::admission::{AdmissionOptions, AdmissionService};
///
/// let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
/// let options = AdmissionOptions::new(rewriter).with_ignored_namespaces(["kuik-system"]);
/// let service = AdmissionService::new(options);
/// # let _ = service;
/// ```
#[derive(Debug, Clone)]
pub struct AdmissionService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: AdmissionOptions,
    body_reader: BodyReader,
}

/// The resource that is reviewed at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Pod,
    CachedImage,
}

impl AdmissionService {
    /// Creates the service.
    #[must_use]
    pub fn new(options: AdmissionOptions) -> Self {
        Self { shared: Arc::new(Shared { options, body_reader: BodyReader::default() }) }
    }

    /// Responds to a review whose body is complete.
    #[must_use]
    pub fn review(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let response = match self.shared.resource(path) {
            Ok(resource) => self.shared.review(resource, body),
            Err(rejection) => self.shared.reject(&rejection),
        };
        self.shared.options.metrics.responded(started.elapsed());
        response
    }
}

impl<B> tower::Service<Request<B>> for AdmissionService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let received = match service.shared.resource(head.uri.path()) {
                Ok(_) => service.shared.body_reader.read(&head, body).await,
                Err(rejection) => Err(rejection),
            };
            Ok(match received {
                Ok(body) => service.review(head.uri.path(), &body),
                Err(rejection) => service.shared.reject(&rejection),
            })
        })
    }
}

impl Resource {
    const fn as_label(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::CachedImage => "cachedimage",
        }
    }

    /// Returns true if `kind` is the kind of this resource.
    fn is_of(self, kind: &review::Kind<'_>) -> bool {
        let expected = match self {
            Self::Pod => ("", "v1", "Pod"),
            Self::CachedImage => (kuik_core::crd::GROUP, kuik_core::crd::VERSION, "CachedImage"),
        };
        (&*kind.group, &*kind.version, &*kind.kind) == expected
    }
}

impl Shared {
    fn resource(&self, path: &str) -> Result<Resource, Rejection> {
        let AdmissionOptions { pod_path, cached_image_path, .. } = &self.options;
        match path {
            path if path == pod_path => Ok(Resource::Pod),
            path if path == cached_image_path => Ok(Resource::CachedImage),
            _ => Err(Rejection {
                status: StatusCode::NOT_FOUND,
                reason: "path",
                message: format!("not found: reviews are served at {pod_path} and {cached_image_path}"),
            }),
        }
    }

    fn review(&self, resource: Resource, body: &[u8]) -> Response<Full<Bytes>> {
        let request = match review::Request::parse(body) {
            Ok(request) => request,
            Err(error) => {
                return self.reject(&Rejection {
                    status: StatusCode::BAD_REQUEST,
                    reason: "malformed",
                    message: error.to_string(),
                });
            }
        };
        if !resource.is_of(&request.kind) {
            let kind = &request.kind;
            let (group, version, kind) = (&kind.group, &kind.version, &kind.kind);
            let path = resource.as_label();
            tracing::debug!(%group, %version, %kind, path, "unexpected kind, check the webhook configuration");
            return self.skip(resource, &request, SkipReason::OtherKind);
        }
        match resource {
            Resource::Pod => self.pod(&request),
            Resource::CachedImage => self.cached_image(&request),
        }
    }

    fn pod(&self, request: &review::Request<'_>) -> Response<Full<Bytes>> {
        let (pod, old) = (&request.object, &request.old_object);
        let change = match (request.operation, &*request.sub_resource) {
            (Operation::Create, "") => PodChange::Create,
            (Operation::Update, "") => PodChange::Update { old },
            (Operation::Update, "ephemeralcontainers") => PodChange::EphemeralContainers { old },
            (Operation::Create | Operation::Update, _) => {
                return self.skip(Resource::Pod, request, SkipReason::Subresource);
            }
            (Operation::Other, _) => return self.skip(Resource::Pod, request, SkipReason::Operation),
        };
        let Some(metadata) = pod.get("metadata").filter(|metadata| metadata.is_object()) else {
            return self.skip(Resource::Pod, request, SkipReason::Malformed);
        };
        if let Some(reason) = self.options.filter.skips(request, metadata) {
            return self.skip(Resource::Pod, request, reason);
        }
        let changed = patch_pod(pod, &request.namespace, change, &self.options.rewriter);
        let (namespace, name) = (&request.namespace, &request.name);
        for image in &changed.images {
            if let Some(reason) = &image.kept {
                tracing::debug!(%namespace, %name, field = image.pointer, %reason, "image not rewritten");
            }
            if request.dry_run != Some(true) {
                self.options.metrics.image(image.decision, image.reason);
            }
        }
        self.allow(Resource::Pod, request, &changed.patch)
    }

    fn cached_image(&self, request: &review::Request<'_>) -> Response<Full<Bytes>> {
        let resource = Resource::CachedImage;
        if request.operation == Operation::Other {
            return self.skip(resource, request, SkipReason::Operation);
        }
        if !request.sub_resource.is_empty() {
            return self.skip(resource, request, SkipReason::Subresource);
        }
        match patch_cached_image(&request.object, &request.old_object) {
            Ok(patch) => self.allow(resource, request, &patch),
            Err(denial) => {
                tracing::debug!(name = %request.name, %denial, "CachedImage denied");
                self.options.metrics.reviewed(resource.as_label(), "denied", "invalid_image");
                response::deny(&request.uid, &denial.to_string())
            }
        }
    }

    fn allow(
        &self,
        resource: Resource,
        request: &review::Request<'_>,
        patch: &Patch,
    ) -> Response<Full<Bytes>> {
        let outcome = if patch.is_empty() { "unchanged" } else { "patched" };
        self.options.metrics.reviewed(resource.as_label(), outcome, "");
        response::allow(&request.uid, patch)
    }

    fn skip(
        &self,
        resource: Resource,
        request: &review::Request<'_>,
        reason: SkipReason,
    ) -> Response<Full<Bytes>> {
        self.options.metrics.reviewed(resource.as_label(), "skipped", reason.as_label());
        response::allow(&request.uid, &Patch::default())
    }

    fn reject(&self, Rejection { status, reason, message }: &Rejection) -> Response<Full<Bytes>> {
        tracing::debug!(%status, %message, "request is not an admission review");
        self.options.metrics.reviewed("none", "rejected", reason);
        let mut response = response::error(*status, message);
        if *status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
