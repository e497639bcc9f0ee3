//! Pod tracker: maintains the [`PodIndex`] from a watch of pods and notifies subscribers of changes.

use std::{fmt, sync::Arc};

use futures::{Stream, StreamExt as _, channel::mpsc, future, stream::BoxStream};
use kube_client::{Api, Client};
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Event},
};
use parking_lot::Mutex;

use super::{Changes, PodIndex, PodRules, SlimPod};
use crate::{
    controller::{ImageUsage, Usage},
    reference::RepositoryName,
};

/// Number of pods per page of a list request: the response text of a page is in memory while it is decoded.
const PAGE_SIZE: u32 = 100;

/// Tracks which pods use which image. Clones share state.
#[derive(Clone)]
pub struct PodTracker(Arc<Shared>);

struct Shared {
    rules: PodRules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: PodIndex,
    /// Whether the initial list is complete.
    known: bool,
    listeners: Vec<mpsc::UnboundedSender<PodChange>>,
}

/// A change of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PodChange {
    /// The initial list is complete: any image may be used now.
    Known,
    /// The pods of the image of this normalized reference changed.
    Image(Arc<str>),
    /// The pull secrets that pods use for this repository changed.
    Repository(RepositoryName),
}

impl PodTracker {
    /// Creates an empty tracker. `rules` select the images to cache.
    #[must_use]
    pub fn new(rules: PodRules) -> Self {
        Self(Arc::new(Shared { rules, state: Mutex::default() }))
    }

    /// Watches all pods, forever. A watch that fails or expires is restarted, without emitting changes by itself.
    pub async fn watch(&self, client: Client) {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let pods: Api<SlimPod> = Api::all(client);
        let mut events = std::pin::pin!(watcher::watcher(pods, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(&event),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "pod watch interrupted, retrying"
                    );
                }
            }
        }
    }

    /// Applies a watch event.
    pub fn apply(&self, event: &Event<SlimPod>) {
        let Shared { rules, state } = &*self.0;
        let images = match event {
            Event::Apply(pod) | Event::InitApply(pod) => rules.images_of(pod),
            Event::Init | Event::InitDone | Event::Delete(_) => Vec::new(),
        };
        let state = &mut *state.lock();
        let changes = match event {
            Event::Init => {
                state.index.begin_list();
                Changes::default()
            }
            Event::Apply(pod) | Event::InitApply(pod) => state.index.apply(pod, images),
            Event::Delete(pod) => state.index.delete(pod),
            Event::InitDone => state.index.end_list(),
        };
        if state.known {
            state.notify(&changes.into_list());
        } else if matches!(event, Event::InitDone) {
            state.known = true;
            state.notify(&[PodChange::Known]);
        }
    }

    /// Streams changes from now on, starting with [`PodChange::Known`] if the pods are listed already.
    pub fn changes(&self) -> impl Stream<Item = PodChange> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded();
        self.with(|state| {
            if state.known {
                // Cannot fail: the receiver is alive.
                let _ = sender.unbounded_send(PodChange::Known);
            }
            state.listeners.push(sender);
        });
        receiver
    }

    /// Reads the index; `None` until all pods have been listed.
    pub fn read<T>(&self, read: impl FnOnce(&PodIndex) -> T) -> Option<T> {
        self.with(|state| state.known.then(|| read(&state.index)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.state.lock())
    }
}

impl State {
    fn notify(&mut self, changes: &[PodChange]) {
        self.listeners.retain(|listener| {
            changes.iter().all(|change| listener.unbounded_send(change.clone()).is_ok())
                && !listener.is_closed()
        });
    }
}

impl Changes {
    fn into_list(self) -> Vec<PodChange> {
        let images = self.images.into_iter().map(PodChange::Image);
        images.chain(self.repositories.into_iter().map(PodChange::Repository)).collect()
    }
}

impl Usage for PodTracker {
    fn of(&self, image: &str) -> Option<ImageUsage> {
        self.read(|index| index.usage(image))
    }

    fn changes(&self) -> BoxStream<'static, Option<String>> {
        let image = |change| {
            future::ready(match change {
                PodChange::Known => Some(None),
                PodChange::Image(image) => Some(Some(image.to_string())),
                PodChange::Repository(_) => None,
            })
        };
        Self::changes(self).filter_map(image).boxed()
    }
}

impl fmt::Debug for PodTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodTracker").field("rules", &self.0.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::{
        reference::ProxyAuthority,
        rewrite::{Rewriter, StandardPolicy},
    };

    fn pod(name: &str, image: &str) -> SlimPod {
        let spec =
            json!({ "containers": [{ "name": "a", "image": image, "imagePullPolicy": "IfNotPresent" }] });
        let pod = json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
        serde_json::from_value(pod).unwrap()
    }

    fn tracker() -> PodTracker {
        let rewriter = Rewriter::new(ProxyAuthority::localhost(7439), StandardPolicy::new());
        PodTracker::new(PodRules::new(rewriter))
    }

    #[test]
    fn usage_is_unknown_before_the_list_is_complete() {
        let tracker = tracker();
        let mut changes = Box::pin(tracker.changes());
        tracker.apply(&Event::Init);
        tracker.apply(&Event::InitApply(pod("a", "nginx:1")));
        assert_eq!(tracker.of("docker.io/library/nginx:1"), None);
        assert!(changes.next().now_or_never().is_none());
        tracker.apply(&Event::InitDone);
        assert_eq!(changes.next().now_or_never().flatten(), Some(PodChange::Known));
        assert_eq!(tracker.of("docker.io/library/nginx:1").unwrap().count, 1);
        assert_eq!(tracker.of("docker.io/library/redis:1").unwrap().count, 0);
    }

    #[test]
    fn restarted_watch_emits_no_changes() {
        let tracker = tracker();
        for _ in 0..3 {
            tracker.apply(&Event::Init);
            tracker.apply(&Event::InitApply(pod("a", "nginx:1")));
            tracker.apply(&Event::InitDone);
            tracker.apply(&Event::Apply(pod("a", "nginx:1")));
        }
        let mut changes = Box::pin(tracker.changes());
        assert_eq!(changes.next().now_or_never().flatten(), Some(PodChange::Known));
        tracker.apply(&Event::Init);
        tracker.apply(&Event::InitDone);
        let image = PodChange::Image("docker.io/library/nginx:1".into());
        assert_eq!(changes.next().now_or_never().flatten(), Some(image));
        assert!(changes.next().now_or_never().is_none());
    }
}
