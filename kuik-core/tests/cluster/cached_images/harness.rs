//! Test harness: a cluster API, a source, a cache and the controller, with a test-controlled clock and image usage.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, channel::mpsc, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use kube_client::{Api, Client, api::PostParams};
use kube_core::{CustomResourceExt as _, ResourceExt as _};
use kuik_core::{
    client::{
        HttpTransport, RegistryClient, Timeouts, TransportConfig, Upstream, UpstreamResolver, Upstreams,
    },
    content::{ContentSource as _, Digest, EncodedNames, Freshness, TagOrDigest},
    controller::{
        Event, EventRecorder, ImageUsage, Informer, Usage,
        cached_image::{CachedImageController, Options},
    },
    copy::{Copied, CopyError, ImageCopier, Platforms, Progress, PushCopier, SourceImage, Verdict},
    crd::{CachedImage, CachedImageSpec, CustomResourceDefinition, Repository},
    credentials::Anonymous,
    reference::{ImageReference, RepositoryName},
};
use kuik_testkit::{
    SampleImage, ScriptedRegistry,
    real::{ApiServer, DockerRegistry, RegistryOptions},
};
use tokio::{task::JoinHandle, time::Instant};

/// Maximum wait for an expected state.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Harness {
    pub(crate) server: ApiServer,
    pub(crate) source: ScriptedRegistry,
    pub(crate) cache: DockerRegistry,
    pub(crate) storage: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) images: Api<CachedImage>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) events: Arc<Events>,
    pub(crate) copier: Arc<Counting>,
    ahead: Arc<AtomicI64>,
    running: Vec<JoinHandle<()>>,
}

/// Image usage set by the test.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    counts: Mutex<BTreeMap<String, usize>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Option<String>>>>,
}

impl Pods {
    pub(crate) fn set(&self, image: &str, count: usize) {
        let image = ImageReference::parse(image).unwrap().normalized();
        self.counts.lock().unwrap().insert(image.clone(), count);
        self.listeners
            .lock()
            .unwrap()
            .retain(|listener| listener.unbounded_send(Some(image.clone())).is_ok());
    }
}

impl Usage for Pods {
    fn of(&self, image: &str) -> Option<ImageUsage> {
        let count = self.counts.lock().unwrap().get(image).copied().unwrap_or_default();
        Some(ImageUsage { count, pods: (0..count).map(|n| format!("default/web-{n}")).collect() })
    }

    fn changes(&self) -> BoxStream<'static, Option<String>> {
        let (sender, receiver) = mpsc::unbounded();
        self.listeners.lock().unwrap().push(sender);
        receiver.boxed()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<(String, &'static str)>>);

impl Events {
    /// Returns the reasons of the events about an object, in order.
    pub(crate) fn of(&self, name: &str) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().filter(|(about, _)| about == name).map(|(_, reason)| *reason).collect()
    }
}

impl EventRecorder for Events {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push((event.about.name.unwrap_or_default(), event.reason));
    }
}

/// A copier that counts verifications.
#[derive(Debug)]
pub(crate) struct Counting {
    inner: PushCopier,
    pub(crate) looks: AtomicUsize,
}

#[async_trait]
impl ImageCopier for Counting {
    async fn resolve_upstream(&self, image: &SourceImage) -> Result<Digest, CopyError> {
        self.inner.resolve_upstream(image).await
    }

    async fn copy(&self, image: &SourceImage, progress: &dyn Progress) -> Result<Copied, CopyError> {
        let copied = self.inner.copy(image, progress).await;
        // Shown if the test fails.
        let _ = copied.as_ref().inspect_err(|error| eprintln!("copy {image}: {}", error.chain()));
        copied
    }

    async fn verify(&self, image: &SourceImage) -> Result<Verdict, CopyError> {
        let verdict = self.inner.verify(image).await;
        self.looks.fetch_add(1, Ordering::SeqCst);
        verdict
    }

    async fn remove(&self, image: &SourceImage) -> Result<(), CopyError> {
        self.inner.remove(image).await
    }
}

fn registry(at: impl UpstreamResolver) -> RegistryClient {
    let mut config = TransportConfig::default();
    config.guard = at.guard();
    config.system_roots = false;
    RegistryClient::new(HttpTransport::new(config).unwrap(), at, Anonymous, Timeouts::default())
}

/// Starts an API server with our resources.
pub(crate) async fn api_server() -> (ApiServer, Client) {
    let server = ApiServer::start().await.unwrap();
    let client = server.admin().client().await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in [CachedImage::crd(), Repository::crd()] {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    server.admin().kubectl(wait).await.unwrap();
    (server, client)
}

impl Harness {
    pub(crate) async fn start() -> Self {
        let (server, client) = api_server().await;
        let storage = tempfile::tempdir().unwrap();
        let options =
            RegistryOptions { storage: Some(storage.path().to_owned()), ..RegistryOptions::default() };
        let cache = DockerRegistry::start(&options).await.unwrap();
        let source = ScriptedRegistry::start().await.unwrap();
        let from = registry(Upstreams::default().insecure(&source.host()).unwrap());
        let inner = PushCopier::new(Arc::new(from), at_cache(&cache), Arc::new(Platforms::all()));
        let copier = Arc::new(Counting { inner, looks: AtomicUsize::default() });
        let images = Api::all(client.clone());
        let (pods, events, ahead) = (Arc::default(), Arc::default(), Arc::default());
        let running = Vec::new();
        let mut harness =
            Self { server, source, cache, storage, client, images, pods, events, copier, ahead, running };
        harness.reconcile();
        harness
    }

    /// Runs the controller, as a new process would.
    pub(crate) fn reconcile(&mut self) {
        for task in self.running.drain(..) {
            task.abort();
        }
        let (images, watching_images) = Informer::new(Api::all(self.client.clone()), Default::default());
        let (repositories, watching_repositories) =
            Informer::new(Api::all(self.client.clone()), Default::default());
        let mut options = Options::default();
        options.verify_interval = Duration::from_secs(1);
        options.show_after = Duration::from_millis(200);
        let ahead = self.ahead.clone();
        let clock = move || {
            Timestamp::now().checked_add(SignedDuration::from_secs(ahead.load(Ordering::SeqCst))).unwrap()
        };
        let reconciler = CachedImageController::new(
            self.client.clone(),
            images,
            repositories,
            self.pods.clone(),
            self.copier.clone(),
            options,
        )
        .with_events(self.events.clone())
        .with_clock(Arc::new(clock));
        self.running = vec![
            tokio::spawn(watching_images),
            tokio::spawn(watching_repositories),
            tokio::spawn(reconciler.run(std::future::pending())),
        ];
    }

    /// Lets days pass, and reconciles everything with an annotation, as users do.
    pub(crate) async fn advance(&self, days: i64) {
        let seconds = self.ahead.fetch_add(days * 24 * 3600, Ordering::SeqCst);
        let stamp = format!("timestamp={seconds}-{days}");
        for _ in 0..10 {
            let annotate = ["annotate", "cachedimages", "--all", "--overwrite", &stamp];
            match self.server.admin().kubectl(annotate).await {
                Ok(_) => return,
                // An object expired between the list and its patch; the others still have to be reconciled.
                Err(error) if error.to_string().contains("NotFound") => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("objects go all the time");
    }

    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.source.host())
    }

    /// Returns the object name of an image.
    pub(crate) fn object(&self, image: &str) -> String {
        kuik_core::crd::cached_image_name(&ImageReference::parse(&self.name(image)).unwrap())
    }

    /// Creates the object of an image under this name.
    pub(crate) async fn create(&self, name: &str, image: &str) {
        let spec = CachedImageSpec { source_image: self.name(image), ..CachedImageSpec::default() };
        self.images.create(&PostParams::default(), &CachedImage::new(name, spec)).await.unwrap();
    }

    /// Waits until an object satisfies a condition.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&CachedImage) -> bool,
    ) -> CachedImage {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.images.get_opt(name).await.ok().flatten();
            if let Some(object) = found.as_ref().filter(|object| condition(object)) {
                return object.clone();
            }
            assert!(Instant::now() < deadline, "{name} never {what}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn until_cached(&self, name: &str) -> CachedImage {
        self.until(name, "was cached", |object| {
            object.status.as_ref().is_some_and(|status| status.is_cached == Some(true))
        })
        .await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.images.get_opt(name).await.unwrap().is_some() {
            assert!(Instant::now() < deadline, "{name} was never deleted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a tag is removed from the cache.
    pub(crate) async fn until_untagged(&self, repository: &str, tag: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.at_cache(repository, tag).await.is_some() {
            assert!(Instant::now() < deadline, "{repository}:{tag} was never removed from the cache");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for this many more verifications of the cache.
    pub(crate) async fn until_verified(&self, times: usize) {
        let (before, deadline) = (self.copier.looks.load(Ordering::SeqCst), Instant::now() + PATIENCE);
        while self.copier.looks.load(Ordering::SeqCst) < before + times {
            assert!(Instant::now() < deadline, "the cache was not verified");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the digest of a tag of the cache.
    pub(crate) async fn at_cache(&self, path: &str, tag: &str) -> Option<Digest> {
        let repository = EncodedNames::at_cache(&self.source.repository(path).unwrap()).unwrap();
        let tag = TagOrDigest::Tag(tag.parse().unwrap());
        let found = at_cache(&self.cache).resolve(&repository, &tag, Freshness::Cached).await;
        found.ok().map(|found| found.content.digest)
    }

    pub(crate) async fn version(&self, name: &str) -> Option<String> {
        self.images.get(name).await.unwrap().resource_version()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        for task in &self.running {
            task.abort();
        }
    }
}

fn at_cache(cache: &DockerRegistry) -> RegistryClient {
    let name = RepositoryName::new(&cache.host(), "cache").unwrap();
    registry(Upstream::new(&cache.url(), name).unwrap())
}

pub(crate) fn image(seed: u64) -> SampleImage {
    SampleImage::builder().seed(seed).platform("linux", "amd64").layer(5_000).layer(400_000).build()
}
