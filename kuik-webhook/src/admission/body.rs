//! Reading of request bodies, with limits.
//!
//! Any client in the cluster can send a request. Each body is limited in size and time, and so is the memory of all
//! bodies together: only a few large ones are read at the same time.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;

/// Size limit of a review. API servers accept objects of up to 3 MiB, and a review of an update contains two.
const MAX_BYTES: usize = 8 << 20;

/// Bodies larger than this are rare, and only `LARGE_AT_A_TIME` of them are read concurrently.
const SMALL_BYTES: u64 = 64 << 10;
const LARGE_AT_A_TIME: usize = 4;

/// Time limit for receiving a body: the maximum webhook timeout of API servers.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads bodies.
#[derive(Debug)]
pub(super) struct BodyReader {
    large: Semaphore,
}

/// A request to respond to with an HTTP error.
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Default for BodyReader {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE_AT_A_TIME) }
    }
}

impl BodyReader {
    /// Returns the whole body of a request that can be a review.
    pub(super) async fn read<B>(&self, head: &Parts, body: B) -> Result<Bytes, Rejection>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if head.method != Method::POST {
            let message = format!("expected a review by POST, got {}", head.method);
            return Err(Rejection { status: StatusCode::METHOD_NOT_ALLOWED, reason: "method", message });
        }
        if !is_json(head.headers.get(header::CONTENT_TYPE)) {
            let message = "expected a review with content type application/json".to_owned();
            return Err(Rejection {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                reason: "content_type",
                message,
            });
        }
        if body.size_hint().lower() > MAX_BYTES as u64 {
            return Err(too_large());
        }
        let small = body.size_hint().upper().is_some_and(|most| most <= SMALL_BYTES);
        let collect = async {
            // The semaphore is never closed.
            let _permit = if small { None } else { self.large.acquire().await.ok() };
            match Limited::new(body, MAX_BYTES).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
                Err(error) => Err(Rejection {
                    status: StatusCode::BAD_REQUEST,
                    reason: "truncated",
                    message: format!("failed to read the body: {error}"),
                }),
            }
        };
        tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or_else(|_| {
            let message = format!("timed out reading the body after {BODY_TIMEOUT:?}");
            Err(Rejection { status: StatusCode::REQUEST_TIMEOUT, reason: "slow", message })
        })
    }
}

fn too_large() -> Rejection {
    let message = format!("the body exceeds the limit of {MAX_BYTES} bytes");
    Rejection { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "too_large", message }
}

/// Matches `application/json`, with or without parameters.
fn is_json(value: Option<&HeaderValue>) -> bool {
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}
