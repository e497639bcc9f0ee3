//! A run when somebody asks for one: `POST /kuik/v1/gc`, with `?dry-run=true` to be told only what would go.
//!
//! It stands in front of a registry and behind its access control, for which `POST` is a write like any other. The
//! answer comes when the run has ended, and says what it did; a client that leaves does not end it.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::{Collector, GcError, GcMetrics, GcOptions, GcReport};
use crate::service::{ProxyBody, Refusal};

/// Where runs are asked for.
const PATH: &str = "/kuik/v1/gc";

/// How many digests an answer names at most.
const LISTED: usize = 10_000;

/// Answers who asks for a run, and passes other requests on.
#[derive(Debug, Clone)]
pub struct GcService<S> {
    collector: Collector,
    options: GcOptions,
    metrics: GcMetrics,
    registry: S,
}

impl<S> GcService<S> {
    /// Runs of `collector` with `options`, counted in `metrics`, in front of `registry`.
    pub fn new(collector: Collector, options: GcOptions, metrics: GcMetrics, registry: S) -> Self {
        Self { collector, options, metrics, registry }
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

/// Whether only to say what would go.
fn dry_run(method: &Method, query: Option<&str>) -> Result<bool, Refusal> {
    if method != Method::POST {
        let message = "garbage is collected by POST";
        let refused = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
        return Err(refused.with(header::ALLOW, "POST"));
    }
    match query {
        None | Some("" | "dry-run=false") => Ok(false),
        Some("dry-run=true") => Ok(true),
        Some(_) => {
            let message = "the one parameter is dry-run, which is true or false";
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
            let message = "the run ended early: its task is gone";
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
