//! Writing bytes into a store that others may be removing them from.

use std::future::Future;

use kuik_core::{
    content::{ContentStore, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};

use super::Leases;

/// Does `write`, which publishes or links the bytes of `digest` in `repositories`, under a lease. Where it took so long
/// that another process may have been about to remove what it wrote, it is seen to again.
///
/// # Errors
/// Those of `write`, and `Unavailable` where another process removes the bytes: they can be written again.
pub(super) async fn published<S: ContentStore>(
    store: &S,
    leases: &Leases,
    digest: &Digest,
    repositories: &[RepositoryName],
    write: impl Future<Output = Result<(), SourceError>> + Send,
) -> Result<(), SourceError> {
    let lease = leases.lease_for_writing([digest]).await?;
    write.await?;
    if lease.counts() {
        return Ok(());
    }
    let _again = leases.lease_for_writing([digest]).await?;
    for repository in repositories {
        store.link_blob(repository, digest).await.map_err(|error| {
            if !error.is_not_found() {
                return error;
            }
            let attempted = format!("publish {digest}: another process removed it meanwhile, write it again");
            SourceError::caused_by(SourceErrorKind::Unavailable, attempted, error)
        })?;
    }
    Ok(())
}
