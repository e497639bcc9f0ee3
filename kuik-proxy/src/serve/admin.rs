//! Admin endpoints: `/healthz`, `/readyz`, `/metrics`.
//!
//! Liveness: the process responds. Readiness: every check passes; the response names each that fails, and why.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use prometheus_client::registry::Registry;

use crate::service::ProxyBody;

/// Timeout of one check: a disk that hangs fails it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A readiness check.
#[async_trait]
pub trait ReadinessCheck: fmt::Debug + Send + Sync + 'static {
    /// Name of the checked component, in a word or two.
    fn name(&self) -> &str;

    /// Checks the component.
    ///
    /// # Errors
    /// Returns the problem as readable text if the check fails.
    async fn check(&self) -> Result<(), String>;
}

/// Service of the admin endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    metrics: Arc<Registry>,
    checks: Arc<[Box<dyn ReadinessCheck>]>,
}

impl Admin {
    /// Exposes `metrics`; ready while every check passes.
    #[must_use]
    pub fn new(metrics: Registry, checks: Vec<Box<dyn ReadinessCheck>>) -> Self {
        Self { metrics: Arc::new(metrics), checks: checks.into() }
    }

    /// Whether `path` is an admin endpoint.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz" | "/metrics")
    }

    /// Answers a request for `path`.
    pub async fn answer(&self, method: &Method, path: &str) -> Response<ProxyBody> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed: only GET and HEAD are supported\n".to_owned(),
            );
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readiness().await,
            "/metrics" => self.exposition(),
            _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        }
    }

    async fn readiness(&self) -> Response<ProxyBody> {
        let mut failed = String::new();
        for check in self.checks.iter() {
            let checked = tokio::time::timeout(CHECK_TIMEOUT, check.check());
            let problem = match checked.await {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => problem,
                Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
            };
            failed.push_str(&format!("{}: {problem}\n", check.name()));
        }
        if failed.is_empty() {
            text(StatusCode::OK, "ok\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, failed)
        }
    }

    fn exposition(&self) -> Response<ProxyBody> {
        let mut body = String::new();
        match prometheus_client::encoding::text::encode(&mut body, &self.metrics) {
            Ok(()) => {
                let mut response = text(StatusCode::OK, body);
                let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(open_metrics));
                response
            }
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n"))
            }
        }
    }
}

/// Answers health checks and metrics in front of a service.
#[derive(Debug, Clone)]
pub struct AdminLayer {
    admin: Admin,
}

impl AdminLayer {
    /// Returns a layer with these endpoints.
    #[must_use]
    pub fn new(admin: Admin) -> Self {
        Self { admin }
    }
}

impl<S> tower::Layer<S> for AdminLayer {
    type Service = AdminService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdminService { admin: self.admin.clone(), inner }
    }
}

/// A service behind an [`AdminLayer`].
#[derive(Debug, Clone)]
pub struct AdminService<S> {
    admin: Admin,
    inner: S,
}

impl<S, B> tower::Service<Request<B>> for AdminService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !Admin::answers(request.uri().path()) {
            return Either::Left(self.inner.call(request));
        }
        let (admin, (parts, _)) = (self.admin.clone(), request.into_parts());
        Either::Right(Box::pin(async move { Ok(admin.answer(&parts.method, parts.uri.path()).await) }))
    }
}

fn text(status: StatusCode, body: String) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
