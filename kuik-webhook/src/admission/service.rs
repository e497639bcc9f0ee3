//! The webhook as a tower service: a request in, a review answered.
//!
//! What is no review is an HTTP error that says what was expected. A webhook that does not know what it is asked about has
//! nothing against it.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
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
use kube_core::Selector;
use kuik_core::{reference::ProxyAuthority, rewrite::RewritePolicy};

use super::{
    answer,
    cached_image::patch_cached_image,
    filter::{IgnoredNamespaces, LeftAlone, PodFilter},
    intake::{Intake, Rejection},
    metrics::AdmissionMetrics,
    patch::Patch,
    pod::{PodChange, patch_pod},
    review::{self, Operation},
};

/// Where reviews of pods are answered.
pub const POD_PATH: &str = "/mutate-core-v1-pod";

/// Where reviews of CachedImages are answered.
pub const CACHED_IMAGE_PATH: &str = "/mutate-kuik-enix-io-v1alpha1-cachedimage";

/// What reviews are answered by: the policy, the proxy that it leads to, and whose pods are left alone.
#[derive(Clone)]
pub struct Admission {
    policy: Arc<dyn RewritePolicy>,
    proxy: ProxyAuthority,
    filter: PodFilter,
}

/// Answers admission reviews. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use kuik_core::{reference::ProxyAuthority, rewrite::StandardPolicy};
/// use kuik_webhook::admission::{Admission, AdmissionMetrics, AdmissionService, IgnoredNamespaces};
///
/// let proxy = ProxyAuthority::localhost(7439);
/// let policy = Arc::new(StandardPolicy::new(proxy.clone()));
/// let ignored = IgnoredNamespaces::new(["kuik-system".to_owned()]);
/// let service = AdmissionService::new(Admission::new(policy, proxy, ignored), AdmissionMetrics::default());
/// # let _ = service;
/// ```
#[derive(Debug, Clone)]
pub struct AdmissionService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    admission: Admission,
    metrics: AdmissionMetrics,
    intake: Intake,
}

/// What a path answers reviews of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Pod,
    CachedImage,
}

impl Admission {
    /// Pods outside the `ignored` namespaces get what `policy` decides, which leads to `proxy`.
    #[must_use]
    pub fn new(policy: Arc<dyn RewritePolicy>, proxy: ProxyAuthority, ignored: IgnoredNamespaces) -> Self {
        Self { policy, proxy, filter: PodFilter { ignored, ..PodFilter::default() } }
    }

    /// The same, for the pods that `selector` has alone: the `objectSelector` of the webhook's configuration again.
    #[must_use]
    pub fn selecting(mut self, selector: Selector) -> Self {
        self.filter.selector = selector;
        self
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("proxy", &self.proxy)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl AdmissionService {
    /// Answers by `admission`, and counts in `metrics`.
    #[must_use]
    pub fn new(admission: Admission, metrics: AdmissionMetrics) -> Self {
        Self { shared: Arc::new(Shared { admission, metrics, intake: Intake::default() }) }
    }

    /// The answer to a review whose body is there already.
    #[must_use]
    pub fn answer(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let response = match Resource::at(path) {
            Ok(resource) => self.shared.answer(resource, body),
            Err(rejection) => self.shared.reject(&rejection),
        };
        self.shared.metrics.answered(started.elapsed());
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
            let received = match Resource::at(head.uri.path()) {
                Ok(_) => service.shared.intake.receive(&head, body).await,
                Err(rejection) => Err(rejection),
            };
            Ok(match received {
                Ok(body) => service.answer(head.uri.path(), &body),
                Err(rejection) => service.shared.reject(&rejection),
            })
        })
    }
}

impl Resource {
    fn at(path: &str) -> Result<Self, Rejection> {
        match path {
            POD_PATH => Ok(Self::Pod),
            CACHED_IMAGE_PATH => Ok(Self::CachedImage),
            _ => Err(Rejection {
                status: StatusCode::NOT_FOUND,
                reason: "path",
                message: format!("reviews are answered at {POD_PATH} and {CACHED_IMAGE_PATH}"),
            }),
        }
    }

    const fn as_label(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::CachedImage => "cachedimage",
        }
    }

    /// Whether a review is about this resource.
    fn is_of(self, kind: &review::Kind<'_>) -> bool {
        let expected = match self {
            Self::Pod => ("", "v1", "Pod"),
            Self::CachedImage => (kuik_core::crd::GROUP, kuik_core::crd::VERSION, "CachedImage"),
        };
        (&*kind.group, &*kind.version, &*kind.kind) == expected
    }
}

impl Shared {
    fn answer(&self, resource: Resource, body: &[u8]) -> Response<Full<Bytes>> {
        let request = match review::Request::read(body) {
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
            tracing::debug!(%group, %version, %kind, path = resource.as_label(), "the webhook's configuration sends what is not of its kind");
            return self.leave_alone(resource, &request, LeftAlone::OtherKind);
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
            (Operation::Update, "ephemeralcontainers") => PodChange::Debug { old },
            (Operation::Create | Operation::Update, _) => {
                return self.leave_alone(Resource::Pod, request, LeftAlone::Subresource);
            }
            (Operation::Other, _) => return self.leave_alone(Resource::Pod, request, LeftAlone::Operation),
        };
        let Some(metadata) = pod.get("metadata").filter(|metadata| metadata.is_object()) else {
            return self.leave_alone(Resource::Pod, request, LeftAlone::Malformed);
        };
        let Admission { policy, proxy, filter } = &self.admission;
        if let Some(why) = filter.keep_out(request, metadata) {
            return self.leave_alone(Resource::Pod, request, why);
        }
        let changed = patch_pod(pod, change, policy.as_ref(), proxy);
        if request.dry_run != Some(true) {
            for image in &changed.images {
                self.metrics.image(image.decision, image.reason);
            }
        }
        self.allow(Resource::Pod, request, &changed.patch)
    }

    fn cached_image(&self, request: &review::Request<'_>) -> Response<Full<Bytes>> {
        let resource = Resource::CachedImage;
        if request.operation == Operation::Other {
            return self.leave_alone(resource, request, LeftAlone::Operation);
        }
        if !request.sub_resource.is_empty() {
            return self.leave_alone(resource, request, LeftAlone::Subresource);
        }
        match patch_cached_image(&request.object, &request.old_object) {
            Ok(patch) => self.allow(resource, request, &patch),
            Err(refusal) => {
                tracing::debug!(name = %request.name, %refusal, "a CachedImage is refused");
                self.metrics.reviewed(resource.as_label(), "refused", "invalid_image");
                answer::refused(&request.uid, &refusal.to_string())
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
        self.metrics.reviewed(resource.as_label(), outcome, "");
        answer::allowed(&request.uid, patch)
    }

    fn leave_alone(
        &self,
        resource: Resource,
        request: &review::Request<'_>,
        why: LeftAlone,
    ) -> Response<Full<Bytes>> {
        self.metrics.reviewed(resource.as_label(), "left_alone", why.as_label());
        answer::allowed(&request.uid, &Patch::default())
    }

    fn reject(&self, Rejection { status, reason, message }: &Rejection) -> Response<Full<Bytes>> {
        tracing::debug!(%status, %message, "what was sent is no review");
        self.metrics.reviewed("none", "rejected", reason);
        let mut response = answer::error(*status, message);
        if *status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
