//! Backpressure on upstream: it waits while the window is full, for the spool, or for the slowest reader if the blob
//! is no longer stored.

use kuik_core::content::{SourceError, SourceErrorKind};
use tokio::sync::futures::Notified;

use super::{Fill, window::WINDOW_BYTES};

/// Waits until the window has room. `with_timeout` waits for the given notification and returns whether it came in
/// time; if not, the fill continues without the stalled spool or reader. Readers that progress do not prove that the
/// disk does.
///
/// # Errors
/// Returns `Storage` if the blob is not stored and has no readers.
pub(super) async fn wait(
    fill: &Fill,
    with_timeout: impl AsyncFn(Notified<'_>) -> bool,
) -> Result<(), SourceError> {
    loop {
        let overflows = fill.is_overflowing();
        // Created before the state is read, so that no later change is missed.
        let moved = if overflows { fill.window.moved() } else { fill.window.spooled() };
        let needed_from = match overflows {
            false => fill.progress.borrow().spooled,
            true => fill.window.slowest().ok_or_else(|| no_readers_left(fill))?,
        };
        if fill.window.trim(needed_from) <= WINDOW_BYTES {
            return Ok(());
        }
        if !with_timeout(moved).await {
            match overflows {
                false => fill.overflow(),
                true => fill.window.leave_behind(needed_from),
            }
        }
    }
}

fn no_readers_left(fill: &Fill) -> SourceError {
    let problem = format!("fetch blob {}: the store cannot store it, and it has no readers", fill.digest);
    SourceError::new(SourceErrorKind::Storage, problem)
}
