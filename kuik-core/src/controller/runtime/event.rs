//! Kubernetes events, as shown by `kubectl describe`.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;

/// An event about an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The object.
    pub about: ObjectReference,
    /// Whether its type is `Warning`.
    pub warning: bool,
    /// Machine-readable reason, such as `Cached`.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// Sink for events. Never blocks and never fails: events may be lost, work continues.
pub trait EventRecorder: fmt::Debug + Send + Sync + 'static {
    /// Records an event.
    fn record(&self, event: Event);
}

/// Discards every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventRecorder for NoEvents {
    fn record(&self, _: Event) {}
}
