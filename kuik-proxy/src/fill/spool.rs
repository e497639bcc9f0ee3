//! Spool writer: copies the window to the spool, concurrently with the readers, which do not wait for it.

use kuik_core::content::{BlobWriter, SourceError};

use super::{
    Fill,
    progress::{Phase, abandoned},
    window::length_of,
};

/// Writes bytes as they arrive, until all are written. Returns `false` if the fill fails.
///
/// # Errors
/// Returns the store's errors.
pub(super) async fn copy(fill: &Fill, writer: &mut dyn BlobWriter) -> Result<bool, SourceError> {
    let mut progress = fill.progress.subscribe();
    loop {
        let seen = progress.wait_for(|now| now.received > now.spooled || now.has_ended()).await;
        let now = seen.map(|now| now.clone()).map_err(|_| abandoned(&fill.digest))?;
        match now.phase {
            Phase::Failed(_) => return Ok(false),
            Phase::Verified if now.spooled == now.received => return Ok(true),
            _ => {}
        }
        let chunks = fill.window.all_from(now.spooled);
        writer.append(&chunks).await?;
        let spooled = now.spooled + length_of(&chunks);
        // Readers are not notified: these bytes were readable before.
        fill.progress.send_if_modified(|progress| {
            progress.spooled = spooled;
            false
        });
        fill.window.trim(spooled);
        fill.window.has_spooled();
    }
}
