//! Faults of an object storage provider: throttling, silence and broken connections, from a script.

#![cfg(feature = "object-storage")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{
        ByteRange, ContentSource as _, ContentStore as _, Digest, RegistryStore as _, SourceErrorKind,
        Verifier,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::{BucketOptions, ObjectStorage, Provider};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Response of the provider.
enum Answer {
    /// Sends these bytes, then closes the connection.
    Say(String),
    /// Sends nothing.
    Silence,
}

type Script = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A provider that responds by a script, and records the first line of each request.
struct Front {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Front {
    async fn start(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::new(script) as Script);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, script.clone(), noted.clone()));
            }
        });
        Self { address, seen }
    }

    fn store(&self) -> ObjectStorage {
        let mut options = BucketOptions::new(Provider::S3, "images");
        options.endpoint = Some(format!("http://{}", self.address));
        options.access_key = Some(("id".to_owned(), "secret".to_owned()));
        options.timeout = Duration::from_secs(1);
        ObjectStorage::open(&options, &std::env::temp_dir()).unwrap()
    }

    fn times(&self, start: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.starts_with(start)).count()
    }
}

async fn answer(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(line.clone());
    match script(&line) {
        Answer::Say(answer) => {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<u64>().ok()
            });
            let mut body = (&mut stream).take(length.unwrap_or(0));
            let _ = tokio::io::copy(&mut body, &mut tokio::io::sink()).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::Silence => std::future::pending().await,
    }
}

fn say(status: &str, length: usize, body: &str) -> Answer {
    let dated = "Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\nETag: \"e\"\r\nConnection: close";
    Answer::Say(format!("HTTP/1.1 {status}\r\n{dated}\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn slow_down() -> Answer {
    let body = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
    say("503 Slow Down", body.len(), body)
}

fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

#[tokio::test]
async fn throttled_request_is_retried() {
    let asked = AtomicUsize::new(0);
    let front = Front::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0..2 => slow_down(),
        _ => say("200 OK", 7, ""),
    })
    .await;
    let size = front.store().has_blob(&Digest::sha256(b"x")).await.unwrap();
    assert_eq!((size, front.times("HEAD")), (Some(7), 3));
}

#[tokio::test]
async fn requests_to_a_busy_or_silent_provider_fail_in_time() {
    for silent in [false, true] {
        let front = Front::start(move |_| if silent { Answer::Silence } else { slow_down() }).await;
        let began = Instant::now();
        let error = front.store().has_blob(&Digest::sha256(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Storage, "{}", error.chain());
        assert!(error.to_string().contains("s3://images"), "{error}");
        // A bound, not a measurement: every wait of a second, and a try or two after the first.
        assert!(began.elapsed() < Duration::from_secs(30), "silent: {silent}");
    }
}

#[tokio::test]
async fn truncated_body_is_an_error() {
    let digest = Digest::sha256(b"x");
    let link = digest.to_string();
    let front = Front::start(move |line| match line.contains("_layers") {
        true => say("200 OK", link.len(), &link),
        false => say("200 OK", 10, "short"),
    })
    .await;
    let blob = front.store().blob(&app(), &digest, ByteRange::Full).await.unwrap().content;
    assert_eq!(blob.size, Some(10));
    let error = blob.body.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Storage);
}

#[tokio::test]
async fn broken_multipart_upload_is_aborted_and_its_readers_get_their_bytes() {
    let front = Front::start(|line| match line.split(' ').next() {
        Some("POST") if line.contains("?uploads") => {
            let body =
                "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
            say("200 OK", body.len(), body)
        }
        Some("PUT") if line.contains("partNumber=2") => Answer::Say(String::new()),
        Some("DELETE") => say("204 No Content", 0, ""),
        _ => say("200 OK", 0, ""),
    })
    .await;
    let store = front.store();
    let content = Bytes::from(vec![7; 20_000_000]);
    let mut verifier = Verifier::new(&Digest::sha256(&content)).unwrap();
    verifier.update(&content);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(&content)).await.unwrap();
    let spool = writer.spool();
    let error = writer.publish(verifier.finish().unwrap(), &[app()]).await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Storage, "{}", error.chain());
    assert_eq!(spool.read(19_999_990, 20_000_000).await.unwrap(), content.slice(19_999_990..));

    let aborted = async {
        while front.times("DELETE") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), aborted).await.expect("its parts are removed");
    assert_eq!(front.times("POST"), 1, "it is never completed");
    assert!(!front.seen.lock().unwrap().iter().any(|line| line.contains("_layers")), "nothing is linked");
}

#[tokio::test]
async fn missing_bucket_is_a_storage_error() {
    for (code, kind) in [("NoSuchBucket", SourceErrorKind::Storage), ("NoSuchKey", SourceErrorKind::NotFound)]
    {
        let body = format!("<Error><Code>{code}</Code><Message>It does not exist.</Message></Error>");
        let front = Front::start(move |_| say("404 Not Found", body.len(), &body)).await;
        let outcome = front.store().blob(&app(), &Digest::sha256(b"x"), ByteRange::Full).await;
        let error = outcome.expect_err("nothing is found");
        assert_eq!(error.kind(), kind, "{}", error.chain());
    }
}

#[tokio::test]
async fn damaged_blob_without_a_copy_is_removed() {
    let front = Front::start(|line| match line.split(' ').next() {
        Some("PUT") => {
            let body = "<Error><Code>InvalidRequest</Code><Message>It is too large.</Message></Error>";
            say("400 Bad Request", body.len(), body)
        }
        Some("DELETE") => say("204 No Content", 0, ""),
        Some("POST") => {
            let body = "<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>";
            say("200 OK", body.len(), body)
        }
        _ => {
            let body = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            say("200 OK", body.len(), body)
        }
    })
    .await;
    let digest = Digest::sha256(b"x");
    front.store().quarantine_blob(&digest).await.unwrap();
    let removals = front.times("DELETE") + front.times("POST /images?delete");
    assert_eq!(removals, 2, "the bytes and their age marker: {:?}", front.seen.lock().unwrap());
}
