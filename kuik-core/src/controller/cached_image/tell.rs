//! What people and counters are told: events on the object, and metrics.

use kube_core::Resource as _;

use super::metrics::Metrics;
use crate::{
    controller::{Event, EventRecorder},
    crd::CachedImage,
    plan::Occasion,
};

/// How much of a message an event has room for.
const MAX_MESSAGE: usize = 1000;

/// Tells of what happened to `object`, an image of `registry`.
pub(super) fn occasion(
    events: &dyn EventRecorder,
    metrics: &Metrics,
    object: &CachedImage,
    registry: &str,
    occasion: &Occasion,
) {
    let image = &object.spec.source_image;
    match occasion {
        Occasion::Caching => {
            event(events, object, false, "Caching", &format!("{image} is being put into the cache"));
        }
        Occasion::Cached { digest, without } => {
            metrics.put(registry);
            let without =
                if without.is_empty() { String::new() } else { format!("; without {}", without.join("; ")) };
            event(events, object, false, "Cached", &format!("{image} is in the cache as {digest}{without}"));
        }
        Occasion::CacheFailed { problem, news } => {
            metrics.failed(registry);
            tracing::warn!(%image, problem, "an image could not be put into the cache");
            if *news {
                event(
                    events,
                    object,
                    true,
                    "CacheFailed",
                    &format!("{image} could not be put into the cache: {problem}"),
                );
            }
        }
        Occasion::CleaningUp => {
            event(events, object, false, "CleaningUp", &format!("{image} is being removed from the cache"));
        }
        Occasion::CleanedUp => {
            metrics.removed();
            event(events, object, false, "CleanedUp", &format!("{image} was removed from the cache"));
        }
        Occasion::CleanupFailed { problem, news } => {
            tracing::warn!(%image, problem, "an image could not be removed from the cache");
            if *news {
                let message = format!("{image} could not be removed from the cache: {problem}");
                event(events, object, true, "CleanupFailed", &message);
            }
        }
    }
}

pub(super) fn event(
    events: &dyn EventRecorder,
    object: &CachedImage,
    warning: bool,
    reason: &'static str,
    message: &str,
) {
    let message = message.chars().take(MAX_MESSAGE).collect();
    events.record(Event { about: object.object_ref(&()), warning, reason, message });
}
