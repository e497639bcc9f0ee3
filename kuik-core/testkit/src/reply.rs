//! Correct response, and the response body that injects the scripted faults.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body::{Frame, SizeHint};

use super::{Gate, log::Log, plan::Plan};

/// Bytes per frame.
const FRAME: usize = 64 * 1024;

/// Frames per second of a throttled body.
const BEATS_PER_SECOND: u32 = 50;

/// A correct response.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn new(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: HeaderMap::new(), body }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::new(StatusCode::OK, value.to_string().into()).with(CONTENT_TYPE.as_str(), "application/json")
    }

    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        let errors = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self { status, ..Self::json(&errors) }
    }

    /// Adds a header, if it is valid.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// An incident in the middle of a body.
#[derive(Debug)]
pub(super) enum Incident {
    /// Pause until the gate opens.
    Stall(Gate),
    /// Close the connection.
    Cut,
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that counts the bytes it sends.
pub(super) struct ScriptedBody {
    rest: Bytes,
    /// The bytes that an endless body repeats.
    again: Option<Bytes>,
    /// Bytes per frame, and the pause after each frame.
    frame: u64,
    pause: Option<Duration>,
    /// An incident after a number of further bytes.
    incident: Option<(u64, Incident)>,
    waiting: Option<Waiting>,
    log: Arc<Log>,
    number: usize,
    known_length: bool,
    /// Whether the connection was polled once to flush the bytes before a cut.
    flushed: bool,
}

impl ScriptedBody {
    pub(super) fn new(plan: Plan, log: Arc<Log>, number: usize) -> Self {
        let Plan { reply, incident, known_length, endless, bytes_per_second } = plan;
        let beat = bytes_per_second.map(|bytes| bytes.div_ceil(u64::from(BEATS_PER_SECOND)));
        Self {
            again: (endless && !reply.body.is_empty()).then(|| reply.body.clone()),
            rest: reply.body,
            frame: beat.unwrap_or(FRAME as u64),
            pause: beat.map(|_| Duration::from_secs(1) / BEATS_PER_SECOND),
            incident,
            waiting: None,
            log,
            number,
            known_length,
            flushed: false,
        }
    }
}

impl http_body::Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        let mut most = self.frame;
        match self.incident.take() {
            Some((0, Incident::Stall(gate))) => {
                self.waiting = Some(Box::pin(gate.opened()));
                return self.poll_frame(cx);
            }
            Some((0, Incident::Cut)) if self.flushed => {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
            }
            Some((0, Incident::Cut)) => {
                self.flushed = true;
                self.incident = Some((0, Incident::Cut));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some((after, incident)) => {
                most = most.min(after);
                let sent = most.min(self.rest.len() as u64);
                // A body that ends before the incident never reaches it.
                self.incident = (sent > 0).then_some((after - sent, incident));
            }
            None => {}
        }
        if let Some(again) = &self.again
            && self.rest.is_empty()
        {
            self.rest = again.clone();
        }
        let length = usize::try_from(most).unwrap_or(FRAME).min(self.rest.len());
        if length == 0 {
            return Poll::Ready(None);
        }
        self.waiting = self.pause.map(|pause| Box::pin(tokio::time::sleep(pause)) as Waiting);
        let data = self.rest.split_to(length);
        self.log.update(self.number, |entry| entry.bytes_sent += length as u64);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.incident.is_none() && self.again.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.known_length { SizeHint::with_exact(self.rest.len() as u64) } else { SizeHint::default() }
    }
}

impl Drop for ScriptedBody {
    fn drop(&mut self) {
        self.log.update(self.number, |entry| entry.finished = true);
    }
}
