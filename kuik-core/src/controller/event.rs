//! Events of Kubernetes objects: what `kubectl describe` shows of what happened to an object.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The object.
    pub about: ObjectReference,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// What happened, as one word: `Cached`.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
}

/// Takes note of events. It never blocks and never fails: where events cannot be kept, work goes on.
pub trait EventRecorder: fmt::Debug + Send + Sync + 'static {
    /// Takes note of an event.
    fn record(&self, event: Event);
}

/// Forgets every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventRecorder for NoEvents {
    fn record(&self, _: Event) {}
}
