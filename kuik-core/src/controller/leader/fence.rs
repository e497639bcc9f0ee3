//! A client that writes only while the lease is ours.
//!
//! A process can stall (a paused machine, a starved node) and go on after its lease has run out. So it is not enough to
//! stop when the lease is lost: every write looks at the clock first, and is given up when the lease ends. Invariant: no
//! write is sent after that moment, by whichever part of the process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use kube_client::{Client, client::Body};
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;

/// How long the headers of an answer may take, whatever was asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Until when writes are allowed.
#[derive(Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

/// A write was not sent, because somebody else may have the lease by now.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("another replica may be the leader by now: nothing is written")]
pub struct NotLeading;

impl Fence {
    /// Allows writes until then, or no more.
    pub(super) fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Until when writes are allowed, where they are allowed now.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    /// `client`, for as long as writes are allowed. Reads are always.
    #[must_use]
    pub fn client(&self, client: &Client) -> Client {
        let (fence, inner) = (self.clone(), client.clone());
        let service = tower::service_fn(move |request| send(inner.clone(), fence.clone(), request));
        Client::new(service, client.default_namespace())
    }
}

async fn send(client: Client, fence: Fence, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    if request.method().is_safe() {
        return Ok(timeout(ANSWER_TIMEOUT, client.send(request)).await??);
    }
    let until = fence.until().ok_or(NotLeading)?;
    Ok(timeout_at(until, client.send(request)).await.map_err(|_| NotLeading)??)
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("open", &self.until().is_some()).finish()
    }
}
