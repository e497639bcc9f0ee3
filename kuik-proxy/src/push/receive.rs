//! The body of a request: bounded in size, in how long its client may be silent, and in how slow it may be.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{RegistryOptions, pace::Pace};

/// How much of a body that nobody wants is read, so that its client gets to the answer.
const DISCARDED_BYTES: u64 = 1 << 20;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A body as it arrives.
pub(super) struct Incoming {
    body: UnsyncBoxBody<Bytes, BoxError>,
    idle: Duration,
    pace: Pace,
    rate: u64,
    received: Counter,
    expects_continue: bool,
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The client was silent for too long.
    #[error("nothing more of the body came within {0:?}")]
    Idle(Duration),
    /// Its bytes came one by one.
    #[error("the body comes with less than {0} bytes a second")]
    Slow(u64),
    /// The connection broke, or what came is no body.
    #[error("the body broke off")]
    Broken(#[source] BoxError),
    /// It is larger than it may be.
    #[error("the body has more than {0} bytes")]
    TooLarge(u64),
}

impl Incoming {
    /// Reads `body`, and counts its bytes in `received`. `options` say how long its client may be silent, and how slow
    /// it may be.
    pub(super) fn new(
        body: UnsyncBoxBody<Bytes, BoxError>,
        headers: &HeaderMap,
        options: &RegistryOptions,
        received: Counter,
    ) -> Self {
        let (idle, rate) = (options.body_idle, options.min_upload_rate);
        let pace = Pace::new(rate, options.rate_window);
        Self { body, idle, pace, rate, received, expects_continue: headers.contains_key(header::EXPECT) }
    }

    /// How many bytes there are, where the client says so.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next bytes; `None` is the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        loop {
            let (limit, exceeded) = match self.pace.patience() {
                Some(left) if left < self.idle => (left, ReceiveError::Slow(self.rate)),
                _ => (self.idle, ReceiveError::Idle(self.idle)),
            };
            let began = Instant::now();
            let frame = tokio::time::timeout(limit, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| exceeded)? else { return Ok(None) };
            // What is no data is trailers: nothing here has a use for them.
            let Ok(data) = frame.map_err(ReceiveError::Broken)?.into_data() else { continue };
            self.pace.came(data.len() as u64, began.elapsed());
            if !data.is_empty() {
                self.received.inc_by(data.len() as u64);
                return Ok(Some(data));
            }
        }
    }

    /// All of it, where it has at most `limit` bytes.
    pub(super) async fn whole(&mut self, limit: usize) -> Result<Bytes, ReceiveError> {
        let too_large = ReceiveError::TooLarge(limit as u64);
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large);
        }
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let mut whole = BytesMut::from(first);
        while let Some(more) = self.next().await? {
            if whole.len() + more.len() > limit {
                return Err(too_large);
            }
            whole.extend_from_slice(&more);
        }
        if whole.len() > limit { Err(too_large) } else { Ok(whole.freeze()) }
    }

    /// Reads on for a while and forgets what comes. A connection that is closed with bytes unread is reset, and the
    /// client then sees that instead of the answer. Who waits to be told to go on has sent nothing.
    pub(super) async fn discard(&mut self) {
        if self.expects_continue {
            return;
        }
        let read_on = async {
            let mut left = DISCARDED_BYTES;
            while let Ok(Some(bytes)) = self.next().await {
                left = left.saturating_sub(bytes.len() as u64);
                if left == 0 {
                    break;
                }
            }
        };
        // Where time is up, the client has had its chance.
        let _ = tokio::time::timeout(DISCARD_TIME, read_on).await;
    }
}
