//! Shared informer: one watch per kind of object and process.
//!
//! There is one connection to the API server and one copy of each object, independent of the number of subscribers.
//! Objects are read from the [`store`](Informer::store); [`changes`](Informer::changes) streams which ones to read
//! again. Invariant: a change is in the store before subscribers are notified.

use std::{fmt, hash::Hash, sync::Arc};

use futures::{Stream, StreamExt as _, channel::mpsc};
use kube_client::Api;
use kube_core::Resource;
use kube_runtime::{
    WatchStreamExt as _,
    reflector::{self, ObjectRef, Store},
    watcher::{self, Event},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

/// Cache of all objects of a kind. Cheap to clone; clones share state.
pub struct Informer<K: Resource<DynamicType: Hash + Eq> + 'static> {
    store: Store<K>,
    listeners: Arc<Mutex<Vec<mpsc::UnboundedSender<ObjectRef<K>>>>>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    /// Returns an informer of all objects of `api` that `config` selects, and the future that runs its watch. The
    /// future never ends and must be polled as long as the informer is used. After an error it lists and watches again,
    /// with exponential backoff.
    pub fn new(api: Api<K>, config: watcher::Config) -> (Self, impl Future<Output = ()> + Send) {
        let (store, mut writer) = reflector::store();
        let informer = Self { store, listeners: Arc::default() };
        let listeners = informer.listeners.clone();
        let work = async move {
            let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        // Objects missing from a complete list have no event of their own.
                        let before = match &event {
                            Event::InitDone => writer.as_reader().state(),
                            _ => Vec::new(),
                        };
                        writer.apply_watcher_event(&event);
                        notify(&listeners, &touched(&event, &before, &writer.as_reader()));
                    }
                    Err(error) => {
                        let kind = K::plural(&());
                        tracing::warn!(%kind, error = &error as &dyn std::error::Error, "watch interrupted, retrying");
                    }
                }
            }
        };
        (informer, work)
    }

    /// Returns the store. It is empty until the first list is complete, which [`Store::wait_until_ready`] awaits.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Streams each object after it is added, changed or removed from now on, starting with those already in the store.
    pub fn changes(&self) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
        let (sender, receiver) = mpsc::unbounded();
        let mut listeners = self.listeners.lock();
        for object in self.store.state() {
            // Cannot fail: the receiver is alive.
            let _ = sender.unbounded_send(ObjectRef::from_obj(&*object));
        }
        listeners.push(sender);
        receiver
    }
}

/// Returns the objects that an event concerns.
fn touched<K>(event: &Event<K>, before: &[Arc<K>], store: &Store<K>) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    match event {
        Event::Apply(object) | Event::Delete(object) => vec![ObjectRef::from_obj(object)],
        Event::InitDone => {
            let now = store.state();
            let gone = before.iter().map(|object| ObjectRef::from_obj(&**object));
            let gone = gone.filter(|object| store.get(object).is_none());
            now.iter().map(|object| ObjectRef::from_obj(&**object)).chain(gone).collect()
        }
        Event::Init | Event::InitApply(_) => Vec::new(),
    }
}

fn notify<K>(listeners: &Mutex<Vec<mpsc::UnboundedSender<ObjectRef<K>>>>, objects: &[ObjectRef<K>])
where
    K: Resource<DynamicType = ()> + 'static,
{
    let mut listeners = listeners.lock();
    listeners.retain(|listener| {
        objects.iter().all(|object| listener.unbounded_send(object.clone()).is_ok()) && !listener.is_closed()
    });
}

impl<K: Resource<DynamicType: Hash + Eq> + 'static> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), listeners: self.listeners.clone() }
    }
}

impl<K: Resource<DynamicType: Hash + Eq + Clone> + Clone + 'static> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("objects", &self.store.len()).finish_non_exhaustive()
    }
}
