//! OTLP trace exporter: HTTP with the JSON encoding, to an OpenTelemetry collector.
//!
//! Spans wait in a bounded queue, from which one task sends them in batches. A slow or unavailable collector costs spans
//! and delays no request: spans that do not fit into the queue, or that the collector rejects, are dropped. [ADR 22](../../docs/adr/0022-request-ids-and-otlp-without-sdk.md) explains why no SDK is used.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use kuik_core::{
    client::{Body, HttpTransport, InvalidTransport, TransportConfig},
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

/// Capacity of the queue, in spans.
const QUEUE: usize = 2048;
/// Maximum number of spans per request.
const BATCH: usize = 512;
/// Maximum time that a span waits for a batch to fill.
const PAUSE: Duration = Duration::from_secs(2);
/// Timeout of a request to the collector.
const LIMIT: Duration = Duration::from_secs(10);
/// Time limit for sending the last spans at shutdown.
const LAST: Duration = Duration::from_secs(2);

/// Attributes with integer values.
const NUMBERS: [&str; 2] = ["http.response.status_code", "http.response.body.size"];

/// The trace exporter of a process.
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
        // A span that does not fit is dropped: requests never wait for the collector.
        let _ = self.0.try_send(Job::Send(span));
    }
}

impl Traces {
    /// Starts sending to the collector of `config`. Must be called inside a runtime.
    ///
    /// # Errors
    /// Fails if the transport cannot be created.
    pub fn start(config: TracesConfig) -> Result<Self, InvalidTransport> {
        let mut transport = TransportConfig::default();
        transport.guard = config.guard();
        let transport = HttpTransport::new(transport)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let collector = Collector { transport, endpoint: config.endpoint, service: config.service };
        Ok(Self { queue: Arc::new(Queue(queue)), task: tokio::spawn(collector.serve(jobs)) })
    }

    /// Returns the sink for spans.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn SpanSink> {
        self.queue.clone()
    }

    /// Sends the remaining spans, within two seconds.
    pub async fn end(self) {
        let ended = async {
            // If the queue is full, this waits for a free slot.
            let _ = self.queue.0.send(Job::End).await;
            let _ = self.task.await;
        };
        if timeout(LAST, ended).await.is_err() {
            tracing::warn!("cannot send the last traces in time, dropping them");
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
                        tracing::warn!(endpoint = %self.endpoint, problem, "cannot send traces, dropping them");
                    }
                    Ok(()) if !is_well => tracing::info!(endpoint = %self.endpoint, "sending traces again"),
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
            Ok(Ok(response)) => Err(format!("collector responded with {}", response.status())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no response within {LIMIT:?}")),
        }
    }
}

/// Returns the next spans, and whether there may be more.
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

/// Encodes an `ExportTraceServiceRequest` in the JSON encoding of OTLP: ids in hexadecimal, 64-bit numbers as strings.
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
