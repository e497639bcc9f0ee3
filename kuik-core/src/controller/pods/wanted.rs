//! Wanted images: interface between a source of image usage and the controller that creates their objects.

use std::{fmt, sync::Arc};

use futures::{StreamExt as _, future, future::BoxFuture, stream::BoxStream};

use super::{PodChange, PodTracker, WantedImage, service_accounts::SlimAccount};
use crate::{
    controller::{Informer, repository},
    crd::PullSecret,
    reference::RepositoryName,
};

/// Tells which images need a CachedImage, from memory. [`PodImages`] is the implementation for pods; implement it for
/// another source of usage: a CI system, a catalog, a schedule.
///
/// Images are identified by their normalized reference ([`WantedImage::normalized`]).
pub trait WantedImages: fmt::Debug + Send + Sync + 'static {
    /// Resolves when the images are known. Nothing is created before.
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }

    /// Returns all wanted images.
    fn all(&self) -> Vec<WantedImage>;

    /// Returns an image by its normalized reference; `None` if it is not wanted.
    fn get(&self, normalized: &str) -> Option<WantedImage>;

    /// Streams the normalized reference of each image that may be wanted from now on. `None` means any image: then
    /// [`all`](Self::all) is called. If the images are known already, the first item is `None`.
    fn changes(&self) -> BoxStream<'static, Option<Arc<str>>>;

    /// Returns the pull secrets that a new Repository object gets in its status. None by default.
    fn pull_secrets(&self, _repository: &RepositoryName) -> Vec<PullSecret> {
        Vec::new()
    }
}

/// The images that pods use, with the pull secrets of the pods and of their ServiceAccounts.
#[derive(Clone)]
pub struct PodImages {
    pods: PodTracker,
    accounts: Informer<SlimAccount>,
}

impl PodImages {
    /// Creates the source of the images that `pods` use.
    #[must_use]
    pub fn new(pods: PodTracker, accounts: Informer<SlimAccount>) -> Self {
        Self { pods, accounts }
    }
}

impl WantedImages for PodImages {
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // It fails only if the informer has ended: then there are no changes either.
            let _ = self.accounts.store().wait_until_ready().await;
        })
    }

    fn all(&self) -> Vec<WantedImage> {
        self.pods.read(|index| index.images().cloned().collect()).unwrap_or_default()
    }

    fn get(&self, normalized: &str) -> Option<WantedImage> {
        self.pods.read(|index| index.image(normalized).cloned()).flatten()
    }

    fn changes(&self) -> BoxStream<'static, Option<Arc<str>>> {
        let image = |change| {
            future::ready(match change {
                PodChange::Known => Some(None),
                PodChange::Image(image) => Some(Some(image)),
                PodChange::Repository(_) => None,
            })
        };
        self.pods.changes().filter_map(image).boxed()
    }

    fn pull_secrets(&self, repository: &RepositoryName) -> Vec<PullSecret> {
        repository::pull_secrets(&self.pods, &self.accounts.store(), repository).unwrap_or_default()
    }
}

impl fmt::Debug for PodImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodImages").field("pods", &self.pods).finish_non_exhaustive()
    }
}
