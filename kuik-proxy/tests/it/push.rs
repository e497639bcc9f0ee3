//! Pushes over real connections: uploads of every kind, manifests, deletes, and refusals.

use std::{sync::Arc, time::Duration};

use crate::harness::{OverTcp, content_files};
use bytes::Bytes;
use http::{Method, StatusCode};
use kuik_core::content::{Digest, MAX_MANIFEST_BYTES, MediaType};
use kuik_proxy::{
    pull_through::{PullThrough, Revalidate},
    registry::push::{RegistryMetrics, RegistryOptions, RegistryService, Sparse},
    route::Names,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use kuik_testkit::{SampleImage, ScriptedRegistry};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);
const HELLO: &[u8] = b"hello, registry";

/// A registry over a directory, without upstream.
struct Pushed {
    front: OverTcp,
    data: TempDir,
    metrics: RegistryMetrics,
}

impl Pushed {
    async fn start(change: impl FnOnce(&mut RegistryOptions)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(FilesystemStore::open(data.path()).unwrap());
        let (mut proxy_options, mut options) = (ProxyOptions::default(), RegistryOptions::default());
        proxy_options.names = Names::Local;
        change(&mut options);
        let pull = ProxyService::new(store.clone(), proxy_options, ProxyMetrics::default());
        let metrics = RegistryMetrics::default();
        let service =
            RegistryService::new(crate::harness::leased(store), pull, None, options, metrics.clone());
        Self { front: OverTcp::start(service).await, data, metrics }
    }

    /// Starts an upload; returns its location.
    async fn begin(&self) -> String {
        let begun = self.front.ask(Method::POST, "/v2/team/app/blobs/uploads/").await;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{begun:?}");
        assert!(!begun.header("docker-upload-uuid").is_empty());
        begun.header("location").to_owned()
    }

    async fn push_blob(&self, bytes: &Bytes) {
        let path = format!("/v2/team/app/blobs/uploads/?digest={}", Digest::sha256(bytes));
        let pushed = self.front.send(Method::POST, &path, &[], bytes.clone()).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{pushed:?}");
    }

    /// Puts a manifest; returns the status and the code.
    async fn put(&self, at: &str, media_type: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        let path = format!("/v2/team/app/manifests/{at}");
        let put = self.front.send(Method::PUT, &path, &[("content-type", media_type)], body).await;
        (put.status, put.code())
    }

    async fn push_image(&self, image: &SampleImage, tags: &[&str]) {
        for blob in image.blobs().values() {
            self.push_blob(blob).await;
        }
        for manifest in image.manifests() {
            let (at, media_type) = (manifest.digest().as_str(), manifest.media_type().as_str());
            let (status, _) = self.put(at, media_type, manifest.bytes().clone()).await;
            assert_eq!(status, StatusCode::CREATED);
        }
        for tag in tags {
            let (status, _) =
                self.put(tag, MediaType::OCI_INDEX.as_str(), image.index().bytes().clone()).await;
            assert_eq!(status, StatusCode::CREATED);
        }
    }

    async fn status(&self, method: Method, path: &str) -> StatusCode {
        self.front.ask(method, &format!("/v2/team/app/{path}")).await.status
    }

    /// Sends the head of a request that announces `length` bytes, and these of its body.
    async fn half_a_request(&self, method: &str, path: &str, length: usize, sent: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.front.address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream
    }

    /// Waits until an upload is at this byte and not in use.
    async fn upload_is_at(&self, location: &str, range: &str) {
        let reached = async {
            loop {
                let status = self.front.ask(Method::GET, location).await;
                if status.status == StatusCode::NO_CONTENT && status.header("range") == range {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the upload reaches the offset");
    }

    fn metrics(&self) -> String {
        let (mut registry, mut text) = (Registry::with_prefix("kube_image_keeper"), String::new());
        self.metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

#[tokio::test]
async fn chunked_upload_resumes_at_its_offset() {
    let pushed = Pushed::start(|_| ()).await;
    let location = pushed.begin().await;
    let chunk = |range: &'static str, bytes: &'static [u8]| {
        let (front, location) = (&pushed.front, &location);
        async move { front.send(Method::PATCH, location, &[("content-range", range)], bytes).await }
    };
    let first = chunk("0-4", &HELLO[..5]).await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));

    // A gap, and a repeated chunk: the response has the offset to resume at.
    for (range, bytes) in [("7-9", &HELLO[7..10]), ("0-4", &HELLO[..5])] {
        let refused = chunk(range, bytes).await;
        assert_eq!(refused.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!((refused.header("location"), refused.header("range")), (&*location, "0-4"));
        assert_eq!(refused.code(), "BLOB_UPLOAD_INVALID");
    }
    let refused = chunk("5-9", &HELLO[5..7]).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "SIZE_INVALID".to_owned()));
    let refused = chunk("5", &HELLO[5..7]).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID".to_owned()));

    // Without a range, the chunk continues at the current offset.
    let second = pushed.front.send(Method::PATCH, &location, &[], &HELLO[5..9]).await;
    assert_eq!((second.status, second.header("range")), (StatusCode::ACCEPTED, "0-8"));
    let status = pushed.front.ask(Method::GET, &location).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-8"));

    let digest = Digest::sha256(HELLO);
    let last = pushed.front.send(Method::PUT, &format!("{location}?digest={digest}"), &[], &HELLO[9..]).await;
    assert_eq!(last.status, StatusCode::CREATED, "{last:?}");
    assert_eq!(last.header("location"), format!("/v2/team/app/blobs/{digest}"));
    assert_eq!(pushed.front.ask(Method::GET, last.header("location")).await.body, HELLO);
    let gone = pushed.front.ask(Method::GET, &location).await;
    assert_eq!((gone.status, gone.code()), (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN".to_owned()));

    let metrics = pushed.metrics();
    for line in [
        "registry_requests_total{operation=\"upload_chunk\",outcome=\"ok\"} 2",
        "registry_requests_total{operation=\"upload_chunk\",outcome=\"refused\"} 4",
        "registry_requests_total{operation=\"blob_pull\",outcome=\"ok\"} 1",
        "registry_uploads_in_flight 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn bytes_received_before_a_disconnect_are_kept() {
    let pushed = Pushed::start(|_| ()).await;
    let location = pushed.begin().await;
    let stream = pushed.half_a_request("PATCH", &location, HELLO.len(), &HELLO[..6]).await;
    drop(stream);
    pushed.upload_is_at(&location, "0-5").await;
    let digest = Digest::sha256(HELLO);
    let last = pushed.front.send(Method::PUT, &format!("{location}?digest={digest}"), &[], &HELLO[6..]).await;
    assert_eq!(last.status, StatusCode::CREATED, "{last:?}");
}

#[tokio::test]
async fn wrong_digest_publishes_nothing() {
    let pushed = Pushed::start(|_| ()).await;
    let other = Digest::sha256(b"something else");
    let location = pushed.begin().await;
    let ended = pushed.front.send(Method::PUT, &format!("{location}?digest={other}"), &[], HELLO).await;
    assert_eq!((ended.status, ended.code()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID".to_owned()));
    assert_eq!(pushed.front.ask(Method::GET, &location).await.code(), "BLOB_UPLOAD_UNKNOWN");

    let whole = format!("/v2/team/app/blobs/uploads/?digest={other}");
    let ended = pushed.front.send(Method::POST, &whole, &[], HELLO).await;
    assert_eq!((ended.status, ended.code()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID".to_owned()));

    // Refused before any bytes are sent: this digest cannot be verified.
    let md5 = "/v2/team/app/blobs/uploads/?digest=md5:d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(pushed.front.send(Method::POST, md5, &[], HELLO).await.code(), "DIGEST_INVALID");
    for digest in [&other, &Digest::sha256(HELLO)] {
        assert_eq!(pushed.status(Method::HEAD, &format!("blobs/{digest}")).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(content_files(pushed.data.path()), Vec::<String>::new());
}

#[tokio::test]
async fn single_request_upload_is_removed_if_publication_fails() {
    let pushed = Pushed::start(|_| {}).await;
    // Something else is in place of the blobs directory.
    let root = pushed.data.path().join("docker/registry/v2");
    std::fs::remove_dir_all(root.join("blobs")).ok();
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("blobs"), "").unwrap();
    let path = format!("/v2/team/app/blobs/uploads/?digest={}", Digest::sha256(HELLO));
    let refused = pushed.front.send(Method::POST, &path, &[], HELLO).await;
    assert!(!refused.status.is_success(), "{refused:?}");
    let uploads = root.join("repositories/team/app/_uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
}

#[tokio::test]
async fn canceled_upload_is_removed() {
    let pushed = Pushed::start(|_| ()).await;
    let location = pushed.begin().await;
    assert_eq!(pushed.front.ask(Method::DELETE, &location).await.status, StatusCode::NO_CONTENT);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        assert_eq!(pushed.front.ask(method, &location).await.code(), "BLOB_UPLOAD_UNKNOWN");
    }
    // An upload belongs to one repository.
    let foreign = pushed.begin().await.replace("/team/app/", "/other/app/");
    assert_eq!(pushed.front.ask(Method::PATCH, &foreign).await.code(), "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn mount_succeeds_if_the_store_has_the_blob() {
    let pushed = Pushed::start(|_| ()).await;
    pushed.push_blob(&Bytes::from_static(HELLO)).await;
    let digest = Digest::sha256(HELLO);
    let mount = |to: &str, from: &str| format!("/v2/{to}/blobs/uploads/?mount={digest}{from}");
    for (to, from) in [("b", "&from=team/app"), ("c", "&from=team%2Fapp"), ("d", "")] {
        let mounted = pushed.front.ask(Method::POST, &mount(to, from)).await;
        assert_eq!(mounted.status, StatusCode::CREATED);
        assert_eq!(pushed.front.ask(Method::GET, mounted.header("location")).await.body, HELLO);
    }
    // The blob is missing: an ordinary upload starts.
    let begun = pushed.front.ask(Method::POST, &mount("e", "&from=nobody")).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    assert!(begun.header("location").starts_with("/v2/e/blobs/uploads/"));
}

#[tokio::test]
async fn idle_upload_times_out_and_frees_its_slot() {
    let pushed = Pushed::start(|options| {
        options.max_uploads = 1;
        options.body_idle = Duration::from_millis(1500);
    })
    .await;
    let (held, waiting) = (pushed.begin().await, pushed.begin().await);
    let mut stream = pushed.half_a_request("PATCH", &held, 100, b"half").await;
    let refused = async {
        loop {
            let refused = pushed.front.send(Method::PATCH, &waiting, &[], HELLO).await;
            if refused.status == StatusCode::TOO_MANY_REQUESTS {
                return refused;
            }
            tokio::task::yield_now().await;
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("one upload too many is refused");
    assert_eq!(refused.code(), "TOOMANYREQUESTS");
    assert!(!refused.header("retry-after").is_empty());

    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("BLOB_UPLOAD_INVALID"), "{answer}");
    pushed.upload_is_at(&held, "0-3").await;
    let accepted = pushed.front.send(Method::PATCH, &waiting, &[], HELLO).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn slow_upload_times_out_and_can_resume() {
    let pushed = Pushed::start(|options| {
        options.min_upload_rate = 10_000;
        options.rate_window = Duration::from_millis(400);
    })
    .await;
    let bytes = Bytes::from(vec![b'x'; 100_000]);
    let location = pushed.begin().await;
    let stream = pushed.half_a_request("PATCH", &location, bytes.len(), b"").await;
    let (mut answers, mut sends) = stream.into_split();
    let trickle = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 2000 && sends.write_all(b"x").await.is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    // Unread bytes reset the connection, after the response.
    let _ = timeout(PATIENCE, answers.read_to_end(&mut answer)).await.expect("the connection is closed");
    trickle.abort();
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    for part in ["http/1.1 408 ", "connection: close", "blob_upload_invalid", "10000 bytes a second"] {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }

    // The received part is stored, and a faster client resumes there.
    let status = pushed.front.ask(Method::GET, &location).await;
    assert_eq!(status.status, StatusCode::NO_CONTENT);
    let last: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    assert!((1..2000).contains(&last), "{last}");
    let path = format!("{location}?digest={}", Digest::sha256(&bytes));
    let ended = pushed.front.send(Method::PUT, &path, &[], bytes.slice(last + 1..)).await;
    assert_eq!(ended.status, StatusCode::CREATED, "{ended:?}");
}

#[tokio::test]
async fn manifest_push_requires_its_references() {
    let image = SampleImage::small(7);
    let (manifest, index) = (&image.manifests()[0], image.index());
    let media_type = manifest.media_type().as_str();
    let strict = Pushed::start(|options| options.sparse = Sparse::Nothing).await;
    let pushed = Pushed::start(|_| ()).await;
    let unknown = (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN".to_owned());
    let created = (StatusCode::CREATED, String::new());
    for registry in [&strict, &pushed] {
        assert_eq!(registry.put("v1", media_type, manifest.bytes().clone()).await, unknown);
        assert_eq!(registry.status(Method::GET, "manifests/v1").await, StatusCode::NOT_FOUND);
    }
    let index_type = index.media_type().as_str();
    assert_eq!(pushed.put("v1", index_type, index.bytes().clone()).await, created, "a sparse index");
    assert_eq!(strict.put("v1", index_type, index.bytes().clone()).await, unknown);
    strict.push_image(&image, &["v1"]).await;

    let loose = Pushed::start(|options| options.sparse = Sparse::Images).await;
    assert_eq!(loose.put("v1", media_type, manifest.bytes().clone()).await, created);
}

#[tokio::test]
async fn manifest_with_a_subject_is_listed_as_its_referrer() {
    let pushed = Pushed::start(|options| options.sparse = Sparse::Images).await;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let subject = Digest::sha256(b"an image that may come later");
    let descriptor = |digest: &Digest| serde_json::json!({ "mediaType": media_type, "digest": digest.as_str(), "size": 28 });
    let mut manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "artifactType": "application/vnd.example.signature",
        "config": descriptor(&Digest::sha256(b"{}")), "layers": [],
    });
    let put = async |manifest: &serde_json::Value| {
        let (path, body) = ("/v2/team/app/manifests/", manifest.to_string());
        let path = format!("{path}{}", Digest::sha256(body.as_bytes()));
        let put = pushed.front.send(Method::PUT, &path, &[("content-type", media_type)], body).await;
        assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
        (put.header("oci-subject").to_owned(), path)
    };
    assert_eq!(put(&manifest).await.0, "", "it has no subject");
    manifest["subject"] = descriptor(&subject);
    let (said, path) = put(&manifest).await;
    assert_eq!(said, subject.as_str());

    let referrers = async |filter: &str| {
        let list = pushed.front.ask(Method::GET, &format!("/v2/team/app/referrers/{subject}{filter}")).await;
        let index: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
        (index["manifests"].as_array().unwrap().len(), list.header("oci-filters-applied").to_owned())
    };
    assert_eq!(referrers("").await, (1, String::new()));
    for (kind, count) in [("signature", 1), ("sbom", 0)] {
        let filter = format!("?artifactType=application/vnd.example.{kind}");
        assert_eq!(referrers(&filter).await, (count, "artifactType".to_owned()), "{kind}");
    }
    assert_eq!(pushed.front.ask(Method::DELETE, &path).await.status, StatusCode::ACCEPTED);
    assert_eq!(referrers("").await.0, 0);
}

#[tokio::test]
async fn invalid_manifests_are_refused() {
    let image = SampleImage::small(8);
    let pushed = Pushed::start(|_| ()).await;
    pushed.push_image(&image, &[]).await;
    let (index, json) = (image.index(), MediaType::OCI_INDEX);
    let bad = StatusCode::BAD_REQUEST;
    for (at, media_type, body, code) in [
        ("v1", json.as_str(), Bytes::from_static(b"{}"), "MANIFEST_INVALID"),
        ("v1", json.as_str(), Bytes::from_static(b"<html>"), "MANIFEST_INVALID"),
        ("v1", json.as_str(), Bytes::new(), "MANIFEST_INVALID"),
        ("v1", "application/vnd.oci.image.manifest.v1+json", index.bytes().clone(), "MANIFEST_INVALID"),
        (Digest::sha256(b"other").as_str(), json.as_str(), index.bytes().clone(), "DIGEST_INVALID"),
        ("sha256:abc", json.as_str(), index.bytes().clone(), "DIGEST_INVALID"),
        (".v1", json.as_str(), index.bytes().clone(), "TAG_INVALID"),
    ] {
        assert_eq!(pushed.put(at, media_type, body).await, (bad, code.to_owned()), "{at} {code}");
    }
    let large = Bytes::from(vec![b' '; MAX_MANIFEST_BYTES + 1]);
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID".to_owned());
    assert_eq!(pushed.put("v1", json.as_str(), large.clone()).await, too_large, "as it says");

    // With chunked encoding, the size is not announced.
    let mut stream = TcpStream::connect(pushed.front.address).await.unwrap();
    let head = "PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n", large.len()).as_bytes()).await.unwrap();
    stream.write_all(&large).await.unwrap();
    stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(pushed.status(Method::GET, "manifests/v1").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn delete_removes_only_its_target() {
    let image = SampleImage::small(9);
    let pushed = Pushed::start(|_| ()).await;
    pushed.push_image(&image, &["v1", "v2"]).await;
    let digest = image.index().digest();
    assert_eq!(pushed.status(Method::DELETE, "manifests/v1").await, StatusCode::ACCEPTED);
    assert_eq!(pushed.status(Method::GET, "manifests/v1").await, StatusCode::NOT_FOUND);
    for at in ["v2", digest.as_str()] {
        assert_eq!(pushed.status(Method::GET, &format!("manifests/{at}")).await, StatusCode::OK, "{at}");
    }
    assert_eq!(pushed.status(Method::DELETE, "manifests/v1").await, StatusCode::NOT_FOUND);

    let by_digest = format!("manifests/{digest}");
    assert_eq!(pushed.status(Method::DELETE, &by_digest).await, StatusCode::ACCEPTED);
    for path in [by_digest.as_str(), "manifests/v2"] {
        assert_eq!(pushed.status(Method::GET, path).await, StatusCode::NOT_FOUND, "{path}");
    }
    let layer = format!("blobs/{}", image.layers()[0].digest);
    assert_eq!(pushed.status(Method::GET, &layer).await, StatusCode::OK, "blobs go by themselves");
    assert_eq!(pushed.status(Method::DELETE, &layer).await, StatusCode::ACCEPTED);
    assert_eq!(pushed.status(Method::GET, &layer).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn concurrent_pushes_of_a_tag_leave_one_complete_image() {
    let (one, two) = (SampleImage::small(10), SampleImage::small(11));
    let pushed = Pushed::start(|_| ()).await;
    for _ in 0..10 {
        futures::join!(pushed.push_image(&one, &["v1"]), pushed.push_image(&two, &["v1"]));
        let won = pushed.front.ask(Method::GET, "/v2/team/app/manifests/v1").await;
        assert!([&one, &two].iter().any(|image| won.body == *image.index().bytes()));
        assert_eq!(won.header("docker-content-digest"), Digest::sha256(&won.body).as_str());
    }
}

#[tokio::test]
async fn cache_serves_the_last_pushed_manifest() {
    let upstream = ScriptedRegistry::start().await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let store = crate::harness::open(data.path());
    let source = Arc::new(crate::harness::client_of(&upstream, crate::harness::SHORT));
    let cache = PullThrough::new(store.clone(), source, crate::harness::options(Revalidate::Never));
    let (pull, _) = crate::harness::service(cache.clone());
    let service = RegistryService::new(
        crate::harness::leased(store),
        pull,
        Some(cache),
        RegistryOptions::default(),
        RegistryMetrics::default(),
    );
    let front = OverTcp::start(service).await;
    let name = upstream.repository("app").unwrap().encoded().unwrap();
    let path = format!("/v2/{name}/manifests/v1");
    let index_type = [("content-type", "application/vnd.oci.image.index.v1+json")];
    for image in [SampleImage::small(12), SampleImage::small(13)] {
        let put = front.send(Method::PUT, &path, &index_type, image.index().bytes().clone()).await;
        assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
        assert_eq!(front.ask(Method::GET, &path).await.body, *image.index().bytes());
    }
    assert_eq!(front.ask(Method::DELETE, &path).await.status, StatusCode::ACCEPTED);
    assert_eq!(front.ask(Method::GET, &path).await.status, StatusCode::NOT_FOUND);
}
