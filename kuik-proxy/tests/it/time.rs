//! Timeouts in virtual time: a response starts within 20 s whatever upstream does, and a client that does not read
//! delays others by at most half a minute.

use std::{sync::Arc, time::Duration};

use crate::harness::{
    ask, image_with_layer,
    manual_upstream::{ManifestMode, ManualUpstream},
    open, options, read, service,
    store::SmallDisk,
};
use bytes::Bytes;
use http::{Method, StatusCode};
use kuik_core::{
    content::{ByteRange, ContentSource as _, Digest, SourceErrorKind},
    reference::RepositoryName,
};
use kuik_proxy::{
    pull_through::{PullThrough, Revalidate},
    service::ProxyService,
};
use kuik_testkit::SampleImage;
use tempfile::TempDir;
use tokio::time::Instant;

const AT_MOST: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

struct Slow {
    upstream: Arc<ManualUpstream>,
    proxy: ProxyService,
    app: RepositoryName,
    _data: TempDir,
}

impl Slow {
    fn new() -> Self {
        let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
        let cache = PullThrough::new(open(data.path()), upstream.clone(), options(Revalidate::Never));
        let app = RepositoryName::new("registry.example", "app").unwrap();
        Self { upstream, proxy: service(cache).0, app, _data: data }
    }

    /// No content arrives in time, and the request is refused in time.
    async fn refuses(&self, method: Method, rest: &str, headers: &[(&str, &str)]) {
        let began = Instant::now();
        let path = format!("/v2/registry.example/app/{rest}");
        let reply = ask(&self.proxy, method.clone(), &path, headers).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{method} {rest}");
        assert_eq!(reply.header("retry-after"), "2", "{method} {rest}");
        assert!(began.elapsed() <= AT_MOST, "{method} {rest}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn response_starts_before_the_deadline_whatever_upstream_does() {
    let slow = Slow::new();
    slow.upstream.tag("latest", SampleImage::small(1).index());
    for manifest_mode in [ManifestMode::Hangs, ManifestMode::HangsOnManifests] {
        slow.upstream.set_mood(manifest_mode);
        for method in [Method::GET, Method::HEAD] {
            slow.refuses(method.clone(), "manifests/latest", &[]).await;
            slow.refuses(method, &format!("manifests/{}", Digest::sha256(b"x")), &[]).await;
        }
    }
    // Headers that never arrive: a repository without access is refused behind a gate that stays closed.
    slow.refuses(Method::GET, &format!("blobs/{}", Digest::sha256(b"y")), &[]).await;
    slow.upstream.grant(&slow.app);
    // A blob without bytes to withhold, whose end never arrives.
    let _empty = slow.upstream.feed(&Digest::sha256(b""), Some(0));
    slow.refuses(Method::GET, &format!("blobs/{}", Digest::sha256(b"")), &[]).await;
    // A range of a blob of unknown size, without bytes.
    for range in ["bytes=-5", "bytes=5-", "bytes=5-9"] {
        let digest = Digest::sha256(range.as_bytes());
        let _endless = slow.upstream.feed(&digest, None);
        slow.refuses(Method::GET, &format!("blobs/{digest}"), &[("range", range)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_bytes_do_not_come_has_its_headers() {
    let slow = Slow::new();
    slow.upstream.grant(&slow.app);
    let digest = Digest::sha256(b"z");
    let _feed = slow.upstream.feed(&digest, Some(1 << 30));
    let began = Instant::now();
    let path = format!("/v2/registry.example/app/blobs/{digest}");
    for (range, status) in [("", StatusCode::OK), ("bytes=1000000-", StatusCode::PARTIAL_CONTENT)] {
        let headers: Vec<_> = [("range", range)].into_iter().filter(|(_, range)| !range.is_empty()).collect();
        let response = crate::harness::begin(&slow.proxy, Method::GET, &path, &headers).await;
        assert_eq!(response.status(), status);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn stalled_reader_is_dropped_if_the_store_is_full() {
    let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
    let app = RepositoryName::new("registry.example", "app").unwrap();
    let disk = SmallDisk::new(open(data.path()), 0);
    let cache = PullThrough::new(disk, upstream.clone(), options(Revalidate::Never));
    let (_, digest, bytes) = image_with_layer(7, 12 * MIB);
    upstream.grant(&app);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    let stuck = cache.blob(&app, &digest, ByteRange::Full).await.unwrap().content;
    let reading = cache.blob(&app, &digest, ByteRange::Full).await.unwrap().content;
    let feeding = tokio::spawn({
        let bytes: Bytes = bytes.clone();
        async move {
            for start in (0..bytes.len()).step_by(MIB) {
                feed.send(Ok(bytes.slice(start..bytes.len().min(start + MIB)))).await.unwrap();
            }
        }
    });
    let began = Instant::now();
    let (got, error) = read(reading).await;
    assert!(error.is_none() && got == bytes, "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(31), "{:?}", began.elapsed());
    let (got, error) = read(stuck).await;
    assert_eq!((got.len(), error.unwrap().kind()), (0, SourceErrorKind::Storage));
    feeding.await.unwrap();
}
