//! Where content is kept. One layout for every backend: that of Docker's registry, version 2, so that an existing
//! volume or bucket is adopted in place and can be given back.
//!
//! `layout` names things, a backend says what they lie on: `filesystem`, or `object` (feature `object-storage`).

mod filesystem;
mod layout;
mod map;
#[cfg(feature = "object-storage")]
mod object;
mod spool;
mod started_at;

use std::io;

use kuik_core::content::{SourceError, SourceErrorKind};

pub use filesystem::{FilesystemStore, OpenError};
#[cfg(feature = "object-storage")]
pub use object::{BucketOptions, InvalidBucket, ObjectStorage, Provider};

/// The store holds something else under a digest than the content with that digest.
///
/// It comes as the cause of a `NotFound`: the caller's remedy is to fetch it again, exactly as if it were absent.
#[derive(Debug, thiserror::Error)]
#[error("what the store has under this digest is damaged")]
struct Damaged(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Runs blocking disk work on tokio's pool, and says what was attempted where it fails.
async fn blocking<T: Send + 'static>(
    attempted: impl Into<String>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let attempted = attempted.into();
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if filesystem::is_absent(&error) => Err(match error.into_inner() {
            Some(cause) => SourceError::caused_by(SourceErrorKind::NotFound, attempted, cause),
            None => SourceError::new(SourceErrorKind::NotFound, attempted),
        }),
        Ok(Err(error)) => Err(SourceError::storage(attempted, error)),
        Err(panicked) => Err(SourceError::storage(attempted, io::Error::other(panicked))),
    }
}
