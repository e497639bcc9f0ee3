//! Script of a [`ScriptedRegistry`](super::ScriptedRegistry): rules that map requests to behaviors.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::RANGE};
use tokio::sync::watch;

/// Kind of the requested resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// `/v2/` itself.
    Ping,
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
    /// A list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
    /// The token endpoint.
    Token,
    /// Anything else.
    Other,
}

/// A rule of the script: a request matcher, a repeat count and a behavior. The first matching rule, in order of addition,
/// is applied.
#[derive(Debug, Clone)]
pub struct Rule {
    target: Option<Target>,
    method: Option<Method>,
    path_part: Option<String>,
    ranged: Option<bool>,
    times: Option<usize>,
    pub(super) behavior: Behavior,
}

/// Behavior for a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Behavior {
    /// The correct response, regardless of later rules.
    Normal,
    /// Close the connection without a response.
    Refuse,
    /// Delay the headers until the gate opens.
    DelayHeaders(Gate),
    /// Delay the headers by this time.
    Delay(Duration),
    /// Pause the body after a number of bytes, until the gate opens.
    Stall {
        /// Number of bytes before the pause.
        after: u64,
        /// Releases the rest.
        until: Gate,
    },
    /// Close the connection after a number of body bytes.
    Truncate {
        /// Number of bytes sent.
        after: u64,
    },
    /// Wrong bytes of the correct length.
    WrongBytes,
    /// One wrong byte in the body.
    Corrupt {
        /// Offset of the byte.
        at: u64,
    },
    /// Endless body without `Content-Length`.
    Flood,
    /// Limit the rate of the body.
    Throttle {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// Send this `Content-Length` with the unchanged body: the connection is closed if the body is shorter, and a longer body
    /// is cut.
    Announce(u64),
    /// The correct bytes followed by extra ones, with a length that includes them.
    TooManyBytes {
        /// Number of extra bytes.
        extra: usize,
        /// Whether to omit `Content-Length`.
        chunked: bool,
    },
    /// Omit `Content-Length`.
    NoLength,
    /// Ignore the requested range: status 200 with the whole content.
    IgnoreRange,
    /// Replace or remove response headers.
    Headers(Vec<(HeaderName, Option<HeaderValue>)>),
    /// Another response.
    Answer {
        /// The status.
        status: StatusCode,
        /// The headers.
        headers: HeaderMap,
        /// The body.
        body: Bytes,
    },
    /// A `307` redirect to this URL.
    Redirect(String),
    /// A `307` redirect to the same URL.
    Circle,
}

impl Behavior {
    /// An empty response with this status.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::Answer { status, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

impl Rule {
    /// Matches requests for `target`.
    #[must_use]
    pub fn on(target: Target) -> Self {
        Self { target: Some(target), ..Self::on_all() }
    }

    /// Matches all requests.
    #[must_use]
    pub fn on_all() -> Self {
        Self {
            target: None,
            method: None,
            path_part: None,
            ranged: None,
            times: None,
            behavior: Behavior::Normal,
        }
    }

    /// Restricts the rule to requests for `target`.
    #[must_use]
    pub fn about(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Restricts the rule to this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Restricts the rule to paths that contain `part`: a digest, a tag, a repository.
    #[must_use]
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path_part = Some(part.into());
        self
    }

    /// Restricts the rule to requests with (`true`) or without (`false`) a range.
    #[must_use]
    pub fn ranged(mut self, ranged: bool) -> Self {
        self.ranged = Some(ranged);
        self
    }

    /// Limits how often the rule is applied; unlimited by default.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Sets the behavior.
    #[must_use]
    pub fn does(mut self, behavior: Behavior) -> Self {
        self.behavior = behavior;
        self
    }

    /// Whether the rule applies to this request; counts the application.
    pub(super) fn applies(
        &mut self,
        target: Target,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> bool {
        let matches = self.target.is_none_or(|wanted| wanted == target)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.ranged.is_none_or(|wanted| wanted == headers.contains_key(RANGE))
            && self.path_part.as_ref().is_none_or(|part| path.contains(part));
        match &mut self.times {
            _ if !matches => false,
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// Holds responses back until it is opened. Clones share one gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Creates a closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate permanently.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Resolves once the gate is open.
    pub async fn opened(self) {
        // The gate itself keeps the sender, so this can only end by opening.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
