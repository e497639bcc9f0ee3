//! The rigs themselves: real parts work together before anything of ours is among them.

use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions, RegistryVersion, S3Server, crane};

/// Docker's registries share a bucket, below a prefix; what one has written the other has, also after the S3 server was
/// killed and started again.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn registries_share_a_bucket() {
    let mut s3 = S3Server::start().await.unwrap();
    let over =
        |version| RegistryOptions { bucket: Some(s3.bucket("deep/er")), version, ..Default::default() };
    let three = DockerRegistry::start(&over(RegistryVersion::V3)).await.unwrap();
    let two = DockerRegistry::start(&over(RegistryVersion::V2)).await.unwrap();
    assert!(std::fs::read_dir(s3.bucket_folder()).unwrap().next().is_none(), "the bucket starts empty");

    let image = SampleImage::builder()
        .platform("linux", "amd64")
        .platform("linux", "arm64")
        .layer(50_000)
        .as_buildx()
        .build();
    let layout = tempfile::tempdir().unwrap();
    image.write_layout(layout.path(), "1").unwrap();
    let at = |registry: &DockerRegistry| format!("{}/app:1", registry.host());
    crane(["push".as_ref(), layout.path().as_os_str(), at(&three).as_ref()]).await.unwrap();
    assert!(s3.bucket_folder().join("deep/er/docker/registry/v2").is_dir());

    crane(["validate", "--remote", &at(&two)]).await.unwrap();
    s3.stop().await.unwrap();
    assert!(crane(["digest", &at(&two)]).await.is_err(), "without its bucket it has nothing");
    s3.resume().await.unwrap();
    let digest = crane(["digest", &at(&two)]).await.unwrap();
    assert_eq!(digest.trim(), image.index().digest().as_str());
}
