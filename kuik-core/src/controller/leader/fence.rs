//! Fencing: a client that writes only while the lease is held.
//!
//! A process can stall (a paused machine, a starved node) and resume after its lease has expired. So stopping when the
//! lease is lost is not enough: every write checks the clock first and is aborted when the lease ends. Invariant: no
//! part of the process sends a write after that moment.

use std::{fmt, sync::Arc, time::Duration};

use http::{Request, Response};
use kube_client::{Client, client::Body};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;

/// Timeout for the response headers of any request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Deadline of writes.
#[derive(Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

/// A write was not sent because another replica may hold the lease.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("lease expired, write refused: another replica may be the leader")]
pub struct NotLeading;

impl Fence {
    /// Allows writes until then; `None` forbids them.
    pub(super) fn set(&self, until: Option<Instant>) {
        *self.0.lock() = until;
    }

    /// Returns the deadline of writes, if writes are allowed now.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let until = *self.0.lock();
        until.filter(|until| *until > Instant::now())
    }

    /// Returns a client that fails writes after the deadline. Reads are always allowed.
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
