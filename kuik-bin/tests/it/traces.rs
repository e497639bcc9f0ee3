//! One id and one trace for a pull, through the proxy and the cache to the registry outside, as a collector gets it.

use std::{convert::Infallible, sync::Arc};

use crate::support::{Kuik, Transfer, proxied};
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use kuik_testkit::{SampleImage, ScriptedRegistry, Target};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector of OpenTelemetry's: it takes `POST /v1/traces` in JSON, and keeps the spans.
struct Collector {
    url: String,
    spans: watch::Receiver<Vec<Value>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (keeps, spans) = watch::channel(Vec::new());
        let keeps = Arc::new(keeps);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let keeps = keeps.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let keeps = keeps.clone();
                    async move {
                        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let found = decode(&body);
                        keeps.send_modify(|spans| spans.extend(found));
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { url, spans }
    }

    /// The spans of a trace, once there are so many.
    async fn spans(&self, trace: &str, count: usize) -> Vec<Value> {
        let mut spans = self.spans.clone();
        let of_trace = |spans: &Vec<Value>| -> Vec<Value> {
            spans.iter().filter(|span| span["traceId"] == trace).cloned().collect()
        };
        let enough = spans.wait_for(|spans| of_trace(spans).len() >= count);
        let found = tokio::time::timeout(crate::support::PATIENCE, enough).await;
        of_trace(&found.expect("the spans do not come").unwrap())
    }
}

/// The spans of an `ExportTraceServiceRequest`, each with the name of its service.
fn decode(body: &[u8]) -> Vec<Value> {
    let request: Value = serde_json::from_slice(body).unwrap();
    let mut found = Vec::new();
    for resource in request["resourceSpans"].as_array().unwrap() {
        let attributes = resource["resource"]["attributes"].as_array().unwrap();
        let service = attributes.iter().find(|attribute| attribute["key"] == "service.name").unwrap();
        for scope in resource["scopeSpans"].as_array().unwrap() {
            for span in scope["spans"].as_array().unwrap() {
                let mut span = span.clone();
                let nanos = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
                assert!(
                    nanos("startTimeUnixNano") > 0 && nanos("endTimeUnixNano") >= nanos("startTimeUnixNano")
                );
                assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
                assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
                span["service"] = service["value"]["stringValue"].clone();
                found.push(span);
            }
        }
    }
    found
}

fn attribute(span: &Value, key: &str) -> Value {
    let attributes = span["attributes"].as_array().unwrap();
    attributes
        .iter()
        .find(|attribute| attribute["key"] == key)
        .map_or(Value::Null, |found| found["value"].clone())
}

#[tokio::test]
async fn a_pull_is_one_trace_through_every_process() {
    let collector = Collector::start().await;
    let upstream = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(91);
    upstream.add_image("app", "v1", &image);
    let (insecure, data) = (["--insecure-registries", &upstream.host()], tempfile::tempdir().unwrap());
    let otlp = ["--otlp-endpoint", &collector.url];
    let cache =
        Kuik::registry(data.path(), &[&["--pull-through"], insecure.as_slice(), &otlp].concat()).await;
    let proxy = Kuik::proxy(&[cache.host()], &[insecure.as_slice(), &otlp].concat()).await;

    let path = format!("/v2/{}/manifests/v1", proxied(&upstream.host(), "app"));
    let told = format!("X-Request-Id: pull-7\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let answer = Transfer::begin(proxy.address(), "GET", &path, &told).await.answer().await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "pull-7"));
    assert_eq!(answer.body, *image.index().bytes());

    let spans = collector.spans(TRACE, 3).await;
    let served = |service: &str| {
        spans
            .iter()
            .find(|span| span["service"] == service && span["kind"] == 2)
            .unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let (at_proxy, at_cache) = (served("kuik-proxy"), served("kuik-registry"));
    assert_eq!(at_proxy["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(at_cache["parentSpanId"], at_proxy["spanId"]);
    assert_eq!(attribute(at_proxy, "http.response.status_code")["intValue"], "200");
    assert_eq!(attribute(at_cache, "kuik.request_id")["stringValue"], "pull-7");
    let asked = spans.iter().find(|span| span["service"] == "kuik-proxy" && span["kind"] == 3).unwrap();
    assert_eq!(asked["parentSpanId"], at_proxy["spanId"]);

    // Both logs have the id, and the upstream registry does not receive it.
    for process in [&proxy, &cache] {
        process.logs("id=pull-7").await;
    }
    for entry in upstream.log() {
        assert!(entry.headers.get("x-request-id").is_none() && entry.headers.get("traceparent").is_none());
    }
    assert!(upstream.count(Target::Manifest) > 0);

    // An invalid id of a client is not adopted.
    let answer = Transfer::begin(proxy.address(), "GET", &path, "X-Request-Id: a b\r\n").await.answer().await;
    assert_eq!(answer.header("x-request-id").len(), 32);
    proxy.terminate();
    cache.terminate();
}

#[tokio::test]
async fn unavailable_collector_does_not_affect_requests() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let image = SampleImage::small(92);
    upstream.add_image("app", "v1", &image);
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &upstream.host(), "--otlp-endpoint", "http://127.0.0.1:1"];
    let kuik = Kuik::serve(data.path(), &arguments).await;
    let path = format!("/v2/{}/manifests/v1", proxied(&upstream.host(), "app"));
    for _ in 0..3 {
        let answer = Transfer::begin(kuik.address(), "GET", &path, "").await;
        answer.is(image.index().bytes()).await.unwrap();
    }
    kuik.logs("cannot send traces").await;
}
