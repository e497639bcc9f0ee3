//! Upstream waits while the window is full: for the spool, or for the slowest reader where nothing is kept any more.

use kuik_core::content::{SourceError, SourceErrorKind};
use tokio::sync::futures::Notified;

use super::{Fill, window::WINDOW_BYTES};

/// Waits until the window has room for more. `patience` waits until something has moved, and says whether it did before
/// its patience ended: then the others go on without what stands still.
///
/// # Errors
/// `Storage` where nothing is kept and nobody reads.
pub(super) async fn wait(
    fill: &Fill,
    patience: impl AsyncFn(Notified<'_>) -> bool,
) -> Result<(), SourceError> {
    loop {
        // Before anything is looked at: what moves from here on is not missed.
        let moved = fill.window.moved();
        let spooled = fill.progress.borrow().spooled;
        let needed_from = match fill.is_overflowing() {
            false => spooled,
            true => fill.window.slowest().ok_or_else(|| nobody_is_left(fill))?,
        };
        if fill.window.trim(needed_from) <= WINDOW_BYTES {
            return Ok(());
        }
        if !patience(moved).await {
            match fill.is_overflowing() {
                false => fill.overflow(),
                true => fill.window.leave_behind(needed_from),
            }
        }
    }
}

fn nobody_is_left(fill: &Fill) -> SourceError {
    let problem = format!("fetch blob {}: the store cannot keep it, and nobody waits for it", fill.digest);
    SourceError::new(SourceErrorKind::Storage, problem)
}
