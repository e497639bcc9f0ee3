//! Sends traces to an OpenTelemetry collector: OTLP over HTTP, in its JSON encoding.
//!
//! Spans wait in a queue of a fixed length, from which one task sends them in batches. A collector that is slow or away
//! costs spans, and no request anything: what does not fit into the queue, and what a collector does not take, is
//! dropped. [ADR 22](../../docs/adr/0022-one-id-and-traces-without-an-sdk.md) says why there is no SDK here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use kuik_core::{
    registry::{Body, HttpTransport, InvalidTransport, TransportConfig},
    trace::{Span, SpanSink},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower::ServiceExt as _;

use crate::config::traces::TracesConfig;

/// How many spans wait to be sent.
const QUEUE: usize = 2048;
/// How many are sent at once.
const BATCH: usize = 512;
/// How long a span waits for others.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a collector may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a process waits for the last spans to be sent.
const LAST: Duration = Duration::from_secs(2);

/// Attributes whose values are numbers.
const NUMBERS: [&str; 2] = ["http.response.status_code", "http.response.body.size"];

/// What sends traces, for as long as a process lives.
#[derive(Debug)]
pub struct Traces {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Queue(mpsc::Sender<Job>);

#[derive(Debug)]
enum Job {
    Send(Span),
    End,
}

impl SpanSink for Queue {
    fn take(&self, span: Span) {
        // A span that does not fit is lost: nobody waits for a collector.
        let _ = self.0.try_send(Job::Send(span));
    }
}

impl Traces {
    /// Sends to the collector of `config`. To be called inside a runtime.
    ///
    /// # Errors
    /// Where its address is unusable.
    pub fn start(config: TracesConfig) -> Result<Self, InvalidTransport> {
        let mut transport = TransportConfig::default();
        transport.guard = config.guard();
        let transport = HttpTransport::new(transport)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let collector = Collector { transport, endpoint: config.endpoint, service: config.service };
        Ok(Self { queue: Arc::new(Queue(queue)), task: tokio::spawn(collector.serve(jobs)) })
    }

    /// Where spans go.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn SpanSink> {
        self.queue.clone()
    }

    /// Sends what is left, within two seconds.
    pub async fn end(self) {
        let ended = async {
            // Should the queue be full, its end comes after what is in it.
            let _ = self.queue.0.send(Job::End).await;
            let _ = self.task.await;
        };
        if timeout(LAST, ended).await.is_err() {
            tracing::warn!("the last traces could not be sent in time");
        }
    }
}

struct Collector {
    transport: HttpTransport,
    endpoint: Uri,
    service: String,
}

impl Collector {
    async fn serve(self, mut jobs: mpsc::Receiver<Job>) {
        let mut is_well = true;
        loop {
            let (batch, more) = next_batch(&mut jobs).await;
            if !batch.is_empty() {
                let sent = self.send(&batch).await;
                match &sent {
                    Err(problem) if is_well => {
                        tracing::warn!(endpoint = %self.endpoint, problem, "traces cannot be sent: they are lost");
                    }
                    Ok(()) if !is_well => tracing::info!(endpoint = %self.endpoint, "traces are sent again"),
                    _ => {}
                }
                is_well = sent.is_ok();
            }
            if !more {
                return;
            }
        }
    }

    async fn send(&self, spans: &[Span]) -> Result<(), String> {
        let mut request =
            Request::new(Body::from(bytes::Bytes::from(encode(&self.service, spans).to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match timeout(LIMIT, self.transport.clone().oneshot(request)).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(format!("the collector answers {}", response.status())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        }
    }
}

/// The next spans, and whether there may be more.
async fn next_batch(jobs: &mut mpsc::Receiver<Job>) -> (Vec<Span>, bool) {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < BATCH {
        let next = match until {
            None => jobs.recv().await,
            Some(until) => match tokio::time::timeout_at(until, jobs.recv()).await {
                Ok(next) => next,
                Err(_) => return (batch, true),
            },
        };
        match next {
            Some(Job::Send(span)) => batch.push(span),
            Some(Job::End) | None => return (batch, false),
        }
        until = until.or_else(|| Some(Instant::now() + PAUSE));
    }
    (batch, true)
}

/// An `ExportTraceServiceRequest` in the JSON encoding of OTLP: ids in hexadecimal digits, numbers of 64 bits as texts.
fn encode(service: &str, spans: &[Span]) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let version = env!("CARGO_PKG_VERSION");
    let resource = [text("service.name", service), text("service.version", version)];
    let spans: Vec<_> = spans.iter().map(encode_span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "kuik", "version": version}, "spans": spans}],
    }]})
}

fn encode_span(span: &Span) -> Value {
    let attribute = |(key, value): &(&'static str, String)| {
        let kind = if NUMBERS.contains(key) { "intValue" } else { "stringValue" };
        json!({"key": key, "value": {kind: value}})
    };
    let began = span.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut encoded = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "name": span.name,
        // SPAN_KIND_SERVER and SPAN_KIND_CLIENT.
        "kind": if span.is_served { 2 } else { 3 },
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": (began + span.took).as_nanos().to_string(),
        "attributes": span.attributes.iter().map(attribute).collect::<Vec<_>>(),
        // STATUS_CODE_ERROR, or unset.
        "status": if span.failed { json!({"code": 2}) } else { json!({}) },
    });
    if let (Some(parent), Some(fields)) = (span.parent, encoded.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), hex(&parent).into());
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
