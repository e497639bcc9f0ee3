//! Request ids, trace context and the request log: one id per request across all processes, and one log line when it
//! has ended.
//!
//! [`RequestLogService`] accepts the client's `X-Request-Id` and `traceparent` if they are well-formed, generates them
//! otherwise, and runs the request in that [`RequestContext`]. The response carries the id. Both are forwarded to
//! kuik's own cache, never to upstream registries.
//!
//! A cache hit is logged at level `debug`, every other request at `info`.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use kuik_core::trace::{REQUEST_ID, RequestContext, SpanSink, TRACEPARENT};
use tracing::Instrument as _;

use crate::service::ProxyBody;

/// A service with request ids and request log. Cheap to clone if the inner service is.
#[derive(Debug, Clone)]
pub struct RequestLogService<S> {
    inner: S,
    sink: Option<Arc<dyn SpanSink>>,
}

impl<S> RequestLogService<S> {
    /// Wraps `inner`; `sink` receives the traces, if there is one.
    #[must_use]
    pub fn new(inner: S, sink: Option<Arc<dyn SpanSink>>) -> Self {
        Self { inner, sink }
    }
}

/// Gives each request an ID, logs it when it has ended, and records its spans.
#[derive(Debug, Clone)]
pub struct RequestLogLayer {
    traces: Option<Arc<dyn SpanSink>>,
}

impl RequestLogLayer {
    /// Returns a layer whose spans go to `traces`, if given.
    #[must_use]
    pub fn new(traces: Option<Arc<dyn SpanSink>>) -> Self {
        Self { traces }
    }
}

impl<S> tower::Layer<S> for RequestLogLayer {
    type Service = RequestLogService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestLogService::new(inner, self.traces.clone())
    }
}

impl<S, B> tower::Service<Request<B>> for RequestLogService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = context(request.headers(), self.sink.as_ref());
        let method = request.method().clone();
        // The query may contain a signature.
        let path = request.uri().path().to_owned();
        let span = tracing::info_span!("request", id = %context, %method, path);
        let (wall, clock) = (SystemTime::now(), Instant::now());
        let work = self.inner.call(request);
        Box::pin(async move {
            let mut response = context.clone().scope(work.instrument(span.clone())).await?;
            if let Ok(id) = HeaderValue::from_str(context.id()) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            let (status, first) = (response.status(), clock.elapsed());
            let is_hit = is_hit(response.headers());
            let name = format!("{method} /v2/");
            let on_end = move |bytes: u64, complete: bool| {
                let _inside = span.enter();
                let (first, whole) = (first.as_secs_f64(), clock.elapsed());
                let (seconds, status_code) = (whole.as_secs_f64(), status.as_u16());
                if is_hit && complete {
                    tracing::debug!(
                        status = status_code,
                        bytes,
                        complete,
                        first,
                        seconds,
                        "request finished"
                    );
                } else {
                    tracing::info!(status = status_code, bytes, complete, first, seconds, "request finished");
                }
                if context.is_recorded() {
                    let attributes = attributes(&method, &path, status, bytes, &context);
                    context.record_served(
                        name,
                        wall,
                        whole,
                        status.is_server_error() || !complete,
                        attributes,
                    );
                }
            };
            Ok(response.map(|body| body.watched(on_end)))
        })
    }
}

fn context(headers: &HeaderMap, sink: Option<&Arc<dyn SpanSink>>) -> RequestContext {
    let mut random = [0; 24];
    // If no randomness is available, ids repeat, which affects only their usefulness to readers of logs.
    let _ = getrandom::fill(&mut random);
    let sent = |name| headers.get(name).map(HeaderValue::as_bytes);
    let context = RequestContext::accept(sent(REQUEST_ID), sent(TRACEPARENT), random);
    match sink {
        Some(sink) => context.recorded_by(sink.clone()),
        None => context,
    }
}

/// Whether the response is a current one from the cache.
fn is_hit(headers: &HeaderMap) -> bool {
    headers.get("cache-status").and_then(|value| value.to_str().ok()).is_some_and(|status| {
        let mut parameters = status.split(';').map(str::trim);
        parameters.next() == Some("kuik") && parameters.next() == Some("hit") && parameters.next().is_none()
    })
}

fn attributes(
    method: &http::Method,
    path: &str,
    status: StatusCode,
    bytes: u64,
    context: &RequestContext,
) -> Vec<(&'static str, String)> {
    vec![
        ("http.request.method", method.to_string()),
        ("url.path", path.to_owned()),
        ("http.response.status_code", status.as_u16().to_string()),
        ("http.response.body.size", bytes.to_string()),
        ("kuik.request_id", context.id().to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt as _;
    use kuik_core::trace::Span;
    use tower::ServiceExt as _;

    use super::*;

    #[derive(Debug, Default)]
    struct Recorded(Mutex<Vec<Span>>);

    impl SpanSink for Recorded {
        fn take(&self, span: Span) {
            self.0.lock().unwrap().push(span);
        }
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Serves one request; returns the id its work saw, that of its response, and the recorded spans.
    async fn serve(headers: &[(&str, &str)], read: bool) -> (String, String, Vec<Span>) {
        let sink = Arc::new(Recorded::default());
        let seen = Arc::new(Mutex::new(String::new()));
        let inside = seen.clone();
        let inner = tower::service_fn(move |_: Request<()>| {
            let inside = inside.clone();
            async move {
                tokio::task::yield_now().await;
                *inside.lock().unwrap() = RequestContext::current().unwrap().id().to_owned();
                Ok::<_, Infallible>(Response::new(ProxyBody::full("body")))
            }
        });
        let mut request = Request::new(());
        for &(name, value) in headers {
            request.headers_mut().insert(
                name.parse::<http::HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let response = RequestLogService::new(inner, Some(sink.clone())).oneshot(request).await.unwrap();
        let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
        if read {
            response.into_body().collect().await.unwrap();
        } else {
            drop(response);
        }
        let spans = sink.0.lock().unwrap().clone();
        let seen = seen.lock().unwrap().clone();
        (seen, id, spans)
    }

    #[tokio::test]
    async fn request_id_is_propagated_and_returned() {
        let (seen, id, spans) = serve(&[(REQUEST_ID, "pull-1"), (TRACEPARENT, TRACE)], true).await;
        assert_eq!((seen.as_str(), id.as_str()), ("pull-1", "pull-1"));
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!(span.parent, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert!(span.is_served && !span.failed);
        assert!(span.attributes.contains(&("http.response.body.size", "4".to_owned())), "{span:?}");
    }

    #[tokio::test]
    async fn malformed_ids_are_replaced() {
        let (seen, id, _) = serve(&[(REQUEST_ID, "a b"), (TRACEPARENT, "00-x")], true).await;
        assert_eq!(seen, id);
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let (_, other, _) = serve(&[], true).await;
        assert_ne!(id, other);
    }

    #[tokio::test]
    async fn disconnects_are_recorded_and_unsampled_traces_are_not() {
        let (_, _, spans) = serve(&[], false).await;
        assert!(spans[0].failed);
        let (_, _, spans) = serve(&[(TRACEPARENT, &TRACE.replace("-01", "-00"))], true).await;
        assert!(spans.is_empty());
    }
}
