//! `kuik-registry` and Docker's registries by turns on one bucket of a real S3 server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use kuik_core::testkit::{
    SampleImage,
    real::{Bucket, DockerRegistry, RegistryOptions, RegistryVersion, S3Server},
};
use support::{Kuik, pull_with_skopeo, push};

fn image(seed: u64) -> SampleImage {
    let platforms = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    platforms.layer(60_000).layer(5_000).as_buildx().build()
}

async fn ours(bucket: &Bucket) -> Kuik {
    let storage = format!("s3://{}/{}", bucket.name(), bucket.prefix());
    let arguments =
        ["--storage-endpoint", bucket.endpoint(), "--storage-allow-http", "--allow-anonymous-push"];
    let environment =
        [("AWS_ACCESS_KEY_ID", bucket.access_key()), ("AWS_SECRET_ACCESS_KEY", bucket.secret_key())];
    Kuik::registry_in(&storage, &arguments, &environment).await
}

/// What each registry has pushed into the bucket, the others serve by tag and by digest.
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
