//! One address for everything: operators' questions first, the registry for the rest.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use kuik_core::trace::SpanSink;
use kuik_proxy::{admin::Admin, service::ProxyBody, trace::Traced};

/// A tower service that answers `/healthz`, `/readyz` and `/metrics` itself, and passes the rest to the registry
/// behind it. A request to that has an id.
#[derive(Debug, Clone)]
pub struct Frontend<S> {
    admin: Admin,
    registry: Traced<S>,
}

impl<S> Frontend<S> {
    /// Puts `admin` in front of `registry`.
    #[must_use]
    pub fn new(admin: Admin, registry: S) -> Self {
        Self { admin, registry: Traced::new(registry, None) }
    }

    /// The same, whose traces `sink` takes.
    #[must_use]
    pub fn recorded_by(self, sink: Option<Arc<dyn SpanSink>>) -> Self {
        Self { registry: self.registry.recorded_by(sink), ..self }
    }
}

impl<S, B> tower::Service<Request<B>> for Frontend<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.registry.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !Admin::answers(request.uri().path()) {
            return self.registry.call(request);
        }
        let (admin, (parts, _)) = (self.admin.clone(), request.into_parts());
        Box::pin(async move { Ok(admin.answer(&parts.method, parts.uri.path()).await) })
    }
}
