//! Keeps the [`PodIndex`] up to date by a watch of the pods, and tells who listens what has changed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _, channel::mpsc, future, stream::BoxStream};
use kube_client::{Api, Client};
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Event},
};

use super::{Changes, PodIndex, PodRules, SlimPod};
use crate::{
    controller::{ImageUsage, Usage},
    reference::RepositoryName,
};

/// How many pods one answer of a list has: their text is in memory until all of them are read.
const PAGE_SIZE: u32 = 100;

/// Knows which pods use which image. Clones are the same tracker.
#[derive(Clone)]
pub struct PodTracker(Arc<Shared>);

struct Shared {
    rules: PodRules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: PodIndex,
    /// Whether all pods have been listed once.
    known: bool,
    listeners: Vec<mpsc::UnboundedSender<PodChange>>,
}

/// What has changed with the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PodChange {
    /// The pods have become known: any image may be used now.
    Known,
    /// The image of this full name is used by other pods than before.
    Image(Arc<str>),
    /// Pods use other secrets for this repository than before.
    Repository(RepositoryName),
}

impl PodTracker {
    /// Knows no pod yet; which of their images are kept is up to `rules`.
    #[must_use]
    pub fn new(rules: PodRules) -> Self {
        Self(Arc::new(Shared { rules, state: Mutex::default() }))
    }

    /// Watches all pods, for ever. A watch that breaks or has expired is begun again, and changes nothing by itself.
    pub async fn watch(&self, client: Client) {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let pods: Api<SlimPod> = Api::all(client);
        let mut events = std::pin::pin!(watcher::watcher(pods, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.hear(&event),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the watch of pods was interrupted"
                    );
                }
            }
        }
    }

    /// Takes note of what the watch says.
    pub fn hear(&self, event: &Event<SlimPod>) {
        let Shared { rules, state } = &*self.0;
        let images = match event {
            Event::Apply(pod) | Event::InitApply(pod) => rules.images_of(pod),
            Event::Init | Event::InitDone | Event::Delete(_) => Vec::new(),
        };
        let state = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
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
            state.tell(&changes.into_list());
        } else if matches!(event, Event::InitDone) {
            state.known = true;
            state.tell(&[PodChange::Known]);
        }
    }

    /// Says what changes, from now on; first that pods are known, where they are.
    pub fn changes(&self) -> impl Stream<Item = PodChange> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded();
        self.with(|state| {
            if state.known {
                // The receiver is ours.
                let _ = sender.unbounded_send(PodChange::Known);
            }
            state.listeners.push(sender);
        });
        receiver
    }

    /// Reads the index; `None` where not all pods have been listed yet.
    pub fn read<T>(&self, read: impl FnOnce(&PodIndex) -> T) -> Option<T> {
        self.with(|state| state.known.then(|| read(&state.index)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn tell(&mut self, changes: &[PodChange]) {
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
    use crate::{reference::ProxyAuthority, rewrite::StandardPolicy};

    fn pod(name: &str, image: &str) -> SlimPod {
        let spec =
            json!({ "containers": [{ "name": "a", "image": image, "imagePullPolicy": "IfNotPresent" }] });
        let pod = json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
        serde_json::from_value(pod).unwrap()
    }

    fn tracker() -> PodTracker {
        let proxy = ProxyAuthority::localhost(7439);
        PodTracker::new(PodRules::new(proxy.clone(), Arc::new(StandardPolicy::new(proxy))))
    }

    #[test]
    fn nothing_is_known_before_the_list_is_complete() {
        let tracker = tracker();
        let mut changes = Box::pin(tracker.changes());
        tracker.hear(&Event::Init);
        tracker.hear(&Event::InitApply(pod("a", "nginx:1")));
        assert_eq!(tracker.of("docker.io/library/nginx:1"), None);
        assert!(changes.next().now_or_never().is_none());
        tracker.hear(&Event::InitDone);
        assert_eq!(changes.next().now_or_never().flatten(), Some(PodChange::Known));
        assert_eq!(tracker.of("docker.io/library/nginx:1").unwrap().count, 1);
        assert_eq!(tracker.of("docker.io/library/redis:1").unwrap().count, 0);
    }

    #[test]
    fn a_watch_that_begins_again_changes_nothing() {
        let tracker = tracker();
        for _ in 0..3 {
            tracker.hear(&Event::Init);
            tracker.hear(&Event::InitApply(pod("a", "nginx:1")));
            tracker.hear(&Event::InitDone);
            tracker.hear(&Event::Apply(pod("a", "nginx:1")));
        }
        let mut changes = Box::pin(tracker.changes());
        assert_eq!(changes.next().now_or_never().flatten(), Some(PodChange::Known));
        tracker.hear(&Event::Init);
        tracker.hear(&Event::InitDone);
        let image = PodChange::Image("docker.io/library/nginx:1".into());
        assert_eq!(changes.next().now_or_never().flatten(), Some(image));
        assert!(changes.next().now_or_never().is_none());
    }
}
