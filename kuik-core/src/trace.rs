//! Request context: request id and W3C Trace Context, propagated through every process that handles a request.
//!
//! A server runs the work of a request in [`RequestContext::scope`]; code further down the call stack reads the context
//! with [`RequestContext::current`] and passes it to the tasks it spawns. This module is independent of any runtime.
//!
//! Client values are accepted only if they are well formed: an id of a few plain characters, a `traceparent` of W3C
//! Trace Context. So an id is safe in log lines and headers without escaping.

use std::{
    cell::RefCell,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

/// The request id header.
pub const REQUEST_ID: &str = "x-request-id";
/// The trace context header (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// The maximum length of an id that is accepted from a client.
const MAX_ID: usize = 64;

thread_local! {
    static CURRENT: RefCell<Option<RequestContext>> = const { RefCell::new(None) };
}

/// Context of a request in progress. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext(Arc<Inner>);

/// Receives finished spans. It must not block and cannot fail.
pub trait SpanSink: fmt::Debug + Send + Sync + 'static {
    /// Receives a finished span.
    fn take(&self, span: Span);
}

/// A finished span of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// The trace id.
    pub trace: [u8; 16],
    /// The span id.
    pub id: [u8; 8],
    /// The id of the parent span.
    pub parent: Option<[u8; 8]>,
    /// Name of the operation.
    pub name: String,
    /// Whether this is a server span, as opposed to a client span.
    pub is_served: bool,
    /// Start time.
    pub began: SystemTime,
    /// Duration.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
    /// Attributes: a small set of names, without secret values.
    pub attributes: Vec<(&'static str, String)>,
}

#[derive(Debug)]
struct Inner {
    sink: Option<Arc<dyn SpanSink>>,
    asked: AtomicU32,
    id: Box<str>,
    trace: [u8; 16],
    parent: Option<[u8; 8]>,
    span: [u8; 8],
    sampled: bool,
}

impl RequestContext {
    /// Creates the context of a request with these two headers; a missing or malformed value is generated from `chance`,
    /// which are random bytes.
    #[must_use]
    pub fn accept(request_id: Option<&[u8]>, traceparent: Option<&[u8]>, chance: [u8; 24]) -> Self {
        let [own @ .., _, _, _, _, _, _, _, _] = chance;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, span @ ..] = chance;
        let incoming = traceparent.and_then(parse);
        let trace = incoming.as_ref().map_or(nonzero(own), |incoming| incoming.trace);
        let id = request_id.and_then(well_formed).map_or_else(|| hex(&trace), str::to_owned);
        Self(Arc::new(Inner {
            sink: None,
            asked: AtomicU32::new(0),
            id: id.into(),
            trace,
            parent: incoming.as_ref().map(|incoming| incoming.span),
            span: nonzero(span),
            // The sampling decision is made by the process that started the trace.
            sampled: incoming.is_none_or(|incoming| incoming.sampled),
        }))
    }

    /// Sends the spans of this context to `sink` if the trace is sampled. Has no effect after the context was cloned.
    #[must_use]
    pub fn recorded_by(mut self, sink: Arc<dyn SpanSink>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.sink = Some(sink).filter(|_| inner.sampled);
        }
        self
    }

    /// Whether spans are recorded: if not, callers need not create them.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.sink.is_some()
    }

    /// Records the server span of the request.
    pub fn record_served(
        &self,
        name: String,
        began: SystemTime,
        took: Duration,
        failed: bool,
        attributes: Vec<(&'static str, String)>,
    ) {
        let (id, parent) = (self.0.span, self.0.parent);
        self.record(Span {
            trace: self.0.trace,
            id,
            parent,
            name,
            is_served: true,
            began,
            took,
            failed,
            attributes,
        });
    }

    /// Records a client span: an outgoing request on behalf of this one.
    pub fn record_asked(
        &self,
        name: String,
        began: SystemTime,
        took: Duration,
        failed: bool,
        attributes: Vec<(&'static str, String)>,
    ) {
        // A span id that is unique within this request.
        let number = self.0.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let own = u64::from_be_bytes(self.0.span) ^ (u64::from(number) << 32 | u64::from(number));
        let (id, parent) = (nonzero(own.to_be_bytes()), Some(self.0.span));
        self.record(Span {
            trace: self.0.trace,
            id,
            parent,
            name,
            is_served: false,
            began,
            took,
            failed,
            attributes,
        });
    }

    fn record(&self, span: Span) {
        if let Some(sink) = &self.0.sink {
            sink.take(span);
        }
    }

    /// The context of the current task, if it runs in a [`scope`](Self::scope).
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs `work` with this context as the current one.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let _inside = Inside(CURRENT.replace(Some(self.clone())));
            work.as_mut().poll(context)
        })
        .await
    }

    /// The request id, of at most 64 plain characters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The trace id.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.0.trace
    }

    /// The span id of the request.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.0.span
    }

    /// The parent span id, if the request did not start the trace.
    #[must_use]
    pub fn parent_span_id(&self) -> Option<[u8; 8]> {
        self.0.parent
    }

    /// Whether the trace is sampled.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.sampled
    }

    /// The `traceparent` header for outgoing requests on behalf of this one.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let flags = if self.0.sampled { "01" } else { "00" };
        format!("00-{}-{}-{flags}", hex(&self.0.trace), hex(&self.0.span))
    }
}

impl fmt::Display for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.id)
    }
}

/// Restores the previous context on drop.
struct Inside(Option<RequestContext>);

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// Parses `00-TRACE-SPAN-FLAGS`; reads the fields of version 0 from later versions too (section 3.2.4 of the
/// recommendation).
fn parse(text: &[u8]) -> Option<TraceParent> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = bytes(version)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, span, [flags]) = (bytes(trace)?, bytes(span)?, bytes(flags)?);
    (trace != [0; 16] && span != [0; 8]).then_some(TraceParent { trace, span, sampled: flags & 1 == 1 })
}

/// Parses lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let plain = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 2 * N || !plain {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces an all-zero id, which is invalid.
fn nonzero<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N]
        && let Some(last) = id.last_mut()
    {
        *last = 1;
    }
    id
}

fn well_formed(id: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_one = (1..=MAX_ID).contains(&id.len()) && id.iter().all(plain);
    std::str::from_utf8(id).ok().filter(|_| is_one)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    const TRACEPARENT_VALUE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn accepted(id: Option<&str>, traceparent: Option<&str>) -> RequestContext {
        RequestContext::accept(id.map(str::as_bytes), traceparent.map(str::as_bytes), [7; 24])
    }

    #[test]
    fn accept_adopts_well_formed_headers() {
        let context = accepted(Some("pull-1_a.B"), Some(TRACEPARENT_VALUE));
        assert_eq!(context.id(), "pull-1_a.B");
        assert_eq!(context.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-01");
        assert_eq!(context.parent_span_id().map(|span| hex(&span)).as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(accepted(None, Some(TRACEPARENT_VALUE)).id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!accepted(None, Some(&TRACEPARENT_VALUE.replace("-01", "-00"))).is_sampled());
        let later = TRACEPARENT_VALUE.replacen("00", "01", 1) + "-more";
        assert!(accepted(None, Some(&later)).parent_span_id().is_some());
    }

    #[test]
    fn accept_replaces_malformed_headers() {
        let long = "x".repeat(65);
        for id in ["", "a b", "a\nb", "é", "{}", long.as_str()] {
            assert_eq!(accepted(Some(id), None).id(), "07".repeat(16), "{id:?}");
        }
        for traceparent in [
            "",
            "00",
            &TRACEPARENT_VALUE.to_uppercase(),
            &TRACEPARENT_VALUE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &TRACEPARENT_VALUE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &TRACEPARENT_VALUE.replacen("00", "ff", 1),
            &format!("{TRACEPARENT_VALUE}-more"),
            &TRACEPARENT_VALUE.replace("-01", "-1"),
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let context = accepted(None, Some(traceparent));
            assert_eq!(
                (context.parent_span_id(), context.id()),
                (None, "07".repeat(16).as_str()),
                "{traceparent}"
            );
        }
        assert_ne!(RequestContext::accept(None, None, [0; 24]).trace_id(), [0; 16]);
    }

    #[test]
    fn scope_sets_current_context_only_while_polled() {
        let (one, two) = (accepted(Some("one"), None), accepted(Some("two"), None));
        let seen = || RequestContext::current().map(|context| context.id().to_owned());
        let mut waits = false;
        let work = poll_fn(|_| {
            waits = !waits;
            if waits { Poll::Pending } else { Poll::Ready(seen()) }
        });
        let mut outer = pin!(one.scope(async move { (two.scope(work).await, seen()) }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(outer.as_mut().poll(&mut context).is_pending());
        assert_eq!(seen(), None, "the context is unset between polls");
        let Poll::Ready(found) = outer.as_mut().poll(&mut context) else { panic!("the work is not done") };
        assert_eq!(found, (Some("two".to_owned()), Some("one".to_owned())));
    }
}
