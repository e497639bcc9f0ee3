//! Image usage: interface between the pod tracker and the CachedImage controller.

use std::fmt;

use futures::stream::BoxStream;

/// Maximum number of pod names per image; the count covers all pods.
pub const MAX_NAMED_PODS: usize = 50;

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageUsage {
    /// Number of pods.
    pub count: usize,
    /// `namespace/name` of up to [`MAX_NAMED_PODS`] of them, the first in lexical order.
    pub pods: Vec<String>,
}

/// Tells which pods use an image, from memory: every reconcile queries it.
///
/// Images are named by their normalized reference
/// ([`ImageReference::normalized`](crate::reference::ImageReference::normalized)).
pub trait Usage: fmt::Debug + Send + Sync + 'static {
    /// Returns the pods that use `image`; `None` until the pods have been listed. Until then nothing expires.
    fn of(&self, image: &str) -> Option<ImageUsage>;

    /// Streams each image whose pods change from now on. `None` means any image may have changed: sent once when the
    /// pods have been listed.
    fn changes(&self) -> BoxStream<'static, Option<String>>;
}
