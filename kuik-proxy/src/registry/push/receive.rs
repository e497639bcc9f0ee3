//! Request body reader: bounded in size, in idle time and in minimum rate.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{RegistryOptions, min_rate::MinRate};

/// Maximum number of bytes read from an unwanted body, so that its client gets to read the response.
const DISCARDED_BYTES: u64 = 1 << 20;

/// Maximum time spent on that.
const DISCARD_TIME: Duration = Duration::from_secs(2);

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A request body in transfer.
pub(super) struct Incoming {
    body: UnsyncBoxBody<Bytes, BoxError>,
    idle: Duration,
    min_rate: MinRate,
    rate: u64,
    received: Counter,
    expects_continue: bool,
}

/// Why a body was not received completely.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The client was idle for too long.
    #[error("no bytes of the body arrived within {0:?}")]
    Idle(Duration),
    /// The client was too slow.
    #[error("the body arrives at less than {0} bytes a second")]
    Slow(u64),
    /// The connection broke, or the body is malformed.
    #[error("the body ended early")]
    Broken(#[source] BoxError),
    /// The body is larger than allowed.
    #[error("the body exceeds {0} bytes")]
    TooLarge(u64),
}

impl Incoming {
    /// Reads `body`, and counts its bytes in `received`. `options` has the idle timeout and the minimum rate.
    pub(super) fn new(
        body: UnsyncBoxBody<Bytes, BoxError>,
        headers: &HeaderMap,
        options: &RegistryOptions,
        received: Counter,
    ) -> Self {
        let (idle, rate) = (options.body_idle, options.min_upload_rate);
        let min_rate = MinRate::new(rate, options.rate_window);
        Self { body, idle, min_rate, rate, received, expects_continue: headers.contains_key(header::EXPECT) }
    }

    /// Returns the announced length, if there is one.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Returns the next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        loop {
            let (limit, exceeded) = match self.min_rate.time_left() {
                Some(left) if left < self.idle => (left, ReceiveError::Slow(self.rate)),
                _ => (self.idle, ReceiveError::Idle(self.idle)),
            };
            let began = Instant::now();
            let frame = tokio::time::timeout(limit, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| exceeded)? else { return Ok(None) };
            // A frame without data holds trailers, which are ignored.
            let Ok(data) = frame.map_err(ReceiveError::Broken)?.into_data() else { continue };
            self.min_rate.record(data.len() as u64, began.elapsed());
            if !data.is_empty() {
                self.received.inc_by(data.len() as u64);
                return Ok(Some(data));
            }
        }
    }

    /// Returns the whole body, if it has at most `limit` bytes.
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

    /// Reads and discards the body for a while. Closing a connection with unread bytes resets it, and the client
    /// would see the reset instead of the response. A client that waits for `100 Continue` has sent nothing.
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
        // After the timeout, the connection may be reset.
        let _ = tokio::time::timeout(DISCARD_TIME, read_on).await;
    }
}
