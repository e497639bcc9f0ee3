//! One watch of a kind of objects, for everybody in a process who wants to know of them.
//!
//! There is one connection to the API server and one copy of each object, however many listen: whoever wants an object
//! reads the [`store`](Informer::store), and [`changes`](Informer::changes) tells which ones to look at again.
//! Invariant: what has changed is in the store before anybody is told of it.

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _, channel::mpsc};
use kube_client::Api;
use kube_core::Resource;
use kube_runtime::{
    WatchStreamExt as _,
    reflector::{self, ObjectRef, Store},
    watcher::{self, Event},
};
use serde::de::DeserializeOwned;

/// What is known of all objects of a kind. Cheap to clone; clones are the same informer.
pub struct Informer<K: Resource<DynamicType: Hash + Eq> + 'static> {
    store: Store<K>,
    listeners: Arc<Mutex<Vec<mpsc::UnboundedSender<ObjectRef<K>>>>>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    /// An informer of all objects of `api` that `config` selects, and the work of keeping it informed: a future that is
    /// polled for as long as anybody listens, and never ends. It lists and watches again after every error, ever more
    /// patiently.
    pub fn new(api: Api<K>, config: watcher::Config) -> (Self, impl Future<Output = ()> + Send) {
        let (store, mut writer) = reflector::store();
        let informer = Self { store, listeners: Arc::default() };
        let listeners = informer.listeners.clone();
        let work = async move {
            let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        // Those that are gone when a list is complete have no event of their own.
                        let before = match &event {
                            Event::InitDone => writer.as_reader().state(),
                            _ => Vec::new(),
                        };
                        writer.apply_watcher_event(&event);
                        tell(&listeners, &touched(&event, &before, &writer.as_reader()));
                    }
                    Err(error) => {
                        let kind = K::plural(&());
                        tracing::warn!(%kind, error = &error as &dyn std::error::Error, "a watch was interrupted");
                    }
                }
            }
        };
        (informer, work)
    }

    /// What is known now. It is empty until the first list is complete, for which
    /// [`Store::wait_until_ready`] waits.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Names each object after it was added, changed or removed, from now on; first those that are known already.
    pub fn changes(&self) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
        let (sender, receiver) = mpsc::unbounded();
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.store.state() {
            // The receiver is ours.
            let _ = sender.unbounded_send(ObjectRef::from_obj(&*object));
        }
        listeners.push(sender);
        receiver
    }
}

/// The objects that an event is about.
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

fn tell<K>(listeners: &Mutex<Vec<mpsc::UnboundedSender<ObjectRef<K>>>>, objects: &[ObjectRef<K>])
where
    K: Resource<DynamicType = ()> + 'static,
{
    let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
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
