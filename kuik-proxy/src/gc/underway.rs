//! Removals that go on at the same time: a bucket takes its time to answer each.

use std::future::Future;

use futures::{
    FutureExt as _, TryFutureExt as _, TryStreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use kuik_core::content::{SourceError, SourceErrorKind};

use super::leases::Removal;

/// How many go on at a time.
const AT_A_TIME: usize = 8;

/// Removals that have begun, and what each of them is of.
#[derive(Debug)]
pub(super) struct Underway<T>(FuturesUnordered<BoxFuture<'static, Result<T, SourceError>>>);

impl<T> Default for Underway<T> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<T: Send + 'static> Underway<T> {
    /// Begins to remove `what`, and waits for another one where many have begun; returns what that was of. The work
    /// goes on also where the run is dropped meanwhile: disk work that has begun does not stop, and nobody may get a
    /// lease before it is done.
    ///
    /// # Errors
    /// That one of them failed. What is gone already counts as removed.
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

    /// Waits until all of them are over.
    ///
    /// # Errors
    /// That one of them failed.
    pub(super) async fn end(&mut self) -> Result<Vec<T>, SourceError> {
        let mut ended = Vec::new();
        while let Some(what) = self.0.try_next().await? {
            ended.push(what);
        }
        Ok(ended)
    }
}

/// What is gone already counts as removed.
pub(crate) fn or_gone(removed: Result<(), SourceError>) -> Result<(), SourceError> {
    removed.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}
