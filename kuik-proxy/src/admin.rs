//! What operators and the kubelet ask: `/healthz`, `/readyz`, `/metrics`.
//!
//! Alive is whoever answers. Ready is who can do the job: readiness names every check that fails, and why.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Method, Response, StatusCode, header};
use prometheus_client::registry::Registry;

use crate::service::ProxyBody;

/// How long one check may take: a disk that hangs is not well.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that has to be well for the process to do its job.
#[async_trait]
pub trait ReadinessCheck: fmt::Debug + Send + Sync + 'static {
    /// What is checked, in a word or two.
    fn name(&self) -> &str;

    /// Whether it is well.
    ///
    /// # Errors
    /// What is wrong, for people.
    async fn check(&self) -> Result<(), String>;
}

/// Answers the operators' questions. Cheap to clone.
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

    /// Whether a request for `path` is one of the operators' questions.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz" | "/metrics")
    }

    /// The answer to a request for `path`.
    pub async fn answer(&self, method: &Method, path: &str) -> Response<ProxyBody> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readiness().await,
            "/metrics" => self.exposition(),
            _ => text(StatusCode::NOT_FOUND, "there is nothing here\n".to_owned()),
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

fn text(status: StatusCode, body: String) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
