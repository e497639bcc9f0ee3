//! Concurrent deletes with a fixed limit, because each request to a bucket takes time.

use std::future::Future;

use futures::{
    FutureExt as _, TryFutureExt as _, TryStreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use kuik_core::content::{SourceError, SourceErrorKind};

use super::leases::Removal;

/// Number of concurrent deletes.
const AT_A_TIME: usize = 8;

/// Deletes in progress, each with its subject.
#[derive(Debug)]
pub(super) struct ConcurrentDeletes<T>(FuturesUnordered<BoxFuture<'static, Result<T, SourceError>>>);

impl<T> Default for ConcurrentDeletes<T> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<T: Send + 'static> ConcurrentDeletes<T> {
    /// Starts deleting `what`. At the limit, waits for another delete and returns its subject. The work continues if
    /// the run is dropped: started disk work does not stop, and no lease may be granted before it is done.
    ///
    /// # Errors
    /// Fails if one of them failed. Content that is already gone counts as removed.
    pub(super) async fn begin(
        &mut self,
        what: T,
        removals: Vec<Removal>,
        work: impl Future<Output = Result<(), SourceError>> + Send + 'static,
    ) -> Result<Option<T>, SourceError> {
        let removed = tokio::spawn(async move {
            let _removals = removals;
            work.await
        });
        let removed = removed.map(|removed| match removed {
            Ok(removed) => or_gone(removed),
            Err(error) => {
                let attempted = "remove garbage: its task ended early";
                Err(SourceError::caused_by(SourceErrorKind::Storage, attempted, error))
            }
        });
        self.0.push(removed.map_ok(|()| what).boxed());
        if self.0.len() < AT_A_TIME { Ok(None) } else { self.0.try_next().await }
    }

    /// Waits until all of them have finished.
    ///
    /// # Errors
    /// Fails if one of them failed. Content that is already gone counts as removed.
    pub(super) async fn end(&mut self) -> Result<Vec<T>, SourceError> {
        let mut ended = Vec::new();
        while let Some(what) = self.0.try_next().await? {
            ended.push(what);
        }
        Ok(ended)
    }
}

/// Treats content that is already gone as removed.
pub(crate) fn or_gone(removed: Result<(), SourceError>) -> Result<(), SourceError> {
    removed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}
