//! What a [`ScriptedRegistry`](super::ScriptedRegistry) does to which requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::RANGE};
use tokio::sync::watch;

/// What a request is about.
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

/// A rule of the script: which requests, how often, and what is done to them. The first rule that matches, in the
/// order in which they were given, is applied.
#[derive(Debug, Clone)]
pub struct Rule {
    target: Option<Target>,
    method: Option<Method>,
    path_part: Option<String>,
    ranged: Option<bool>,
    times: Option<usize>,
    pub(super) behaviour: Behaviour,
}

/// What is done to a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Behaviour {
    /// The request is answered as if there were no script: shields it from later rules.
    Normal,
    /// The connection is closed without an answer.
    Refuse,
    /// The headers are held back until the gate opens.
    DelayHeaders(Gate),
    /// The headers come so much later.
    Delay(Duration),
    /// The body stops after so many bytes, until the gate opens.
    Stall {
        /// How many bytes are sent first.
        after: u64,
        /// Lets the rest go.
        until: Gate,
    },
    /// The connection is closed after so many bytes of the body.
    Truncate {
        /// How many bytes are sent.
        after: u64,
    },
    /// Other bytes, of the right number.
    WrongBytes,
    /// One byte of the body is another.
    Corrupt {
        /// Which one.
        at: u64,
    },
    /// Bytes come for as long as somebody reads them, and no length is announced.
    Flood,
    /// The body comes no faster than this.
    Throttle {
        /// How many bytes per second.
        bytes_per_second: u64,
    },
    /// So many bytes are announced, whatever is sent: the connection is closed where it is less, and what goes beyond
    /// them is not sent.
    Announce(u64),
    /// The right bytes, and so many more, with a length that includes them.
    TooManyBytes {
        /// How many more.
        extra: usize,
        /// Whether no length is announced.
        chunked: bool,
    },
    /// No length is announced.
    NoLength,
    /// A range that was asked for is ignored: status 200 and everything.
    IgnoreRange,
    /// Headers of the answer are replaced, or taken away.
    Headers(Vec<(HeaderName, Option<HeaderValue>)>),
    /// Another answer.
    Answer {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
        /// Its body.
        body: Bytes,
    },
    /// A `307` to that URL.
    Redirect(String),
    /// A `307` to where the request went already.
    Circle,
}

impl Behaviour {
    /// An answer with that status and no more.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::Answer { status, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

impl Rule {
    /// For requests about `target`.
    #[must_use]
    pub fn on(target: Target) -> Self {
        Self { target: Some(target), ..Self::on_all() }
    }

    /// For all requests.
    #[must_use]
    pub fn on_all() -> Self {
        Self {
            target: None,
            method: None,
            path_part: None,
            ranged: None,
            times: None,
            behaviour: Behaviour::Normal,
        }
    }

    /// The same rule, for requests about `target`.
    #[must_use]
    pub fn about(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Only those with that method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only those whose path contains `part`: a digest, a tag, a repository.
    #[must_use]
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path_part = Some(part.into());
        self
    }

    /// Only those that ask for a range (`true`), or for everything (`false`).
    #[must_use]
    pub fn ranged(mut self, ranged: bool) -> Self {
        self.ranged = Some(ranged);
        self
    }

    /// Only so many times; without it, always.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// What is done to them.
    #[must_use]
    pub fn does(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// Whether the rule is for this request; counts it where it is.
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

/// Holds answers back until it is opened; one that nobody opens holds them back for ever. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Resolves once it is open.
    pub async fn opened(self) {
        // The gate itself keeps the sender, so this can only end by opening.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
