//! Garbage collection on request: `POST /kuik/v1/gc`, a dry run with `?dry-run=true`.
//!
//! It wraps a registry, inside its access control, for which `POST` is a write. The response is sent when the run has
//! ended, with its report; a client that disconnects does not end the run.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::{Collector, GcError, GcMetrics, GcOptions, GcReport};
use crate::service::{ProxyBody, Refusal};

/// Path of the endpoint.
const PATH: &str = "/kuik/v1/gc";

/// Maximum number of digests in a response.
const LISTED: usize = 10_000;

/// Serves requests for runs, and passes other requests on.
#[derive(Debug, Clone)]
pub struct GcService<S> {
    collector: Collector,
    options: GcOptions,
    metrics: GcMetrics,
    registry: S,
}

/// Layer that adds the garbage collection endpoint to a registry.
#[derive(Debug, Clone)]
pub struct GcLayer {
    collector: Collector,
    options: GcOptions,
    metrics: GcMetrics,
}

impl GcLayer {
    /// Returns a layer that runs `collector` with `options` on request, counted in `metrics`.
    #[must_use]
    pub fn new(collector: Collector, options: GcOptions, metrics: GcMetrics) -> Self {
        Self { collector, options, metrics }
    }
}

impl<S> tower::Layer<S> for GcLayer {
    type Service = GcService<S>;

    fn layer(&self, registry: S) -> Self::Service {
        let Self { collector, options, metrics } = self.clone();
        GcService { collector, options, metrics, registry }
    }
}

impl<S, B> tower::Service<Request<B>> for GcService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.registry.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return Either::Left(self.registry.call(request));
        }
        let head = request.method() == Method::HEAD;
        let asked = dry_run(request.method(), request.uri().query());
        let (collector, mut options, metrics) =
            (self.collector.clone(), self.options.clone(), self.metrics.clone());
        Either::Right(Box::pin(async move {
            let answer = match asked {
                Ok(dry_run) => {
                    options.dry_run = dry_run;
                    run(collector, options, metrics).await
                }
                Err(refused) => Err(refused),
            };
            Ok(answer.unwrap_or_else(|refused| refused.into_response(head)))
        }))
    }
}

/// Returns whether the request is for a dry run.
fn dry_run(method: &Method, query: Option<&str>) -> Result<bool, Refusal> {
    if method != Method::POST {
        let message = "garbage collection requires POST";
        let refused = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
        return Err(refused.with(header::ALLOW, "POST"));
    }
    match query {
        None | Some("" | "dry-run=false") => Ok(false),
        Some("dry-run=true") => Ok(true),
        Some(_) => {
            let message = "the only query parameter is dry-run, with the value true or false";
            Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message))
        }
    }
}

async fn run(
    collector: Collector,
    options: GcOptions,
    metrics: GcMetrics,
) -> Result<Response<ProxyBody>, Refusal> {
    let dry_run = options.dry_run;
    let running = tokio::spawn(async move {
        let mut listed = Vec::new();
        let outcome = collector.run(&options, |gone| {
            if listed.len() < LISTED {
                listed.push(serde_json::json!({ "digest": gone.digest.as_str(), "size": gone.size }));
            }
        });
        let outcome = outcome.await;
        if !options.dry_run {
            metrics.count(&outcome);
        }
        outcome.map(|report| (report, listed))
    });
    match running.await {
        Ok(Ok((report, listed))) => Ok(json(&report, &listed, dry_run)),
        Ok(Err(error @ GcError::Running)) => {
            Err(Refusal::new(StatusCode::CONFLICT, "UNAVAILABLE", error.to_string()))
        }
        Ok(Err(GcError::Store(error))) => Err(Refusal::source(&error, "UNSUPPORTED")),
        Err(_) => {
            let message = "garbage collection failed: its task ended early";
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message))
        }
    }
}

fn json(report: &GcReport, listed: &[serde_json::Value], dry_run: bool) -> Response<ProxyBody> {
    let body = serde_json::json!({
        "dryRun": dry_run,
        "kept": report.kept,
        "removed": report.removed,
        "reclaimedBytes": report.reclaimed_bytes,
        "seconds": report.took.as_secs_f64(),
        "garbage": listed,
    });
    let mut response = Response::new(ProxyBody::full(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
