//! One address for everything: operators' questions first, the registry for the rest.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use kuik_proxy::{
    admin::Admin,
    service::{ProxyBody, ProxyService},
};

/// A tower service that answers `/healthz`, `/readyz` and `/metrics` itself, and passes the rest to the proxy.
#[derive(Debug, Clone)]
pub struct Frontend {
    admin: Admin,
    proxy: ProxyService,
}

impl Frontend {
    /// Puts `admin` in front of `proxy`.
    #[must_use]
    pub fn new(admin: Admin, proxy: ProxyService) -> Self {
        Self { admin, proxy }
    }
}

impl<B> tower::Service<Request<B>> for Frontend {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !Admin::answers(request.uri().path()) {
            return self.proxy.call(request);
        }
        let (admin, (parts, _)) = (self.admin.clone(), request.into_parts());
        Box::pin(async move { Ok(admin.answer(&parts.method, parts.uri.path()).await) })
    }
}
