//! Which pods use an image: what the watcher of pods knows, and the reconciler of CachedImages asks.

use std::fmt;

use futures::stream::BoxStream;

/// How many of an image's pods are named; all of them are counted.
pub const MAX_NAMED_PODS: usize = 50;

/// The pods that use an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageUsage {
    /// How many there are.
    pub count: usize,
    /// `namespace/name` of some of them, [`MAX_NAMED_PODS`] at most, in lexical order: the same for the same pods.
    pub pods: Vec<String>,
}

/// Knows which pods use an image. Answers come from memory: a reconcile asks every time.
///
/// Images are named by their normalised reference
/// ([`ImageReference::normalized`](crate::reference::ImageReference::normalized)).
pub trait Usage: fmt::Debug + Send + Sync + 'static {
    /// The pods that use `image`. `None` where that is not known yet, because the pods have not been listed: nothing
    /// expires then.
    fn of(&self, image: &str) -> Option<ImageUsage>;

    /// Names each image whose pods have changed, from now on. Once when the pods become known, every image may have
    /// changed, and `None` says so.
    fn changes(&self) -> BoxStream<'static, Option<String>>;
}
