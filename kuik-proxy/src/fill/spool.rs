//! What the window holds goes to the spool, beside the readers, who do not wait for it.

use kuik_core::content::{BlobWriter, SourceError};

use super::{
    Fill,
    progress::Phase,
    run::{abandoned, length_of},
};

/// Writes what arrives until everything is there. `false` where the fill fails.
///
/// # Errors
/// Those of the store.
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
        // Readers do not wait for this: what is spooled was readable before.
        fill.progress.send_if_modified(|progress| {
            progress.spooled = spooled;
            false
        });
        fill.window.trim(spooled);
        fill.window.has_spooled();
    }
}
