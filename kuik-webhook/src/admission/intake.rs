//! Takes the body of a request that may be a review.
//!
//! Anybody in the cluster can send one. What each may send is bounded in size and time, and so is what all of them together
//! make this process hold: a body that is large waits until few others are.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;

/// How large a review may be. An API server takes objects of up to 3 MiB, and a review of an update has two of them.
const MAX_BYTES: usize = 8 << 20;

/// Larger bodies than this are few, and only so many of them are read at a time.
const SMALL_BYTES: u64 = 64 << 10;
const LARGE_AT_A_TIME: usize = 4;

/// How long a body may take to arrive: no API server waits longer for its answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes bodies.
#[derive(Debug)]
pub(super) struct Intake {
    large: Semaphore,
}

/// A request that is answered with an HTTP error.
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Default for Intake {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE_AT_A_TIME) }
    }
}

impl Intake {
    /// The whole body of a request that may be a review.
    pub(super) async fn receive<B>(&self, head: &Parts, body: B) -> Result<Bytes, Rejection>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if head.method != Method::POST {
            let message = format!("a review is sent by POST, not by {}", head.method);
            return Err(Rejection { status: StatusCode::METHOD_NOT_ALLOWED, reason: "method", message });
        }
        if !is_json(head.headers.get(header::CONTENT_TYPE)) {
            let message = "a review is sent as application/json".to_owned();
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
            // It is never closed.
            let _permit = if small { None } else { self.large.acquire().await.ok() };
            match Limited::new(body, MAX_BYTES).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
                Err(error) => Err(Rejection {
                    status: StatusCode::BAD_REQUEST,
                    reason: "truncated",
                    message: format!("the body ended early: {error}"),
                }),
            }
        };
        tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or_else(|_| {
            let message = format!("the body did not arrive within {BODY_TIMEOUT:?}");
            Err(Rejection { status: StatusCode::REQUEST_TIMEOUT, reason: "slow", message })
        })
    }
}

fn too_large() -> Rejection {
    let message = format!("a review has {MAX_BYTES} bytes at most");
    Rejection { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "too_large", message }
}

/// `application/json`, with parameters or without.
fn is_json(value: Option<&HeaderValue>) -> bool {
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}
