//! Upstream waits while the window is full: for the spool, or for the slowest reader where nothing is kept any more.

use kuik_core::content::{SourceError, SourceErrorKind};
use tokio::sync::futures::Notified;

use super::{Fill, window::WINDOW_BYTES};

/// Waits until the window has room for more. `patience` waits until what is waited for has moved, and says whether it did
/// before its patience ended: then the others go on without what stands still. Readers that move are no sign of a disk
/// that does.
///
/// # Errors
/// `Storage` where nothing is kept and nobody reads.
pub(super) async fn wait(
    fill: &Fill,
    patience: impl AsyncFn(Notified<'_>) -> bool,
) -> Result<(), SourceError> {
    loop {
        let overflows = fill.is_overflowing();
        // Before anything is looked at: what moves from here on is not missed.
        let moved = if overflows { fill.window.moved() } else { fill.window.spooled() };
        let needed_from = match overflows {
            false => fill.progress.borrow().spooled,
            true => fill.window.slowest().ok_or_else(|| nobody_is_left(fill))?,
        };
        if fill.window.trim(needed_from) <= WINDOW_BYTES {
            return Ok(());
        }
        if !patience(moved).await {
            match overflows {
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
