//! What takes long, in virtual time: an answer begins within 20 s whatever upstream does, and who does not read holds up
//! nobody for longer than half a minute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail"
)]

mod rig;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use kuik_core::{
    content::{ByteRange, ContentSource as _, Digest, SourceErrorKind},
    reference::RepositoryName,
    testkit::SampleImage,
};
use kuik_proxy::{
    pull_through::{PullThrough, Revalidate},
    service::ProxyService,
};
use rig::{
    ask,
    hand_fed::{HandFed, Mood},
    image_with_layer, open, options, read, service,
    store::SmallDisk,
};
use tempfile::TempDir;
use tokio::time::Instant;

const AT_MOST: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

struct Slow {
    upstream: Arc<HandFed>,
    proxy: ProxyService,
    app: RepositoryName,
    _data: TempDir,
}

impl Slow {
    fn new() -> Self {
        let (upstream, data) = (HandFed::new(), tempfile::tempdir().unwrap());
        let cache = PullThrough::new(open(data.path()), upstream.clone(), options(Revalidate::Never));
        let app = RepositoryName::new("registry.example", "app").unwrap();
        Self { upstream, proxy: service(cache).0, app, _data: data }
    }

    /// Nothing comes in time, and the answer says so in time.
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
async fn an_answer_begins_in_time_whatever_upstream_does() {
    let slow = Slow::new();
    slow.upstream.tag("latest", SampleImage::small(1).index());
    for mood in [Mood::Hangs, Mood::HangsOnManifests] {
        slow.upstream.set_mood(mood);
        for method in [Method::GET, Method::HEAD] {
            slow.refuses(method.clone(), "manifests/latest", &[]).await;
            slow.refuses(method, &format!("manifests/{}", Digest::sha256(b"x")), &[]).await;
        }
    }
    // Headers that never come: who was not granted the blob is refused behind a gate that nobody opens.
    slow.refuses(Method::GET, &format!("blobs/{}", Digest::sha256(b"y")), &[]).await;
    slow.upstream.grant(&slow.app);
    // A blob without a byte to hold back, whose end never comes.
    let _empty = slow.upstream.feed(&Digest::sha256(b""), Some(0));
    slow.refuses(Method::GET, &format!("blobs/{}", Digest::sha256(b"")), &[]).await;
    // A range of what has no known end, and no bytes either.
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
        let response = rig::begin(&slow.proxy, Method::GET, &path, &headers).await;
        assert_eq!(response.status(), status);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_left_behind_where_nothing_can_be_kept() {
    let (upstream, data) = (HandFed::new(), tempfile::tempdir().unwrap());
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
