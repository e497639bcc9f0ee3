//! `kuik-registry` on a bucket of a real S3 server: alternating with Docker's registries, with redirects to the bucket, with
//! a full scratch disk, and with `kuik gc` running concurrently.

use std::net::SocketAddr;

use crate::support::{
    Answer, Kuik, Tmpfs, Transfer, blob_path, eventually, get, head, kuik, pull_with_skopeo, push,
};
use bytes::Bytes;
use kuik_core::{
    content::{ContentStore as _, Digest, Verifier},
    reference::RepositoryName,
};
use kuik_proxy::store::{BucketOptions, ObjectStorage, Provider};
use kuik_testkit::real::{Bucket, DockerRegistry, RegistryOptions, RegistryVersion, S3Server};
use kuik_testkit::{SampleImage, ScriptedRegistry};

fn image(seed: u64) -> SampleImage {
    let platforms = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    platforms.layer(60_000).layer(5_000).as_buildx().build()
}

async fn ours(bucket: &Bucket) -> Kuik {
    ours_with(bucket, &["--allow-anonymous-push"]).await
}

async fn ours_with(bucket: &Bucket, arguments: &[&str]) -> Kuik {
    let arguments = [&at(bucket), arguments].concat();
    Kuik::registry_in(&url(bucket), &arguments, &keys(bucket)).await
}

fn url(bucket: &Bucket) -> String {
    format!("s3://{}/{}", bucket.name(), bucket.prefix())
}

fn at(bucket: &Bucket) -> [&str; 3] {
    ["--storage-endpoint", bucket.endpoint(), "--storage-allow-http"]
}

fn keys(bucket: &Bucket) -> [(&'static str, &str); 2] {
    [("AWS_ACCESS_KEY_ID", bucket.access_key()), ("AWS_SECRET_ACCESS_KEY", bucket.secret_key())]
}

/// The store itself, without a server.
fn store(bucket: &Bucket) -> ObjectStorage {
    let mut options = BucketOptions::new(Provider::S3, bucket.name());
    options.prefix = bucket.prefix().to_owned();
    options.endpoint = Some(bucket.endpoint().to_owned());
    options.region = Some(bucket.region().to_owned());
    options.access_key = Some((bucket.access_key().to_owned(), bucket.secret_key().to_owned()));
    ObjectStorage::open(&options, &std::env::temp_dir()).unwrap()
}

/// The sum of a counter's series.
async fn counted(kuik: &Kuik, series: &str) -> f64 {
    let metrics = String::from_utf8(get(kuik.address(), "/metrics").await.body).unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Gets an `http://` URL with these headers.
async fn follow(url: &str, headers: &str) -> Answer {
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let address: SocketAddr = host.parse().unwrap();
    Transfer::begin(address, "GET", &format!("/{target}"), headers).await.answer().await
}

/// Content that each registry pushes into the bucket is served by the others, by tag and by digest.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn one_bucket_goes_round_between_three_registries() {
    let server = S3Server::start().await.unwrap();
    let bucket = server.bucket("registry/root");
    let mut pushed: Vec<(String, SampleImage)> = Vec::new();
    let mut seed = 60;
    for _ in 0..2 {
        for version in [Some(RegistryVersion::V2), None, Some(RegistryVersion::V3), None] {
            seed += 10;
            let options = |version| RegistryOptions {
                bucket: Some(bucket.clone()),
                version,
                ..RegistryOptions::default()
            };
            let (docker, kuik) = match version {
                Some(version) => (Some(DockerRegistry::start(&options(version)).await.unwrap()), None),
                None => (None, Some(ours(&bucket).await)),
            };
            let host = docker.as_ref().map(DockerRegistry::host).or(kuik.as_ref().map(Kuik::host)).unwrap();
            for (name, image) in &pushed {
                pull_with_skopeo(&format!("{host}/{name}@{}", image.index().digest()), image).await;
                pull_with_skopeo(&format!("{host}/{name}:v1"), image).await;
            }
            let (name, image) = (format!("team/app-{seed}"), image(seed));
            push(&image, &format!("{host}/{name}:v1"), &[]).await;
            pushed.push((name, image));
        }
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn redirected_clients_get_blobs_from_the_bucket() {
    let server = S3Server::start().await.unwrap();
    let bucket = server.bucket("a/b");
    let image = image(50);
    let (digest, content) = image.blobs().iter().max_by_key(|(_, content)| content.len()).unwrap();
    let path = format!("/v2/app/blobs/{digest}");

    let here = ours(&bucket).await;
    push(&image, &format!("{}/app:v1", here.host()), &[]).await;
    let answer = get(here.address(), &path).await;
    assert_eq!((answer.status, answer.header("location")), (200, ""), "redirects are off by default");
    assert!(answer.body == *content);

    let away = ours_with(&bucket, &["--storage-redirects"]).await;
    assert_eq!(counted(&away, "kube_image_keeper_registry_sent_bytes_total").await, 0.0);
    let answer = get(away.address(), &path).await;
    let location = answer.header("location").to_owned();
    assert_eq!((answer.status, answer.body.len()), (307, 0), "{}", answer.head);
    assert_eq!(answer.header("docker-content-digest"), digest.as_str());
    assert!(follow(&location, "").await.body == *content);
    let part = follow(&location, "Range: bytes=1000-1999\r\n").await;
    assert_eq!((part.status, part.body), (206, content[1000..2000].to_vec()));
    let hits = "kube_image_keeper_registry_lookups_total{kind=\"blob\",result=\"hit\"}";
    assert_eq!(counted(&away, hits).await, 1.0);

    let size = head(away.address(), &path).await;
    assert_eq!((size.status, size.header("content-length")), (200, content.len().to_string().as_str()));
    let absent = format!("/v2/app/blobs/{}", Digest::sha256(b"missing"));
    assert_eq!(get(away.address(), &absent).await.status, 404);
    let elsewhere = get(away.address(), &path.replace("/app/", "/other/")).await;
    assert_eq!(elsewhere.status, 404, "a repository that does not have it: {}", elsewhere.head);

    pull_with_skopeo(&format!("{}/app:v1", away.host()), &image).await;
    let manifests: usize = image.manifests().iter().chain([image.index()]).map(|m| m.bytes().len()).sum();
    let sent = counted(&away, "kube_image_keeper_registry_sent_bytes_total").await;
    // Manifests, some more than once, and the refusals.
    assert!(sent > 0.0 && sent < 4.0 * manifests as f64 && sent < 30_000.0, "{sent} bytes went through us");

    let query = location.split_once('?').unwrap().1;
    let signature = query.split('&').find(|part| part.starts_with("X-Amz-Signature=")).unwrap();
    let log = away.log();
    assert!(!log.contains(signature) && !log.contains("X-Amz-"), "{log}");
}

/// The scratch disk has no room for what is fetched: its clients get it all the same, and later ones fetch it again.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_full_scratch_disk_stops_no_client() {
    let (server, registry) = (S3Server::start().await.unwrap(), ScriptedRegistry::start().await.unwrap());
    let bucket = server.bucket("");
    let content: Bytes = (0..2_u64 << 20).flat_map(u64::to_le_bytes).collect::<Vec<_>>().into();
    let (large, small) = (registry.add_blob("app", content.clone()), registry.add_blob("app", "small"));
    let disk = Tmpfs::mount(4).await;
    let (host, scratch) = (registry.host(), disk.path().to_str().unwrap());
    let arguments = ["--pull-through", "--insecure-registries", &host, "--scratch-dir", scratch];
    let kuik = ours_with(&bucket, &arguments).await;

    for _ in 0..2 {
        let path = blob_path(&host, "app", &large);
        let clients = (0..3).map(|_| {
            let (address, path, content) = (kuik.address(), path.clone(), content.clone());
            tokio::spawn(async move { Transfer::begin(address, "GET", &path, "").await.is(&content).await })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap().unwrap();
        }
    }
    kuik.logs("the store cannot store a blob").await;
    let store = store(&bucket);
    assert_eq!(store.has_blob(&large).await.unwrap(), None, "nothing torn is kept");

    assert_eq!(get(kuik.address(), &blob_path(&host, "app", &small)).await.body, b"small");
    eventually("what fits is kept", async || store.has_blob(&small).await.unwrap() == Some(5)).await;
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn kuik_gc_collects_a_bucket_in_use() {
    let server = S3Server::start().await.unwrap();
    let bucket = server.bucket("registry");
    let (image, registry) = (image(40), ours(&bucket).await);
    let reference = format!("{}/app:v1", registry.host());
    push(&image, &reference, &[]).await;
    let (store, orphan) = (store(&bucket), Bytes::from_static(b"nobody's"));
    let digest = Digest::sha256(&orphan);
    let mut verifier = Verifier::new(&digest).unwrap();
    verifier.update(&orphan);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(&[orphan]).await.unwrap();
    let app = RepositoryName::local("app").unwrap();
    writer.publish(verifier.finish().unwrap(), &[app]).await.unwrap();

    let gc = async |arguments: &[&str]| {
        let mut command = kuik(["gc", "--storage", &url(&bucket)]);
        let output = command.args(at(&bucket)).args(arguments).envs(keys(&bucket)).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{output:?}");
        (text(output.stdout), text(output.stderr))
    };
    let line = format!("8\t{digest}\n");
    let (young, said) = gc(&[]).await;
    assert!(young.is_empty() && said.contains("content written within 1h is kept"), "{young}{said}");
    assert_eq!(gc(&["--grace", "0s", "--dry-run"]).await.0, line);
    assert_eq!(gc(&["--grace", "0s", "--notice", "1s"]).await.0, line, "a dry run removed nothing");
    assert_eq!(store.has_blob(&digest).await.unwrap(), None);
    pull_with_skopeo(&reference, &image).await;
}
