//! Shared blob fills: one upstream fetch, any number of readers; unverified content is never complete.

use std::{sync::Arc, time::Duration};

use crate::harness::{
    Harness, begin, content_files, image_with_layer,
    manual_upstream::{ManualUpstream, count},
    open, options, read,
    store::SmallDisk,
    within_reason,
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::join_all};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use kuik_core::{
    content::{Blob, ByteRange, CacheStatus, ContentSource, ContentStore, Digest, SourceErrorKind},
    reference::RepositoryName,
};
use kuik_proxy::pull_through::{PullThrough, PullThroughOptions, Revalidate};
use kuik_testkit::{Behavior, Gate, Rule, Target};

const MIB: usize = 1 << 20;

/// A harness whose upstream pauses a layer after `after` bytes, until the gate opens.
async fn half_filled(size: usize, after: u64) -> (Harness, Gate, String, Bytes) {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, size);
    harness.upstream.add_image("app", "latest", &image);
    let gate = Gate::new();
    harness.upstream.script(Rule::on(Target::Blob).does(Behavior::Stall { after, until: gate.clone() }));
    let path = harness.path("app", &format!("blobs/{layer}"));
    (harness, gate, path, bytes)
}

/// Number of blob bytes that upstream has sent.
fn sent(harness: &Harness) -> usize {
    let log = harness.upstream.log();
    log.iter().filter(|entry| entry.target == Target::Blob).map(|entry| entry.bytes_sent as usize).sum()
}

fn named(path: &str) -> RepositoryName {
    RepositoryName::new("registry.example", path).unwrap()
}

/// A cache over `store` and a manual upstream.
fn cache(store: Arc<dyn ContentStore>, upstream: &Arc<ManualUpstream>) -> PullThrough {
    PullThrough::new(store, upstream.clone(), options(Revalidate::Never))
}

fn random(size: usize) -> (Digest, Bytes) {
    let (_, digest, bytes) = image_with_layer(7, size);
    (digest, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_readers_share_one_fetch() {
    let (harness, gate, path, bytes) = half_filled(3 * MIB, MIB as u64).await;
    let readers = join_all((0..64).map(|_| begin(&harness.proxy, Method::GET, &path, &[]))).await;
    harness.upstream.wait_for(|log| log.iter().any(|entry| entry.bytes_sent == MIB as u64)).await;
    let readers: Vec<_> =
        readers.into_iter().map(|reader| tokio::spawn(reader.into_body().collect())).collect();
    gate.open();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().to_bytes(), bytes);
    }
    assert_eq!((harness.upstream.count(Target::Blob), sent(&harness)), (1, bytes.len()));
}

#[tokio::test]
async fn disconnected_reader_does_not_stop_the_fill() {
    let (harness, gate, path, bytes) = half_filled(MIB, 500_000).await;
    let mut leaver = begin(&harness.proxy, Method::GET, &path, &[]).await.into_body();
    assert!(leaver.frame().await.unwrap().is_ok());
    drop(leaver);
    gate.open();
    harness.cache.drain().await;
    harness.upstream.stop().await;
    let reply = harness.get(&path).await;
    assert_eq!((reply.header("cache-status"), reply.bytes()), ("kuik; hit", &bytes));
    assert_eq!(sent(&harness), bytes.len());
}

#[tokio::test]
async fn disconnect_before_the_headers_does_not_stop_the_fill() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, MIB);
    harness.upstream.add_image("app", "latest", &image);
    let gate = Gate::new();
    harness.upstream.script(Rule::on(Target::Blob).does(Behavior::DelayHeaders(gate.clone())));
    let path = harness.path("app", &format!("blobs/{layer}"));
    let asking = tokio::spawn({
        let (proxy, path) = (harness.proxy.clone(), path.clone());
        async move { crate::harness::ask(&proxy, Method::GET, &path, &[]).await }
    });
    harness.upstream.wait_for(|log| !log.is_empty()).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    gate.open();
    harness.cache.drain().await;
    assert_eq!(harness.get(&path).await.bytes(), &bytes);
    assert_eq!(harness.upstream.count(Target::Blob), 1);
}

#[tokio::test]
async fn late_reader_starts_at_the_first_byte() {
    let (harness, gate, path, bytes) = half_filled(MIB, 600_000).await;
    let mut early = begin(&harness.proxy, Method::GET, &path, &[]).await.into_body();
    let mut seen = 0;
    while seen < 500_000 {
        seen += early.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    let late = begin(&harness.proxy, Method::GET, &path, &[]).await;
    assert_eq!(late.headers()["content-length"], bytes.len().to_string().as_str());
    gate.open();
    assert_eq!(late.into_body().collect().await.unwrap().to_bytes(), bytes);
    let rest = early.collect().await.unwrap().to_bytes();
    assert_eq!(rest, bytes[seen..]);
    assert_eq!(harness.upstream.count(Target::Blob), 1);
}

#[tokio::test]
async fn ranges_are_served_while_a_blob_fills() {
    let (harness, gate, path, bytes) = half_filled(MIB, 600_000).await;
    let size = bytes.len();
    let mut waiting = Vec::new();
    // Ranges that have arrived are complete.
    for (range, from, to) in [("bytes=0-9", 0, 10), ("bytes=1000-300000", 1000, 300_001)] {
        let reply = within_reason(harness.get_with(&path, &[("range", range)])).await;
        assert_eq!((reply.status, reply.bytes()), (StatusCode::PARTIAL_CONTENT, &bytes.slice(from..to)));
    }
    // Ranges that have not arrived get their headers all the same.
    for (range, from, to) in [
        ("bytes=700000-700001".to_owned(), 700_000, 700_002),
        ("bytes=500000-".to_owned(), 500_000, size),
        ("bytes=-10".to_owned(), size - 10, size),
        (format!("bytes=5-{}", 2 * size), 5, size),
    ] {
        let response = begin(&harness.proxy, Method::GET, &path, &[("range", &range)]).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let content_range = format!("bytes {from}-{}/{size}", to - 1);
        assert_eq!(response.headers()["content-range"], content_range.as_str(), "{range}");
        waiting.push((response.into_body(), &bytes[from..to]));
    }
    let outside = harness.get_with(&path, &[("range", &format!("bytes={size}-"))]).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.header("content-range"), format!("bytes */{size}"));
    gate.open();
    for (body, expected) in waiting {
        assert_eq!(body.collect().await.unwrap().to_bytes(), expected);
    }
    assert_eq!((harness.upstream.count(Target::Blob), sent(&harness)), (1, size));
}

#[tokio::test]
async fn wrong_content_cannot_be_assembled_from_ranges() {
    let harness = Harness::start().await;
    let (image, layer, bytes) = image_with_layer(1, MIB);
    harness.upstream.add_image("app", "latest", &image);
    harness.upstream.script(Rule::on(Target::Blob).does(Behavior::WrongBytes));
    let path = harness.path("app", &format!("blobs/{layer}"));
    let end = format!("bytes={}-", bytes.len() - 100);
    for range in [&end, "bytes=-1", "bytes=524288-"] {
        let reply = harness.get_with(&path, &[("range", range)]).await;
        assert!(reply.body.is_err() || reply.status == StatusCode::BAD_GATEWAY, "{range}: {}", reply.status);
    }
    harness.upstream.clear_script();
    // A client with parts of wrong content that requests the missing part gets everything, from the fill and from the
    // store.
    for _ in 0..2 {
        let reply = harness.get_with(&path, &[("range", &end)]).await;
        assert_eq!((reply.status, reply.bytes()), (StatusCode::OK, &bytes));
        harness.cache.drain().await;
    }
}

/// A harness with a large blob, which upstream pauses after the first MiB until the gate opens.
async fn large_blob() -> (Harness, Gate, String, Bytes) {
    let harness = Harness::start().await;
    let bytes: Bytes =
        (0..48 * MIB as u32 / 4).flat_map(|n| n.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
    let digest = harness.upstream.add_blob("app", bytes.clone());
    let gate = Gate::new();
    let stall = Behavior::Stall { after: MIB as u64, until: gate.clone() };
    harness.upstream.script(Rule::on(Target::Blob).ranged(false).does(stall));
    let path = harness.path("app", &format!("blobs/{digest}"));
    (harness, gate, path, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_far_ahead_is_prefetched() {
    let (harness, gate, path, bytes) = large_blob().await;
    let part = 40 * MIB - 500..40 * MIB + 500;
    let range = format!("bytes={}-{}", part.start, part.end - 1);
    for _ in 0..2 {
        let headers = [("range", range.as_str())];
        for reply in within_reason(join_all((0..8).map(|_| harness.get_with(&path, &headers)))).await {
            assert_eq!(
                (reply.status, reply.bytes()),
                (StatusCode::PARTIAL_CONTENT, &bytes.slice(part.clone()))
            );
        }
    }
    let asked = harness
        .upstream
        .log()
        .iter()
        .map(|entry| entry.header(http::header::RANGE).to_owned())
        .collect::<Vec<_>>();
    assert_eq!(asked.len(), 3, "the fill, and the two blocks that the part is in: {asked:?}");
    let whole = begin(&harness.proxy, Method::GET, &path, &[]).await.into_body();
    gate.open();
    assert!(within_reason(whole.collect()).await.unwrap().to_bytes() == bytes);
    harness.cache.drain().await;
    assert_eq!(harness.upstream.count(Target::Blob), 3);
    assert!(sent(&harness) <= bytes.len() + 2 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fill_fails_if_prefetched_bytes_differ() {
    let (harness, gate, path, bytes) = large_blob().await;
    harness.upstream.script(Rule::on(Target::Blob).ranged(true).does(Behavior::WrongBytes));
    let range = format!("bytes={}-{}", 40 * MIB, 40 * MIB + 9);
    within_reason(harness.get_with(&path, &[("range", &range)])).await;
    let whole = begin(&harness.proxy, Method::GET, &path, &[]).await.into_body();
    gate.open();
    assert!(within_reason(whole.collect()).await.is_err(), "the last bytes are withheld");
    harness.cache.drain().await;
    assert!(content_files(harness.data.path()).is_empty());
    harness.upstream.clear_script();
    let reply = harness.get_with(&path, &[("range", &range)]).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.bytes() == &bytes);
}

#[tokio::test]
async fn ranges_of_unknown_length_are_served_once_they_arrive() {
    let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
    let cache = cache(open(data.path()), &upstream);
    let (digest, bytes) = random(100_000);
    upstream.grant(&app);
    let feed = upstream.feed(&digest, None);
    feed.send(Ok(bytes.slice(..60_000))).await.unwrap();
    let part = ByteRange::From { first: 1000, last: Some(29_999) };
    let part = within_reason(cache.blob(&app, &digest, part)).await.unwrap().content;
    assert_eq!((part.size, part.range.clone()), (None, Some(1000..30_000)));
    assert_eq!(within_reason(read(part)).await.0, bytes[1000..30_000]);
    feed.send(Ok(bytes.slice(60_000..))).await.unwrap();
    drop(feed);
    cache.drain().await;
}

#[tokio::test]
async fn suffix_range_waits_for_the_length() {
    let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
    let cache = cache(open(data.path()), &upstream);
    let (digest, bytes) = random(100_000);
    upstream.grant(&app);
    let feed = upstream.feed(&digest, None);
    let suffix = tokio::spawn({
        let (cache, app, digest) = (cache.clone(), app.clone(), digest.clone());
        async move { cache.blob(&app, &digest, ByteRange::Suffix { length: 7 }).await.unwrap().content }
    });
    feed.send(Ok(bytes.slice(..60_000))).await.unwrap();
    let whole = cache.blob(&app, &digest, ByteRange::Full).await.unwrap().content;
    assert_eq!((whole.size, whole.range.clone()), (None, None));
    assert!(!suffix.is_finished(), "the end is not known yet");
    feed.send(Ok(bytes.slice(60_000..))).await.unwrap();
    drop(feed);
    let suffix = suffix.await.unwrap();
    let end = bytes.len() as u64;
    assert_eq!((suffix.size, suffix.range.clone()), (Some(end), Some(end - 7..end)));
    assert_eq!(read(suffix).await.0, bytes[bytes.len() - 7..]);
    assert_eq!(read(whole).await.0, bytes);
}

#[tokio::test(start_paused = true)]
async fn last_bytes_wait_for_the_digest() {
    for (size, announced) in [(100_000, true), (100_000, false), (3000, true), (3000, false)] {
        for wrong in [true, false] {
            let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
            let cache = cache(open(data.path()), &upstream);
            let (digest, bytes) = random(size);
            let mut sent = bytes.to_vec();
            *sent.last_mut().unwrap() ^= u8::from(wrong);
            upstream.grant(&app);
            let feed = upstream.feed(&digest, announced.then_some(sent.len() as u64));
            let (all, mut blob) = tokio::join!(
                feed.send(Ok(sent.into())),
                cache.blob(&app, &digest, ByteRange::Full).map(|served| served.unwrap().content)
            );
            all.unwrap();
            let mut seen = Vec::new();
            // Time is paused: it advances once all tasks are idle.
            while let Ok(chunk) = tokio::time::timeout(Duration::from_secs(1), blob.body.next()).await {
                seen.extend_from_slice(&chunk.unwrap().unwrap());
            }
            assert!(seen.len() < bytes.len(), "{size}: all was readable before the digest could be known");
            assert!(size < 10_000 || seen.len() > bytes.len() / 2, "{size}: most of it was");
            drop(feed);
            let (rest, error) = read(blob).await;
            seen.extend(rest);
            match error {
                None => assert!(!wrong && seen == bytes),
                Some(error) => {
                    assert!(wrong && seen.len() < bytes.len());
                    assert_eq!(error.kind(), SourceErrorKind::InvalidContent);
                }
            }
            cache.drain().await;
            assert_eq!(content_files(data.path()).is_empty(), wrong);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn empty_blob_is_verified() {
    for (digest, right) in [(Digest::sha256(b""), true), (Digest::sha256(b"something"), false)] {
        let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
        let cache = cache(open(data.path()), &upstream);
        upstream.grant(&app);
        let feed = upstream.feed(&digest, Some(0));
        let mut asking = Box::pin(cache.blob(&app, &digest, ByteRange::Full));
        // Time is paused: it advances once all tasks are idle.
        let early = tokio::time::timeout(Duration::from_secs(1), asking.as_mut()).await;
        assert!(early.is_err(), "without a byte to hold back, the headers have to wait");
        drop(feed);
        match asking.await {
            Ok(blob) => assert!(right && read(blob.content).await.1.is_none()),
            Err(error) => assert_eq!((error.kind(), right), (SourceErrorKind::InvalidContent, false)),
        }
        cache.drain().await;
        assert_eq!(content_files(data.path()).is_empty(), !right);
    }
}

#[tokio::test]
async fn two_repositories_share_a_fill() {
    let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
    let cache = cache(open(data.path()), &upstream);
    let [first, second, stranger] = ["first", "second", "stranger"].map(named);
    let (digest, bytes) = random(100_000);
    upstream.grant(&first);
    upstream.grant(&second);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    let full = ByteRange::Full;
    let (_, one) = tokio::join!(feed.send(Ok(bytes.slice(..50_000))), cache.blob(&first, &digest, full));
    let two = cache.blob(&second, &digest, full).await.unwrap();
    assert_eq!(count(&upstream.sizes_asked), 1, "the second one's upstream was asked for consent");
    let refused = cache.blob(&stranger, &digest, full).await.unwrap_err();
    assert!(refused.is_not_found(), "the stranger has no access to the fill");
    feed.send(Ok(bytes.slice(50_000..))).await.unwrap();
    drop(feed);
    assert_eq!(read(one.unwrap().content).await.0, bytes);
    assert_eq!(read(two.content).await.0, bytes);
    assert_eq!(count(&upstream.blobs_fetched), 1);
    cache.drain().await;
    drop(cache);
    let store = open(data.path());
    for repository in [&first, &second] {
        assert_eq!(store.blob_size(repository, &digest).await.unwrap().content, bytes.len() as u64);
    }
    assert!(store.blob_size(&stranger, &digest).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn repository_that_joins_during_publication_is_linked() {
    let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
    let disk = SmallDisk { publishes: Gate::new(), ..SmallDisk::of(open(data.path()), u64::MAX) };
    let disk = Arc::new(disk);
    let cache = cache(disk.clone(), &upstream);
    let [first, second] = ["first", "second"].map(named);
    let (digest, bytes) = random(50_000);
    upstream.grant(&first);
    upstream.grant(&second);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    let (_, one) = tokio::join!(feed.send(Ok(bytes.clone())), cache.blob(&first, &digest, ByteRange::Full));
    drop(feed);
    assert_eq!(read(one.unwrap().content).await.0, bytes);
    while count(&disk.published) == 0 {
        tokio::task::yield_now().await;
    }
    let two = cache.blob(&second, &digest, ByteRange::Full).await.unwrap();
    assert_eq!(two.cache_status, CacheStatus::Upstream, "the fill is not over");
    assert_eq!(read(two.content).await.0, bytes);
    disk.publishes.open();
    within_reason(cache.drain()).await;
    for repository in [&first, &second] {
        assert_eq!(disk.blob_size(repository, &digest).await.unwrap().content, bytes.len() as u64);
    }
}

#[tokio::test]
async fn refusal_of_a_fill_applies_to_one_repository_only() {
    let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
    let cache = cache(open(data.path()), &upstream);
    let [stranger, owner] = ["stranger", "owner"].map(named);
    let (digest, bytes) = random(50_000);
    upstream.grant(&owner);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    let ask = |repository: &RepositoryName| {
        let (cache, repository, digest) = (cache.clone(), repository.clone(), digest.clone());
        tokio::spawn(async move { cache.blob(&repository, &digest, ByteRange::Full).await })
    };
    let refused = ask(&stranger);
    while count(&upstream.blobs_refused) == 0 {
        tokio::task::yield_now().await;
    }
    let served = ask(&owner);
    while count(&upstream.sizes_asked) == 0 {
        tokio::task::yield_now().await;
    }
    upstream.refusal.open();
    assert!(within_reason(refused).await.unwrap().unwrap_err().is_not_found());
    feed.send(Ok(bytes.clone())).await.unwrap();
    drop(feed);
    assert_eq!(read(within_reason(served).await.unwrap().unwrap().content).await.0, bytes);
}

#[tokio::test]
async fn stalled_registry_does_not_delay_another() {
    let (upstream, data) = (ManualUpstream::new(), tempfile::tempdir().unwrap());
    let cache = cache(open(data.path()), &upstream);
    let app = named("app");
    let evil = RepositoryName::new("evil.example", "app").unwrap();
    let (digest, bytes) = random(50_000);
    let stalling = tokio::spawn({
        let (cache, evil, digest) = (cache.clone(), evil.clone(), digest.clone());
        async move { cache.blob(&evil, &digest, ByteRange::Full).await }
    });
    while count(&upstream.blobs_refused) == 0 {
        tokio::task::yield_now().await;
    }
    upstream.grant(&app);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    feed.send(Ok(bytes.clone())).await.unwrap();
    drop(feed);
    let blob = within_reason(cache.blob(&app, &digest, ByteRange::Full)).await.unwrap().content;
    assert_eq!(read(blob).await.0, bytes);
    upstream.refusal.open();
    assert!(stalling.await.unwrap().unwrap_err().is_not_found());
}

#[tokio::test]
async fn oversized_blob_is_refused() {
    for announced in [true, false] {
        let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
        let mut options = PullThroughOptions::default();
        options.max_blob_bytes = 60_000;
        let cache = PullThrough::new(open(data.path()), upstream.clone(), options);
        let (digest, bytes) = random(100_000);
        upstream.grant(&app);
        let feed = upstream.feed(&digest, announced.then_some(bytes.len() as u64));
        feed.send(Ok(bytes)).await.unwrap();
        let kind = match cache.blob(&app, &digest, ByteRange::Full).await {
            Ok(blob) => within_reason(read(blob.content)).await.1.unwrap().kind(),
            Err(error) => error.kind(),
        };
        assert_eq!(kind, SourceErrorKind::InvalidContent);
        cache.drain().await;
        assert!(content_files(data.path()).is_empty());
    }
}

#[tokio::test]
async fn draining_waits_for_the_fill() {
    let (harness, gate, path, bytes) = half_filled(MIB, 500_000).await;
    drop(begin(&harness.proxy, Method::GET, &path, &[]).await);
    let mut draining = Box::pin(harness.cache.drain());
    assert!(draining.as_mut().now_or_never().is_none());
    gate.open();
    draining.await;
    harness.upstream.stop().await;
    assert_eq!(harness.get(&path).await.bytes(), &bytes);
}

/// Reads `upto` bytes, and then, after `signal`, the rest.
async fn read_in_two(mut blob: Blob, upto: usize, signal: impl Future<Output = ()>) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < upto {
        seen.extend_from_slice(&blob.body.next().await.unwrap().unwrap());
    }
    signal.await;
    let (rest, error) = read(blob).await;
    assert!(error.is_none(), "{error:?}");
    seen.extend(rest);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_does_not_stop_readers() {
    for room in [0, 2 * MIB as u64] {
        let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
        let disk = SmallDisk::new(open(data.path()), room);
        let cache = cache(disk.clone(), &upstream);
        let (digest, bytes) = random(12 * MIB);
        upstream.grant(&app);
        let feed = upstream.feed(&digest, Some(bytes.len() as u64));
        let moved = Gate::new();
        let mut blobs = Vec::new();
        for _ in 0..3 {
            blobs.push(cache.blob(&app, &digest, ByteRange::Full).await.unwrap().content);
        }
        let feeding = tokio::spawn({
            let bytes = bytes.clone();
            async move {
                for start in (0..bytes.len()).step_by(65_536) {
                    let end = bytes.len().min(start + 65_536);
                    feed.send(Ok(bytes.slice(start..end))).await.unwrap();
                }
            }
        });
        // Two read as fast as they can; the third waits until one of them has read more than the disk took.
        let mut reader = |upto, signal| tokio::spawn(read_in_two(blobs.pop().unwrap(), upto, signal));
        let opens = |gate: Gate| async move { gate.open() }.boxed();
        let readers = [
            reader(3 * MIB, opens(moved.clone())),
            reader(3 * MIB, opens(moved.clone())),
            reader(0, moved.clone().opened().boxed()),
        ];
        for reader in readers {
            assert!(reader.await.unwrap() == bytes, "room for {room}");
        }
        feeding.await.unwrap();
        cache.drain().await;
        assert_eq!((count(&upstream.blobs_fetched), count(&disk.writers)), (1, 1));
        assert!(content_files(data.path()).is_empty(), "{:?}", content_files(data.path()));
    }
}

#[tokio::test]
async fn full_disk_without_readers_ends_the_fill() {
    let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
    let cache = cache(SmallDisk::new(open(data.path()), MIB as u64), &upstream);
    let (digest, bytes) = random(12 * MIB);
    upstream.grant(&app);
    let feed = upstream.feed(&digest, Some(bytes.len() as u64));
    drop(cache.blob(&app, &digest, ByteRange::Full).await.unwrap());
    let mut sent = 0;
    for start in (0..bytes.len()).step_by(MIB) {
        let end = bytes.len().min(start + MIB);
        match feed.send(Ok(bytes.slice(start..end))).await {
            Ok(()) => sent = end,
            Err(_) => break,
        }
    }
    assert!(sent < bytes.len(), "the fill continued");
    cache.drain().await;
    assert!(content_files(data.path()).is_empty());
}

#[tokio::test]
async fn blob_is_stored_once_the_disk_has_room_again() {
    let (upstream, data, app) = (ManualUpstream::new(), tempfile::tempdir().unwrap(), named("app"));
    let (digest, bytes) = random(100_000);
    upstream.grant(&app);
    let size = Some(bytes.len() as u64);
    for (room, kept) in [(10, false), (MIB as u64, true)] {
        let cache = cache(SmallDisk::new(open(data.path()), room), &upstream);
        let feed = upstream.feed(&digest, size);
        feed.send(Ok(bytes.clone())).await.unwrap();
        drop(feed);
        let blob = cache.blob(&app, &digest, ByteRange::Full).await.unwrap().content;
        assert_eq!(read(blob).await.0, bytes);
        cache.drain().await;
        assert_eq!(content_files(data.path()).is_empty(), !kept);
    }
}
