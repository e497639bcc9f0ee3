//! Which request a piece of work belongs to: an id that goes with it through every process that has a part in it.
//!
//! Who serves a request runs its work in [`RequestContext::scope`]; whoever works for it, however deep below, finds the
//! context with [`RequestContext::current`], and hands it on to tasks of its own. Nothing here knows a runtime.
//!
//! What a client sends is believed only where it is well-formed: an id of a few plain characters, a `traceparent` of
//! W3C Trace Context. So an id can stand in a log line or a header as it is.

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

/// The header with a request's id.
pub const REQUEST_ID: &str = "x-request-id";
/// The header with the trace that a request belongs to (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// The longest id that is taken from a client.
const MAX_ID: usize = 64;

thread_local! {
    static CURRENT: RefCell<Option<RequestContext>> = const { RefCell::new(None) };
}

/// A request that is being worked on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext(Arc<Inner>);

/// Takes the parts of traces as they end. It never waits, and cannot fail.
pub trait SpanSink: fmt::Debug + Send + Sync + 'static {
    /// A part of a trace has ended.
    fn take(&self, span: Span);
}

/// A part of a trace that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// The part itself.
    pub id: [u8; 8],
    /// The part that caused it.
    pub parent: Option<[u8; 8]>,
    /// What was done.
    pub name: String,
    /// Whether it was served, rather than asked of others.
    pub is_served: bool,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
    /// What else is known about it: of a few names, with values that hold no secret.
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
    /// The context of a request with these two headers; where one is missing or not well-formed, it is made of `chance`,
    /// which are random bytes.
    #[must_use]
    pub fn accept(request_id: Option<&[u8]>, traceparent: Option<&[u8]>, chance: [u8; 24]) -> Self {
        let [own @ .., _, _, _, _, _, _, _, _] = chance;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, span @ ..] = chance;
        let told = traceparent.and_then(parse);
        let trace = told.as_ref().map_or(nonzero(own), |told| told.trace);
        let id = request_id.and_then(well_formed).map_or_else(|| hex(&trace), str::to_owned);
        Self(Arc::new(Inner {
            sink: None,
            asked: AtomicU32::new(0),
            id: id.into(),
            trace,
            parent: told.as_ref().map(|told| told.span),
            span: nonzero(span),
            // Whether the trace is kept is its beginner's to say.
            sampled: told.is_none_or(|told| told.sampled),
        }))
    }

    /// The same, whose parts `sink` takes, where the trace is to be kept. To be called on a new context, before it is
    /// cloned.
    #[must_use]
    pub fn recorded_by(mut self, sink: Arc<dyn SpanSink>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.sink = Some(sink).filter(|_| inner.sampled);
        }
        self
    }

    /// Whether anybody takes its parts: else there is no need to make them.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.sink.is_some()
    }

    /// Records that the request itself was served.
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

    /// Records that something was asked of others for it.
    pub fn record_asked(
        &self,
        name: String,
        began: SystemTime,
        took: Duration,
        failed: bool,
        attributes: Vec<(&'static str, String)>,
    ) {
        // An id of its own, which no other part of this request has.
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

    /// The request that the current task works for, where it does for one.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs `work` for this request.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let _inside = Inside(CURRENT.replace(Some(self.clone())));
            work.as_mut().poll(context)
        })
        .await
    }

    /// Its id, of at most 64 plain characters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The trace that it belongs to.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.0.trace
    }

    /// Its own part in the trace.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.0.span
    }

    /// The part of the trace that caused it, where it did not begin it.
    #[must_use]
    pub fn parent_span_id(&self) -> Option<[u8; 8]> {
        self.0.parent
    }

    /// Whether the trace is to be kept.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.sampled
    }

    /// The `traceparent` of what is asked of others for it.
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

/// Puts back what was current before.
struct Inside(Option<RequestContext>);

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

struct Told {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// `00-TRACE-SPAN-FLAGS`. Of a later version, what version 0 has is read (section 3.2.4 of the recommendation).
fn parse(text: &[u8]) -> Option<Told> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = bytes(version)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, span, [flags]) = (bytes(trace)?, bytes(span)?, bytes(flags)?);
    (trace != [0; 16] && span != [0; 8]).then_some(Told { trace, span, sampled: flags & 1 == 1 })
}

/// Bytes written as lower-case hexadecimal digits.
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

/// An id of zeros is no id.
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

    const TOLD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn accepted(id: Option<&str>, traceparent: Option<&str>) -> RequestContext {
        RequestContext::accept(id.map(str::as_bytes), traceparent.map(str::as_bytes), [7; 24])
    }

    #[test]
    fn what_is_well_formed_is_taken_over() {
        let context = accepted(Some("pull-1_a.B"), Some(TOLD));
        assert_eq!(context.id(), "pull-1_a.B");
        assert_eq!(context.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-01");
        assert_eq!(context.parent_span_id().map(|span| hex(&span)).as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(accepted(None, Some(TOLD)).id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!accepted(None, Some(&TOLD.replace("-01", "-00"))).is_sampled());
        let later = TOLD.replacen("00", "01", 1) + "-more";
        assert!(accepted(None, Some(&later)).parent_span_id().is_some());
    }

    #[test]
    fn what_is_not_is_replaced() {
        let long = "x".repeat(65);
        for id in ["", "a b", "a\nb", "é", "{}", long.as_str()] {
            assert_eq!(accepted(Some(id), None).id(), "07".repeat(16), "{id:?}");
        }
        for traceparent in [
            "",
            "00",
            &TOLD.to_uppercase(),
            &TOLD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &TOLD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &TOLD.replacen("00", "ff", 1),
            &format!("{TOLD}-more"),
            &TOLD.replace("-01", "-1"),
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
    fn work_finds_its_request_and_nobody_elses() {
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
        assert_eq!(seen(), None, "between polls, the thread is somebody else's");
        let Poll::Ready(found) = outer.as_mut().poll(&mut context) else { panic!("it is done") };
        assert_eq!(found, (Some("two".to_owned()), Some("one".to_owned())));
    }
}
