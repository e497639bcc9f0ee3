//! Writes of bytes under a lease, into a store that other processes may collect.

use std::future::Future;

use kuik_core::{
    content::{ContentStore, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

use super::Leases;

/// Runs `write`, which publishes or links the bytes of `digest` in `repositories`, under a lease. If it took so long
/// that another process may have started removing what it wrote, takes a new lease and links the bytes again.
///
/// # Errors
/// Fails if `write` fails, and with `Unavailable` if another process removes the bytes; they can be written again.
pub(super) async fn guarded_write<S: ContentStore>(
    store: &S,
    leases: &Leases,
    digest: &Digest,
    repositories: &[RepositoryName],
    write: impl Future<Output = Result<(), SourceError>> + Send,
) -> Result<(), SourceError> {
    let lease = leases.lease_for_writing([digest]).await?;
    write.await?;
    if lease.is_valid() {
        return Ok(());
    }
    let _again = leases.lease_for_writing([digest]).await?;
    for repository in repositories {
        store.link_blob(repository, digest).await.map_err(|error| {
            if !error.is_not_found() {
                return error;
            }
            let attempted =
                format!("publish {digest}: another process removed it concurrently, write it again");
            SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error)
        })?;
    }
    Ok(())
}
