//! Manifest cache hit: a whole request through the service, over a pull-through cache in a directory; `registry` is
//! the same through a complete registry, with its metrics.
//!
//! The baseline `response-alone` is a service that builds the same response of the same bytes and does nothing else:
//! no route, no lookup, no metrics. The ratio of the two is kuik's overhead over any server.

use std::{convert::Infallible, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use kuik_core::{
    content::{ContentStore, Manifest, RegistryStore},
    reference::RepositoryName,
};
use kuik_proxy::{
    maintenance::gc::{LeasedStore, Leases},
    pull_through::{PullThrough, PullThroughOptions},
    registry::push::{RegistryMetrics, RegistryOptions, RegistryService},
    service::{ProxyBody, ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use kuik_testkit::{MemoryStore, SampleImage};
use tower::Service as _;

fn manifest_hit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(runtime), Ok(data)) = (runtime, tempfile::tempdir()) else { return };
    let image = SampleImage::small(1);
    let Some(service) = runtime.block_on(cache_with(data.path(), image.index())) else { return };
    let by_digest = format!("/v2/docker.io/library/nginx/manifests/{}", image.index().digest());
    let mut group = criterion.benchmark_group("manifest_hit");
    for (name, path) in
        [("by-tag", "/v2/docker.io/library/nginx/manifests/latest"), ("by-digest", &by_digest)]
    {
        let mut service = service.clone();
        let answer = runtime.block_on(service.call(request(path)));
        assert!(answer.is_ok_and(|answer| answer.status().is_success()), "{path}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(runtime.block_on(service.call(request(path)))));
        });
    }
    if let Some(mut registry) = runtime.block_on(registry_with(image.index())) {
        group.bench_function("registry", |bencher| {
            bencher.iter(|| black_box(runtime.block_on(registry.call(registry_request(&by_digest)))));
        });
    }
    let mut baseline = tower::service_fn(|request: Request<()>| {
        let response = response_alone(image.index());
        async move {
            drop(black_box(request));
            Ok::<_, Infallible>(response)
        }
    });
    group.bench_function("response-alone", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(baseline.call(request(&by_digest)))));
    });
    group.finish();
}

fn request(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// A service over a cache that has the manifest, and whose upstream is empty.
async fn cache_with(data: &std::path::Path, manifest: &Manifest) -> Option<ProxyService> {
    let store = Arc::new(FilesystemStore::open(data).ok()?);
    let nginx = RepositoryName::new("docker.io", "library/nginx").ok()?;
    store.put_manifest(&nginx, manifest, Some(&"latest".parse().ok()?)).await.ok()?;
    let mut options = PullThroughOptions::default();
    options.revalidate = kuik_proxy::pull_through::Revalidate::Never;
    let cache = PullThrough::new(store.clone(), store, options);
    Some(ProxyService::new(Arc::new(cache), ProxyOptions::default(), ProxyMetrics::default()))
}

fn registry_request(path: &str) -> Request<Empty<Bytes>> {
    request(path).map(|()| Empty::new())
}

/// A registry over an in-memory cache that has the manifest.
async fn registry_with(manifest: &Manifest) -> Option<RegistryService> {
    let store = Arc::new(MemoryStore::new());
    let nginx = RepositoryName::new("docker.io", "library/nginx").ok()?;
    store.put_manifest(&nginx, manifest, None).await.ok()?;
    let cache = PullThrough::new(store.clone(), store.clone(), PullThroughOptions::default());
    let pull = ProxyService::new(Arc::new(cache), ProxyOptions::default(), ProxyMetrics::default());
    let (options, metrics) = (RegistryOptions::default(), RegistryMetrics::default());
    let store = LeasedStore::new(store as Arc<dyn RegistryStore>, Leases::default());
    Some(RegistryService::new(store, pull, None, options, metrics))
}

/// The same response as the cache's.
fn response_alone(manifest: &Manifest) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::full(manifest.bytes().clone()));
    let digest = manifest.digest();
    let texts = [
        (header::CONTENT_TYPE, manifest.media_type().as_str().to_owned()),
        (header::HeaderName::from_static("docker-content-digest"), digest.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    let headers = response.headers_mut();
    for (name, text) in texts {
        headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
    }
    headers.insert(header::HeaderName::from_static("cache-status"), HeaderValue::from_static("kuik; hit"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(manifest.bytes().len()));
    response
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = manifest_hit
}
criterion_main!(benches);
