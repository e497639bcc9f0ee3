//! Shared test harness: a complete proxy over a scripted registry, and clients for it.
//!
//! [`Harness`] has the composition of `kuik serve`: service, pull-through cache, directory, registry client.
//! [`Harness::get`] calls the service directly; [`OverTcp`] serves one on loopback, for behavior that is only visible
//! on a connection.
#![allow(dead_code, reason = "every test file uses its own part")]

pub(crate) mod manual_upstream;
pub(crate) mod store;
mod tcp;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use kuik_core::{
    client::{
        HostLimits, HttpTransport, RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _,
        Upstreams,
    },
    content::{Blob, ContentSource, Digest, RegistryStore, SourceError},
    credentials::Anonymous,
};
use kuik_proxy::{
    maintenance::gc::{LeasedStore, Leases},
    pull_through::{PullThrough, PullThroughOptions, Revalidate},
    service::{ProxyBody, ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use kuik_testkit::{SampleImage, ScriptedRegistry};
use tempfile::TempDir;

#[allow(unused_imports, reason = "every test file uses its own part")]
pub(crate) use tcp::OverTcp;

/// Timeouts that are short enough to wait for, and long enough for a busy machine when none should expire.
pub(crate) const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    headers: Duration::from_millis(600),
    answer: Duration::from_millis(1500),
    stall: Duration::from_millis(500),
};

/// A store as a registry uses it, without a collector.
pub(crate) fn leased<S: RegistryStore>(store: Arc<S>) -> LeasedStore<Arc<dyn RegistryStore>> {
    LeasedStore::new(store, Leases::default())
}

/// A proxy over a scripted registry, with its own data directory.
pub(crate) struct Harness {
    pub(crate) upstream: ScriptedRegistry,
    pub(crate) data: TempDir,
    pub(crate) cache: PullThrough,
    pub(crate) proxy: ProxyService,
    pub(crate) metrics: ProxyMetrics,
    timeouts: Timeouts,
}

impl Harness {
    /// Starts a proxy that never revalidates its content.
    pub(crate) async fn start() -> Self {
        Self::with(Timeouts::default(), options(Revalidate::Never)).await
    }

    pub(crate) async fn with(timeouts: Timeouts, options: PullThroughOptions) -> Self {
        let upstream = ScriptedRegistry::start().await.unwrap();
        Self::over(upstream, tempfile::tempdir().unwrap(), timeouts, options)
    }

    fn over(
        upstream: ScriptedRegistry,
        data: TempDir,
        timeouts: Timeouts,
        options: PullThroughOptions,
    ) -> Self {
        let cache = PullThrough::new(open(data.path()), Arc::new(client_of(&upstream, timeouts)), options);
        let (proxy, metrics) = service(cache.clone());
        Self { upstream, data, cache, proxy, metrics, timeouts }
    }

    /// Simulates a restart: the same directory and registry, empty memory.
    pub(crate) async fn restarted(self, options: PullThroughOptions) -> Self {
        self.cache.drain().await;
        let Self { upstream, data, cache, proxy, timeouts, .. } = self;
        drop((cache, proxy));
        Self::over(upstream, data, timeouts, options)
    }

    /// Path of content in a repository of the upstream.
    pub(crate) fn path(&self, repository: &str, rest: &str) -> String {
        let name = self.upstream.repository(repository).unwrap().encoded().unwrap();
        format!("/v2/{name}/{rest}")
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        ask(&self.proxy, Method::GET, path, &[]).await
    }

    pub(crate) async fn head(&self, path: &str) -> Reply {
        ask(&self.proxy, Method::HEAD, path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        ask(&self.proxy, Method::GET, path, headers).await
    }

    /// The metrics exposition.
    pub(crate) fn exposed(&self) -> String {
        exposed(&self.metrics)
    }
}

/// A completely read response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body, or the error that broke the transfer.
    pub(crate) body: Result<Bytes, SourceError>,
}

impl Reply {
    /// Value of a header; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// The body of a complete transfer.
    pub(crate) fn bytes(&self) -> &Bytes {
        self.body.as_ref().unwrap()
    }

    /// Error code of the specification in an error body.
    pub(crate) fn code(&self) -> String {
        error_code(self.bytes())
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

pub(crate) fn error_code(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

/// Sends a request to a service, and reads the response to its end.
pub(crate) async fn ask(proxy: &ProxyService, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let (parts, body) = begin(proxy, method, path, headers).await.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    Reply { status: parts.status, headers: parts.headers, body }
}

/// Sends a request to a service; the body of the response is still unread.
pub(crate) async fn begin(
    proxy: &ProxyService,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> http::Response<ProxyBody> {
    proxy.answer(method, path.parse().unwrap(), header_map(headers)).await
}

pub(crate) fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    headers.iter().map(header).collect()
}

pub(crate) fn options(revalidate: Revalidate) -> PullThroughOptions {
    let mut options = PullThroughOptions::default();
    options.revalidate = revalidate;
    options
}

pub(crate) fn open(data: &Path) -> Arc<FilesystemStore> {
    Arc::new(FilesystemStore::open(data).unwrap())
}

pub(crate) fn service(source: impl ContentSource) -> (ProxyService, ProxyMetrics) {
    let metrics = ProxyMetrics::default();
    (ProxyService::new(Arc::new(source), ProxyOptions::default(), metrics.clone()), metrics)
}

pub(crate) fn exposed(metrics: &ProxyMetrics) -> String {
    let mut registry = prometheus_client::registry::Registry::with_prefix("kube_image_keeper");
    metrics.register(&mut registry);
    let mut exposed = String::new();
    prometheus_client::encoding::text::encode(&mut exposed, &registry).unwrap();
    exposed
}

/// A client of that registry, without credentials.
pub(crate) fn client_of(registry: &ScriptedRegistry, timeouts: Timeouts) -> RegistryClient {
    client(&registry.host(), timeouts)
}

/// A client of the registry at `host` over plain HTTP, without credentials.
pub(crate) fn client(host: &str, timeouts: Timeouts) -> RegistryClient {
    client_with(Upstreams::default().insecure(host).unwrap(), timeouts)
}

/// A client that finds registries through `upstreams`, without credentials.
pub(crate) fn client_with(upstreams: Upstreams, timeouts: Timeouts) -> RegistryClient {
    let mut config = TransportConfig::default();
    config.guard = upstreams.guard();
    config.timeouts = timeouts;
    config.system_roots = false;
    // Every fault must reach the upstream: the circuit breaker has its own tests.
    let transport = HttpTransport::new(config).unwrap();
    RegistryClient::limited(transport, upstreams, Anonymous, timeouts, HostLimits::none())
}

/// A single-platform image whose only layer has about `size` bytes, and that layer.
pub(crate) fn image_with_layer(seed: u64, size: usize) -> (SampleImage, Digest, Bytes) {
    let image = SampleImage::builder().seed(seed).platform("linux", "amd64").layer(size).build();
    let digest = image.layers()[0].digest.clone();
    let bytes = image.blobs()[&digest].clone();
    (image, digest, bytes)
}

/// The bytes of a blob until it ends or fails, and the error.
pub(crate) async fn read(mut blob: Blob) -> (Vec<u8>, Option<SourceError>) {
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

/// Returns the output of the future; fails the test if it hangs.
pub(crate) async fn within_reason<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

/// Every file under `dir`, by its relative path.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// The files with content: without the lock, which always exists.
pub(crate) fn content_files(data: &Path) -> Vec<String> {
    files(data).into_iter().filter(|path| path != ".kuik/lock").collect()
}
