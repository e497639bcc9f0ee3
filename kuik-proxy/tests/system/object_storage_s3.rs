//! A real S3 server, for behavior that an in-memory bucket lacks.

#![cfg(feature = "object-storage")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{
        BlobWriter, ByteRange, ContentSource as _, ContentStore as _, Digest, RegistryStore, SourceErrorKind,
        Verified, Verifier,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::{BucketOptions, ObjectStorage, Provider};
use kuik_testkit::{
    real::{Bucket, S3Server},
    store_conformance,
};

/// Returns `bucket` with the credentials of its server.
fn open(bucket: &Bucket, change: impl FnOnce(&mut BucketOptions)) -> ObjectStorage {
    let mut options = BucketOptions::new(Provider::S3, bucket.name());
    options.prefix = bucket.prefix().to_owned();
    options.endpoint = Some(bucket.endpoint().to_owned());
    options.region = Some(bucket.region().to_owned());
    options.access_key = Some((bucket.access_key().to_owned(), bucket.secret_key().to_owned()));
    change(&mut options);
    ObjectStorage::open(&options, &std::env::temp_dir()).unwrap()
}

fn app() -> RepositoryName {
    RepositoryName::local("app").unwrap()
}

fn content(size: u32) -> (Bytes, Verified) {
    let content: Bytes = (0..size).map(|n| (n % 251) as u8).collect();
    let mut verifier = Verifier::new(&Digest::sha256(&content)).unwrap();
    verifier.update(&content);
    (content, verifier.finish().unwrap())
}

async fn written(store: &ObjectStorage, content: &Bytes) -> Box<dyn BlobWriter> {
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(content)).await.unwrap();
    writer
}

async fn read(store: &ObjectStorage, digest: &Digest) -> Vec<u8> {
    let body = store.blob(&app(), digest, ByteRange::Full).await.unwrap().content.body;
    body.try_collect::<Vec<_>>().await.unwrap().concat()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn s3_store_conforms() {
    let server = S3Server::start().await.unwrap();
    for prefix in ["", "a/b"] {
        let store: Arc<dyn RegistryStore> = Arc::new(open(&server.bucket(prefix), |_| {}));
        store.check_writable().await.unwrap();
        for behavior in store_conformance::BEHAVIORS {
            behavior.check(store.clone()).await.unwrap_or_else(|violation| panic!("{violation}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn multipart_blobs_round_trip() {
    let server = S3Server::start().await.unwrap();
    let store = open(&server.bucket(""), |_| {});
    let (bytes, verified) = content(20_000_003);
    let digest = verified.digest().clone();
    written(&store, &bytes).await.publish(verified, &[app()]).await.unwrap();
    assert!(read(&store, &digest).await == bytes);
    store.unlink_blob(&app(), &digest).await.unwrap();
    store.remove_blob(&digest).await.unwrap();

    let id = store.start_upload(&app()).await.unwrap();
    for chunk in bytes.chunks(7_000_000) {
        // Each from another process.
        let mut upload = open(&server.bucket(""), |_| {}).upload(&app(), &id).await.unwrap();
        upload.append(&[bytes.slice_ref(chunk)]).await.unwrap();
    }
    store.upload(&app(), &id).await.unwrap().finish(&digest).await.unwrap();
    assert!(read(&store, &digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn errors_name_the_bucket_and_no_secret() {
    let mut server = S3Server::start().await.unwrap();
    let bucket = server.bucket("");
    let secret = "not-the-secret-key";
    let denied = open(&bucket, |options| {
        options.access_key = Some((bucket.access_key().to_owned(), secret.to_owned()));
    });
    let (id, _) = content(1);
    let errors = [
        denied.check_writable().await.unwrap_err(),
        denied.has_blob(&Digest::sha256(&id)).await.unwrap_err(),
        denied.repositories().try_collect::<Vec<_>>().await.unwrap_err(),
    ];
    for error in errors {
        let said = error.chain();
        assert_eq!(error.kind(), SourceErrorKind::Storage, "{said}");
        assert!(said.contains("s3://kuik") && said.contains("access is denied: check"), "{said}");
        assert!(!said.contains(secret) && !said.contains(bucket.access_key()), "{said}");
    }
    let absent = open(&bucket, |options| options.bucket = "nowhere".to_owned());
    let said = absent.check_writable().await.unwrap_err().chain();
    assert!(said.contains("s3://nowhere") && said.contains("the bucket does not exist"), "{said}");

    server.stop().await.unwrap();
    let away = open(&bucket, |options| options.timeout = Duration::from_secs(2));
    let error = away.check_writable().await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Storage, "{}", error.chain());
    server.resume().await.unwrap();
    away.check_writable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn signed_blob_url_works_until_it_expires() {
    let server = S3Server::start().await.unwrap();
    let store = open(&server.bucket("a/b"), |_| {});
    let (bytes, verified) = content(1000);
    let digest = verified.digest().clone();
    written(&store, &bytes).await.publish(verified, &[app()]).await.unwrap();

    let long = Duration::from_secs(600);
    let location = store.blob_location(&app(), &digest, long).await.unwrap().unwrap();
    assert_eq!(status(location.url()).await, 200);
    let forged = location.url().replace(digest.encoded(), &"0".repeat(64));
    assert_eq!(status(&forged).await, 403, "it is valid for this blob only");
    let other = RepositoryName::local("other").unwrap();
    assert_eq!(store.blob_location(&other, &digest, long).await.unwrap(), None);
    let absent = Digest::sha256(b"absent");
    assert_eq!(store.blob_location(&app(), &absent, long).await.unwrap(), None);

    let short = store.blob_location(&app(), &digest, Duration::from_secs(1)).await.unwrap().unwrap();
    let expired = async {
        while status(short.url()).await != 403 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), expired).await.unwrap();
    assert_eq!(status(location.url()).await, 200);
}

/// Returns the response to a `GET` of an `http://` URL.
async fn status(url: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
