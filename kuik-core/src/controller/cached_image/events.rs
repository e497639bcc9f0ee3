//! Kubernetes events and metrics of a CachedImage.

use kube_core::Resource as _;

use super::metrics::Metrics;
use crate::{
    controller::{Event, EventRecorder, cached_image::plan::EventKind},
    crd::CachedImage,
};

/// Maximum length of an event message.
const MAX_MESSAGE: usize = 1000;

/// Records an event about `object`, an image of `registry`, and updates the metrics.
pub(super) fn record(
    events: &dyn EventRecorder,
    metrics: &Metrics,
    object: &CachedImage,
    registry: &str,
    kind: &EventKind,
) {
    let image = &object.spec.source_image;
    match kind {
        EventKind::Caching => {
            event(events, object, false, "Caching", &format!("pulling {image} into the cache"));
        }
        EventKind::Cached { digest, skipped } => {
            metrics.put(registry);
            let skipped =
                if skipped.is_empty() { String::new() } else { format!("; skipped: {}", skipped.join("; ")) };
            event(events, object, false, "Cached", &format!("cached {image} with digest {digest}{skipped}"));
        }
        EventKind::CacheFailed { problem, is_new } => {
            metrics.failed(registry);
            tracing::warn!(%image, problem, "failed to cache image");
            if *is_new {
                event(events, object, true, "CacheFailed", &format!("failed to cache {image}: {problem}"));
            }
        }
        EventKind::CacheFull { problem, is_new } => {
            metrics.failed(registry);
            metrics.full();
            tracing::warn!(%image, problem, "the cache has no room for an image");
            if *is_new {
                event(events, object, true, "CacheFull", &format!("failed to cache {image}: {problem}"));
            }
        }
        EventKind::CleaningUp => {
            event(events, object, false, "CleaningUp", &format!("removing {image} from the cache"));
        }
        EventKind::CleanedUp => {
            metrics.removed();
            event(events, object, false, "CleanedUp", &format!("removed {image} from the cache"));
        }
        EventKind::CleanupFailed { problem, is_new } => {
            tracing::warn!(%image, problem, "failed to remove image from the cache");
            if *is_new {
                let message = format!("failed to remove {image} from the cache: {problem}");
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
